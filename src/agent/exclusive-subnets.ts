import {
  allocationName,
  hostSubnetName,
  type IPAllocation,
  type IPPool,
  type NodeSubnet,
} from '../api/index.ts';
import {
  claimExclusiveSubnet,
  deleteExclusiveSubnet,
  isExclusive,
  isResting,
  SubnetUnavailableError,
  type AllocationStore,
  type ClaimingNode,
  type Clock,
  type NodeSubnetStore,
  type PoolStore,
  type Random,
} from '../ipam/index.ts';
import { firstAddress, formatCIDR, type IPAddress } from '../net/index.ts';
import type { AgentParts, ExclusiveSubnets, OwnAllocations } from './parts.ts';
import type { StepObserver } from './steps.ts';

export interface ExclusiveSubnetsParts {
  readonly stores: {
    readonly subnets: NodeSubnetStore;
    readonly pools: PoolStore;
    readonly allocations: Pick<AllocationStore, 'get'>;
  };
  readonly pools: () => readonly IPPool[];
  readonly subnets: {
    get(name: string): NodeSubnet | undefined;
    list(): readonly NodeSubnet[];
    /** Resolves as soon as the predicate holds of the cache. */
    waitFor(predicate: () => boolean, signal: AbortSignal): Promise<void>;
  };
  readonly node: () => ClaimingNode;
  /** Whether the address lies in a subnet of this node that leads here; of that pool, if one is named. */
  readonly coveredByOwn: (address: IPAddress, pool?: string) => boolean;
  /** Resolves when the kernel treats the subnets in the cache as it should. */
  readonly inForce: (signal: AbortSignal) => Promise<void>;
  readonly allocations: Pick<OwnAllocations, 'get'>;
  readonly isHeldHere: IsHeldHere;
  readonly inFlight: ReadonlySet<string>;
  /** Names of the addresses that interfaces of this node have. */
  readonly wired: { keys(): Iterable<string>; has(name: string): boolean };
  readonly observe: StepObserver;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
}

/** This node's exclusive subnets: made for addresses that it holds, and gone before these are. */
export interface ExclusiveSubnetCare extends ExclusiveSubnets {
  /** Gives back the exclusive subnet that this node has for the address; before the address is given back. */
  withdraw(allocation: IPAllocation, signal: AbortSignal): Promise<void>;
  /**
   * Gives back those without an address in use, makes those that living interfaces lack, and removes those of other nodes
   * that lead their packets astray: each when it was seen at two calls on end, since what is under way looks the same.
   */
  maintain(signal: AbortSignal): Promise<void>;
}

/** Whether a living sandbox of this node has the address of that name, by the book or in the kernel. */
export type IsHeldHere = (name: string) => boolean;

export function createIsHeldHere(
  allocations: Pick<OwnAllocations, 'get'>,
  wired: { has(name: string): boolean },
): IsHeldHere {
  return (name) => wired.has(name) || isAlive(allocations.get(name));
}

/**
 * The subnets that the kernel is to know: without the exclusive ones of other nodes for addresses that this node holds.
 * They are what a pod has left behind that is back by now, and their routes would stand where the pod's own must.
 */
export function subnetsForKernel(
  subnets: readonly NodeSubnet[],
  nodeName: string,
  isHeldHere: IsHeldHere,
): NodeSubnet[] {
  return subnets.filter(
    (subnet) =>
      !isExclusive(subnet) || subnet.spec.nodeName === nodeName || !isHeldHere(allocationNameIn(subnet)),
  );
}

export function createExclusiveSubnets(parts: ExclusiveSubnetsParts): ExclusiveSubnetCare {
  const { stores, subnets, log } = parts;
  /** Names of addresses, as the last call of maintain saw them. */
  let orphaned: ReadonlySet<string> = new Set();
  let unreachable: ReadonlySet<string> = new Set();
  /** What was done for living interfaces, by name of address, until these end: their release must find what it made. */
  const mended = new Map<string, Mending>();

  const of = (address: IPAddress) => {
    const found = subnets.get(hostSubnetName(address));
    return found !== undefined && isExclusive(found) ? found : undefined;
  };
  const isOwn = ({ spec }: NodeSubnet) => spec.nodeName === parts.node().name;

  return {
    of,

    async secure(allocation, signal) {
      const { address, pool } = allocation.spec;
      const stale = of(address);
      // In a subnet of another pool it would be treated as that one's, isolation included, and its own could go.
      if (!parts.coveredByOwn(address, pool)) {
        parts.observe('claim:not-led-yet');
        await claimExclusiveSubnet({ ...parts, node: parts.node() }, allocation, poolOf(allocation), signal);
        parts.observe('claim:led');
      } else if (stale !== undefined && !isOwn(stale)) {
        await deleteExclusiveSubnet(stores.subnets, stale, signal);
        // Where it had gone already only the watch takes it out of the cache.
        await subnets.waitFor(() => of(address)?.metadata.uid !== stale.metadata.uid, signal);
      }
      await parts.inForce(signal);
    },

    async withdraw({ metadata, spec }, signal) {
      const { address } = spec;
      const mending = mended.get(metadata.name);
      mending?.cut.abort(new Error('the address is given back'));
      await mending?.ended;
      const isKept = spec.fixed === true || spec.sticky !== undefined;
      // The create of one may have been committed without an answer: the cache alone is no proof.
      const isDoubtful = mending !== undefined || (isKept && !parts.coveredByOwn(address, spec.pool));
      const cached = of(address);
      const isShown = cached !== undefined && isOwn(cached);
      const found =
        isDoubtful && !isShown ? await stores.subnets.get(hostSubnetName(address), signal) : cached;
      if (found === undefined || !isExclusive(found) || !isOwn(found)) return;
      await deleteExclusiveSubnet(stores.subnets, found, signal);
      parts.observe('release:not-led-any-more');
      log.info({ allocation: metadata.name }, 'gave back the subnet of one address');
    },

    async maintain(signal) {
      const own = subnets.list().filter((subnet) => isExclusive(subnet) && isOwn(subnet));
      const idle = own.filter((subnet) => {
        const name = allocationNameIn(subnet);
        return !parts.isHeldHere(name) && !parts.inFlight.has(name);
      });
      for (const subnet of idle) {
        if (!orphaned.has(subnet.metadata.uid)) continue;
        await attempt(subnet.metadata.name, signal, () => giveBack(subnet, signal));
      }
      orphaned = new Set(idle.map(({ metadata }) => metadata.uid));

      for (const name of mended.keys()) {
        if (!parts.isHeldHere(name) && !parts.inFlight.has(name)) mended.delete(name);
      }
      const lacking = [...parts.wired.keys()].filter(isAstray);
      for (const name of lacking) {
        if (unreachable.has(name)) await attempt(name, signal, () => mend(name, signal));
      }
      unreachable = new Set(lacking);
    },
  };

  function poolOf({ spec }: IPAllocation): IPPool {
    const pool = parts.pools().find(({ metadata }) => metadata.name === spec.pool);
    if (pool !== undefined) return pool;
    throw new SubnetUnavailableError(spec.pool, spec.address.family, 'the pool has been deleted');
  }

  async function giveBack(subnet: NodeSubnet, signal: AbortSignal): Promise<void> {
    await deleteExclusiveSubnet(stores.subnets, subnet, signal);
    log.warn({ subnet: formatCIDR(subnet.spec.cidr) }, 'gave back the subnet of an address that no pod has');
  }

  /** Whether packets to that address, which a living sandbox of this node has, do not come here. */
  function isAstray(name: string): boolean {
    const allocation = parts.allocations.get(name);
    if (allocation === undefined || !isAlive(allocation)) return false;
    const { address } = allocation.spec;
    const exclusive = of(address);
    return exclusive === undefined ? !parts.coveredByOwn(address) : !isOwn(exclusive);
  }

  /** Until the address is given back: what came into being after that would lead it astray from whoever gets it next. */
  async function mend(name: string, signal: AbortSignal): Promise<void> {
    const allocation = parts.allocations.get(name);
    // Those before it in the list may have taken long.
    if (allocation === undefined || !parts.wired.has(name) || !isAstray(name)) return;
    const cut = new AbortController();
    const ended = Promise.withResolvers<void>();
    mended.set(name, { cut, ended: ended.promise });
    try {
      await leadHere(allocation, signal, cut.signal);
    } catch (error) {
      if (!cut.signal.aborted) throw error;
    } finally {
      ended.resolve();
    }
  }

  /** `givenBack` ends it between two requests: one that was sent is to be answered, so that what it made is known. */
  async function leadHere(
    allocation: IPAllocation,
    signal: AbortSignal,
    givenBack: AbortSignal,
  ): Promise<void> {
    const { address } = allocation.spec;
    const facts = { address: allocation.metadata.name };
    // What the cache says may be of long ago, and the address another's by now, who is led to.
    const now = await stores.allocations.get(allocation.metadata.name, signal);
    if (now === undefined || !isAlive(now) || now.spec.nodeName !== parts.node().name) return;
    givenBack.throwIfAborted();
    const theirs = of(address);
    if (theirs !== undefined && parts.coveredByOwn(address)) {
      await deleteExclusiveSubnet(stores.subnets, theirs, signal);
      log.warn(
        { ...facts, node: theirs.spec.nodeName },
        "a living pod's address was led to another node, which had it before; that one's subnet of it is gone now",
      );
    } else {
      const pool = poolOf(allocation);
      await claimExclusiveSubnet({ ...parts, node: parts.node() }, allocation, pool, signal, givenBack);
      log.warn(facts, "a living pod's address lay in no subnet of this node; it has one of its own now");
    }
  }

  /** One that fails must not keep the others waiting; the next call tries it again. */
  async function attempt(what: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      signal.throwIfAborted();
      log.error({ err: error }, `could not put in order the way to ${what}`);
    }
  }
}

/** A way that is made, or was, for an interface that lives. */
interface Mending {
  /** Ends it after the request that is under way. */
  readonly cut: AbortController;
  /** Resolves when nothing of it is under way any more. */
  readonly ended: Promise<void>;
}

function isAlive(allocation: IPAllocation | undefined): boolean {
  return allocation?.spec.attachment !== undefined && !isResting(allocation);
}

/** The name of the allocation of the one address that an exclusive subnet is. */
function allocationNameIn({ spec }: NodeSubnet): string {
  return allocationName(firstAddress(spec.cidr));
}
