import {
  hasOrdinal,
  statefulSetOf,
  type Clock,
  type StatefulSetSize,
  type WriteOutcome,
} from '../ipam/index.ts';
import type { IndexedAllocation } from './allocation-index.ts';
import { DONE, type Reconcile } from './queue.ts';

/** What freeing kept addresses needs of the cluster. The first answers from a cache that has been complete once. */
export interface KeptAddressesCluster {
  /** Those that are kept for pods of the StatefulSet, `namespace/name`, and have no sandbox. */
  keptFor(statefulSet: string): readonly IndexedAllocation[];
  /** A quorum read. Undefined: there is none. */
  sizeOf(statefulSet: string, signal: AbortSignal): Promise<StatefulSetSize | undefined>;
  deleteAllocation(seen: IndexedAllocation, signal: AbortSignal): Promise<WriteOutcome>;
}

export interface KeptAddressesParts {
  readonly cluster: KeptAddressesCluster;
  readonly clock: Clock;
  readonly keepMs: number;
  /** Resolves when the next delete may be sent. */
  readonly mayDelete: (signal: AbortSignal) => Promise<void>;
  readonly onFreed: (freed: { statefulSet: string; address: string }) => void;
}

/** How often a StatefulSet with kept addresses is asked for: nothing tells of it, since pods come and go all the time. */
const LOOK_MS = 30_000;

/**
 * Frees the sticky addresses that no pod will come for (design, section 4). The key is the StatefulSet, `namespace/name`.
 *
 * | the address, without a sandbox | its StatefulSet            | since              | what happens                 |
 * |--------------------------------|----------------------------|--------------------|------------------------------|
 * | none is kept                   |                            |                    | forgotten                    |
 * | kept                           | has a pod of that name     |                    | kept; the time starts anew   |
 * | kept                           | gone, or smaller than that | less than keepMs   | looked at again              |
 * | kept                           | gone, or smaller than that | longer             | deleted                      |
 *
 * The time is counted in memory, from when this process first saw it so. The StatefulSet is read right before, and the
 * delete names the version that was seen: one that is bound to a new sandbox meanwhile is another.
 */
export function createKeptAddresses(parts: KeptAddressesParts): Reconcile {
  const { cluster, clock, keepMs, mayDelete, onFreed } = parts;
  /** By the StatefulSet: since when each of its kept addresses has been nobody's, by uid. */
  const idleSince = new Map<string, ReadonlyMap<string, number>>();

  return async (statefulSet, signal) => {
    const kept = cluster.keptFor(statefulSet);
    if (kept.length === 0) {
      idleSince.delete(statefulSet);
      return DONE;
    }
    const size = await cluster.sizeOf(statefulSet, signal);
    const idle = kept.filter(({ sticky = '' }) => !hasOrdinal(size, statefulSetOf(sticky)?.ordinal ?? -1));
    const before = idleSince.get(statefulSet);
    const nowMs = clock.nowMs();
    const since = new Map(idle.map(({ metadata: { uid } }) => [uid, before?.get(uid) ?? nowMs]));
    idleSince.set(statefulSet, since);
    const leftMs = ({ metadata }: IndexedAllocation) => (since.get(metadata.uid) ?? nowMs) + keepMs - nowMs;
    for (const allocation of idle.filter((one) => leftMs(one) <= 0)) {
      await mayDelete(signal);
      if ((await cluster.deleteAllocation(allocation, signal)) !== 'done') continue;
      onFreed({ statefulSet, address: allocation.metadata.name });
    }
    const waits = idle.map(leftMs).filter((ms) => ms > 0);
    return { kind: 'requeueAfter', ms: Math.min(LOOK_MS, ...waits) };
  };
}
