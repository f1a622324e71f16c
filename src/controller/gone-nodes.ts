import type { NodeSubnet } from '../api/index.ts';
import { isExclusive, isResting, type Clock, type WriteOutcome } from '../ipam/index.ts';
import type { IndexedAllocation } from './allocation-index.ts';
import { DONE, type Reconcile, type ReconcileResult } from './queue.ts';

/** What freeing gone nodes needs of the cluster. The first four answer from caches that have been complete once. */
export interface GoneNodesCluster {
  nodeIsKnown(nodeName: string): boolean;
  subnetsOfNode(nodeName: string): readonly NodeSubnet[];
  allocationsOfNode(nodeName: string): readonly IndexedAllocation[];
  /** For how long an address of the pool rests after its release, in milliseconds. */
  reuseDelayMs(pool: string): number;
  /** A quorum read: whether there is a Node of that name. */
  nodeExists(nodeName: string, signal: AbortSignal): Promise<boolean>;
  /** A consistent list of the allocations that name the node. */
  listAllocationsOfNode(nodeName: string, signal: AbortSignal): Promise<readonly IndexedAllocation[]>;
  deleteAllocation(seen: IndexedAllocation, signal: AbortSignal): Promise<WriteOutcome>;
  /** Takes a sticky address from its sandbox, and keeps it for its pod. */
  emptyAllocation(seen: IndexedAllocation, signal: AbortSignal): Promise<WriteOutcome>;
  deleteSubnet(seen: NodeSubnet, signal: AbortSignal): Promise<WriteOutcome>;
}

export interface GoneNodesParts {
  readonly cluster: GoneNodesCluster;
  readonly clock: Clock;
  readonly quarantineMs: number;
  /** Resolves when the next delete may be sent. */
  readonly mayDelete: (signal: AbortSignal) => Promise<void>;
  readonly onFreed: (freed: FreedOfNode) => void;
}

/** What a gone node has lost with one step. */
export interface FreedOfNode {
  readonly nodeName: string;
  readonly allocations: readonly IndexedAllocation[];
  /** Sticky addresses, which their pods keep. */
  readonly emptied: readonly IndexedAllocation[];
  readonly subnets: readonly NodeSubnet[];
}

/** How many deletes one quorum read of the Node stands for: some seconds of them. */
const BATCH = 100;

/** How long after a write that met another version, or that a cache has not shown yet, to look again. */
const LOOK_AGAIN_MS = 1_000;

/**
 * Frees what nodes that are gone held (design section 5). The key is the node's name.
 *
 * | Node of that name    | since                  | what happens                                             |
 * |----------------------|------------------------|----------------------------------------------------------|
 * | exists               |                        | nothing: its agent is the authority; the time starts anew |
 * | gone                 | holds nothing          | forgotten                                                |
 * | gone                 | less than quarantine   | looked at again when the quarantine is over              |
 * | gone                 | longer                 | exclusive subnets, whose addresses may be another's next |
 * | gone, none left      | longer                 | allocations, a batch after each quorum read of the Node: |
 * |                      |                        | deleted when they have rested, sticky ones emptied       |
 * | gone, none left      | longer                 | its subnets                                              |
 *
 * What had a sandbox rests from then on at the latest; what its agent, or a person, released since then, from when that was
 * seen. The time is counted in memory, monotonic, from when this process first saw the node missing: a new leader starts
 * again, which only keeps things longer. Every delete names the version it means, so a deposed leader that was
 * stopped in the middle can free nothing that has changed since.
 */
export function createGoneNodes({
  cluster,
  clock,
  quarantineMs,
  mayDelete,
  onFreed,
}: GoneNodesParts): Reconcile {
  const missing = new Map<string, Missing>();

  return async (nodeName, signal) => {
    const holdsSomething = () =>
      cluster.subnetsOfNode(nodeName).length > 0 || freeable(cluster.allocationsOfNode(nodeName)).length > 0;
    // A new leader looks at all nodes: of one that is there, what it holds need not be searched for.
    if (cluster.nodeIsKnown(nodeName) || !holdsSomething()) {
      missing.delete(nodeName);
      return DONE;
    }
    const known = missing.get(nodeName) ?? { sinceMs: clock.nowMs(), restsSinceMs: new Map() };
    missing.set(nodeName, known);
    noteResting(known, cluster.allocationsOfNode(nodeName));
    const missingMs = clock.nowMs() - known.sinceMs;
    if (missingMs < quarantineMs) return { kind: 'requeueAfter', ms: quarantineMs - missingMs };
    // As they are before the Node is asked for: one that is bound to a Node made since then is another version.
    const subnets = cluster.subnetsOfNode(nodeName);
    if (await cluster.nodeExists(nodeName, signal)) {
      missing.delete(nodeName);
      return DONE;
    }
    const exclusive = subnets.filter(isExclusive);
    if (exclusive.length > 0) return freeSubnets(nodeName, exclusive, signal);
    return freeBatch(nodeName, subnets, known, signal);
  };

  function noteResting({ restsSinceMs }: Missing, allocations: readonly IndexedAllocation[]): void {
    for (const allocation of allocations) {
      const { uid } = allocation.metadata;
      if (isResting(allocation) && !restsSinceMs.has(uid)) restsSinceMs.set(uid, clock.nowMs());
    }
  }

  async function freeBatch(
    nodeName: string,
    subnets: readonly NodeSubnet[],
    known: Missing,
    signal: AbortSignal,
  ): Promise<ReconcileResult> {
    // From the apiserver, not from the cache: an allocation that a watch has not shown yet must keep the subnet.
    const left = freeable(await cluster.listAllocationsOfNode(nodeName, signal));
    noteResting(known, left);
    const waitMs = ({ metadata, spec, sticky }: IndexedAllocation) => {
      if (sticky !== undefined) return 0;
      const sinceMs = known.restsSinceMs.get(metadata.uid) ?? known.sinceMs;
      return sinceMs + cluster.reuseDelayMs(spec.pool) - clock.nowMs();
    };
    const ripe = left.filter((allocation) => waitMs(allocation) <= 0).slice(0, BATCH);
    const allocations: IndexedAllocation[] = [];
    const emptied: IndexedAllocation[] = [];
    for (const allocation of ripe) {
      await mayDelete(signal);
      const isKept = allocation.sticky !== undefined;
      const free = isKept ? cluster.emptyAllocation : cluster.deleteAllocation;
      if ((await free(allocation, signal)) !== 'changed') (isKept ? emptied : allocations).push(allocation);
    }
    const hasFreed = allocations.length + emptied.length > 0;
    if (hasFreed) onFreed({ nodeName, allocations, emptied, subnets: [] });
    if (left.length === 0) return freeSubnets(nodeName, subnets, signal);
    if (ripe.length > 0) return { kind: 'requeueAfter', ms: hasFreed ? 0 : LOOK_AGAIN_MS };
    return { kind: 'requeueAfter', ms: Math.min(...left.map(waitMs)) };
  }

  async function freeSubnets(
    nodeName: string,
    seen: readonly NodeSubnet[],
    signal: AbortSignal,
  ): Promise<ReconcileResult> {
    const subnets: NodeSubnet[] = [];
    for (const subnet of seen) {
      await mayDelete(signal);
      if ((await cluster.deleteSubnet(subnet, signal)) === 'done') subnets.push(subnet);
    }
    if (subnets.length > 0) onFreed({ nodeName, allocations: [], emptied: [], subnets });
    // Until the watch has shown that nothing is left, or that something came after all.
    return { kind: 'requeueAfter', ms: LOOK_AGAIN_MS };
  }
}

/** A node that is not there, by what this process has seen; monotonic. */
interface Missing {
  readonly sinceMs: number;
  /** By uid: since when what the node still has of released addresses has been seen to rest. */
  readonly restsSinceMs: Map<string, number>;
}

/** Without those that a person holds by name, and has not released: they outlive the node and its subnet. */
function freeable(allocations: readonly IndexedAllocation[]): IndexedAllocation[] {
  return allocations.filter((one) => one.attached || isResting(one));
}
