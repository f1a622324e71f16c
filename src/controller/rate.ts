import type { Clock } from '../ipam/index.ts';

/** Lets callers through one after the other, at most `perSecond`; evenly, with no burst after a pause. */
export function createRateLimit(perSecond: number, clock: Clock): (signal: AbortSignal) => Promise<void> {
  let nextMs = 0;
  return async (signal) => {
    const nowMs = clock.nowMs();
    const turnMs = Math.max(nowMs, nextMs);
    nextMs = turnMs + 1_000 / perSecond;
    if (turnMs > nowMs) await clock.sleep(turnMs - nowMs, signal);
  };
}
