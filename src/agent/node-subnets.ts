import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  claimNodeSubnets,
  confirmNodeSubnets,
  createSubnetClaimState,
  drawableSubnets,
  isDrained,
  ownSubnets,
  serves,
  SubnetUnavailableError,
  usableFamilies,
  type ClaimingNode,
  type Clock,
  type NamesInUse,
  type NodeSubnetStore,
  type PoolStore,
  type Random,
} from '../ipam/index.ts';
import { addressOfAllocationName } from '../api/index.ts';
import { cidrHasAddress, formatCIDR, sameAddress, type CIDR, type Family } from '../net/index.ts';
import type { AgentParts, SubnetSource } from './parts.ts';

export interface NodeSubnetsParts {
  readonly stores: { readonly subnets: NodeSubnetStore; readonly pools: PoolStore };
  readonly pools: () => readonly IPPool[];
  readonly subnets: () => readonly NodeSubnet[];
  /** This node as its Node object is now. */
  readonly node: () => ClaimingNode;
  readonly waitDelivered: (name: string, signal: AbortSignal) => Promise<void>;
  /** Resolves when the kernel treats the subnets in the cache as it should: routes and filters stand first. */
  readonly inForce: (signal: AbortSignal) => Promise<void>;
  /** This node's allocations, resting ones included. */
  readonly allocations: NamesInUse;
  /** Names that claims and releases of this process are busy with. */
  readonly inFlight: ReadonlySet<string>;
  /** Whether this node's kernel still has its marked route for the subnet: same machine, same boot. */
  readonly hasMarkedRoute: (cidr: CIDR) => boolean;
  readonly settings: { readonly subnetWaitMs: number; readonly giveBackMs: number };
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
}

/** The node's own subnets: this agent claims them, keeps them true, and gives them back. Nobody else does. */
export interface NodeSubnets extends SubnetSource {
  /** Completes claims that an earlier process began. Once, before anything is drawn. */
  recover(signal: AbortSignal): Promise<void>;
  /**
   * Claims the first subnet of each pool that serves, keeps nextHops and UID equal to the Node's, and gives back
   * what is drained or surplus and empty. Failures are reported and tried again at the next call.
   */
  maintain(signal: AbortSignal): Promise<void>;
}

export function createNodeSubnets(parts: NodeSubnetsParts): NodeSubnets {
  const state = createSubnetClaimState();
  /** Subnets for which routes and filters stand: drawn from. */
  const inForce = new Set<string>();
  /** Subnets that are being given back: not drawn from. */
  const leaving = new Set<string>();
  /** Since when a surplus subnet has been empty. Monotonic. */
  const emptySinceMs = new Map<string, number>();

  const claimParts = (deadlineMs: number) => ({ ...parts, node: parts.node(), state, deadlineMs });
  const families = (pool: IPPool) => usableFamilies(pool, parts.node().addresses);
  const drawable = (pool: IPPool) => {
    const { name: nodeName, uid: nodeUID } = parts.node();
    const { unconfirmed } = state;
    return drawableSubnets({ pool, subnets: parts.subnets(), nodeName, nodeUID, unconfirmed }).filter(
      ({ metadata }) => inForce.has(metadata.name) && !leaving.has(metadata.name),
    );
  };

  return {
    families,
    drawable,

    async claimMore(pool, family, signal) {
      // What was about to go back is the nearest.
      for (const subnet of parts.subnets()) {
        if (subnet.spec.poolUID === pool.metadata.uid && subnet.spec.cidr.family === family) {
          if (leaving.delete(subnet.metadata.name)) return;
        }
      }
      await claim(pool, family, signal);
    },

    async recover(signal) {
      const { name, uid } = parts.node();
      await confirmNodeSubnets(
        claimParts(parts.settings.subnetWaitMs),
        ownSubnets(parts.subnets(), name, uid),
        signal,
      );
    },

    async maintain(signal) {
      await bindAnew(signal);
      await putInForce(signal);
      for (const pool of parts.pools()) {
        if (serves(pool, { pools: parts.pools(), subnets: parts.subnets() })) await claimFirst(pool, signal);
      }
      for (const subnet of held()) await giveBackIfIdle(subnet, signal);
    },
  };

  function held(): NodeSubnet[] {
    const { name, uid } = parts.node();
    return ownSubnets(parts.subnets(), name, uid);
  }

  async function claim(pool: IPPool, family: Family, signal: AbortSignal): Promise<void> {
    await claimNodeSubnets(claimParts(parts.settings.subnetWaitMs), pool, { families: [family], signal });
    await putInForce(signal);
  }

  /** No address is drawn from a subnet before the node's routes and filters know it. */
  async function putInForce(signal: AbortSignal): Promise<void> {
    const names = held()
      .map(({ metadata }) => metadata.name)
      .filter((name) => !state.unconfirmed.has(name));
    if (names.every((name) => inForce.has(name))) return;
    await parts.inForce(signal);
    for (const name of names) inForce.add(name);
  }

  /** Each pool's first subnet, so that the first pod finds one. */
  async function claimFirst(pool: IPPool, signal: AbortSignal): Promise<void> {
    for (const family of families(pool)) {
      if (drawable(pool).some(({ spec }) => spec.cidr.family === family)) continue;
      try {
        await claim(pool, family, signal);
      } catch (error) {
        signal.throwIfAborted();
        const quiet = error instanceof SubnetUnavailableError;
        parts.log[quiet ? 'warn' : 'error'](
          { err: error, pool: pool.metadata.name, family },
          'no subnet claimed',
        );
      }
    }
  }

  /** Writes the Node's present UID and addresses into the subnets that are this machine's. */
  async function bindAnew(signal: AbortSignal): Promise<void> {
    const node = parts.node();
    if (node.addresses.length === 0) return;
    for (const subnet of parts.subnets()) {
      if (subnet.spec.nodeName !== node.name) continue;
      const sameNode = subnet.spec.nodeUID === node.uid;
      // An older UID without our route is another machine's, or another boot's: the sweep's and not ours to use.
      if (!sameNode && !parts.hasMarkedRoute(subnet.spec.cidr)) continue;
      if (sameNode && sameAddresses(subnet.spec.nextHops, node.addresses)) continue;
      try {
        await parts.stores.subnets.rebind(
          subnet,
          { nodeUID: node.uid, nextHops: [...node.addresses] },
          signal,
        );
        parts.log.info({ subnet: subnet.metadata.name }, "bound to the Node's present UID and addresses");
      } catch (error) {
        signal.throwIfAborted();
        parts.log.error({ err: error, subnet: subnet.metadata.name }, 'a subnet could not be bound anew');
      }
    }
  }

  async function giveBackIfIdle(subnet: NodeSubnet, signal: AbortSignal): Promise<void> {
    const { name } = subnet.metadata;
    const pool = parts.pools().find(({ metadata }) => metadata.uid === subnet.spec.poolUID);
    const unwanted = isDrained(subnet, pool) || pool?.metadata.deletionTimestamp !== undefined;
    if (state.unconfirmed.has(name)) return;
    if (!isEmpty(subnet) || !(unwanted || isSurplus(subnet, pool))) {
      emptySinceMs.delete(name);
      leaving.delete(name);
      return;
    }
    const nowMs = parts.clock.nowMs();
    const sinceMs = emptySinceMs.get(name) ?? nowMs;
    emptySinceMs.set(name, sinceMs);
    if (!unwanted && nowMs - sinceMs < parts.settings.giveBackMs) return;
    if (!leaving.has(name)) {
      // Claims that chose this subnet a moment ago show up as in flight, or in the cache, by the next call.
      leaving.add(name);
      return;
    }
    const outcome = await parts.stores.subnets.delete(subnet, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      parts.log.error({ err: error, subnet: name }, 'a subnet could not be given back');
      return 'changed' as const;
    });
    if (outcome === 'changed') return;
    emptySinceMs.delete(name);
    leaving.delete(name);
    inForce.delete(name);
    parts.log.info({ subnet: formatCIDR(subnet.spec.cidr), pool: subnet.spec.pool }, 'gave a subnet back');
  }

  /** The last subnet of a pool that serves is never surplus. */
  function isSurplus(subnet: NodeSubnet, pool: IPPool | undefined): boolean {
    if (pool === undefined) return true;
    if (leaving.has(subnet.metadata.name)) return true;
    const same = drawable(pool).filter(({ spec }) => spec.cidr.family === subnet.spec.cidr.family);
    return same.length > 1;
  }

  function isEmpty(subnet: NodeSubnet): boolean {
    const inside = (name: string) => cidrHasAddress(subnet.spec.cidr, addressOfAllocationName(name));
    for (const name of parts.allocations.keys()) if (inside(name)) return false;
    for (const name of parts.inFlight) if (inside(name)) return false;
    return true;
  }
}

function sameAddresses(
  a: readonly { family: Family; value: bigint }[],
  b: readonly { family: Family; value: bigint }[],
): boolean {
  return a.length === b.length && a.every((address, i) => b[i] !== undefined && sameAddress(address, b[i]));
}
