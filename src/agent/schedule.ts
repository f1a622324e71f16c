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
  /** The comparison that `next` gave rise to is over. */
  finished(): void;
}

/** The least time between the beginnings of two comparisons; longer where they start processes. */
const GAP_MS: Readonly<Record<'links' | 'filters', number>> = { links: 200, filters: 1000 };
/** Comparing takes the longer the more nodes there are: after each it rests for so many times as long as it took. */
const REST_PER_DURATION = 4;
const LONGEST_REST_MS = 1000;
const PROBE_MS = 1000;

export function createSchedule(clock: Clock): Schedule {
  const dueMs = { links: Infinity, filters: Infinity };
  const notBeforeMs = { links: -Infinity, filters: -Infinity };
  let startedMs = -Infinity;
  let urgent = false;
  let wakeUp = () => undefined as void;

  const take = (nowMs: number) => {
    const filters = Math.max(dueMs.filters, notBeforeMs.filters) <= nowMs;
    for (const scope of filters ? (['links', 'filters'] as const) : (['links'] as const)) {
      dueMs[scope] = Infinity;
      notBeforeMs[scope] = nowMs + GAP_MS[scope];
    }
    startedMs = nowMs;
    urgent = false;
    return { filters };
  };

  return {
    request(scope, withinMs) {
      const atMs = clock.nowMs() + withinMs;
      if (scope !== 'filters') dueMs.links = Math.min(dueMs.links, atMs);
      if (scope !== 'links') dueMs.filters = Math.min(dueMs.filters, atMs);
      wakeUp();
    },
    requestNow() {
      urgent = true;
      wakeUp();
    },
    async next(signal, probe) {
      while (!signal.aborted) {
        const nowMs = clock.nowMs();
        const firstMs = Math.min(
          Math.max(dueMs.links, notBeforeMs.links),
          Math.max(dueMs.filters, notBeforeMs.filters),
        );
        if (urgent || firstMs <= nowMs || probe()) return take(nowMs);
        const woken = new Promise<void>((resolve) => (wakeUp = resolve));
        await waitAtMost(clock, Math.min(firstMs - nowMs, PROBE_MS), woken, signal);
      }
      return undefined;
    },
    finished() {
      const nowMs = clock.nowMs();
      const restMs = Math.min((nowMs - startedMs) * REST_PER_DURATION, LONGEST_REST_MS);
      notBeforeMs.links = Math.max(notBeforeMs.links, nowMs + restMs);
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
