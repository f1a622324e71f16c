import { describe, expect, it } from 'vitest';
import { createSchedule, type Part, type Schedule } from '../../src/agent/schedule.ts';
import type { Clock } from '../../src/ipam/index.ts';

/** A clock whose sleeps end at once and move the time on, or last for ever. */
function steppingClock(): Clock & { at: number; slept: number[] } {
  const clock = {
    at: 0,
    slept: [] as number[],
    nowMs: () => clock.at,
    wallTime: () => new Date(0),
    sleep: async (ms: number) => {
      clock.slept.push(ms);
      clock.at += ms;
    },
  };
  return clock;
}

const never = () => false;
const { signal } = new AbortController();

async function dueParts(schedule: Schedule, probe = never): Promise<ReadonlySet<Part> | undefined> {
  return (await schedule.next(signal, probe))?.parts;
}

describe('a schedule', () => {
  it('answers requests that come together once', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('links', 50);
    schedule.request('links', 80);
    expect(await dueParts(schedule)).toEqual(new Set(['links']));
    expect(clock.at).toBe(50);
    schedule.request('all', 10_000);
    await schedule.next(signal, never);
    expect(clock.at).toBe(10_050);
  });

  it('keeps a gap between two comparisons, a longer one where they start processes', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('all', 0);
    expect(await dueParts(schedule)).toEqual(new Set(['objects', 'links', 'filters']));
    schedule.request('all', 0);
    expect(await dueParts(schedule)).toEqual(new Set(['objects']));
    expect(clock.at).toBe(20);
    expect(await dueParts(schedule)).toEqual(new Set(['links']));
    expect(clock.at).toBe(200);
    expect(await dueParts(schedule)).toEqual(new Set(['filters']));
    expect(clock.at).toBe(1000);
  });

  it('does what objects ask for, and leaves the time at which all is compared as it was', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('all', 30_000);
    schedule.request('objects', 5);
    expect(await dueParts(schedule)).toEqual(new Set(['objects']));
    schedule.finished('objects followed');
    schedule.request('all', 30_000);
    expect(await dueParts(schedule)).toEqual(new Set(['links', 'filters']));
    expect(clock.at).toBe(30_000);
  });

  it.each([
    [10, 200],
    [100, 200],
    [900, 1900],
  ])('after a comparison of %i ms begins the next at %i ms', async (tookMs, nextMs) => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('links', 0);
    await schedule.next(signal, never);
    clock.at += tookMs;
    schedule.request('links', 0);
    schedule.finished('all compared');
    await schedule.next(signal, never);
    expect(clock.at).toBe(nextMs);
  });

  it.each([50, 100, 200])(
    'a storm of events takes a fifth of the time, where a comparison takes %i ms, and a few on end are none',
    async (tookMs) => {
      const clock = steppingClock();
      const schedule = createSchedule(clock);
      const startsMs: number[] = [];
      for (let i = 0; i < 100; i++) {
        schedule.request('links', 0);
        await schedule.next(signal, never);
        startsMs.push(clock.at);
        clock.at += tookMs;
        schedule.finished('all compared');
      }
      // At the least apart that the kernel's links are, at first.
      expect(startsMs[2]).toBe(400);
      const [before = 0, after = 0] = [startsMs[50], startsMs[99]];
      expect((49 * tookMs) / (after - before)).toBeCloseTo(0.2, 2);
      // Rested, it may do so again.
      clock.at += 5_000;
      schedule.request('links', 0);
      await schedule.next(signal, never);
      const restedMs = clock.at;
      clock.at += tookMs;
      schedule.finished('all compared');
      schedule.request('links', 0);
      await schedule.next(signal, never);
      expect(clock.at).toBe(restedMs + 200);
    },
  );

  it('lets objects that can be followed wait neither for filters nor for a comparison that was', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('all', 0);
    await schedule.next(signal, never);
    clock.at += 900;
    schedule.finished('all compared');
    schedule.request('objects', 5);
    schedule.request('filters', 100);
    expect(await schedule.next(signal, never)).toEqual({ parts: new Set(['objects']), mayCompare: false });
    expect(clock.at).toBe(905);
    // What they ask for beyond that is put off.
    schedule.request('links', 0);
    expect(await schedule.next(signal, never)).toEqual({ parts: new Set(['filters']), mayCompare: false });
    expect(clock.at).toBe(1000);
    expect(await schedule.next(signal, never)).toEqual({ parts: new Set(['links']), mayCompare: true });
    expect(clock.at).toBe(1900);
  });

  it('rests after it has followed many, too', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('objects', 0);
    await schedule.next(signal, never);
    clock.at += 30;
    schedule.request('objects', 0);
    schedule.finished('objects followed');
    expect(await schedule.next(signal, never)).toEqual({ parts: new Set(['objects']), mayCompare: true });
    expect(clock.at).toBe(150);
  });

  it('does not let someone who waits wait for the gap', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('all', 0);
    await schedule.next(signal, never);
    clock.at += 500;
    schedule.requestNow();
    schedule.finished('all compared');
    expect(await schedule.next(signal, never)).toEqual({ parts: new Set(['objects']), mayCompare: true });
    expect(clock.at).toBe(500);
  });

  it('asks the probe every second, and believes it', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    schedule.request('all', 30_000);
    let asked = 0;
    expect(await dueParts(schedule, () => ++asked === 4)).toEqual(new Set(['links']));
    expect(clock.slept).toEqual([1000, 1000, 1000]);
  });

  it('asks the probe also while one request follows the other', async () => {
    const clock = steppingClock();
    const schedule = createSchedule(clock);
    const taken = [];
    for (let i = 0; i < 60; i++) {
      schedule.request('objects', 0);
      taken.push(await dueParts(schedule, () => clock.at >= 1000));
    }
    expect(taken.filter((parts) => parts?.has('links'))).toHaveLength(1);
    expect(clock.at).toBeLessThan(1500);
  });

  it('wakes up for a request that comes while it waits', async () => {
    const sleeping: Clock = {
      nowMs: () => performance.now(),
      wallTime: () => new Date(0),
      sleep: () => new Promise(() => undefined),
    };
    const schedule = createSchedule(sleeping);
    const next = dueParts(schedule);
    schedule.requestNow();
    expect(await next).toEqual(new Set(['objects']));
  });

  it('ends with its signal', async () => {
    const ended = AbortSignal.abort();
    expect(await createSchedule(steppingClock()).next(ended, never)).toBeUndefined();
  });
});
