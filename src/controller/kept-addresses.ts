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
  /**
   * A quorum read: whether the pod, `namespace/name`, asks to keep its addresses. Undefined: there is none, or it is on
   * its way out, and says nothing of the next one.
   */
  asksToKeep(pod: string, signal: AbortSignal): Promise<boolean | undefined>;
  /** For how long an address of the pool rests before it may be another's, in milliseconds. */
  reuseDelayMs(pool: string): number;
  deleteAllocation(seen: IndexedAllocation, signal: AbortSignal): Promise<WriteOutcome>;
}

export interface KeptAddressesParts {
  readonly cluster: KeptAddressesCluster;
  readonly clock: Clock;
  /** At the least: not for less than the pool's addresses rest, either. */
  readonly keepMs: number;
  /** Resolves when the next delete may be sent. */
  readonly mayDelete: (signal: AbortSignal) => Promise<void>;
  readonly onFreed: (statefulSet: string, freed: IndexedAllocation) => void;
}

/** How often a StatefulSet with kept addresses is asked for: nothing tells of it, since pods come and go all the time. */
const LOOK_MS = 30_000;

/**
 * Frees the sticky addresses that no pod will come for (design, section 4). The key is the StatefulSet, `namespace/name`.
 *
 * | the address, without a sandbox | its StatefulSet            | its pod                 | since            | what happens    |
 * |--------------------------------|----------------------------|-------------------------|------------------|-----------------|
 * | none is kept                   |                            |                         |                  | forgotten       |
 * | kept                           | has a pod of that name     | not there, or asks      |                  | kept, time anew |
 * | kept                           | has a pod of that name     | there, and does not ask | less than keepMs | looked at again |
 * | kept                           | has a pod of that name     | there, and does not ask | longer           | deleted         |
 * | kept                           | gone, or smaller than that |                         | less than keepMs | looked at again |
 * | kept                           | gone, or smaller than that |                         | longer           | deleted         |
 *
 * A pod that does not ask is there where the annotation was taken out of the template: it has drawn another address. The
 * pod is asked and not the template, since other hands may annotate pods. The time is counted in memory, from when this
 * process first saw it so. StatefulSet and pod are read right before, and the delete names the version that was seen: one
 * that is bound to a new sandbox meanwhile is another.
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
    const awaited = kept.filter(({ sticky = '' }) => hasOrdinal(size, statefulSetOf(sticky)?.ordinal ?? -1));
    const unwanted = await podsThatDoNotAsk(cluster, awaited, signal);
    const idle = kept.filter((one) => !awaited.includes(one) || unwanted.has(one.sticky ?? ''));
    const before = idleSince.get(statefulSet);
    const nowMs = clock.nowMs();
    const since = new Map(idle.map(({ metadata: { uid } }) => [uid, before?.get(uid) ?? nowMs]));
    idleSince.set(statefulSet, since);
    const leftMs = ({ metadata, spec }: IndexedAllocation) =>
      (since.get(metadata.uid) ?? nowMs) + Math.max(keepMs, cluster.reuseDelayMs(spec.pool)) - nowMs;
    for (const allocation of idle.filter((one) => leftMs(one) <= 0)) {
      await mayDelete(signal);
      if ((await cluster.deleteAllocation(allocation, signal)) !== 'done') continue;
      onFreed(statefulSet, allocation);
    }
    const waits = idle.map(leftMs).filter((ms) => ms > 0);
    return { kind: 'requeueAfter', ms: Math.min(LOOK_MS, ...waits) };
  };
}

async function podsThatDoNotAsk(
  cluster: KeptAddressesCluster,
  awaited: readonly IndexedAllocation[],
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const pods = [...new Set(awaited.map(({ sticky = '' }) => sticky))];
  const asking = await Promise.all(pods.map((pod) => cluster.asksToKeep(pod, signal)));
  return new Set(pods.filter((_, i) => asking[i] === false));
}
