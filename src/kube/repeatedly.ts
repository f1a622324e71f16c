import { jitteredBackOff, type Clock, type Random } from '../ipam/clock.ts';
import type { Log } from './informer.ts';
import { SchemaRevisionError } from './schema-revision.ts';

/**
 * Does something that needs the apiserver, again and again until it succeeds. CRDs that are missing or too old
 * are waited for like an apiserver that is away: everything may be applied at once, in any order.
 * @throws the signal's reason
 */
export async function repeatedly<T>(
  work: () => Promise<T>,
  {
    clock,
    random,
    log,
    signal,
  }: {
    readonly clock: Clock;
    readonly random: Random;
    readonly log: Pick<Log, 'warn' | 'error'>;
    readonly signal: AbortSignal;
  },
): Promise<T> {
  const backOff = jitteredBackOff(random, { firstMs: 200, maxMs: 5_000 });
  for (;;) {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      const level = error instanceof SchemaRevisionError ? 'error' : 'warn';
      log[level]({ err: error }, 'not possible yet: trying again');
      await clock.sleep(backOff.next(), signal);
    }
  }
}
