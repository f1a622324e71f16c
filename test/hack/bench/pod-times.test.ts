import { describe, expect, it } from 'vitest';
import { PodNotSeenError, startupTimes } from '../../../hack/bench/pod-times.ts';

const seen = (boundMs: number | undefined, runningMs: number | undefined) => ({
  boundMs,
  runningMs,
  address: undefined,
});

describe('startupTimes', () => {
  it('is the time from bound to Running', () => {
    expect(startupTimes(new Map(Object.entries({ a: seen(100, 350), b: seen(120, 121) })))).toEqual([250, 1]);
  });

  it.each([
    { boundMs: undefined, runningMs: 5 },
    { boundMs: 5, runningMs: undefined },
  ])('leaves no pod out: $boundMs, $runningMs', ({ boundMs, runningMs }) => {
    const pods = new Map(Object.entries({ a: seen(1, 2), b: seen(boundMs, runningMs) }));
    expect(() => startupTimes(pods)).toThrow(PodNotSeenError);
  });
});
