import {
  POOL_FINALIZER,
  type Condition,
  type IPPool,
  type IPPoolStatus,
  type NodeSubnet,
} from '../api/index.ts';
import type { Clock, WriteOutcome } from '../ipam/index.ts';
import { isUrgent, poolStatus, sameStatus, subnetsOf, type PoolFacts } from './pool-status.ts';
import { DONE, type Reconcile, type ReconcileResult } from './queue.ts';

/** What reconciling pools needs of the cluster. The first three answer from caches that have been complete once. */
export interface PoolsCluster {
  pool(name: string): IPPool | undefined;
  /** All NodeSubnets. */
  subnets(): readonly NodeSubnet[];
  /** All that the pool's status is computed from, but for the pool itself. */
  factsOf(pool: IPPool): Omit<PoolFacts, 'pool'>;
  /** A consistent list of the NodeSubnets that name the pool. */
  listSubnets(pool: IPPool, signal: AbortSignal): Promise<readonly NodeSubnet[]>;
  addFinalizer(seen: IPPool, signal: AbortSignal): Promise<WriteOutcome>;
  removeFinalizer(seen: IPPool, signal: AbortSignal): Promise<WriteOutcome>;
  writeStatus(seen: IPPool, status: IPPoolStatus, signal: AbortSignal): Promise<WriteOutcome>;
  /** An Event on the pool. */
  announce(pool: IPPool, condition: Condition): void;
}

/** Is told what the leader makes of the pools, each time that it has looked. */
export interface PoolObserver {
  /** The status that the pool should have: it may be written later, or not at all if it is as before. */
  computed(name: string, status: IPPoolStatus): void;
  gone(name: string): void;
}

export interface PoolsParts {
  readonly cluster: PoolsCluster;
  readonly clock: Clock;
  /** How often the numbers alone may be written. */
  readonly statusMs: number;
  /** How long a deleted pool is kept at least. */
  readonly deletionMs: number;
  readonly observer?: PoolObserver;
}

/** How long after a write that met another version to look again, should the watch not wake us before. */
const LOOK_AGAIN_MS = 1_000;

/** How often to look whether the last subnet of a deleted pool is gone: the watch of subnets wakes us before. */
const WAIT_FOR_SUBNETS_MS = 10_000;

/**
 * Reconciles one IPPool; the key is its name (design section 3). It writes nothing but status and finalizer.
 *
 * | the pool                                     | what happens                                                |
 * |----------------------------------------------|-------------------------------------------------------------|
 * | not there                                    | forgotten                                                   |
 * | there, without finalizer                     | gets it                                                     |
 * | there                                        | status: conditions at once, numbers at most every statusMs  |
 * | deleted, finalizer not there                 | nothing: others hold it                                     |
 * | deleted less than deletionMs ago             | status, and looked at again: a claim may be under way       |
 * | deleted, a NodeSubnet has its UID            | status says whom it waits for                               |
 * | deleted, a consistent list shows none        | finalizer taken off                                         |
 */
export function createPools({ cluster, clock, statusMs, deletionMs, observer }: PoolsParts): Reconcile {
  /** By name, and of that UID alone: what came in between may not have been seen. */
  const deletedSince = new Map<string, { readonly uid: string; readonly ms: number }>();
  const writtenAt = new Map<string, number>();

  return async (name, signal) => {
    const pool = cluster.pool(name);
    if (pool === undefined) {
      deletedSince.delete(name);
      writtenAt.delete(name);
      observer?.gone(name);
      return DONE;
    }
    const ours = pool.metadata.finalizers.includes(POOL_FINALIZER);
    if (pool.metadata.deletionTimestamp !== undefined) {
      if (!ours) return DONE;
      const waiting = await letGo(pool, signal);
      return waiting.kind === 'done' ? DONE : sooner(waiting, await updateStatus(pool, signal));
    }
    deletedSince.delete(name);
    if (!ours && (await cluster.addFinalizer(pool, signal)) !== 'gone') {
      return { kind: 'requeueAfter', ms: LOOK_AGAIN_MS };
    }
    return updateStatus(pool, signal);
  };

  /** Takes the finalizer off when nothing of the pool is left and no claim that saw it alive can still come. */
  async function letGo(pool: IPPool, signal: AbortSignal): Promise<ReconcileResult> {
    const { name, uid } = pool.metadata;
    const known = deletedSince.get(name);
    const since = known?.uid === uid ? known : { uid, ms: clock.nowMs() };
    deletedSince.set(name, since);
    const remainingMs = since.ms + deletionMs - clock.nowMs();
    if (remainingMs > 0) return { kind: 'requeueAfter', ms: remainingMs };
    if (subnetsOf(pool, cluster.subnets()).length > 0) {
      return { kind: 'requeueAfter', ms: WAIT_FOR_SUBNETS_MS };
    }
    // A claim creates its subnet and then sees that the pool is alive. What was created before the deletion is in
    // a list that began after it; the cache could still lack it.
    const left = subnetsOf(pool, await cluster.listSubnets(pool, signal));
    if (left.length > 0) return { kind: 'requeueAfter', ms: WAIT_FOR_SUBNETS_MS };
    const outcome = await cluster.removeFinalizer(pool, signal);
    return outcome === 'changed' ? { kind: 'requeueAfter', ms: LOOK_AGAIN_MS } : DONE;
  }

  async function updateStatus(pool: IPPool, signal: AbortSignal): Promise<ReconcileResult> {
    const { name } = pool.metadata;
    const desired = poolStatus({ pool, ...cluster.factsOf(pool) }, clock.wallTime());
    observer?.computed(name, desired);
    if (sameStatus(pool.status, desired)) return DONE;
    const dueMs = (writtenAt.get(name) ?? -Infinity) + statusMs - clock.nowMs();
    if (dueMs > 0 && !isUrgent(pool.status, desired)) return { kind: 'requeueAfter', ms: dueMs };
    const outcome = await cluster.writeStatus(pool, desired, signal);
    if (outcome === 'gone') return DONE;
    if (outcome === 'changed') return { kind: 'requeueAfter', ms: LOOK_AGAIN_MS };
    writtenAt.set(name, clock.nowMs());
    for (const condition of turned(pool.status, desired)) cluster.announce(pool, condition);
    return DONE;
  }
}

/**
 * The conditions that a person should hear of: those that have turned, but for what a new pool is not. That the pool is
 * not consistent the audit tells, one Event for each finding.
 */
function turned(before: IPPoolStatus | undefined, after: IPPoolStatus): Condition[] {
  const statusBefore = (type: string) =>
    before?.conditions?.find((condition) => condition.type === type)?.status;
  return (after.conditions ?? []).filter(({ type, status }) => {
    const earlier = statusBefore(type);
    if (type === 'Consistent') return status === 'True' && earlier === 'False';
    const isNews = type === 'Ready' ? before !== undefined || status === 'False' : status === 'True';
    return (isNews || earlier !== undefined) && status !== earlier;
  });
}

function sooner(a: ReconcileResult, b: ReconcileResult): ReconcileResult {
  if (a.kind === 'done') return b;
  if (b.kind === 'done') return a;
  return a.ms <= b.ms ? a : b;
}
