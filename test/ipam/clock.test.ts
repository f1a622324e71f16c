import fc from 'fast-check';
import { expect, test } from 'vitest';
import { jitteredBackOff } from '../../src/ipam/index.ts';

test('waits double up to the most, each in the upper half of its step', () => {
  fc.assert(
    fc.property(
      fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
      (numbers) => {
        const backOff = jitteredBackOff(() => numbers.next().value as number, { firstMs: 100, maxMs: 800 });
        for (const stepMs of [100, 200, 400, 800, 800, 800]) {
          const waitMs = backOff.next();
          expect(waitMs).toBeGreaterThanOrEqual(stepMs / 2);
          expect(waitMs).toBeLessThanOrEqual(stepMs);
        }
      },
    ),
  );
});
