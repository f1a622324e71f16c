import { describe, expect, it } from 'vitest';
import { attachmentFigures } from '../../../hack/bench/attachment-figures.ts';
import type { AttachmentSamples } from '../../../hack/bench/attachment-plan.ts';
import { verdictOf } from '../../../hack/bench/figures.ts';

const samples = (add: number, del: number, addsPerSecond: number): AttachmentSamples => ({
  add: [add],
  del: [del],
  both: [add + del],
  addAtOnce: { durationsMs: [add], stretches: [{ calls: addsPerSecond, ms: 1000 }] },
  delAtOnce: { durationsMs: [del], stretches: [{ calls: 10, ms: 1000 }] },
});

describe('attachmentFigures', () => {
  const figures = attachmentFigures(
    new Map([
      ['weft', samples(11, 12, 80)],
      ['ptp + host-local', samples(10, 30, 100)],
    ]),
  );
  const of = (what: string, who: string) =>
    figures.find((figure) => figure.what === what && figure.who === who);

  it.each([
    { what: 'ADD', ratio: 1.1, verdict: 'reached' },
    { what: 'DEL', ratio: 0.4, verdict: 'reached' },
    { what: 'ADD + DEL', ratio: 23 / 40, verdict: 'reached' },
    { what: 'ADD, 8 at once', ratio: 0.8, verdict: 'short' },
    { what: 'DEL, 8 at once', ratio: 1, verdict: undefined },
  ])('divides by ptp + host-local: $what', ({ what, ratio, verdict }) => {
    const figure = of(what, 'weft');
    expect(figure?.ratio).toBeCloseTo(ratio, 10);
    expect(figure && verdictOf(figure)).toBe(verdict);
    expect(of(what, 'ptp + host-local')).toMatchObject({ ratio: 1 });
  });

  it('sets targets for weft alone', () => {
    expect(figures.filter(({ who, target }) => who !== 'weft' && target !== undefined)).toEqual([]);
  });

  it('has no ratio where there is nobody to compare with', () => {
    const alone = attachmentFigures(new Map([['weft', samples(1, 1, 1)]]));
    expect(alone.map(({ ratio, target }) => [ratio, target])).toEqual(
      alone.map(() => [undefined, undefined]),
    );
  });
});
