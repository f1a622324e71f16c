/** When a watch first showed a pod bound, and Running; milliseconds of a monotonic clock. */
export type PodSeen = {
  readonly boundMs: number | undefined;
  readonly runningMs: number | undefined;
  readonly address: string | undefined;
};

/** From bound to Running, of every pod. Throws PodNotSeenError rather than leave one out. */
export function startupTimes(pods: ReadonlyMap<string, PodSeen>): number[] {
  return [...pods].map(([name, { boundMs, runningMs }]) => {
    if (boundMs === undefined || runningMs === undefined) throw new PodNotSeenError(name);
    return runningMs - boundMs;
  });
}

/** A pod was never seen bound, or never seen Running. */
export class PodNotSeenError extends Error {
  override name = 'PodNotSeenError' as const;
  constructor(name: string) {
    super(`pod ${name} was not seen both bound and Running; the burst has no whole figure`);
  }
}
