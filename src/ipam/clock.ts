/** Time as address management needs it: a parameter, so that tests decide what time it is. */
export interface Clock {
  /** Monotonic time in milliseconds since some moment of no meaning: for measuring. */
  nowMs(): number;
  /** The time of day: only for what is written into objects, never for measuring. */
  wallTime(): Date;
  /** Resolves after `ms` milliseconds; rejects with the signal's reason as soon as that aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** A number in [0, 1), as Math.random gives it. */
export type Random = () => number;

/** How long to wait before each next try, in milliseconds. */
export interface BackOff {
  next(): number;
}

/**
 * Waits that double from `firstMs` to `maxMs`, each drawn from its upper half: many clients that failed together
 * must not come back together.
 */
export function jitteredBackOff(random: Random, { firstMs = 50, maxMs = 5_000 } = {}): BackOff {
  let ceilingMs = firstMs;
  return {
    next() {
      const waitMs = ceilingMs / 2 + (random() * ceilingMs) / 2;
      ceilingMs = Math.min(ceilingMs * 2, maxMs);
      return waitMs;
    },
  };
}
