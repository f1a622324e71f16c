import { describe, expect, it } from 'vitest';
import { TargetWithoutValueError, verdictOf, type Figure } from '../../../hack/bench/figures.ts';

const figure = (more: Partial<Figure>): Figure => ({
  part: 'add',
  what: 'ADD',
  who: 'weft',
  count: 1,
  ...more,
});

describe('verdictOf', () => {
  it.each([
    { bound: 'at most', limit: 1.2, ratio: 1.2, verdict: 'reached' },
    { bound: 'at most', limit: 1.2, ratio: 1.2001, verdict: 'short' },
    { bound: 'at least', limit: 0.9, ratio: 0.9, verdict: 'reached' },
    { bound: 'at least', limit: 0.9, ratio: 0.8999, verdict: 'short' },
  ] as const)(
    '$ratio, where $bound $limit is to be reached, is $verdict',
    ({ bound, limit, ratio, verdict }) => {
      expect(verdictOf(figure({ ratio, target: { value: 'ratio', bound, limit } }))).toBe(verdict);
    },
  );

  it('has none without a target', () => {
    expect(verdictOf(figure({ ratio: 1 }))).toBeUndefined();
  });

  it('refuses a target for what was not measured', () => {
    const wrong = figure({ ratio: 1, target: { value: 'megabytes', bound: 'at most', limit: 96 } });
    expect(() => verdictOf(wrong)).toThrow(TargetWithoutValueError);
  });
});
