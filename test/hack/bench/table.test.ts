import { expect, it } from 'vitest';
import { renderTable } from '../../../hack/bench/table.ts';

it('aligns text to the left, numbers to the right, and shows target and verdict', () => {
  const text = renderTable(
    [
      {
        part: 'add',
        what: 'ADD, one at a time',
        who: 'weft',
        count: 300,
        p50Ms: 12.345,
        p99Ms: 123.45,
        perSecond: 80.123,
        ratio: 1.199,
        ratioOf: 'p50',
        target: { value: 'ratio', bound: 'at most', limit: 1.2 },
      },
      {
        part: 'add',
        what: 'ADD, one at a time',
        who: 'ptp + host-local',
        count: 30,
        p50Ms: 9.876,
        perSecond: 1234,
      },
      {
        part: 'memory',
        what: 'RSS',
        who: 'agent',
        count: 7,
        megabytes: 96.04,
        target: { value: 'megabytes', bound: 'at most', limit: 96 },
      },
    ],
    ['a machine'],
    ['a note'],
  );
  expect(text).toBe(`a machine

part    what                of                  n      p50     p99    rate   memory     ratio  to reach
add     ADD, one at a time  weft              300  12.3 ms  123 ms  80.1/s           p50 1.20  ≤ 1.2     reached
add     ADD, one at a time  ptp + host-local   30  9.88 ms          1234/s
memory  RSS                 agent               7                           96.0 MB            ≤ 96 MB   short

a note
`);
});
