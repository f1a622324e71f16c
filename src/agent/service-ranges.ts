import type { Clock, Random } from '../ipam/index.ts';
import { jitteredBackOff } from '../ipam/index.ts';
import type { Informer } from '../kube/index.ts';
import type { CIDR } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

export interface ServiceRangesParts {
  /** Begins to watch; undefined where the apiserver does not tell (kube's watchServiceCIDRs). */
  readonly watch: (signal: AbortSignal) => Promise<Informer<readonly CIDR[]> | undefined>;
  /** Ranges that the command line gives, for apiservers that do not tell them. */
  readonly given: readonly CIDR[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: AgentParts['log'];
}

/** The ranges from which Services get their addresses, as far as they are known. */
export interface ServiceRanges {
  /** Those given and those that the apiserver tells. */
  list(): readonly CIDR[];
  /** Resolves when the apiserver has told them or does not tell them, at the latest after some seconds. */
  readonly settled: Promise<void>;
  stop(): Promise<void>;
}

/** For so long a start waits for them: they keep mistaken pools out, and nobody may wait for ever for that. */
const WAIT_MS = 3_000;

/**
 * Learns the Services' ranges in the background. A failure is tried again for ever and keeps nobody waiting: an
 * agent under older rights than it needs serves its node all the same.
 */
export function watchServiceRanges({ watch, given, clock, random, log }: ServiceRangesParts): ServiceRanges {
  const stopped = new AbortController();
  const { signal } = stopped;
  let informer: Informer<readonly CIDR[]> | undefined;
  const known = learn();
  return {
    list: () => [...given, ...(informer?.list().flat() ?? [])],
    settled: Promise.race([known, clock.sleep(WAIT_MS, signal).catch(() => undefined)]),
    async stop() {
      stopped.abort(new Error('the agent stops'));
      await known;
      await informer?.stop();
    },
  };

  async function learn(): Promise<void> {
    const backOff = jitteredBackOff(random, { firstMs: 500, maxMs: 60_000 });
    for (;;) {
      try {
        informer = await watch(signal);
        await informer?.waitFor(() => informer?.isSynced === true, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ err: error }, 'the ranges of Services are not known yet: trying again');
        await clock.sleep(backOff.next(), signal).catch(() => undefined);
      }
    }
  }
}
