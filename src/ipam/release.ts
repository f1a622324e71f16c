import { STICKY_HOLDER, type Attachment, type IPAllocation } from '../api/index.ts';
import { cidrHasAddress, type CIDR, type IPAddress } from '../net/index.ts';
import { attachmentID } from './attachment-lock.ts';
import { jitteredBackOff, type Clock, type Random } from './clock.ts';
import type { AllocationStore } from './store.ts';

/** What became of a release: it is in the apiserver, or the queue was stopped before. */
export type ReleaseOutcome = 'released' | 'stopped';

export interface ReleaseOptions {
  /** How long the address rests before its name comes free. 0 for a claim that was never used: deleted at once. */
  readonly reuseDelayMs: number;
  /** Created for a claim that came to nothing: deleted, also where its pod would keep it. */
  readonly neverUsed?: boolean;
}

/** How many releases stand at which step. */
export interface PendingReleases {
  /** Not yet recorded in the apiserver, or to be deleted at once. */
  readonly releasing: number;
  /** Marked, waiting for the reuse delay. */
  readonly resting: number;
  /** Claims whose outcome is not known yet. */
  readonly undoing: number;
}

/**
 * What gives addresses back, off the path of ADD and DEL: every step is repeated until the apiserver has given a
 * definite answer. Nothing is deleted but the very object that was meant (uid, attachment, resourceVersion).
 * A sticky address is never deleted, but taken from its sandbox and kept for its pod; a fixed one comes free without a
 * rest. The way to an address goes before the address: else its next owner would find others led elsewhere.
 */
export interface ReleaseQueue {
  /**
   * Marks the allocation as released, and deletes it when it has rested. The answer comes when the apiserver
   * knows of it: marked, or deleted where there is no delay, or emptied. Never rejects.
   */
  release(allocation: IPAllocation, options: ReleaseOptions): Promise<ReleaseOutcome>;
  /**
   * For a write whose outcome is unknown: lets the object go if it is there and names this attachment. The name
   * stays in flight until that is settled, so that no claim of this process takes it meanwhile. Never rejects.
   */
  undo(name: string, attachment: Attachment): Promise<ReleaseOutcome>;
  /**
   * Takes over allocations that rest already, as they are found after a restart or in the cache of the agent:
   * each is deleted when its pool's delay has passed since this process first saw it. Give it all there are, any
   * number of times.
   */
  observeResting(allocations: Iterable<IPAllocation>): void;
  /** Whether the release of that allocation has begun and the apiserver does not know of it yet. */
  isReleasing(allocation: IPAllocation): boolean;
  pending(): PendingReleases;
  /** Milliseconds until the first of the pool's resting allocations in those CIDRs is deleted; undefined if none rests. */
  nextFreeInMs(pool: string, within: readonly CIDR[]): number | undefined;
  /** Resolves when all that was asked for is done, but for what rests. */
  settled(): Promise<void>;
  /** Ends all work. What was not done is left to the sweep and to observeResting of the next process. */
  stop(): void;
}

/** Is told of each step that this process has brought about. */
export interface ReleaseObserver {
  /** An allocation has been marked as released. */
  marked(): void;
  /** An allocation has been deleted: its name is free. */
  deleted(): void;
}

export interface ReleaseQueueParts {
  readonly store: Pick<AllocationStore, 'get' | 'markReleased' | 'delete' | 'empty'>;
  /** Gives back the subnet of that one address, if this node has it: before the address itself. */
  readonly withdrawSubnet?: (allocation: IPAllocation, signal: AbortSignal) => Promise<void>;
  /**
   * Ends the connections that are still known of the address: `soon`, and `now` before it may be another's. Never
   * rejects.
   */
  readonly endConnections?: (address: IPAddress, when: 'soon' | 'now') => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  /** The names that claims of this process are busy with: one set for claims and releases. */
  readonly inFlight: Set<string>;
  /** The reuse delay of a pool, for objects found resting. */
  readonly reuseDelayMs: (pool: string) => number;
  /** Told of each failure that will be tried again. */
  readonly onRetry?: (name: string, error: unknown) => void;
  readonly observer?: ReleaseObserver;
}

/** What a step left to do: nothing more, or the object in the state in which it is now. */
type Next = { readonly kind: 'done' } | { readonly kind: 'rest'; readonly allocation: IPAllocation };

const DONE: Next = { kind: 'done' };

/**
 * How long after a create of unknown outcome a "not found" is asked for again: the request may still have been
 * on its way. What commits even later is found by the sweep.
 */
export const UNKNOWN_SETTLES_MS = 2_000;

export function createReleaseQueue(parts: ReleaseQueueParts): ReleaseQueue {
  const { store, clock, random, inFlight, reuseDelayMs, onRetry, observer } = parts;
  const stopped = new AbortController();
  const { signal } = stopped;
  /** Releases by uid: what is asked for twice is done once. */
  const releasing = new Map<string, Promise<ReleaseOutcome>>();
  const undoing = new Map<string, Promise<ReleaseOutcome>>();
  /** What rests, by uid: its pool and address, and when its delay is over. */
  const resting = new Map<
    string,
    { readonly pool: string; readonly address: IPAddress; readonly untilMs: number }
  >();
  /** Deletions of what has rested, under way. */
  const deleting = new Set<Promise<void>>();

  return {
    release(allocation, options) {
      const { uid } = allocation.metadata;
      const known = releasing.get(uid);
      if (known !== undefined) return known;
      if (resting.has(uid)) return Promise.resolve('released');
      const work = untilDefinite(allocation.metadata.name, () => letGo(allocation, options)).then((next) => {
        releasing.delete(uid);
        if (next === undefined) return 'stopped';
        if (next.kind === 'rest') rest(next.allocation, options.reuseDelayMs);
        return 'released';
      });
      releasing.set(uid, work);
      return work;
    },

    undo(name, attachment) {
      const key = `${name} ${attachmentID(attachment)}`;
      const known = undoing.get(key);
      if (known !== undefined) return known;
      inFlight.add(name);
      const sinceMs = clock.nowMs();
      const work = untilDefinite(name, () => undoOnce(name, attachment, sinceMs)).then((next) => {
        undoing.delete(key);
        inFlight.delete(name);
        return next === undefined ? 'stopped' : 'released';
      });
      undoing.set(key, work);
      return work;
    },

    observeResting(allocations) {
      for (const allocation of allocations) {
        const { uid } = allocation.metadata;
        if (!isResting(allocation) || resting.has(uid) || releasing.has(uid)) continue;
        rest(allocation, reuseDelayMs(allocation.spec.pool));
      }
    },

    isReleasing: ({ metadata }) => releasing.has(metadata.uid),

    pending: () => ({ releasing: releasing.size, resting: resting.size, undoing: undoing.size }),

    nextFreeInMs(pool, within) {
      const ends = [...resting.values()]
        .filter((one) => one.pool === pool && within.some((cidr) => cidrHasAddress(cidr, one.address)))
        .map((one) => one.untilMs);
      return ends.length === 0 ? undefined : Math.max(0, Math.min(...ends) - clock.nowMs());
    },

    async settled() {
      while (releasing.size + undoing.size + deleting.size > 0) {
        await Promise.all([...releasing.values(), ...undoing.values(), ...deleting]);
      }
    },

    stop() {
      stopped.abort(new Error('the release queue was stopped'));
    },
  };

  async function letGo(allocation: IPAllocation, { reuseDelayMs, neverUsed }: ReleaseOptions): Promise<Next> {
    const { sticky, fixed } = allocation.spec;
    await parts.withdrawSubnet?.(allocation, signal);
    const isEmptied = sticky !== undefined && neverUsed !== true;
    if (!isEmptied && reuseDelayMs > 0 && fixed !== true) return mark(allocation);
    // Without a rest the address may be another's in a moment.
    if (neverUsed !== true) await parts.endConnections?.(allocation.spec.address, 'now');
    return isEmptied ? emptyExactly(allocation) : deleteExactly(allocation);
  }

  /** Takes the object that was meant from its sandbox, whatever version it has by now. */
  async function emptyExactly(meant: IPAllocation): Promise<Next> {
    let seen = meant;
    for (;;) {
      if ((await store.empty(seen, signal)) !== 'changed') return DONE;
      const found = await store.get(meant.metadata.name, signal);
      if (found === undefined || !isSame(found, meant)) return DONE;
      seen = found;
    }
  }

  /** Marks the object that was meant, whatever version it has by now. */
  async function mark(meant: IPAllocation): Promise<Next> {
    let seen = meant;
    while (!isResting(seen)) {
      const outcome = await store.markReleased(seen, clock.wallTime(), signal);
      if (outcome === 'gone') return DONE;
      if (outcome === 'done') {
        observer?.marked();
        return { kind: 'rest', allocation: meant };
      }
      const found = await store.get(meant.metadata.name, signal);
      if (found === undefined || !isSame(found, meant)) return DONE;
      seen = found;
    }
    return { kind: 'rest', allocation: seen };
  }

  /** Deletes the object that was meant, whatever version it has by now. */
  async function deleteExactly(meant: IPAllocation): Promise<Next> {
    let seen = meant;
    for (;;) {
      const outcome = await store.delete(seen, signal);
      if (outcome === 'done') observer?.deleted();
      if (outcome !== 'changed') return DONE;
      const found = await store.get(meant.metadata.name, signal);
      if (found === undefined || !isSame(found, meant)) return DONE;
      seen = found;
    }
  }

  /** Waits out the delay, from now on, and deletes what rested if it still does. */
  function rest(allocation: IPAllocation, delayMs: number): void {
    const { name, uid } = allocation.metadata;
    const { address } = allocation.spec;
    // Once as soon as nobody has it, for those who still talk to it; and once more when somebody may get it.
    void parts.endConnections?.(address, 'soon');
    resting.set(uid, { pool: allocation.spec.pool, address, untilMs: clock.nowMs() + delayMs });
    void clock.sleep(delayMs, signal).then(
      () => {
        const ended = parts.endConnections?.(address, 'now') ?? Promise.resolve();
        const work = ended
          .then(() => untilDefinite(name, () => deleteRested(allocation)))
          .then(() => {
            resting.delete(uid);
            deleting.delete(work);
          });
        deleting.add(work);
      },
      () => undefined, // stopped: the next process finds it resting
    );
  }

  async function deleteRested(meant: IPAllocation): Promise<Next> {
    const found = await store.get(meant.metadata.name, signal);
    // Somebody took the mark back: then it is in use, and the sweep's to judge.
    if (found === undefined || !isSame(found, meant) || !isResting(found)) return DONE;
    return deleteExactly(found);
  }

  async function undoOnce(name: string, attachment: Attachment, sinceMs: number): Promise<Next> {
    for (;;) {
      const found = await store.get(name, signal);
      if (found !== undefined && isOf(found, attachment)) return letGo(found, { reuseDelayMs: 0 });
      // One that is kept for a pod may be bound yet, by an update that is still on its way.
      if (found !== undefined && found.spec.holder !== STICKY_HOLDER) return DONE;
      const leftMs = sinceMs + UNKNOWN_SETTLES_MS - clock.nowMs();
      if (leftMs <= 0) return DONE;
      await clock.sleep(leftMs, signal);
    }
  }

  /** Repeats a step until it answers; undefined once the queue is stopped. */
  async function untilDefinite(name: string, step: () => Promise<Next>): Promise<Next | undefined> {
    const backOff = jitteredBackOff(random, { firstMs: 100, maxMs: 30_000 });
    for (;;) {
      try {
        signal.throwIfAborted();
        return await step();
      } catch (error) {
        if (signal.aborted) return undefined;
        onRetry?.(name, error);
        await clock.sleep(backOff.next(), signal).catch(() => undefined);
      }
    }
  }
}

/** Whether the allocation was released and only waits for its reuse delay: it locks its name, and is not alive. */
export function isResting(allocation: Pick<IPAllocation, 'status'>): boolean {
  return allocation.status?.releasedAt !== undefined;
}

/** Whether the allocation is the pod's own, so that its successor waits for the end of its release. */
export function isKept({ spec }: Pick<IPAllocation, 'spec'>): boolean {
  return spec.fixed === true || spec.sticky !== undefined;
}

/** Whether the allocation is that attachment's. */
export function isOf(allocation: IPAllocation, attachment: Attachment): boolean {
  const { attachment: its } = allocation.spec;
  return (
    its !== undefined && attachmentID(its) === attachmentID(attachment) && its.network === attachment.network
  );
}

/** Whether both are one object in the hands of one owner: the same uid, and the same attachment or holder. */
function isSame(found: IPAllocation, meant: IPAllocation): boolean {
  if (found.metadata.uid !== meant.metadata.uid) return false;
  const { attachment } = meant.spec;
  return attachment === undefined ? found.spec.holder === meant.spec.holder : isOf(found, attachment);
}
