import { lastValue, type CIDR } from './cidr.ts';

/** A closed interval of addresses of one family, as numbers. */
export interface Range {
  readonly first: bigint;
  readonly last: bigint;
}

export function rangeOfCIDR(cidr: CIDR): Range {
  return { first: cidr.first, last: lastValue(cidr) };
}

/** Sorts and joins overlapping and touching ranges, so that each address is in exactly one. */
export function mergeRanges(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const merged: Range[] = [];
  for (const range of sorted) {
    const previous = merged.at(-1);
    if (previous !== undefined && range.first <= previous.last + 1n) {
      const last = range.last > previous.last ? range.last : previous.last;
      merged[merged.length - 1] = { first: previous.first, last };
    } else {
      merged.push(range);
    }
  }
  return merged;
}

/** What of `whole` none of `taken` covers, in order. `taken` may overlap and be unsorted. */
export function subtractRanges(whole: Range, taken: readonly Range[]): Range[] {
  const gaps: Range[] = [];
  let next = whole.first;
  for (const range of mergeRanges(taken)) {
    if (range.last < whole.first || range.first > whole.last) continue;
    if (range.first > next) gaps.push({ first: next, last: range.first - 1n });
    if (range.last >= next) next = range.last + 1n;
  }
  if (next <= whole.last) gaps.push({ first: next, last: whole.last });
  return gaps;
}

/** What one of the two lists covers. Both must be sorted, disjoint and without ranges that touch, and so is the answer. */
export function rangesWith(ranges: readonly Range[], more: readonly Range[]): Range[] {
  if (isFewBeside(more, ranges)) return withFew(ranges, more);
  const joined: Range[] = [];
  // Ranges of one list never touch: only next to one of the other is there anything to look at.
  let isNextToOther = false;
  const join = (range: Range) => {
    const previous = joined.at(-1);
    if (previous === undefined || range.first > previous.last + 1n) joined.push(range);
    else if (range.last > previous.last) joined[joined.length - 1] = { ...previous, last: range.last };
  };
  let at = 0;
  for (const range of ranges) {
    for (let other = more[at]; other !== undefined && other.first < range.first; other = more[++at]) {
      join(other);
      isNextToOther = true;
    }
    if (!isNextToOther) {
      joined.push(range);
      continue;
    }
    const count = joined.length;
    join(range);
    isNextToOther = joined.length === count;
  }
  for (const other of more.slice(at)) join(other);
  return joined;
}

/** What of the ranges none of `taken` covers. Both must be sorted and disjoint, and so is the answer. */
export function rangesWithout(ranges: readonly Range[], taken: readonly Range[]): Range[] {
  if (isFewBeside(taken, ranges)) return withoutFew(ranges, taken);
  const left: Range[] = [];
  let at = 0;
  for (const range of ranges) {
    // Most of two long lists that differ in a few places are the same ranges.
    if (range === taken[at]) {
      at++;
      continue;
    }
    const { last } = range;
    let next = range.first;
    // One that reaches beyond this range may cover a part of the next.
    for (; at < taken.length; at++) {
      const hole = taken[at];
      if (hole === undefined || hole.first > last) break;
      if (hole.first > next) left.push({ first: next, last: hole.first - 1n });
      if (hole.last >= next) next = hole.last + 1n;
      if (hole.last > last) break;
    }
    if (next === range.first) left.push(range);
    else if (next <= last) left.push({ first: next, last });
  }
  return left;
}

/** Where a few are looked for by halves, and not each of the others is looked at. */
function isFewBeside(few: readonly Range[], ranges: readonly Range[]): boolean {
  return few.length * 100 < ranges.length;
}

function withFew(ranges: readonly Range[], few: readonly Range[]): Range[] {
  const joined = [...ranges];
  for (const { first, last } of few) {
    // Those that it overlaps or touches become one with it.
    const from = firstThat(joined, (range) => range.last + 1n >= first);
    const to = firstThat(joined, (range) => range.first > last + 1n);
    const [one, other] = [joined[from], joined[to - 1]];
    const isApart = one === undefined || other === undefined || from >= to;
    const merged = isApart
      ? { first, last }
      : { first: smaller(first, one.first), last: greater(last, other.last) };
    joined.splice(from, to - from, merged);
  }
  return joined;
}

function withoutFew(ranges: readonly Range[], few: readonly Range[]): Range[] {
  const left = [...ranges];
  for (const { first, last } of few) {
    const from = firstThat(left, (range) => range.last >= first);
    const to = firstThat(left, (range) => range.first > last);
    const [one, other] = [left[from], left[to - 1]];
    if (one === undefined || other === undefined || from >= to) continue;
    left.splice(
      from,
      to - from,
      ...(one.first < first ? [{ first: one.first, last: first - 1n }] : []),
      ...(other.last > last ? [{ first: last + 1n, last: other.last }] : []),
    );
  }
  return left;
}

/** The place of the first range of which it holds, if it holds of all after that, too; the length where of none. */
function firstThat(ranges: readonly Range[], holds: (range: Range) => boolean): number {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle];
    if (range === undefined || holds(range)) high = middle;
    else low = middle + 1;
  }
  return low;
}

const smaller = (a: bigint, b: bigint) => (a < b ? a : b);
const greater = (a: bigint, b: bigint) => (a > b ? a : b);

/** What of `range` one of the ranges covers. They must be sorted and disjoint, and so is the answer. */
export function intersectRanges(range: Range, ranges: readonly Range[]): Range[] {
  return ranges
    .filter(({ first, last }) => last >= range.first && first <= range.last)
    .map(({ first, last }) => ({
      first: first < range.first ? range.first : first,
      last: last > range.last ? range.last : last,
    }));
}

/** Whether one of the ranges, sorted and disjoint, holds the value. */
export function rangesHave(ranges: readonly Range[], value: bigint): boolean {
  return rangesOverlap(ranges, { first: value, last: value });
}

/** Whether one of the ranges, sorted and disjoint, has an address in common with this one. */
export function rangesOverlap(ranges: readonly Range[], { first, last }: Range): boolean {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle];
    if (range === undefined) return false;
    if (last < range.first) high = middle;
    else if (first > range.last) low = middle + 1;
    else return true;
  }
  return false;
}

/** How many addresses the ranges cover together. They must be disjoint (mergeRanges makes them so). */
export function countAddresses(ranges: readonly Range[]): bigint {
  return ranges.reduce((sum, range) => sum + (range.last - range.first + 1n), 0n);
}
