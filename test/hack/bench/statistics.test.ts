import { describe, expect, it } from 'vitest';
import { EmptySampleError, percentile, rateOf, summarize } from '../../../hack/bench/statistics.ts';

describe('percentile', () => {
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index);

  it.each([
    { values: hundred, percent: 50, expected: 50 },
    { values: hundred, percent: 99, expected: 99 },
    { values: hundred, percent: 100, expected: 100 },
    { values: hundred, percent: 0.5, expected: 1 },
    { values: [3, 1, 2], percent: 50, expected: 2 },
    { values: [4, 1, 3, 2], percent: 50, expected: 2 },
    { values: [10, 9], percent: 99, expected: 10 },
    { values: [7], percent: 50, expected: 7 },
  ])('is the nearest rank: $percent of $values.length values', ({ values, percent, expected }) => {
    expect(percentile(values, percent)).toBe(expected);
  });

  it('leaves the values in their order', () => {
    const values = [3, 1, 2];
    percentile(values, 50);
    expect(values).toEqual([3, 1, 2]);
  });

  it('refuses to invent a figure', () => {
    expect(() => percentile([], 50)).toThrow(EmptySampleError);
  });
});

describe('summarize', () => {
  it('counts, and has the rate of calls one after the other', () => {
    expect(summarize([10, 30])).toEqual({ count: 2, p50Ms: 10, p99Ms: 30, meanMs: 20, perSecond: 50 });
  });

  it('refuses to invent a figure', () => {
    expect(() => summarize([])).toThrow(EmptySampleError);
  });
});

describe('rateOf', () => {
  it('weighs each stretch by its length', () => {
    expect(
      rateOf([
        { calls: 100, ms: 1000 },
        { calls: 100, ms: 3000 },
      ]),
    ).toBe(50);
  });

  it('refuses to invent a figure', () => {
    expect(() => rateOf([])).toThrow(EmptySampleError);
  });
});
