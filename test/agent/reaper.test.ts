import { expect, test } from 'vitest';
import { createReaper } from '../../src/agent/reaper.ts';

test('one deletion at a time, and one more for all that died meanwhile', async () => {
  let running = 0;
  let count = 0;
  let most = 0;
  const ends: (() => void)[] = [];
  const reaper = createReaper(
    () => {
      count++;
      most = Math.max(most, ++running);
      return new Promise((resolve) =>
        ends.push(() => {
          running--;
          resolve();
        }),
      );
    },
    () => undefined,
  );
  reaper.wake();
  for (let i = 0; i < 5; i++) reaper.wake();
  expect(count).toBe(1);
  ends[0]?.();
  await new Promise(setImmediate);
  expect(count).toBe(2);
  ends[1]?.();
  await reaper.idle();
  expect({ count, most }).toEqual({ count: 2, most: 1 });
});

test('one that fails is told, and the next wake tries again', async () => {
  const failures: unknown[] = [];
  let count = 0;
  const broken = new Error('EBUSY');
  const reaper = createReaper(
    () => {
      count++;
      return count === 1 ? Promise.reject(broken) : Promise.resolve();
    },
    (error) => failures.push(error),
  );
  reaper.wake();
  await reaper.idle();
  expect(failures).toEqual([broken]);
  reaper.wake();
  await reaper.idle();
  expect(count).toBe(2);
  expect(failures).toHaveLength(1);
});

test('is idle when nothing died', async () => {
  await createReaper(
    () => Promise.reject(new Error('nobody asked')),
    () => undefined,
  ).idle();
});
