import { describe, expect, it } from 'vitest';
import { countText, durationText } from '../../src/cli/figures.ts';

describe('countText', () => {
  it.each([
    [0, '0'],
    ['64505', '64505'],
    [9_999_999n, '9999999'],
    [10_000_000n, '~2^23'],
    [2n ** 80n, '~2^80'],
    [2n ** 80n - 1n, '~2^79'],
  ])('writes %s as %s', (count, text) => {
    expect(countText(count)).toBe(text);
  });
});

describe('durationText', () => {
  it.each([
    [-5, '0s'],
    [9_999, '9s'],
    [119_000, '119s'],
    [120_000, '2m'],
    [125_000, '2m5s'],
    [11 * 60_000, '11m'],
    [3 * 3_600_000, '3h'],
    [3.5 * 3_600_000, '3h30m'],
    [47 * 3_600_000, '47h'],
    [50 * 3_600_000, '2d2h'],
    [400 * 24 * 3_600_000, '400d'],
  ])('writes %d ms as %s', (ms, text) => {
    expect(durationText(ms)).toBe(text);
  });
});
