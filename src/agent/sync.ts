import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  desiredNodeState,
  FILTER_TABLE,
  type DataplaneConfig,
  type NodeState,
  type Uplinks,
} from '../dataplane/index.ts';
import { jitteredBackOff, type Clock, type Random } from '../ipam/index.ts';
import {
  ensureAccepted,
  forgetHostPortFlows,
  readPodRules,
  repairPodLinks,
  type CommandRunner,
  type NetlinkSocket,
} from '../kernel/index.ts';
import {
  FAMILIES,
  formatAddress,
  formatCIDR,
  sameAddress,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { createFilterTable } from './filter-table.ts';
import { ensureForwarding, isForwarding, kernelFamilies } from './forwarding.ts';
import { kernelDifferences, type KernelDifferences } from './kernel-differences.ts';
import { watchKernel } from './kernel-watch.ts';
import { applyNodeState, type Change, type NodeStateOptions } from './node-state.ts';
import type { AgentParts, DataPath } from './parts.ts';
import { createSchedule } from './schedule.ts';
import { readUplinks } from './uplink.ts';

/** What the node's data path is derived from. */
export interface NodeSources {
  readonly node: { readonly name: string; readonly uid: string; readonly addresses: readonly IPAddress[] };
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
}

export interface NodeSyncParts extends Pick<NodeStateOptions, 'beforeRemovingSubnetRoute'> {
  /** rtnetlink in the host's namespace. */
  readonly host: NetlinkSocket;
  /** Port ids of this process's own rtnetlink sockets: what they do is no news. */
  readonly ownPorts: () => ReadonlySet<number>;
  readonly run: CommandRunner;
  readonly sysctlRoot: string;
  /** Undefined until every kind has been listed completely once: nothing is touched before. */
  readonly sources: () => NodeSources | undefined;
  readonly config: DataplaneConfig;
  /** Someone else had changed these objects; they have been put back. */
  readonly onDrift: (objects: readonly string[]) => void;
  /** Foreign chains that drop pods' packets and that weft leaves alone, as `inet firewalld filter_FORWARD`. */
  readonly onForeignDrop: (chains: readonly string[]) => void;
  readonly settings: { readonly syncMs: number };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
}

/** The node's kernel, kept equal to what the objects say (design, section 7). */
export interface NodeSync extends DataPath {
  /** The objects have changed. */
  wake(): void;
  /**
   * Resolves when the kernel is as the objects say at the moment of the call or later; with a subnet just claimed:
   * when it may be drawn from. Rejects only with the signal's reason: failures are tried again.
   */
  upToDate(signal: AbortSignal): Promise<void>;
  /** For how long this node's data path has been broken, and why; undefined while it is whole. */
  broken(): { readonly forMs: number; readonly reason: string } | undefined;
  /**
   * How the kernel differs from what the objects say, without changing anything: a comparison is for repair.
   * @throws NodeNotSetUpError before the first comparison
   */
  differences(): Promise<KernelDifferences>;
  /** Ends the loop and the watches. Nothing is taken out of the kernel. */
  stop(): Promise<void>;
}

/** Routes and filters of this node have not been set up since the agent started. */
export class NodeNotSetUpError extends Error {
  override name = 'NodeNotSetUpError' as const;

  constructor() {
    super("this node's routes and filters have not been set up yet: the agent has just started, try again");
  }
}

/** The node's own address is not known, so neither is how others are reached. */
export class UnknownUplinkError extends Error {
  override name = 'UnknownUplinkError' as const;

  constructor(nodeName: string, address: IPAddress | undefined) {
    super(
      address === undefined
        ? `node "${nodeName}" has no InternalIP in its status yet: its kubelet or cloud provider sets it`
        : `InternalIP ${formatAddress(address)} of node "${nodeName}" is on none of this machine's links: ` +
            `give the kubelet an address of this machine with --node-ip`,
    );
  }
}

/** Several parts of one comparison failed. */
export class NodeSyncError extends AggregateError {
  override name = 'NodeSyncError' as const;

  constructor(errors: readonly Error[]) {
    super(errors, errors.map(({ message }) => message).join('; '));
  }
}

/**
 * Compares at once, on every change of the objects, when the kernel tells that someone touched what is ours, and
 * every `syncMs`. Node state is diffed whole; of pod state what is missing is put back and nothing removed.
 */
export function startNodeSync(parts: NodeSyncParts): NodeSync {
  const { clock, host, log, run, sysctlRoot } = parts;
  const stopping = new AbortController();
  const filterTable = createFilterTable(run, () => readPodRules(host));
  const schedule = createSchedule(clock);
  const backOff = () => jitteredBackOff(parts.random, { firstMs: 500, maxMs: 15_000 });
  const waiting = new Set<Waiting>();
  let retries = backOff();
  let current: NodeState | undefined;
  let previous: Remembered | undefined;
  let failure: { readonly sinceMs: number; readonly reason: string } | undefined;
  let uplinks: Uplinks = {};
  let notes = '';
  let refusals = '';
  let accepted: string | undefined;
  let foreignDrops = '';

  /** What of single peers or pods was refused; undefined while there is nothing to compare with. */
  async function compare(verifyFilters: boolean): Promise<readonly Error[] | undefined> {
    const sources = parts.sources();
    if (sources === undefined) return undefined;
    const state = desiredBy(sources);
    tellNotes(state);
    const errors: Error[] = [];
    const refused: Error[] = [];
    const drift: string[] = [];
    const attempt = async (work: () => Promise<void> | void) => {
      try {
        await work();
      } catch (error) {
        errors.push(error instanceof Error ? error : new Error(String(error)));
      }
    };

    await attempt(async () => {
      const outcome = await filterTable.apply(state.filter, { verify: verifyFilters });
      if (outcome === 'repaired') drift.push(`table inet ${FILTER_TABLE}`);
    });
    await attempt(() => {
      const changed = ensureForwarding(host, sysctlRoot, state.families);
      if (previous?.state.families.join() === state.families.join()) drift.push(...changed);
    });
    await attempt(async () => {
      if (state.vxlan === undefined && state.families.length > 0) {
        throw new UnknownUplinkError(sources.node.name, sources.node.addresses[0]);
      }
      const applied = await applyNodeState(host, state, {
        beforeRemovingSubnetRoute: parts.beforeRemovingSubnetRoute,
        beforeRemovals: () => {
          const repaired = repairPodLinks(host, state.preferredSource);
          if (sameSources(previous?.state, state)) drift.push(...repaired);
        },
      });
      errors.push(...applied.errors);
      refused.push(...applied.refused);
      drift.push(...driftOf(applied.changes, previous?.present));
      current = state;
      previous = { state, present: applied.present };
    });
    try {
      await letThrough(state, { verify: verifyFilters, drift });
    } catch (error) {
      // Foreign tables that cannot be read, or whose lock is held, are no fault of this node's own data path.
      log.error({ err: error }, 'could not look at the filters of others: they may drop what pods send');
    }
    if (drift.length > 0) parts.onDrift(drift);
    const [first] = errors;
    if (first !== undefined) throw errors.length === 1 ? first : new NodeSyncError(errors);
    return refused;
  }

  function desiredBy(sources: NodeSources): NodeState {
    uplinks = freshUplinks(host, sources.node.addresses, uplinks);
    return desiredNodeState({
      ...sources,
      uplinks,
      kernelFamilies: kernelFamilies(sysctlRoot),
      config: parts.config,
    });
  }

  async function letThrough(
    state: NodeState,
    { verify, drift }: { verify: boolean; drift: string[] },
  ): Promise<void> {
    const { families, bridged } = state;
    const traffic = { vxlanPort: state.vxlan?.port, families, bridged };
    const wanted = [traffic.vxlanPort, ...families, ...bridged.map(formatCIDR)].join();
    const same = accepted === wanted;
    if (same && !verify) return;
    const { inserted, unhandled } = await ensureAccepted(traffic, { run, ownTable: FILTER_TABLE });
    accepted = wanted;
    if (same) drift.push(...inserted);
    else if (inserted.length > 0) log.info({ inserted }, 'let pods through filters that drop');
    if (unhandled.join() !== foreignDrops && unhandled.length > 0) parts.onForeignDrop(unhandled);
    foreignDrops = unhandled.join();
  }

  function tellNotes(state: NodeState): void {
    const text = state.notes.join('; ');
    if (text !== notes && text !== '') log.warn({ notes: state.notes }, 'some nodes cannot be reached');
    notes = text;
  }

  /** One peer that cannot be reached is no reason to take the whole node out of service. */
  function tellRefusals(errors: readonly Error[]): void {
    const text = errors.map(({ message }) => message).join('; ');
    if (text !== refusals && text !== '') log.error({}, `the kernel refuses what single peers need: ${text}`);
    refusals = text;
  }

  async function loop(): Promise<void> {
    while (!stopping.signal.aborted) {
      const due = await schedule.next(stopping.signal, stoppedForwarding);
      if (due === undefined) return;
      const served = [...waiting];
      try {
        const refused = await compare(due.filters);
        if (refused === undefined) {
          schedule.request('all', NO_SOURCES_MS);
          continue;
        }
        if (failure !== undefined) log.info({}, "this node's data path is whole again");
        failure = undefined;
        served.forEach(({ resolve }) => resolve());
        tellRefusals(refused);
        if (refused.length === 0) retries = backOff();
        schedule.request('all', refused.length === 0 ? parts.settings.syncMs : retries.next());
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        failure = { sinceMs: failure?.sinceMs ?? clock.nowMs(), reason };
        const retryMs = retries.next();
        log.error({ err: error, retryMs }, `this node's data path is not as it should be: ${reason}`);
        schedule.request('all', retryMs);
      } finally {
        schedule.finished();
      }
    }
  }

  schedule.request('all', 0);
  const watches = watchKernel({
    ownPorts: parts.ownPorts,
    onTouched: (what) => schedule.request(what, DEBOUNCE_MS),
    clock,
    log,
  });
  const running = loop();

  return {
    podMTU: () => setUp().podMTU,
    hostSources: () => setUp().preferredSource,
    forgetFlows: (hostPorts) => forgetHostPortFlows(host, run, hostPorts),
    podRulesChanged: () => filterTable.attachmentsChanged(),
    filtersHold: () => filterTable.holds(),
    wake: () => schedule.request('links', DEBOUNCE_MS),
    upToDate(signal) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const entry = { resolve };
      const abort = () => reject(asError(signal.reason));
      waiting.add(entry);
      signal.addEventListener('abort', abort, { once: true });
      if (signal.aborted) abort();
      schedule.requestNow();
      return promise.finally(() => {
        waiting.delete(entry);
        signal.removeEventListener('abort', abort);
      });
    },
    broken: () => failure && { forMs: clock.nowMs() - failure.sinceMs, reason: failure.reason },
    async differences() {
      const sources = parts.sources();
      if (sources === undefined || current === undefined) throw new NodeNotSetUpError();
      return kernelDifferences({ host, sysctlRoot, filterTable, state: desiredBy(sources) });
    },
    async stop() {
      stopping.abort();
      await Promise.all([running, watches.close()]);
    },
  };

  /** Nothing tells when someone switches forwarding off, so it is read every second. */
  function stoppedForwarding(): boolean {
    try {
      return current !== undefined && !isForwarding(sysctlRoot, current.families);
    } catch {
      // The comparison meets the same error, and reports it.
      return true;
    }
  }

  function setUp(): NodeState {
    if (current === undefined) throw new NodeNotSetUpError();
    return current;
  }
}

/** Kernel events come in flocks. */
const DEBOUNCE_MS = 50;
const NO_SOURCES_MS = 1000;

interface Waiting {
  readonly resolve: () => void;
}

/** What the last comparison left behind. */
interface Remembered {
  readonly state: NodeState;
  readonly present: ReadonlySet<string>;
}

/**
 * The uplinks as they are now; one whose address is away for a moment (a lease renewed, a link set down) stays as
 * it was, so that no route and no device goes with it.
 */
function freshUplinks(host: NetlinkSocket, internalIPs: readonly IPAddress[], before: Uplinks): Uplinks {
  const now = readUplinks(host, internalIPs);
  const uplinks: Partial<Record<Family, Uplinks[Family]>> = {};
  for (const family of FAMILIES) {
    const last = before[family];
    const still = last !== undefined && internalIPs.some((address) => sameAddress(address, last.address));
    const uplink = now[family] ?? (still ? last : undefined);
    if (uplink !== undefined) uplinks[family] = uplink;
  }
  return uplinks as Uplinks;
}

/** What was there before and had gone, and what carried our mark and was never desired. First comparisons tell none. */
function driftOf(changes: readonly Change[], before: ReadonlySet<string> | undefined): string[] {
  if (before === undefined) return [];
  return changes
    .filter(({ action, object }) => (action === 'set') === before.has(object))
    .map(({ object }) => object);
}

function sameSources(before: NodeState | undefined, now: NodeState): boolean {
  const text = ({ preferredSource }: NodeState) =>
    FAMILIES.map((family) => {
      const source = preferredSource[family];
      return source === undefined ? '-' : formatAddress(source);
    }).join();
  return before !== undefined && text(before) === text(now);
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
