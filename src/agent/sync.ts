import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  desiredNodeState,
  FILTER_TABLE,
  createPeerIndex,
  peerChanges,
  podMTUOf,
  setHas,
  VXLAN_LINK,
  type DataplaneConfig,
  type DesiredInput,
  type DNSServer,
  type NodeState,
  type Uplinks,
} from '../dataplane/index.ts';
import { jitteredBackOff, type Clock, type Random } from '../ipam/index.ts';
import {
  changeNftElements,
  changePodMTUs,
  ensureAccepted,
  forgetHostPortFlows,
  getLink,
  podMTUChanges,
  readPodRules,
  repairPodLinks,
  type CommandRunner,
  type Namespace,
  type Neighbour,
  type NetlinkSocket,
  type PodMTUChange,
  type PodMTUOutcome,
} from '../kernel/index.ts';
import {
  FAMILIES,
  formatAddress,
  formatCIDR,
  sameAddress,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import type { EarlierSetting } from './earlier-settings.ts';
import { createFilterTable } from './filter-table.ts';
import { ensureForwarding, isForwarding, kernelFamilies } from './forwarding.ts';
import { kernelDifferences, type KernelDifferences } from './kernel-differences.ts';
import { watchKernel } from './kernel-watch.ts';
import { applyNodeState, forwardingText, type Change, type NodeStateOptions } from './node-state.ts';
import type { AgentParts, DataPath } from './parts.ts';
import { createSchedule, type Due } from './schedule.ts';
import { applyPeerChanges } from './single-peers.ts';
import { readUplinks } from './uplink.ts';

/** What the node's data path is derived from. */
export interface NodeSources {
  readonly node: { readonly name: string; readonly uid: string; readonly addresses: readonly IPAddress[] };
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly dnsServers: readonly DNSServer[];
}

export interface NodeSyncParts extends Pick<NodeStateOptions, 'beforeRemovingSubnetRoute'> {
  /** rtnetlink in the host's namespace. */
  readonly host: NetlinkSocket;
  /** nf_tables in the host's namespace. */
  readonly nftables: NetlinkSocket;
  /** Port ids of this process's own rtnetlink sockets: what they do is no news. */
  readonly ownPorts: () => ReadonlySet<number>;
  readonly ownNamespace: Namespace;
  /** Where pods' namespaces may be: one is entered only when the MTU of its pod's link is to change. */
  readonly podNamespaces: () => Iterable<string>;
  readonly run: CommandRunner;
  readonly sysctlRoot: string;
  /** Told what settings of the kernel were, before they are changed. */
  readonly rememberSettings?: (settings: readonly EarlierSetting[]) => void;
  /** Undefined until every kind has been listed completely once: nothing is touched before. */
  readonly sources: () => NodeSources | undefined;
  /** The pools of those sources as they are now. */
  readonly pools: () => readonly IPPool[];
  readonly config: DataplaneConfig;
  /** Someone else had changed these objects; they have been put back. */
  readonly onDrift: (objects: readonly string[]) => void;
  /** Foreign chains that drop pods' packets and that weft leaves alone, as `inet firewalld filter_FORWARD`. */
  readonly onForeignDrop: (chains: readonly string[]) => void;
  /**
   * What this node does without, and is tried again: what the objects say cannot be done, what the kernel refuses of
   * single peers or pods. Told when it changes, and when nothing is left.
   */
  readonly onUnmet: (unmet: Unmet) => void;
  /** This node's data path has been broken for so long; told once for each reason. */
  readonly onBroken: (forMs: number, reason: string) => void;
  readonly settings: { readonly syncMs: number };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
}

/** What came of what was due; with what of single peers or pods the kernel refused, where everything was compared. */
type Served =
  | 'no objects yet'
  /** The last comparison is too near. */
  | 'put off'
  | 'objects followed'
  | { readonly refused: readonly Error[] };

/** Why single peers are not reached, or single pods not as they should be. */
export interface Unmet {
  /** By the objects: one node has no usable address, two have one MAC, and the like. */
  readonly notes: readonly string[];
  /** By the kernel. */
  readonly refused: readonly string[];
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

/** New filters could not be set, so no new pod may send yet. */
export class FiltersNotInForceError extends Error {
  override name = 'FiltersNotInForceError' as const;

  constructor(reason: string | undefined) {
    super(
      "the isolation of an IPPool has changed, and this node's filters have not followed yet: " +
        (reason ?? 'the node is busy') +
        '. The pod is not wired before they have',
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
  const filterTable = createFilterTable(run, {
    attachments: () => readPodRules(host),
    changeElements: (table, changes) => changeNftElements(parts.nftables, table, changes),
  });
  const schedule = createSchedule(clock);
  const backOff = () => jitteredBackOff(parts.random, { firstMs: 500, maxMs: 15_000 });
  const waiting = new Set<Waiting>();
  const peers = createPeerIndex();
  let retries = backOff();
  let current: NodeState | undefined;
  let previous: Remembered | undefined;
  let failure: { readonly sinceMs: number; readonly reason: string } | undefined;
  let brokenTold: string | undefined;
  let uplinks: Uplinks = {};
  let unmet: Unmet = { notes: [], refused: [] };
  let deviceAskedForMs = -Infinity;
  let accepted: string | undefined;
  let foreignDrops = '';
  let verifying: Promise<void> | undefined;
  /** Whether filters could not be looked at beside all else: then the comparison does, which tells why. */
  let mustVerify = false;
  /** Whether the objects ask for a comparison, which is too near the last. */
  let isPutOff = false;
  /** Which pools the filters were last set for, by `isolationOf`. */
  let isolatedFor: string | undefined;
  const filterListeners = new Set<() => void>();

  async function serve({ parts: due, mayCompare }: Due): Promise<Served> {
    const sources = parts.sources();
    if (sources === undefined) return 'no objects yet';
    const isWhole = failure === undefined && unmet.refused.length === 0;
    let mustCompare = mayCompare;
    if (!due.has('links') && isWhole && !isPutOff && !mustVerify) {
      const outcome = await followPeers(sources);
      if (outcome === 'followed') {
        if (due.has('filters')) verifyBeside();
        return 'objects followed';
      }
      mustCompare ||= outcome === 'failed';
    }
    isPutOff = !mustCompare;
    if (isPutOff) return 'put off';
    const refused = await compareAll(sources, due.has('filters') || mustVerify);
    mustVerify = false;
    return { refused };
  }

  /**
   * What changed objects ask for, where that is no more than single peers that come, go or move: then nothing else of
   * the kernel is looked at, which takes the longer the more nodes there are. Else everything is to be compared; at
   * once, where a part of it `failed`.
   */
  async function followPeers(sources: NodeSources): Promise<'followed' | 'not peers alone' | 'failed'> {
    if (previous === undefined) return 'not peers alone';
    const { present } = previous;
    const input = inputOf(sources);
    const changes = peerChanges(previous.input, input, previous.state, peers);
    if (changes === undefined) return 'not peers alone';
    const { state } = changes;
    try {
      // A peer's packets are let in and sent to it by different tables: neither has to wait for the other.
      const filters = filterTable.apply(state.filter, { verify: false });
      // What it fails with is told when it is waited for.
      filters.catch(() => undefined);
      await applyPeerChanges(host, changes, ({ set, removed }) => {
        // Asked for, or no longer, before the kernel tells of it: else everything would be compared.
        for (const object of removed) present.delete(object);
        for (const object of set) present.add(object);
        if (previous !== undefined) previous = { ...previous, state };
      });
      // The kernel has refused single addresses: others had been there.
      if ((await filters) === 'repaired') parts.onDrift([`table inet ${FILTER_TABLE}`]);
    } catch (error) {
      // The kernel is not as it was left. What is wrong with it, the comparison that follows finds, or meets again.
      log.info({ err: error }, 'what single nodes need could not be set by itself: everything is compared');
      return 'failed';
    }
    if (state.vxlan !== undefined) deviceAskedForMs = clock.nowMs();
    current = state;
    previous = { ...previous, input, state };
    return 'followed';
  }

  /**
   * Whether the filters are as they were set, and let pods through those of others. To list them takes processes, and
   * on a busy machine longer than a new peer may wait.
   */
  function verifyBeside(): void {
    if (verifying !== undefined) {
      // What is to be looked at may have changed since that one listed it.
      void verifying.then(() => schedule.request('filters', 0));
      return;
    }
    verifying = (async () => {
      try {
        const drift: string[] = [];
        if ((await filterTable.verify()) === 'repaired') drift.push(`table inet ${FILTER_TABLE}`);
        if (current !== undefined) await lookAtForeignFilters(current, true, drift);
        if (drift.length > 0) parts.onDrift(drift);
      } catch (error) {
        log.info({ err: error }, 'the filters could not be looked at by themselves: everything is compared');
        mustVerify = true;
        schedule.request('all', 0);
      } finally {
        verifying = undefined;
      }
    })();
  }

  async function compareAll(sources: NodeSources, verifyFilters: boolean): Promise<readonly Error[]> {
    uplinks = freshUplinks(host, sources.node.addresses, uplinks);
    const input = inputOf(sources);
    const state = desiredNodeState(input);
    if (state.vxlan !== undefined) deviceAskedForMs = clock.nowMs();
    const errors: Error[] = [];
    const refused: Error[] = [];
    const drift: string[] = [];
    let hasApplied = false;
    const attempt = async (work: () => Promise<void> | void) => {
      try {
        await work();
      } catch (error) {
        errors.push(error instanceof Error ? error : new Error(String(error)));
      }
    };

    // First who is kept from whom, then the ways. What nft lists afterwards nobody waits for.
    const { promise: inForce, resolve } = Promise.withResolvers<'in force'>();
    const filters = filterTable.apply(state.filter, {
      verify: verifyFilters,
      inForce: () => resolve('in force'),
    });
    // What they fail with is told at the end.
    if ((await Promise.race([inForce, filters.catch(() => undefined)])) === 'in force') {
      isolatedFor = isolationOf(sources.pools);
      for (const listener of [...filterListeners]) listener();
    }
    await attempt(() => {
      const changed = ensureForwarding(host, sysctlRoot, state.families, parts.rememberSettings);
      if (previous?.state.families.join() === state.families.join()) drift.push(...changed);
    });
    await attempt(async () => {
      const [first] = sources.node.addresses;
      if (state.families.length > 0 && (first === undefined || uplinks[first.family] === undefined)) {
        throw new UnknownUplinkError(sources.node.name, first);
      }
      // A link never carries more than its way does: what shrinks does so before the way, what grows after it. What
      // goes wrong with it goes wrong the second time, too, and is told then.
      const shrunk = changeMTUs(state, ({ link, mtu }) => mtu < link.mtu);
      const applied = await applyNodeState(host, state, {
        beforeRemovingSubnetRoute: parts.beforeRemovingSubnetRoute,
        keepDevice: isDeviceKept(),
        beforeRemovals: () => {
          const repaired = repairPodLinks(host, state.preferredSource);
          if (sameSources(previous?.state, state)) drift.push(...repaired);
        },
      });
      errors.push(...applied.errors);
      refused.push(...applied.refused);
      drift.push(...driftOf(applied.changes, previous?.present));
      const grown = changeMTUs(state, () => true);
      refused.push(...grown.errors);
      if (samePodMTUs(previous?.state, state))
        drift.push(...[...shrunk.changed, ...grown.changed].map(mtuText));
      hasApplied = true;
      current = state;
      const tunnelIndex = getLink(host, { name: VXLAN_LINK })?.index;
      previous = { input, state, tunnelIndex, present: new Set(applied.present) };
    });
    await attempt(async () => {
      if ((await filters) === 'repaired') drift.push(`table inet ${FILTER_TABLE}`);
    });
    // It looks at the same filters of others, and changes them.
    await verifying;
    await lookAtForeignFilters(state, verifyFilters, drift);
    if (drift.length > 0) parts.onDrift(drift);
    const messages = refused.map(({ message }) => message);
    tellUnmet({ notes: state.notes, refused: hasApplied ? messages : unmet.refused });
    const [first] = errors;
    if (first !== undefined) throw errors.length === 1 ? first : new NodeSyncError(errors);
    return refused;
  }

  /** Not of what heals by itself at once. */
  function tellBroken(forMs: number, reason: string): void {
    if (forMs < TELL_BROKEN_MS || reason === brokenTold) return;
    brokenTold = reason;
    parts.onBroken(forMs, reason);
  }

  /** Nodes hear of a pool's change one after the other. */
  function isDeviceKept(): boolean {
    return clock.nowMs() - deviceAskedForMs < DEVICE_LINGERS_MS;
  }

  function inputOf(sources: NodeSources): DesiredInput {
    return { ...sources, uplinks, kernelFamilies: kernelFamilies(sysctlRoot), config: parts.config };
  }

  async function lookAtForeignFilters(state: NodeState, verify: boolean, drift: string[]): Promise<void> {
    try {
      await letThrough(state, verify, drift);
    } catch (error) {
      // Foreign tables that cannot be read, or whose lock is held, are no fault of this node's own data path.
      log.error({ err: error }, 'could not look at the filters of others: they may drop what pods send');
    }
  }

  async function letThrough(state: NodeState, verify: boolean, drift: string[]): Promise<void> {
    const { families, forwarded } = state;
    const vxlan = state.vxlan && { port: state.vxlan.port, underlay: state.vxlan.local.family };
    const traffic = { vxlan, families, forwarded };
    const wanted = [vxlan?.port, vxlan?.underlay, ...families, ...forwarded.map(formatCIDR)].join();
    const same = accepted === wanted;
    if (same && !verify) return;
    const { inserted, removed, unhandled } = await ensureAccepted(traffic, { run, ownTable: FILTER_TABLE });
    accepted = wanted;
    if (same) drift.push(...inserted);
    else if (inserted.length > 0) log.info({ inserted }, 'let pods through filters that drop');
    if (removed.length > 0) log.info({ removed }, 'took out accepting rules that nothing asks for any more');
    if (unhandled.join() !== foreignDrops && unhandled.length > 0) parts.onForeignDrop(unhandled);
    foreignDrops = unhandled.join();
  }

  /** Of living pods, as far as `which` says. */
  function changeMTUs(state: NodeState, which: (change: PodMTUChange) => boolean): PodMTUOutcome {
    const changes = podMTUChanges(host, (addresses) => podMTUOf(state.podMTU, addresses)).filter(which);
    const outcome = changePodMTUs(host, parts.ownNamespace, { changes, paths: parts.podNamespaces });
    const { changed } = outcome;
    if (changed.length > 0) {
      const mtus = [...new Set(changed.map(({ mtu }) => mtu))];
      log.info({ links: changed.length, mtus }, "pods' links have another MTU now");
    }
    return outcome;
  }

  /** One peer that cannot be reached is no reason to take the whole node out of service. */
  function tellUnmet(now: Unmet): void {
    const isNew = (list: readonly string[], before: readonly string[]) =>
      list.length > 0 && list.join('; ') !== before.join('; ');
    if (isNew(now.notes, unmet.notes)) log.warn({ notes: now.notes }, 'some nodes cannot be reached');
    if (isNew(now.refused, unmet.refused)) {
      log.error({}, `the kernel refuses what single peers or pods need: ${now.refused.join('; ')}`);
    }
    const same = JSON.stringify(now) === JSON.stringify(unmet);
    unmet = now;
    if (!same) parts.onUnmet(now);
  }

  async function loop(): Promise<void> {
    while (!stopping.signal.aborted) {
      const due = await schedule.next(stopping.signal, stoppedForwarding);
      if (due === undefined) return;
      const waited = [...waiting];
      let wasCompared = true;
      try {
        const served = await serve(due);
        if (served === 'no objects yet') {
          schedule.request('all', NO_SOURCES_MS);
          continue;
        }
        wasCompared = typeof served === 'object';
        if (served === 'put off') {
          schedule.request('links', 0);
          if (due.parts.has('filters')) schedule.request('filters', 0);
          continue;
        }
        const refused = typeof served === 'object' ? served.refused : [];
        if (failure !== undefined) log.info({}, "this node's data path is whole again");
        failure = undefined;
        brokenTold = undefined;
        waited.forEach(({ resolve }) => resolve());
        // Takes some time after the first comparison, for which nobody has to wait.
        if (previous !== undefined) peers.show(previous.input.subnets);
        if (refused.length === 0) retries = backOff();
        schedule.request('all', refused.length === 0 ? parts.settings.syncMs : retries.next());
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        failure = { sinceMs: failure?.sinceMs ?? clock.nowMs(), reason };
        tellBroken(clock.nowMs() - failure.sinceMs, reason);
        const retryMs = retries.next();
        log.error({ err: error, retryMs }, `this node's data path is not as it should be: ${reason}`);
        schedule.request('all', retryMs);
      } finally {
        schedule.finished(wasCompared ? 'all compared' : 'objects followed');
      }
    }
  }

  schedule.request('all', 0);
  const watches = watchKernel({
    ownPorts: parts.ownPorts,
    ownNftablesPort: parts.nftables.portId,
    asked: {
      isTunnel: (linkIndex) => linkIndex === previous?.tunnelIndex,
      hasForwarding: (entry) => previous?.present.has(forwardingText(entry)) === true,
      hasNeighbour: isNeighbourAskedFor,
      podMTU: (addresses) => previous && podMTUOf(previous.state.podMTU, addresses),
    },
    onTouched: (what) => schedule.request(what, DEBOUNCE_MS),
    clock,
    log,
  });
  const running = loop();

  return {
    podMTU: (addresses) => podMTUOf(setUp().podMTU, addresses),
    hostSources: () => setUp().preferredSource,
    forgetFlows: (hostPorts) => forgetHostPortFlows(host, run, hostPorts),
    async podRulesChanged() {
      try {
        await filterTable.attachmentsChanged();
      } catch (error) {
        // Rules of an attachment that has gone must not wait for the next comparison: its address may be another's soon.
        schedule.request('filters', 0);
        throw error;
      }
    },
    filtersHold: () => filterTable.holds(),
    async isolationInForce(signal) {
      const isInForce = () => isolatedFor === isolationOf(parts.pools());
      if (isInForce()) return;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const listener = () => {
        if (isInForce()) resolve();
      };
      const timeout = AbortSignal.timeout(ISOLATION_WAIT_MS);
      const until = AbortSignal.any([signal, timeout]);
      const abort = () =>
        reject(signal.aborted ? asError(signal.reason) : new FiltersNotInForceError(failure?.reason));
      filterListeners.add(listener);
      until.addEventListener('abort', abort, { once: true });
      if (until.aborted) abort();
      schedule.requestNow();
      await promise.finally(() => {
        filterListeners.delete(listener);
        until.removeEventListener('abort', abort);
      });
    },
    wake() {
      schedule.request('objects', OBJECTS_DEBOUNCE_MS);
      // What is to be kept apart is so soon, however often this node has just been compared.
      if (isolatedFor === isolationOf(parts.pools())) return;
      void clock.sleep(OBJECTS_DEBOUNCE_MS, stopping.signal).then(schedule.requestNow, () => undefined);
    },
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
      uplinks = freshUplinks(host, sources.node.addresses, uplinks);
      const state = desiredNodeState(inputOf(sources));
      return kernelDifferences({ host, sysctlRoot, filterTable, state, isDeviceKept: isDeviceKept() });
    },
    async stop() {
      stopping.abort();
      await Promise.all([running, watches.close()]);
      await verifying;
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

  function isNeighbourAskedFor({ linkIndex, address }: Neighbour): boolean {
    if (previous === undefined) return true;
    const { state, tunnelIndex } = previous;
    if (linkIndex !== tunnelIndex) return setHas(state.filter.pools, address);
    return state.neighbours.some((peer) => sameAddress(peer.address, address));
  }

  function setUp(): NodeState {
    if (current === undefined) throw new NodeNotSetUpError();
    return current;
  }
}

/** Kernel events come in flocks. */
const DEBOUNCE_MS = 50;
/** What a watch brings at once is done at once. */
const OBJECTS_DEBOUNCE_MS = 5;
const NO_SOURCES_MS = 1000;
const TELL_BROKEN_MS = 5_000;
/** For so long an ADD waits for filters that a pool has just asked for. */
const ISOLATION_WAIT_MS = 5000;
/** For how long the device stays after the last pool that may encapsulate. */
const DEVICE_LINGERS_MS = 10_000;

interface Waiting {
  readonly resolve: () => void;
}

/** Another text for pools that are to be isolated otherwise; empty where none is. */
function isolationOf(pools: readonly IPPool[]): string {
  if (!pools.some(({ spec }) => spec.isolation.mode === 'Isolated')) return '';
  return pools.map(({ metadata: { uid, generation } }) => `${uid} ${generation ?? 0}`).join();
}

/** What the last comparison left behind. */
interface Remembered {
  readonly input: DesiredInput;
  readonly state: NodeState;
  readonly tunnelIndex: number | undefined;
  /** All objects that were as desired, by the names that changes use. */
  readonly present: Set<string>;
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

/** Whether MTUs are asked for as before: what has to be changed then was changed by someone else. */
function samePodMTUs(before: NodeState | undefined, now: NodeState): boolean {
  const text = ({ podMTU: { plain, encapsulated, plainSubnets } }: NodeState) =>
    [plain, encapsulated, ...plainSubnets.map(formatCIDR)].join();
  return before !== undefined && text(before) === text(now);
}

const mtuText = ({ link, mtu }: PodMTUChange): string => `MTU ${mtu} of link ${link.name}`;

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
