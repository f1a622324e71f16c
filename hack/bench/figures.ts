/** One line of the benchmark's table: what was measured of whom. */
export type Figure = {
  /** The part of the benchmark it comes from. */
  readonly part: string;
  /** What was measured: "ADD, one at a time". */
  readonly what: string;
  /** Of whom: "weft", "ptp + host-local". */
  readonly who: string;
  /** How many single measurements are behind it. */
  readonly count: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly perSecond?: number;
  readonly bytesPerSecond?: number;
  /** 10^6 bytes. */
  readonly megabytes?: number;
  /** The value that `ratioOf` names, divided by that of whom it is compared with. */
  readonly ratio?: number;
  readonly ratioOf?: 'p50' | 'rate';
  readonly target?: Target;
};

/** What the project set out to reach. */
export type Target = {
  readonly value: 'p50Ms' | 'ratio' | 'megabytes';
  readonly bound: 'at most' | 'at least';
  readonly limit: number;
};

export type Verdict = 'reached' | 'short';

/** Undefined where there is no target. Judged by the value as measured, not by its rounded print. */
export function verdictOf(figure: Figure): Verdict | undefined {
  const { target } = figure;
  if (target === undefined) return undefined;
  const measured = figure[target.value];
  if (measured === undefined) throw new TargetWithoutValueError(figure, target);
  const isReached = target.bound === 'at most' ? measured <= target.limit : measured >= target.limit;
  return isReached ? 'reached' : 'short';
}

/** A target is set for a value that the figure does not have. */
export class TargetWithoutValueError extends Error {
  override name = 'TargetWithoutValueError' as const;
  constructor({ part, what, who }: Figure, target: Target) {
    super(`${part}, ${what}, ${who}: the target is set for ${target.value}, which was not measured`);
  }
}
