import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  countAddresses,
  mergeRanges,
  parseCIDR,
  rangeOfCIDR,
  rangesWith,
  rangesWithout,
  subtractRanges,
  type Range,
} from '../../src/net/index.ts';

const range = (first: number, last: number): Range => ({ first: BigInt(first), last: BigInt(last) });
const anyRange = fc
  .tuple(fc.nat({ max: 60 }), fc.nat({ max: 12 }))
  .map(([first, more]) => range(first, first + more));

describe('mergeRanges', () => {
  it('joins what overlaps or touches, and sorts', () => {
    expect(mergeRanges([range(8, 9), range(0, 3), range(4, 5), range(2, 4)])).toEqual([
      range(0, 5),
      range(8, 9),
    ]);
    expect(mergeRanges([range(0, 9), range(2, 3)])).toEqual([range(0, 9)]);
    expect(mergeRanges([])).toEqual([]);
  });
});

describe('subtractRanges', () => {
  it('leaves the gaps, in order', () => {
    expect(subtractRanges(range(0, 9), [range(7, 20), range(2, 3)])).toEqual([range(0, 1), range(4, 6)]);
    expect(subtractRanges(range(0, 9), [])).toEqual([range(0, 9)]);
    expect(subtractRanges(range(5, 9), [range(0, 20)])).toEqual([]);
    expect(subtractRanges(range(5, 9), [range(0, 4), range(10, 11)])).toEqual([range(5, 9)]);
  });

  it('agrees with looking at every address', () => {
    fc.assert(
      fc.property(anyRange, fc.array(anyRange, { maxLength: 8 }), (whole, taken) => {
        const free = new Set<bigint>();
        for (let n = whole.first; n <= whole.last; n++) {
          if (!taken.some((other) => n >= other.first && n <= other.last)) free.add(n);
        }
        const gaps = subtractRanges(whole, taken);
        expect(countAddresses(gaps)).toBe(BigInt(free.size));
        for (const gap of gaps) for (let n = gap.first; n <= gap.last; n++) expect(free.has(n)).toBe(true);
        expect(mergeRanges(gaps)).toEqual(gaps);
      }),
    );
  });

  it.each([32, 48])('never enumerates: a /%i less one /64 is counted at once', (prefixLength) => {
    const gaps = subtractRanges(rangeOfCIDR(parseCIDR(`fd00::/${prefixLength}`)), [
      rangeOfCIDR(parseCIDR('fd00:0:0:1::/64')),
    ]);
    expect(countAddresses(gaps)).toBe((1n << BigInt(128 - prefixLength)) - (1n << 64n));
  });
});

describe('rangesWithout', () => {
  it('leaves what is covered by none, in order', () => {
    const ranges = [range(0, 9), range(20, 29), range(40, 49)];
    expect(rangesWithout(ranges, [range(5, 24), range(27, 27), range(45, 60)])).toEqual([
      range(0, 4),
      range(25, 26),
      range(28, 29),
      range(40, 44),
    ]);
    expect(rangesWithout(ranges, [])).toEqual(ranges);
    expect(rangesWithout(ranges, ranges)).toEqual([]);
  });

  it('agrees with taking them from each range by itself', () => {
    const some = fc.array(anyRange, { maxLength: 8 }).map(mergeRanges);
    fc.assert(
      fc.property(some, some, (ranges, taken) => {
        expect(rangesWithout(ranges, taken)).toEqual(ranges.flatMap((one) => subtractRanges(one, taken)));
      }),
    );
  });
});

describe('rangesWith', () => {
  it('has what either of them has, in order, and joins what touches', () => {
    const ranges = [range(0, 9), range(20, 29), range(40, 49)];
    expect(rangesWith(ranges, [range(12, 13), range(30, 39), range(60, 61)])).toEqual([
      range(0, 9),
      range(12, 13),
      range(20, 49),
      range(60, 61),
    ]);
    expect(rangesWith(ranges, [])).toEqual(ranges);
    expect(rangesWith([], ranges)).toEqual(ranges);
  });

  it('agrees with merging all of them', () => {
    const some = fc.array(anyRange, { maxLength: 8 }).map(mergeRanges);
    fc.assert(
      fc.property(some, some, (ranges, more) => {
        expect(rangesWith(ranges, more)).toEqual(mergeRanges([...ranges, ...more]));
      }),
      { numRuns: 2_000 },
    );
  });

  it('and what is taken away again leave what there was', () => {
    const some = fc.array(anyRange, { maxLength: 8 }).map(mergeRanges);
    fc.assert(
      fc.property(some, some, (ranges, more) => {
        const own = rangesWithout(ranges, more);
        expect(rangesWithout(rangesWith(own, more), more)).toEqual(own);
      }),
    );
  });
});

describe('a few beside very many', () => {
  /** Ranges of four addresses with gaps of six, so that a range of the few may touch, join or split several. */
  const many = Array.from({ length: 400 }, (_, i) => range(10 * i, 10 * i + 3));
  const few = fc
    .array(
      fc
        .tuple(fc.nat({ max: 4_010 }), fc.nat({ max: 45 }))
        .map(([first, more]) => range(first, first + more)),
      { maxLength: 3 },
    )
    .map(mergeRanges);

  it('are put with them and taken out of them as one by one', () => {
    fc.assert(
      fc.property(few, (some) => {
        expect(rangesWith(many, some)).toEqual(mergeRanges([...many, ...some]));
        expect(rangesWithout(many, some)).toEqual(many.flatMap((one) => subtractRanges(one, some)));
      }),
      { numRuns: 1_000 },
    );
  });

  it('leave the others as the objects that they were', () => {
    const changed = rangesWithout(rangesWith(many, [range(15, 16)]), [range(2_000, 2_003)]);
    expect(changed.filter((one) => many.includes(one))).toHaveLength(399);
  });
});
