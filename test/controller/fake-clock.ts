import type { Clock } from '../../src/ipam/index.ts';

export interface FakeClock extends Clock {
  /** How many sleeps are under way. */
  readonly sleeping: number;
  /** Lets so much time pass, waking sleepers in their order, and lets what they woke run on. */
  advance(ms: number): Promise<void>;
}

export function createFakeClock(startMs = 1_000_000): FakeClock {
  let nowMs = startMs;
  let sleepers: { readonly atMs: number; readonly wake: () => void }[] = [];
  return {
    nowMs: () => nowMs,
    get sleeping() {
      return sleepers.length;
    },
    wallTime: () => new Date(Date.UTC(2026, 0, 1) + nowMs),
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        const sleeper = { atMs: nowMs + ms, wake: resolve };
        if (signal?.aborted === true) {
          reject(signal.reason as Error);
          return;
        }
        sleepers.push(sleeper);
        signal?.addEventListener('abort', () => {
          sleepers = sleepers.filter((other) => other !== sleeper);
          reject(signal.reason as Error);
        });
      });
    },
    async advance(ms) {
      const untilMs = nowMs + ms;
      await settle();
      for (;;) {
        const [next] = sleepers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs);
        if (next === undefined) break;
        sleepers = sleepers.filter((other) => other !== next);
        nowMs = Math.max(nowMs, next.atMs);
        next.wake();
        await settle();
      }
      nowMs = untilMs;
    },
  };
}

/** Until every promise that can go on has gone on. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}
