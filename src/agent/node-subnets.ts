import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  claimNodeSubnets,
  confirmNodeSubnets,
  createSubnetClaimState,
  drawableSubnets,
  finishLeftBehind,
  isDrained,
  isExclusive,
  isGeneral,
  ownSubnets,
  runsLow,
  serves,
  SubnetUnavailableError,
  usableFamilies,
  wantedFrom,
  type Claimer,
  type ClaimingNode,
  type Clock,
  type NamesInUse,
  type NodeSubnetStore,
  type PoolStore,
  type Random,
  type RingCursor,
  type SubnetClaimObserver,
  type SubnetHold,
} from '../ipam/index.ts';
import { addressOfAllocationName, allocationName } from '../api/index.ts';
import {
  cidrHasAddress,
  cidrsOverlap,
  firstAddress,
  formatCIDR,
  sameAddress,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import type { AgentParts, SubnetSource } from './parts.ts';

/** Is told what becomes of this node's subnets. */
export interface SubnetObserver extends SubnetClaimObserver {
  givenBack(): void;
}

export interface NodeSubnetsParts {
  readonly stores: { readonly subnets: NodeSubnetStore; readonly pools: PoolStore };
  readonly pools: () => readonly IPPool[];
  readonly subnets: () => readonly NodeSubnet[];
  /** Those of them that bear this Node's name, where they are kept apart: to look at all takes milliseconds. */
  readonly subnetsOfNode?: () => readonly NodeSubnet[];
  /** This node as its Node object is now. */
  readonly node: () => ClaimingNode;
  readonly waitDelivered: (name: string, signal: AbortSignal) => Promise<void>;
  /** Resolves when the kernel treats the subnets in the cache as it should: routes and filters stand first. */
  readonly inForce: (signal: AbortSignal) => Promise<void>;
  /** This node's allocations, resting ones included. */
  readonly allocations: NamesInUse;
  /** Names that claims and releases of this process are busy with. */
  readonly inFlight: ReadonlySet<string>;
  /** Names of the addresses that are in use here, or rest, whether or not an object says so. */
  readonly wired: { has(name: string): boolean; keys(): Iterable<string> };
  /** Who is bound to this node and has no address yet. */
  readonly waiting: () => readonly Claimer[];
  readonly cursor: RingCursor;
  /** Whether this node's kernel still has its marked route for the subnet: same machine, same boot. */
  readonly hasMarkedRoute: (cidr: CIDR) => boolean;
  /** The link, not weft's own, that has an address in the subnet, by name. */
  readonly linkWithAddressIn: (cidr: CIDR) => string | undefined;
  /** The Services' ranges, as far as they are known: no subnet comes from a CIDR that overlaps them. */
  readonly serviceCIDRs?: () => readonly CIDR[];
  /** Whether pods of another node live in it (TwoOwners). */
  readonly isDisputed?: (subnet: NodeSubnet) => boolean;
  /** Whether the leader holds claims of subnets. */
  readonly hold?: SubnetHold;
  /** This node has no subnet of a pool that it should have one of; told once, until it has one. */
  readonly onNone?: (pool: string, reason: string) => void;
  readonly settings: {
    readonly subnetWaitMs: number;
    readonly giveBackMs: number;
    readonly quarantineMs: number;
    readonly spareAddresses: number;
  };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
  readonly observer?: SubnetObserver;
}

/** The node's own subnets: this agent claims them, keeps them true, and gives them back. Nobody else does. */
export interface NodeSubnets extends SubnetSource {
  /**
   * Whether the address lies in one of the subnets that lead to this node, and are not on their way back; of that pool, if
   * one is named.
   */
  covers(address: IPAddress, pool?: string): boolean;
  /** Completes claims that an earlier process began. Once, before anything is drawn. */
  recover(signal: AbortSignal): Promise<void>;
  /**
   * Claims the first subnet of each general pool and, ahead of need, what the pods bound to the node will draw from;
   * keeps nextHops and UID equal to the Node's, and gives back what is empty and drained, surplus, refused, or an earlier
   * machine's. Failures are reported and tried again at the next call.
   */
  maintain(signal: AbortSignal): Promise<void>;
}

export function createNodeSubnets(parts: NodeSubnetsParts): NodeSubnets {
  const state = createSubnetClaimState();
  // What is remembered of subnets, by uid: a CIDR that was given back may be claimed again.
  /** Subnets for which routes and filters stand: drawn from. */
  const inForce = new Set<string>();
  /** Subnets that are being given back: not drawn from. */
  const leaving = new Set<string>();
  /** Those of them whose deletion was sent and not refused: they may be gone although the cache shows them. */
  const deleting = new Set<string>();
  /** Since when a subnet that is not needed has been empty. Monotonic. */
  const emptySinceMs = new Map<string, number>();

  /** Subnets that would go, if no bridge had an address in them: told once. */
  const keptForBridge = new Set<string>();

  /** What could not be claimed ahead of need when it was last tried: told once. */
  const short = new Set<string>();
  /** Of which pools, by UID and family, this node was told to have no subnet. */
  const without = new Set<string>();
  /** How many pods of this node wait for an address of each pool, by name, as last looked at. */
  let wanted: ReadonlyMap<string, number> = new Map();

  const { giveBackMs } = parts.settings;
  const claimParts = (deadlineMs: number) => ({
    ...parts,
    node: parts.node(),
    state,
    giveBackMs,
    deadlineMs,
  });
  const namedForNode = parts.subnetsOfNode ?? parts.subnets;
  const families = (pool: IPPool) => usableFamilies(pool, parts.node().addresses);
  const drawable = (pool: IPPool) => {
    const { name: nodeName, uid: nodeUID, labels: nodeLabels } = parts.node();
    const { unconfirmed } = state;
    const subnets = namedForNode();
    return drawableSubnets({ pool, subnets, nodeName, nodeUID, nodeLabels, unconfirmed }).filter(
      (subnet) =>
        inForce.has(subnet.metadata.uid) &&
        !leaving.has(subnet.metadata.uid) &&
        parts.isDisputed?.(subnet) !== true,
    );
  };
  const view = () => ({ pools: parts.pools(), subnets: parts.subnets() });

  return {
    families,
    drawable,
    covers: (address, pool) =>
      held().some(
        ({ metadata, spec }) =>
          cidrHasAddress(spec.cidr, address) &&
          (pool === undefined || spec.pool === pool) &&
          !state.unconfirmed.has(metadata.name) &&
          !leaving.has(metadata.uid),
      ),

    async claimMore(pool, family, signal) {
      // What was about to go back is the nearest.
      for (const subnet of parts.subnets()) {
        if (subnet.spec.poolUID === pool.metadata.uid && subnet.spec.cidr.family === family) {
          if (isRefused(subnet)) continue;
          if (!deleting.has(subnet.metadata.uid) && leaving.delete(subnet.metadata.uid)) return;
        }
      }
      // One that was just claimed is there, and only its routes and filters are on their way.
      if (drawnFromSoon(pool, family)) return putInForce(signal);
      await claim(pool, family, signal);
    },

    recover: (signal) => confirm(held(), signal),

    async maintain(signal) {
      forgetGone();
      await bindAnew(signal);
      // Those that recover() refused: what stood in their way may have gone.
      await confirm(held().filter(isRefused), signal);
      await finish(signal);
      await putInForce(signal);
      wanted = wantedFrom(parts.waiting(), view());
      for (const pool of parts.pools()) {
        // Who draws from the others cannot be foreseen, and a bridge has room for one subnet.
        if (pool.spec.use === 'Pods' && serves(pool, view())) await claimAhead(pool, signal);
      }
      for (const subnet of held()) await giveBackIfIdle(subnet, signal);
      for (const subnet of earlierMachines()) await giveBackIfIdle(subnet, signal);
    },
  };

  function held(): NodeSubnet[] {
    const { name, uid } = parts.node();
    return ownSubnets(namedForNode(), name, uid);
  }

  /** Subnets under this Node's name and another UID, which this machine does not know. Nobody draws from them. */
  function earlierMachines(): NodeSubnet[] {
    const { name, uid } = parts.node();
    return namedForNode().filter(
      (subnet) => subnet.spec.nodeName === name && subnet.spec.nodeUID !== uid && !isExclusive(subnet),
    );
  }

  /** The exclusive subnets that lead to this machine. */
  function ownWays(): CIDR[] {
    const { name, uid } = parts.node();
    return namedForNode()
      .filter((one) => isExclusive(one) && one.spec.nodeName === name && one.spec.nodeUID === uid)
      .map(({ spec }) => spec.cidr);
  }

  function isRefused({ metadata: { name } }: NodeSubnet): boolean {
    return state.unconfirmed.has(name) && !state.created.has(name);
  }

  async function confirm(subnets: readonly NodeSubnet[], signal: AbortSignal): Promise<void> {
    const { confirmed, refused } = await confirmNodeSubnets(
      claimParts(parts.settings.subnetWaitMs),
      subnets,
      signal,
    );
    for (const { metadata } of confirmed) {
      // It was on its way back while it was refused.
      emptySinceMs.delete(metadata.uid);
      if (!deleting.has(metadata.uid)) leaving.delete(metadata.uid);
    }
    for (const { subnet, reason } of refused) {
      parts.log.error({ subnet: subnet.metadata.name }, `a subnet of this node is not drawn from: ${reason}`);
    }
  }

  /** Claims that their deadline cut half-way. */
  async function finish(signal: AbortSignal): Promise<void> {
    try {
      await finishLeftBehind(claimParts(parts.settings.subnetWaitMs), signal);
    } catch (error) {
      signal.throwIfAborted();
      parts.log.warn({ err: error }, 'a claim that was left half-way is not complete yet');
    }
  }

  function forgetGone(): void {
    const there = new Set(parts.subnets().map(({ metadata }) => metadata.uid));
    for (const known of [inForce, leaving, deleting, emptySinceMs, keptForBridge]) {
      for (const uid of known.keys()) if (!there.has(uid)) known.delete(uid);
    }
  }

  async function claim(pool: IPPool, family: Family, signal: AbortSignal): Promise<void> {
    await claimNodeSubnets(claimParts(parts.settings.subnetWaitMs), pool, { families: [family], signal });
    await putInForce(signal);
  }

  function drawnFromSoon(pool: IPPool, family: Family): boolean {
    return held().some(
      (subnet) =>
        subnet.spec.cidr.family === family &&
        !isDrained(subnet, pool, parts.node().labels) &&
        !state.unconfirmed.has(subnet.metadata.name) &&
        !inForce.has(subnet.metadata.uid),
    );
  }

  /** No address is drawn from a subnet before the node's routes and filters know it. */
  async function putInForce(signal: AbortSignal): Promise<void> {
    const uids = held()
      .filter(({ metadata }) => !state.unconfirmed.has(metadata.name))
      .map(({ metadata }) => metadata.uid);
    if (uids.every((uid) => inForce.has(uid))) return;
    await parts.inForce(signal);
    for (const uid of uids) inForce.add(uid);
  }

  /** A subnet before anybody asks: the first of a pool for everyone, and more where pods will need them. */
  async function claimAhead(pool: IPPool, signal: AbortSignal): Promise<void> {
    for (const family of families(pool)) {
      while (isShort(pool, family)) if (!(await tryToClaim(pool, family, signal))) break;
    }
  }

  function isShort(pool: IPPool, family: Family): boolean {
    const drawn = drawable(pool).filter(({ spec }) => spec.cidr.family === family);
    const known = wanted.get(pool.metadata.name) ?? 0;
    if (drawn.length === 0) return known > 0 || isGeneral(pool, view(), parts.node());
    return runsLowOn(pool, family, drawn);
  }

  function runsLowOn(pool: IPPool, family: Family, subnets: readonly NodeSubnet[]): boolean {
    const { cursor, settings } = parts;
    const inUse = new Set([...parts.allocations.keys(), ...parts.inFlight, ...parts.wired.keys()]);
    const known = wanted.get(pool.metadata.name) ?? 0;
    return runsLow({ pool, family, subnets, inUse, cursor, wanted: known, spare: settings.spareAddresses });
  }

  /** Answers whether there is one more. That there is none is told once, until there is again. */
  async function tryToClaim(pool: IPPool, family: Family, signal: AbortSignal): Promise<boolean> {
    const key = `${pool.metadata.uid} ${family}`;
    try {
      await claim(pool, family, signal);
      short.delete(key);
      without.delete(key);
      return true;
    } catch (error) {
      signal.throwIfAborted();
      const facts = { err: error, pool: pool.metadata.name, family };
      if (!(error instanceof SubnetUnavailableError)) parts.log.error(facts, 'no subnet claimed');
      else {
        if (!short.has(key)) parts.log.warn(facts, 'no subnet claimed');
        const hasOne = drawable(pool).some(({ spec }) => spec.cidr.family === family);
        if (hasOne) without.delete(key);
        else if (!without.has(key)) {
          without.add(key);
          parts.onNone?.(pool.metadata.name, error.message);
        }
      }
      short.add(key);
      return false;
    }
  }

  /** Writes the Node's present UID and addresses into the subnets that are this machine's. */
  async function bindAnew(signal: AbortSignal): Promise<void> {
    const node = parts.node();
    if (node.addresses.length === 0) return;
    for (const subnet of namedForNode()) {
      if (subnet.spec.nodeName !== node.name) continue;
      const sameNode = subnet.spec.nodeUID === node.uid;
      // An older UID without our route is another machine's, or another boot's: the sweep's and not ours to use.
      if (!sameNode && !isThisMachines(subnet)) continue;
      // One that was claimed without next hops is a part of a LAN.
      const nextHops = subnet.spec.nextHops.length === 0 ? [] : [...node.addresses];
      if (sameNode && sameAddresses(subnet.spec.nextHops, nextHops)) continue;
      try {
        const outcome = await parts.stores.subnets.rebind(subnet, { nodeUID: node.uid, nextHops }, signal);
        // Changed or gone meanwhile: the next call sees what it is now.
        if (outcome !== 'done') continue;
        parts.log.info({ subnet: subnet.metadata.name }, "bound to the Node's present UID and addresses");
      } catch (error) {
        signal.throwIfAborted();
        parts.log.error({ err: error, subnet: subnet.metadata.name }, 'a subnet could not be bound anew');
      }
    }
  }

  /** An exclusive subnet has no route of its own here: the pod's interface is the proof. */
  function isThisMachines(subnet: NodeSubnet): boolean {
    const { cidr } = subnet.spec;
    return isExclusive(subnet)
      ? parts.wired.has(allocationName(firstAddress(cidr)))
      : parts.hasMarkedRoute(cidr);
  }

  async function giveBackIfIdle(subnet: NodeSubnet, signal: AbortSignal): Promise<void> {
    const { name, uid } = subnet.metadata;
    if (state.created.has(name)) return;
    const keptMs = isEmpty(subnet) ? keptEmptyMs(subnet) : undefined;
    if (keptMs === undefined) {
      emptySinceMs.delete(uid);
      if (!deleting.has(uid)) leaving.delete(uid);
      return;
    }
    const nowMs = parts.clock.nowMs();
    const sinceMs = emptySinceMs.get(uid) ?? nowMs;
    emptySinceMs.set(uid, sinceMs);
    if (nowMs - sinceMs < keptMs) return;
    if (!leaving.has(uid)) {
      // Claims that chose this subnet a moment ago show up as in flight, or in the cache, by the next call.
      leaving.add(uid);
      return;
    }
    deleting.add(uid);
    try {
      if ((await parts.stores.subnets.delete(subnet, signal)) === 'changed') deleting.delete(uid);
      else {
        parts.observer?.givenBack();
        parts.log.info(
          { subnet: formatCIDR(subnet.spec.cidr), pool: subnet.spec.pool },
          'gave a subnet back',
        );
      }
    } catch (error) {
      signal.throwIfAborted();
      parts.log.error({ err: error, subnet: name }, 'a subnet could not be given back');
    }
  }

  /** For how long the subnet is kept after its last address has gone; undefined: for as long as there is need. */
  function keptEmptyMs(subnet: NodeSubnet): number | undefined {
    const pool = parts.pools().find(({ metadata }) => metadata.uid === subnet.spec.poolUID);
    if (hasBridge(subnet, pool)) return undefined;
    if (subnet.spec.nodeUID !== parts.node().uid) return parts.settings.quarantineMs;
    if (isDrained(subnet, pool, parts.node().labels) || pool?.metadata.deletionTimestamp !== undefined)
      return 0;
    // Nobody draws from it, and it stands in the way of an older one's owner.
    if (isRefused(subnet)) return parts.settings.quarantineMs;
    return isSurplus(subnet, pool) ? giveBackMs : undefined;
  }

  /**
   * A bridge outlives its last container and keeps the gateway, and with it this node's way to the subnet: drained or
   * not, it would draw what another node has by then.
   */
  function hasBridge({ metadata, spec: { cidr } }: NodeSubnet, pool: IPPool | undefined): boolean {
    // Where the pool is not there, nothing else says what the subnet was for.
    const link = pool === undefined || pool.spec.use === 'Bridge' ? parts.linkWithAddressIn(cidr) : undefined;
    if (link === undefined) keptForBridge.delete(metadata.uid);
    else if (!keptForBridge.has(metadata.uid)) {
      keptForBridge.add(metadata.uid);
      parts.log.info(
        { subnet: formatCIDR(cidr), link },
        'an empty subnet stays for as long as a link has an address in it: a bridge outlives its containers; ' +
          'where it is not needed any more, delete it (ip link delete)',
      );
    }
    return link !== undefined;
  }

  /** Whether the others have enough for what is to come. The last one of a pool for everyone is never surplus. */
  function isSurplus(subnet: NodeSubnet, pool: IPPool | undefined): boolean {
    if (pool === undefined || leaving.has(subnet.metadata.uid)) return true;
    if (pool.spec.use !== 'Pods') return true;
    const { family } = subnet.spec.cidr;
    const others = drawable(pool).filter(
      ({ metadata, spec }) => spec.cidr.family === family && metadata.uid !== subnet.metadata.uid,
    );
    if (others.length > 0) return !runsLowOn(pool, family, others);
    return !isGeneral(pool, view(), parts.node()) && !wanted.has(pool.metadata.name);
  }

  function isEmpty(subnet: NodeSubnet): boolean {
    const { cidr, nodeUID } = subnet.spec;
    // Nothing leads here by an earlier machine's: what has a way of its own does not need it, and would keep it for ever.
    const ways = nodeUID === parts.node().uid ? [] : ownWays().filter((way) => cidrsOverlap(way, cidr));
    const inside = (name: string) => {
      const address = addressOfAllocationName(name);
      return cidrHasAddress(cidr, address) && !ways.some((way) => cidrHasAddress(way, address));
    };
    for (const name of parts.allocations.keys()) if (inside(name)) return false;
    for (const name of parts.inFlight) if (inside(name)) return false;
    for (const name of parts.wired.keys()) if (inside(name)) return false;
    return true;
  }
}

function sameAddresses(
  a: readonly { family: Family; value: bigint }[],
  b: readonly { family: Family; value: bigint }[],
): boolean {
  return a.length === b.length && a.every((address, i) => b[i] !== undefined && sameAddress(address, b[i]));
}
