import { jitteredBackOff, type BackOff, type Clock, type Random } from '../ipam/index.ts';

/** What reconciling a key came to. A failure is thrown and tried again with back-off. */
export type ReconcileResult =
  { readonly kind: 'done' } | { readonly kind: 'requeueAfter'; readonly ms: number };

export const DONE: ReconcileResult = { kind: 'done' };

/** Brings what the key names to its desired state, from what is true now: an event only wakes, deletion is absence. */
export type Reconcile = (key: string, signal: AbortSignal) => Promise<ReconcileResult>;

/** Trying again cannot help before the object itself changes. */
export class TerminalError extends Error {
  override name = 'TerminalError' as const;
}

/** Keys to reconcile, each at most once in the queue. */
export interface WorkQueue {
  add(key: string): void;
  /** Adds the key after `ms`, unless it comes sooner anyway: many calls make one run. */
  addAfter(key: string, ms: number): void;
  /** Reconciles one key after the other until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

/** Is told what the queue does. */
export interface QueueObserver {
  /** So many keys wait for their turn now. */
  waiting(keys: number): void;
  added(): void;
  /** A key has been reconciled, or has failed and is tried again. */
  reconciled(outcome: 'done' | 'retried' | 'given up', ms: number): void;
}

export interface QueueParts {
  readonly reconcile: Reconcile;
  readonly clock: Clock;
  readonly random: Random;
  readonly onFailure: (key: string, error: unknown) => void;
  readonly observer?: QueueObserver;
}

/** A failed key comes back after 1 s, then 2, at most 60: the apiserver is in trouble or the object is. */
const RETRY = { firstMs: 1_000, maxMs: 60_000 };

export function createWorkQueue({ reconcile, clock, random, onFailure, observer }: QueueParts): WorkQueue {
  const ready = new Set<string>();
  const alarms = new Map<string, { readonly atMs: number; readonly cancel: AbortController }>();
  const failing = new Map<string, BackOff>();
  let wake = Promise.withResolvers<undefined>();

  const add = (key: string) => {
    cancelAlarm(key);
    if (!ready.has(key)) observer?.added();
    ready.add(key);
    observer?.waiting(ready.size);
    wake.resolve(undefined);
  };
  const cancelAlarm = (key: string) => {
    alarms.get(key)?.cancel.abort();
    alarms.delete(key);
  };
  const addAfter = (key: string, ms: number) => {
    const atMs = clock.nowMs() + ms;
    const earlier = alarms.get(key);
    if (ready.has(key) || (earlier !== undefined && earlier.atMs <= atMs)) return;
    cancelAlarm(key);
    const cancel = new AbortController();
    alarms.set(key, { atMs, cancel });
    clock.sleep(ms, cancel.signal).then(
      () => {
        add(key);
      },
      () => undefined, // cancelled
    );
  };
  const reconcileOne = async (key: string, signal: AbortSignal) => {
    const startedMs = clock.nowMs();
    const ended = (outcome: Parameters<QueueObserver['reconciled']>[0]) =>
      observer?.reconciled(outcome, clock.nowMs() - startedMs);
    try {
      const result = await reconcile(key, signal);
      ended('done');
      failing.delete(key);
      if (result.kind === 'requeueAfter') addAfter(key, result.ms);
    } catch (error) {
      if (signal.aborted) return;
      onFailure(key, error);
      if (error instanceof TerminalError) {
        ended('given up');
        failing.delete(key);
        return;
      }
      ended('retried');
      const backOff = failing.get(key) ?? jitteredBackOff(random, RETRY);
      failing.set(key, backOff);
      addAfter(key, backOff.next());
    }
  };

  return {
    add,
    addAfter,
    async run(signal) {
      const stopped = new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener('abort', () => {
          resolve();
        });
      });
      while (!signal.aborted) {
        const [key] = ready;
        if (key === undefined) {
          wake = Promise.withResolvers();
          await Promise.race([wake.promise, stopped]);
          continue;
        }
        ready.delete(key);
        observer?.waiting(ready.size);
        await reconcileOne(key, signal);
      }
      for (const key of [...alarms.keys()]) cancelAlarm(key);
      observer?.waiting(0);
    },
  };
}
