import type { Clock } from '../ipam/index.ts';
import type { IPAddress } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

export interface EndedConnectionsParts {
  /** Ends what the kernel still tracks of these addresses, and says how many connections that were. */
  readonly end: (addresses: readonly IPAddress[]) => Promise<number>;
  readonly clock: Clock;
  /** How a pass ended: with so many connections, or not. */
  readonly onPass: (ended: number | 'failed') => void;
  readonly log: Pick<AgentParts['log'], 'error'>;
}

/**
 * Ends the connections that the kernel still tracks of addresses without a sandbox, so that the next one does not get
 * what an old translation leads to it (design, section 7). `soon`: with all others that come within a while; `now`: in
 * the next pass there is. Resolves when that is over; a pass that failed is told, and keeps nobody from anything.
 */
export type EndConnections = (address: IPAddress, when: 'soon' | 'now') => Promise<void>;

/** Addresses come free in flocks, and each pass walks through the whole table. */
const SOON_MS = 1_000;
/** A table may be long: after each pass this rests for so many times as long as it took. */
const REST_PER_DURATION = 4;
const LONGEST_REST_MS = 2_000;

export function createEndConnections({ end, clock, onPass, log }: EndedConnectionsParts): EndConnections {
  let next: Batch | undefined;
  let last: Promise<void> = Promise.resolve();
  let notBeforeMs = -Infinity;
  let lastFailure = '';

  return (address, when) => {
    next ??= begin();
    next.addresses.push(address);
    if (when === 'now') next.hurry();
    return next.done;
  };

  function begin(): Batch {
    const addresses: IPAddress[] = [];
    const { promise: hurried, resolve: hurry } = Promise.withResolvers<void>();
    const before = last;
    const work = async () => {
      const waited = new AbortController();
      await Promise.race([clock.sleep(SOON_MS, waited.signal).catch(() => undefined), hurried]);
      waited.abort();
      await before;
      const restMs = notBeforeMs - clock.nowMs();
      if (restMs > 0) await clock.sleep(restMs);
      // Who comes from now on is in time for the next pass only.
      next = undefined;
      await pass(addresses);
    };
    last = work();
    return { addresses, hurry, done: last };
  }

  async function pass(addresses: readonly IPAddress[]): Promise<void> {
    const startMs = clock.nowMs();
    try {
      onPass(await end(addresses));
      lastFailure = '';
    } catch (error) {
      onPass('failed');
      const message = error instanceof Error ? error.message : String(error);
      if (message !== lastFailure) {
        log.error(
          { err: error },
          'connections of released addresses could not be ended: new pods may get old ones',
        );
      }
      lastFailure = message;
    }
    const nowMs = clock.nowMs();
    notBeforeMs = nowMs + Math.min((nowMs - startMs) * REST_PER_DURATION, LONGEST_REST_MS);
  }
}

/** The addresses of one pass. */
interface Batch {
  readonly addresses: IPAddress[];
  /** The pass need not wait for more of them. */
  readonly hurry: () => void;
  readonly done: Promise<void>;
}
