import type { Clock } from './clock.ts';

/** An end in time that a signal tells of. */
export interface Deadline {
  readonly signal: AbortSignal;
  /** Ends the measuring, so that no timer outlives the work. */
  end(): void;
}

export function startDeadline(clock: Clock, deadlineMs: number): Deadline {
  const over = new AbortController();
  const ended = new AbortController();
  void clock.sleep(deadlineMs, ended.signal).then(
    () => {
      over.abort(new Error(`it took longer than ${deadlineMs} ms`));
    },
    () => undefined, // ended before
  );
  return {
    signal: over.signal,
    end: () => {
      ended.abort(ENDED);
    },
  };
}

/** Made once: an abort without a reason makes an error with a stack each time, which every ADD would pay for. */
const ENDED = new Error('the work ended before its deadline');

/** What `work` answers, unless the signal aborts first: then its reason is thrown, and the work goes on alone. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => {
    aborted.reject(signal.reason as Error);
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([aborted.promise, work]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
