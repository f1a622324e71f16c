import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bar, shareText } from '../../src/cli/bar.ts';
import { styleFor } from '../../src/cli/style.ts';

const plain = styleFor({ isTerminal: false }, {});
const coloured = styleFor({ isTerminal: true }, { TERM: 'xterm' });

describe('bar', () => {
  it.each([
    [0, 0, 10, '··········'],
    [10, 0, 0, '██████████'],
    [5, 0, 5, '█████·····'],
    [3, 2, 5, '███▒▒·····'],
    [1, 0, 1_000_000, '▏·········'],
    [0, 1, 1_000_000, '▒·········'],
    [999_999, 0, 1, '█████████·'],
    [1_000_000, 1, 0, '█████████▒'],
    [33, 0, 67, '███▎······'],
    [0, 0, 0, '··········'],
  ])('of %d allocated, %d resting and %d free is %s', (allocated, resting, free, text) => {
    expect(textOf(bar(sharesOf(allocated, resting, free), 10, plain))).toBe(text);
  });

  it('has its width, and shows whatever there is, of any size', () => {
    const count = fc.bigInt({ min: 0n, max: 2n ** 90n });
    fc.assert(
      fc.property(count, count, count, fc.integer({ min: 3, max: 60 }), (allocated, resting, free, width) => {
        const text = textOf(bar({ allocated, resting, free }, width, plain));
        expect(text).toHaveLength(width);
        expect(/[█▏▎▍▌▋▊▉]/.test(text)).toBe(allocated > 0n);
        expect(text.includes('▒')).toBe(resting > 0n);
        expect(text.includes('·')).toBe(free > 0n || allocated + resting === 0n);
      }),
    );
  });

  it.each([
    [74, 32],
    [75, 33],
    [90, 31],
  ])('of %d percent has the colour %d', (percent, colour) => {
    const cell = bar(sharesOf(percent, 0, 100 - percent), 10, coloured);
    const shown = typeof cell === 'string' ? '' : cell.paint(cell.text);
    expect(shown.startsWith(`\u001b[${colour}m█`)).toBe(true);
  });
});

describe('shareText', () => {
  it.each([
    [0, 0, 0, '0%'],
    [0, 0, 9, '0%'],
    [1, 0, 999, '<1%'],
    [3, 1, 4, '50%'],
    [999, 0, 1, '99%'],
    [9_999, 0, 0, '100%'],
    [0, 4, 0, '100%'],
  ])('of %d allocated, %d resting and %d free is %s', (allocated, resting, free, text) => {
    expect(shareText(sharesOf(allocated, resting, free))).toBe(text);
  });
});

describe('styleFor', () => {
  it.each([
    ['a pipe', false, {}],
    ['NO_COLOR', true, { NO_COLOR: '1' }],
    ['a terminal that cannot', true, { TERM: 'dumb' }],
  ])('colours nothing for %s', (_name, isTerminal, env) => {
    expect(styleFor({ isTerminal }, env).red('x')).toBe('x');
  });

  it('colours on a terminal, also where NO_COLOR is empty', () => {
    expect(styleFor({ isTerminal: true }, { NO_COLOR: '' }).red('x')).toBe('\u001b[31mx\u001b[39m');
  });
});

const sharesOf = (allocated: number, resting: number, free: number) => ({
  allocated: BigInt(allocated),
  resting: BigInt(resting),
  free: BigInt(free),
});

const textOf = (cell: ReturnType<typeof bar>) => (typeof cell === 'string' ? cell : cell.text);
