/** What many durations come to. Milliseconds; the rate is what one caller, one call after the other, would reach. */
export type Summary = {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly meanMs: number;
  /** 1000 / meanMs. */
  readonly perSecond: number;
};

/** Throws EmptySampleError where nothing was measured: a figure without a measurement is none. */
export function summarize(durationsMs: readonly number[]): Summary {
  const meanMs = sum(durationsMs) / durationsMs.length;
  return {
    count: durationsMs.length,
    p50Ms: percentile(durationsMs, 50),
    p99Ms: percentile(durationsMs, 99),
    meanMs,
    perSecond: 1000 / meanMs,
  };
}

/**
 * The nearest rank: the smallest of the values that at least `percent` (above 0, up to 100) per cent of them do not
 * exceed. Always one that was measured, never one between two.
 * Throws EmptySampleError.
 */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)];
  if (value === undefined) throw new EmptySampleError();
  return value;
}

/** Calls per second over several stretches of time, each with its calls and its length in milliseconds. */
export function rateOf(stretches: readonly { readonly calls: number; readonly ms: number }[]): number {
  if (stretches.length === 0) throw new EmptySampleError();
  return sum(stretches.map(({ calls }) => calls)) / (sum(stretches.map(({ ms }) => ms)) / 1000);
}

/** A figure was asked of no measurements at all. */
export class EmptySampleError extends Error {
  override name = 'EmptySampleError' as const;
  constructor() {
    super('there is no measurement to compute a figure from; a part of the benchmark ran no call');
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
