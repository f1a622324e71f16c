import type { Clock } from '../../src/ipam/index.ts';

/** A clock that stands still but for what the test does with it. */
export interface FakeClock extends Clock {
  /** Sets the time of day, as a person or NTP does: by so much forward, or back. No time passes by that. */
  stepTimeOfDay(ms: number): void;
  /** Lets that much time pass: whoever sleeps until then wakes, in order. */
  advance(ms: number): Promise<void>;
  /** Lets time pass from one sleeper to the next until the promise is settled, and answers what it answers. */
  until<T>(work: Promise<T>): Promise<T>;
}

export function createFakeClock(): FakeClock {
  let nowMs = 1_000;
  let steppedMs = 0;
  let sleepers: { readonly untilMs: number; readonly wake: () => void }[] = [];

  const wakeFirst = (atMostMs: number): boolean => {
    const first = sleepers.reduce<(typeof sleepers)[number] | undefined>(
      (best, one) => (best === undefined || one.untilMs < best.untilMs ? one : best),
      undefined,
    );
    if (first === undefined || first.untilMs > atMostMs) return false;
    nowMs = Math.max(nowMs, first.untilMs);
    sleepers = sleepers.filter((one) => one !== first);
    first.wake();
    return true;
  };

  return {
    nowMs: () => nowMs,
    wallTime: () => new Date(Date.UTC(2026, 0, 1) + steppedMs + nowMs),
    stepTimeOfDay(ms) {
      steppedMs += ms;
    },
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        const sleeper = { untilMs: nowMs + ms, wake: resolve };
        const onAbort = () => {
          sleepers = sleepers.filter((one) => one !== sleeper);
          reject(signal?.reason as Error);
        };
        if (signal?.aborted === true) {
          onAbort();
          return;
        }
        signal?.addEventListener('abort', onAbort, { once: true });
        sleepers.push(sleeper);
      });
    },
    async advance(ms) {
      const endMs = nowMs + ms;
      await allElse();
      while (wakeFirst(endMs)) await allElse();
      nowMs = endMs;
    },
    async until(work) {
      let isSettled = false;
      const settle = () => {
        isSettled = true;
      };
      work.then(settle, settle);
      await allElse();
      while (!isSettled) {
        if (!wakeFirst(Infinity)) throw new Error('nobody sleeps, and the work does not end');
        await allElse();
      }
      return work;
    },
  };
}

/** Lets everything run that does not wait for time. */
export async function allElse(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}
