import { describe, expect, test } from 'vitest';
import { orAborted, startDeadline } from '../../src/ipam/deadline.ts';
import { createFakeClock } from './fake-clock.ts';

describe('a deadline', () => {
  test('aborts its signal when it is over', async () => {
    const clock = createFakeClock();
    const { signal } = startDeadline(clock, 100);
    await clock.advance(99);
    expect(signal.aborted).toBe(false);
    await clock.advance(1);
    expect(String(signal.reason)).toBe('Error: it took longer than 100 ms');
  });

  test('that was ended does not', async () => {
    const clock = createFakeClock();
    const deadline = startDeadline(clock, 100);
    deadline.end();
    await clock.advance(1_000);
    expect(deadline.signal.aborted).toBe(false);
  });
});

describe('orAborted', () => {
  test('answers what the work answers, or throws what it throws', async () => {
    const { signal } = new AbortController();
    expect(await orAborted(Promise.resolve('fine'), signal)).toBe('fine');
    await expect(orAborted(Promise.reject(new Error('broken')), signal)).rejects.toThrow('broken');
  });

  test.each([{ when: 'before' }, { when: 'during' }])(
    'throws the reason of an abort $when',
    async ({ when }) => {
      const controller = new AbortController();
      if (when === 'before') controller.abort(new Error('enough'));
      const waiting = orAborted(new Promise(() => undefined), controller.signal);
      controller.abort(new Error('enough'));
      await expect(waiting).rejects.toThrow('enough');
    },
  );
});
