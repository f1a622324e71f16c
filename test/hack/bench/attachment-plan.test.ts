import { describe, expect, it } from 'vitest';
import { AnswerTooShortError, planAttachments } from '../../../hack/bench/attachment-plan.ts';
import type { Timed } from '../../../hack/bench/calls.ts';

const planned = (rounds: number) =>
  planAttachments({
    networks: ['weft', 'ptp'],
    rounds,
    cnitool: '/bin/cnitool',
    environment: { CNI_PATH: '/opt/cni/bin' },
    directory: '/run/bench',
  });

type Measured = { readonly argvs: readonly (readonly string[])[]; readonly inFlight: number };

function measuredSteps(rounds: number): Measured[] {
  return planned(rounds).plan.steps.flatMap((step) =>
    step.kind === 'calls' ? [{ argvs: step.calls.map(({ argv }) => argv), inFlight: step.inFlight }] : [],
  );
}

describe('planAttachments', () => {
  it('lets the networks take turns, ADD and DEL of each attachment together', () => {
    const [first] = measuredSteps(2);
    expect(first?.inFlight).toBe(1);
    expect(first?.argvs.map((argv) => argv.slice(1).join(' '))).toEqual([
      'add weft /run/netns/weft-bench-0',
      'del weft /run/netns/weft-bench-0',
      'add ptp /run/netns/weft-bench-1',
      'del ptp /run/netns/weft-bench-1',
      'add weft /run/netns/weft-bench-2',
      'del weft /run/netns/weft-bench-2',
      'add ptp /run/netns/weft-bench-3',
      'del ptp /run/netns/weft-bench-3',
    ]);
  });

  it('makes blocks of one network eight at once, which take turns', () => {
    const blocks = measuredSteps(1).slice(1);
    expect(blocks.map(({ argvs, inFlight }) => [argvs[0]?.[1], argvs[0]?.[2], inFlight])).toEqual([
      ['add', 'weft', 8],
      ['del', 'weft', 8],
      ['add', 'ptp', 8],
      ['del', 'ptp', 8],
    ]);
  });

  it('never uses a namespace for two attachments, and makes each before and removes it after', () => {
    const { plan, files } = planned(45);
    const seen = new Set<string>();
    const there = new Set<string>();
    for (const step of plan.steps) {
      if (step.kind === 'aside') {
        const lines = (files.get(step.command.argv[2] ?? '') ?? '').trimEnd().split('\n');
        for (const line of lines) {
          const [, verb, name = ''] = line.split(' ');
          if (verb === 'delete') expect(there.delete(name)).toBe(true);
          else {
            expect(seen.has(name)).toBe(false);
            seen.add(name);
            there.add(name);
          }
        }
      } else if (step.kind === 'calls') {
        for (const { argv } of step.calls) expect(there).toContain(argv[3]?.replace('/run/netns/', ''));
      }
    }
    expect(there.size).toBe(0);
    // 45 one at a time and two blocks of 40, of each network.
    expect(seen.size).toBe(2 * (45 + 80));
  });

  it('gives each network what was measured of it', () => {
    const attachments = planned(2);
    const timed: Timed[] = [
      { durationsMs: [1, 2, 10, 20, 3, 4, 30, 40], ms: 110 },
      { durationsMs: [5, 6], ms: 6 },
      { durationsMs: [7, 8], ms: 8 },
      { durationsMs: [50, 60], ms: 60 },
      { durationsMs: [70, 80], ms: 80 },
    ];
    expect(attachments.read(timed)).toEqual([
      {
        add: [1, 3],
        del: [2, 4],
        both: [3, 7],
        addAtOnce: { durationsMs: [5, 6], stretches: [{ calls: 2, ms: 6 }] },
        delAtOnce: { durationsMs: [7, 8], stretches: [{ calls: 2, ms: 8 }] },
      },
      {
        add: [10, 30],
        del: [20, 40],
        both: [30, 70],
        addAtOnce: { durationsMs: [50, 60], stretches: [{ calls: 2, ms: 60 }] },
        delAtOnce: { durationsMs: [70, 80], stretches: [{ calls: 2, ms: 80 }] },
      },
    ]);
    expect(() => attachments.read(timed.slice(1))).toThrow(AnswerTooShortError);
  });
});
