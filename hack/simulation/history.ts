import type { IPAllocationSpec } from '../../src/api/index.ts';
import { formatAddress, type IPAddress } from '../../src/net/index.ts';

/**
 * The history of all addresses of a cluster, judged as it happens: no address is on two living attachments at any
 * time, none comes back before its pool's delay has passed since its last attachment went, nobody has one of a pool that is
 * not for him, and none is given of what the pool gives no more. What it is told comes from the machines themselves, never
 * from what the book says.
 */
export interface History {
  /** An interface of that node has got an address, claimed as that. */
  wired(claim: Claimed, attachment: string, nodeName: string): void;
  /** The interface has gone, for whatever reason. */
  gone(address: string, attachment: string): void;
  /** Something else has become of it that its story is to say. */
  tell(address: IPAddress, what: string): void;
  /** Something else that must not have happened. */
  violated(what: string): void;
  /** The addresses of that pool that attachments have. */
  living(pool: string): IPAddress[];
  /** What must not have happened, in words. */
  readonly violations: readonly string[];
  /** How many times an address was wired. */
  readonly wirings: number;
}

/** What an address was claimed as. */
export type Claimed = Pick<IPAllocationSpec, 'address' | 'pool' | 'pod' | 'fixed' | 'sticky'>;

export interface HistoryParts {
  /** Monotonic. */
  readonly nowMs: () => number;
  /** The shortest of all pools. */
  readonly reuseDelayMs: number;
  /** Whether pods of the namespace may ever have an address of the pool; undefined: who has no pod. */
  readonly mayEverDraw: (namespace: string | undefined, pool: string) => boolean;
  /** Why the address must not be given to a pod of that node now; undefined if it may. Default: each may. */
  readonly whyNotGiven?: (claim: Claimed, nodeName: string) => string | undefined;
}

interface Living {
  readonly attachment: string;
  readonly address: IPAddress;
  readonly pool: string;
  readonly rests: boolean;
}

export function createHistory(parts: HistoryParts): History {
  const { nowMs, reuseDelayMs, mayEverDraw, whyNotGiven = () => undefined } = parts;
  const living = new Map<string, Living>();
  const goneAtMs = new Map<string, number>();
  const violations: string[] = [];
  /** By address: what has become of it, the last of it. For people who look for the cause of a violation. */
  const stories = new Map<string, string[]>();
  const startedMs = nowMs();
  let wirings = 0;

  const tell = (address: string, what: string) => {
    const story = stories.get(address) ?? [];
    story.push(`at ${Math.round(nowMs() - startedMs)} ms ${what}`);
    stories.set(address, story.slice(-8));
  };
  const violated = (what: string, address: string) => {
    violations.push(`${what} (${stories.get(address)?.join('; ') ?? ''})`);
  };

  return {
    violations,
    get wirings() {
      return wirings;
    },
    tell: (address, what) => tell(formatAddress(address), what),
    violated: (what) => void violations.push(what),
    living: (pool) => [...living.values()].filter((one) => one.pool === pool).map(({ address }) => address),
    wired(claim, attachment, nodeName) {
      const { address: its, pool, pod, fixed, sticky } = claim;
      wirings++;
      const address = formatAddress(its);
      const other = living.get(address)?.attachment;
      tell(address, `wired to ${attachment}, ${describe(claim)}`);
      if (other !== undefined) violated(`${address} is on ${other} and on ${attachment}`, address);
      const restedMs = nowMs() - (goneAtMs.get(address) ?? -Infinity);
      if (restedMs < reuseDelayMs) {
        const rested = Math.round(restedMs);
        violated(`${address} was given to ${attachment} ${rested} ms after its last owner had it`, address);
      }
      if (!mayEverDraw(pod?.namespace, pool)) {
        violations.push(`${attachment} of namespace ${pod?.namespace ?? '-'} has ${address} of ${pool}`);
      }
      const whyNot = whyNotGiven(claim, nodeName);
      if (whyNot !== undefined) violated(`${attachment}: ${whyNot}`, address);
      // What is kept for a pod, or asked for by name, comes free or comes back without a rest.
      const rests = fixed !== true && sticky === undefined;
      living.set(address, { attachment, address: its, pool, rests });
    },
    gone(address, attachment) {
      tell(address, `gone from ${attachment}`);
      const owner = living.get(address);
      if (owner?.attachment !== attachment) return;
      living.delete(address);
      if (owner.rests) goneAtMs.set(address, nowMs());
      else goneAtMs.delete(address);
    },
  };
}

function describe({ pod, fixed, sticky }: Claimed): string {
  const name = pod === undefined ? 'a pod that nobody knows' : `${pod.namespace}/${pod.name}`;
  const marks = [...(fixed === true ? ['fixed'] : []), ...(sticky === undefined ? [] : ['sticky'])];
  return [name, ...marks].join(' ');
}
