import type { Clock } from '../ipam/index.ts';

/**
 * What of a node's data path is to be looked at. `objects`: what changed ones ask for, without looking at the kernel.
 * `links`: the kernel's links and routes. `filters`: its filters, which costs processes.
 */
export type Part = 'objects' | 'links' | 'filters';
export type Scope = Part | 'all';

/** What is to be done now. */
export interface Due {
  readonly parts: ReadonlySet<Part>;
  /** Whether the kernel may be looked at, too, where the objects ask for it: else `links` are to be requested. */
  readonly mayCompare: boolean;
}

/** When the next comparison is due: requests that come together are answered together, and not too often. */
export interface Schedule {
  /** At the latest so many milliseconds from now, unless the last comparison is too near. */
  request(scope: Scope, withinMs: number): void;
  /** The objects, not to be put off: someone waits. */
  requestNow(): void;
  /**
   * Waits until something is due, or `probe`, asked every second, says that the links are. Undefined: `signal` has
   * ended it.
   */
  next(signal: AbortSignal, probe: () => boolean): Promise<Due | undefined>;
  /** What `next` gave rise to is over, and was that much: the next of it waits the longer, the longer it took. */
  finished(what: 'objects followed' | 'all compared'): void;
}

const PARTS: readonly Part[] = ['objects', 'links', 'filters'];
/** The least time between the beginnings of two comparisons; longer where they start processes. */
const GAP_MS: Readonly<Record<Part, number>> = { objects: 20, links: 200, filters: 1000 };
/**
 * Comparing takes the longer the more nodes there are: each is to be followed by a rest of so many times as long as it took.
 * Following single objects does not wait for that: others send to their pods by now.
 */
const REST_PER_DURATION = 4;
const LONGEST_REST_MS = 1000;
/** So much rest may be owed: a person's change is a few comparisons on end, and nodes are not to wait between them. */
const OWED_REST_MS = 2000;
const PROBE_MS = 1000;

export function createSchedule(clock: Clock): Schedule {
  const dueMs = { objects: Infinity, links: Infinity, filters: Infinity };
  const notBeforeMs = { objects: -Infinity, links: -Infinity, filters: -Infinity };
  let startedMs = -Infinity;
  let owed = { restMs: 0, atMs: 0 };
  let probedMs = -Infinity;
  let urgent = false;
  let wakeUp = () => undefined as void;

  const atMs = (part: Part) => Math.max(dueMs[part], notBeforeMs[part]);
  const take = (nowMs: number, more: readonly Part[]): Due => {
    const parts = new Set([...PARTS.filter((part) => atMs(part) <= nowMs), ...more]);
    const mayCompare = urgent || parts.has('links') || notBeforeMs.links <= nowMs;
    for (const part of parts) {
      dueMs[part] = Infinity;
      notBeforeMs[part] = nowMs + GAP_MS[part];
    }
    startedMs = nowMs;
    urgent = false;
    return { parts, mayCompare };
  };

  return {
    request(scope, withinMs) {
      const wantedMs = clock.nowMs() + withinMs;
      for (const part of scope === 'all' ? PARTS : [scope]) dueMs[part] = Math.min(dueMs[part], wantedMs);
      wakeUp();
    },
    requestNow() {
      urgent = true;
      wakeUp();
    },
    async next(signal, probe) {
      while (!signal.aborted) {
        const nowMs = clock.nowMs();
        const firstMs = Math.min(...PARTS.map(atMs));
        const more: Part[] = urgent ? ['objects'] : [];
        // Also where one change follows the other.
        if (nowMs - probedMs >= PROBE_MS) {
          probedMs = nowMs;
          if (probe()) more.push('links');
        }
        if (more.length > 0 || firstMs <= nowMs) return take(nowMs, more);
        const woken = new Promise<void>((resolve) => (wakeUp = resolve));
        await waitAtMost(clock, Math.min(firstMs - nowMs, PROBE_MS), woken, signal);
      }
      return undefined;
    },
    finished(what) {
      const nowMs = clock.nowMs();
      const earnedMs = (nowMs - startedMs) * REST_PER_DURATION;
      if (what === 'objects followed') {
        notBeforeMs.objects = Math.max(notBeforeMs.objects, nowMs + Math.min(earnedMs, LONGEST_REST_MS));
        return;
      }
      // What has passed since the last one was rest, but for this one.
      const leftMs = Math.max(0, owed.restMs - (startedMs - owed.atMs));
      owed = { restMs: Math.min(leftMs + earnedMs, OWED_REST_MS + LONGEST_REST_MS), atMs: nowMs };
      notBeforeMs.links = Math.max(notBeforeMs.links, nowMs + owed.restMs - OWED_REST_MS);
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
