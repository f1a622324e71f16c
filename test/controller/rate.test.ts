import { expect, it } from 'vitest';
import { createRateLimit } from '../../src/controller/rate.ts';
import { createFakeClock } from './fake-clock.ts';

it('lets 50 a second through, evenly, and saves nothing up', async () => {
  const clock = createFakeClock();
  const mayDelete = createRateLimit(50, clock);
  const startMs = clock.nowMs();
  const at: number[] = [];
  const signal = new AbortController().signal;
  await clock.advance(60_000);
  for (let count = 0; count < 100; count++) void mayDelete(signal).then(() => at.push(clock.nowMs()));
  await clock.advance(10_000);
  expect(at).toHaveLength(100);
  expect((at.at(-1) ?? 0) - startMs - 60_000).toBe(1_980);
});
