import type { Clock } from '../ipam/index.ts';

/** What of a node's data path is to be compared. Filters cost processes, so they have a time of their own. */
export type Scope = 'links' | 'filters' | 'all';

/** When the next comparison is due: requests that come together are answered together, and not too often. */
export interface Schedule {
  /** At the latest so many milliseconds from now, unless the last comparison is too near. */
  request(scope: Scope, withinMs: number): void;
  /** Not to be put off: someone waits. */
  requestNow(): void;
  /**
   * Waits until something is due, or `probe`, asked every second, says that it is. Undefined: `signal` has ended it.
   */
  next(signal: AbortSignal, probe: () => boolean): Promise<{ readonly filters: boolean } | undefined>;
}

/** The least time between two comparisons of what costs little, and of what starts processes. */
const GAP_MS: Readonly<Record<'links' | 'filters', number>> = { links: 200, filters: 1000 };
const PROBE_MS = 1000;

export function createSchedule(clock: Clock): Schedule {
  const dueMs = { links: Infinity, filters: Infinity };
  const lastMs = { links: -Infinity, filters: -Infinity };
  let wakeUp = () => undefined as void;

  const bring = (scope: 'links' | 'filters', atMs: number) => {
    dueMs[scope] = Math.min(dueMs[scope], Math.max(atMs, lastMs[scope] + GAP_MS[scope]));
  };
  const take = (nowMs: number) => {
    const filters = dueMs.filters <= nowMs;
    dueMs.links = Infinity;
    lastMs.links = nowMs;
    if (filters) {
      dueMs.filters = Infinity;
      lastMs.filters = nowMs;
    }
    return { filters };
  };

  return {
    request(scope, withinMs) {
      const atMs = clock.nowMs() + withinMs;
      if (scope !== 'filters') bring('links', atMs);
      if (scope !== 'links') bring('filters', atMs);
      wakeUp();
    },
    requestNow() {
      dueMs.links = clock.nowMs();
      wakeUp();
    },
    async next(signal, probe) {
      while (!signal.aborted) {
        const nowMs = clock.nowMs();
        const firstMs = Math.min(dueMs.links, dueMs.filters);
        if (firstMs <= nowMs || probe()) return take(nowMs);
        const woken = new Promise<void>((resolve) => (wakeUp = resolve));
        await waitAtMost(clock, Math.min(firstMs - nowMs, PROBE_MS), woken, signal);
      }
      return undefined;
    },
  };
}

async function waitAtMost(
  clock: Clock,
  ms: number,
  woken: Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const timer = new AbortController();
  // A sleep that is cut short rejects, which here is as good as its end.
  const asleep = clock.sleep(ms, AbortSignal.any([timer.signal, signal])).catch(() => undefined);
  await Promise.race([asleep, woken]);
  timer.abort();
}
