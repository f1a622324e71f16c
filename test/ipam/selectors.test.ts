import { describe, expect, test } from 'vitest';
import type { LabelSelector } from '../../src/api/index.ts';
import { formatSelector, isSelective, selects } from '../../src/ipam/index.ts';

const inZone: LabelSelector = { matchExpressions: [{ key: 'zone', operator: 'In', values: ['a', 'b'] }] };
const notOld: LabelSelector = { matchExpressions: [{ key: 'age', operator: 'NotIn', values: ['old'] }] };
const hasGpu: LabelSelector = { matchExpressions: [{ key: 'gpu', operator: 'Exists' }] };
const noGpu: LabelSelector = { matchExpressions: [{ key: 'gpu', operator: 'DoesNotExist' }] };

describe('a selector', () => {
  test.each<{ selector: LabelSelector | undefined; labels: Record<string, string>; is: boolean }>([
    { selector: undefined, labels: {}, is: true },
    { selector: {}, labels: { a: 'b' }, is: true },
    { selector: { matchLabels: {} }, labels: {}, is: true },
    { selector: { matchLabels: { a: 'b' } }, labels: { a: 'b', c: 'd' }, is: true },
    { selector: { matchLabels: { a: 'b' } }, labels: { a: 'x' }, is: false },
    { selector: { matchLabels: { a: 'b' } }, labels: {}, is: false },
    { selector: { matchLabels: { a: 'b', c: 'd' } }, labels: { a: 'b' }, is: false },
    { selector: inZone, labels: { zone: 'b' }, is: true },
    { selector: inZone, labels: { zone: 'c' }, is: false },
    { selector: inZone, labels: {}, is: false },
    { selector: notOld, labels: { age: 'old' }, is: false },
    { selector: notOld, labels: {}, is: true },
    { selector: hasGpu, labels: { gpu: '' }, is: true },
    { selector: hasGpu, labels: {}, is: false },
    { selector: noGpu, labels: { gpu: '' }, is: false },
    { selector: noGpu, labels: {}, is: true },
    { selector: { ...inZone, matchLabels: { a: 'b' } }, labels: { zone: 'a' }, is: false },
    // What every object inherits is no label.
    { selector: { matchExpressions: [{ key: 'constructor', operator: 'Exists' }] }, labels: {}, is: false },
  ])('$selector of $labels: $is', ({ selector, labels, is }) => {
    expect(selects(selector, labels)).toBe(is);
  });

  test('is selective if it has any requirement', () => {
    expect([undefined, {}, { matchLabels: {} }, { matchExpressions: [] }].some(isSelective)).toBe(false);
    expect([{ matchLabels: { a: 'b' } }, noGpu].every(isSelective)).toBe(true);
  });

  test('reads as kubectl takes it', () => {
    const parts = [inZone, notOld, hasGpu, noGpu].flatMap(({ matchExpressions = [] }) => matchExpressions);
    expect(formatSelector({ matchLabels: { tenant: 'blue' }, matchExpressions: parts })).toBe(
      'tenant=blue,zone in (a, b),age!=old,gpu,!gpu',
    );
  });
});
