import { AT_ONCE, type AttachmentSamples } from './attachment-plan.ts';
import { PTP, WEFT } from './contenders.ts';
import type { Figure, Target } from './figures.ts';
import { rateOf, summarize, type Summary } from './statistics.ts';

/** What cnitool's calls came to, each figure of weft beside those of the others, ratios to ptp + host-local. */
export function attachmentFigures(samples: ReadonlyMap<string, AttachmentSamples>): Figure[] {
  const compared = (
    what: string,
    ratioOf: 'p50' | 'rate',
    summary: Summarizer,
    target?: Target,
  ): Figure[] => {
    const summaries = new Map([...samples].map(([who, of]) => [who, summary(of)]));
    const base = summaries.get(PTP);
    return [...summaries].map(([who, { count, p50Ms, p99Ms, perSecond }]) => ({
      ...{ part: 'add', what, who, count, p50Ms, p99Ms, perSecond },
      ...(base === undefined
        ? {}
        : { ratio: ratioOf === 'p50' ? p50Ms / base.p50Ms : perSecond / base.perSecond, ratioOf }),
      ...(target === undefined || who !== WEFT || base === undefined ? {} : { target }),
    }));
  };
  return [
    ...compared('ADD', 'p50', ({ add }) => summarize(add), atMost(1.2)),
    ...compared('DEL', 'p50', ({ del }) => summarize(del), atMost(0.5)),
    ...compared('ADD + DEL', 'p50', ({ both }) => summarize(both), atMost(0.7)),
    ...compared(`ADD, ${AT_ONCE} at once`, 'rate', ({ addAtOnce }) => atOnce(addAtOnce), atLeast(0.9)),
    ...compared(`DEL, ${AT_ONCE} at once`, 'rate', ({ delAtOnce }) => atOnce(delAtOnce)),
  ];
}

type Summarizer = (samples: AttachmentSamples) => Omit<Summary, 'meanMs'>;

/** Their rate is that of all together, not one's. */
const atOnce = ({ durationsMs, stretches }: AttachmentSamples['addAtOnce']) => ({
  ...summarize(durationsMs),
  perSecond: rateOf(stretches),
});

const atMost = (limit: number): Target => ({ value: 'ratio', bound: 'at most', limit });
const atLeast = (limit: number): Target => ({ value: 'ratio', bound: 'at least', limit });
