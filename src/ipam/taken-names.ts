import type { NamesInUse } from './candidates.ts';
import type { Clock } from './clock.ts';

/**
 * Names that a create found taken although the cache did not show them: another node's, a holder's, or one that
 * the watch has not delivered yet. Remembered so that not every claim runs into them again.
 */
export interface TakenNames {
  remember(name: string): void;
  has(name: string): boolean;
  /** Forgets those that the cache shows by now: from then on it is the cache that says when they go. */
  forgetShown(inUse: NamesInUse): void;
}

/**
 * For how long, at the most: the cache of a node never shows another node's objects, so without an end such an
 * address would be lost to the ring for ever. After it one create finds out.
 */
export const TAKEN_MEMORY_MS = 60_000;

export function createTakenNames(
  clock: Pick<Clock, 'nowMs'>,
  /** Told of each. */
  onTaken: (name: string) => void = () => undefined,
): TakenNames {
  const untilMs = new Map<string, number>();
  return {
    remember(name) {
      untilMs.set(name, clock.nowMs() + TAKEN_MEMORY_MS);
      onTaken(name);
    },
    has(name) {
      const until = untilMs.get(name);
      if (until === undefined) return false;
      if (clock.nowMs() < until) return true;
      untilMs.delete(name);
      return false;
    },
    forgetShown(inUse) {
      for (const name of untilMs.keys()) if (inUse.has(name)) untilMs.delete(name);
    },
  };
}
