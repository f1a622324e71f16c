import { describe, expect, test } from 'vitest';
import { createSystemClock } from '../src/system-clock.ts';

describe('sleep', () => {
  test('takes its time', async () => {
    const clock = createSystemClock();
    const startedMs = clock.nowMs();
    await clock.sleep(20, new AbortController().signal);
    expect(clock.nowMs() - startedMs).toBeGreaterThanOrEqual(19);
  });

  test.each([{ when: 'before' }, { when: 'during' }])(
    'is cut short by an abort $when, with its reason',
    async ({ when }) => {
      const controller = new AbortController();
      const reason = new Error('enough');
      if (when === 'before') controller.abort(reason);
      const sleep = createSystemClock().sleep(60_000, controller.signal);
      controller.abort(reason);
      await expect(sleep).rejects.toBe(reason);
    },
  );

  test('leaves no timer behind when it is cut short', async () => {
    const controller = new AbortController();
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    const sleep = createSystemClock().sleep(60_000, controller.signal);
    expect(timers()).toBe(before + 1);
    controller.abort(new Error('enough'));
    await expect(sleep).rejects.toThrow('enough');
    expect(timers()).toBe(before);
  });
});
