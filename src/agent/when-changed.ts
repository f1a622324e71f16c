import type { Clock } from '../ipam/index.ts';
import type { AgentParts } from './parts.ts';

/** Changes come in bursts: what they ask for is done once for those of this long. */
const GATHER_MS = 200;

/**
 * Does the work at once, soon after each change, and every `everyMs`, one run at a time, until the signal aborts.
 * A run that fails is reported and comes again.
 */
export async function whenChanged(
  onChange: (listener: () => void) => void,
  work: () => Promise<void>,
  {
    everyMs,
    clock,
    log,
    signal,
  }: {
    readonly everyMs: number;
    readonly clock: Clock;
    readonly log: AgentParts['log'];
    readonly signal: AbortSignal;
  },
): Promise<void> {
  let change = new AbortController();
  onChange(() => change.abort());
  while (!signal.aborted) {
    change = new AbortController();
    try {
      await work();
    } catch (error) {
      if (signal.aborted) return;
      log.error({ err: error }, 'failed: trying again');
    }
    await clock.sleep(everyMs, AbortSignal.any([signal, change.signal])).catch(() => undefined);
    await clock.sleep(GATHER_MS, signal).catch(() => undefined);
  }
}
