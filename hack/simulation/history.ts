/**
 * The history of all addresses of a cluster, judged as it happens: no address is on two living attachments at any
 * time, and none comes back before its pool's delay has passed since its last attachment went. What it is told comes
 * from the machines themselves, never from what the book says.
 */
export interface History {
  /** An interface has got the address. */
  wired(address: string, attachment: string): void;
  /** The interface has gone, for whatever reason. */
  gone(address: string, attachment: string): void;
  /** What must not have happened, in words. */
  readonly violations: readonly string[];
  /** How many times an address was wired. */
  readonly wirings: number;
}

/** `reuseDelayMs`: the shortest of all pools. */
export function createHistory({
  nowMs,
  reuseDelayMs,
}: {
  nowMs: () => number;
  reuseDelayMs: number;
}): History {
  const living = new Map<string, string>();
  const goneAtMs = new Map<string, number>();
  const violations: string[] = [];
  let wirings = 0;
  return {
    violations,
    get wirings() {
      return wirings;
    },
    wired(address, attachment) {
      wirings++;
      const other = living.get(address);
      if (other !== undefined) violations.push(`${address} is on ${other} and on ${attachment}`);
      const restedMs = nowMs() - (goneAtMs.get(address) ?? -Infinity);
      if (restedMs < reuseDelayMs) {
        violations.push(
          `${address} was given to ${attachment} ${Math.round(restedMs)} ms after its last owner had it`,
        );
      }
      living.set(address, attachment);
    },
    gone(address, attachment) {
      if (living.get(address) !== attachment) return;
      living.delete(address);
      goneAtMs.set(address, nowMs());
    },
  };
}
