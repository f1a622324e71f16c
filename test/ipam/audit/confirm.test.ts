import { describe, expect, test } from 'vitest';
import {
  confirmFindings,
  EMPTY_AUDIT_MEMORY,
  foundInBoth,
  type AuditMemory,
  type Finding,
} from '../../../src/ipam/index.ts';

const GRACE_MS = 120_000;

function finding(message: string, object = '10.0.0.5'): Finding {
  return {
    invariant: 3,
    severity: 'warning',
    reason: 'NoSandbox',
    object: { kind: 'IPAllocation', name: object },
    message,
  };
}

test('of two readings only what both show, word for word, counts', () => {
  const first = [finding('a'), finding('b'), finding('2 left')];
  const second = [finding('1 left'), finding('b'), finding('a', '10.0.0.6')];
  expect(foundInBoth(first, second)).toEqual([finding('b')]);
});

describe('of many audits a finding counts', () => {
  /** Audits at those times with or without the finding, and whether the last one confirms it. */
  const confirmed = (rounds: readonly { readonly atMs: number; readonly found: boolean }[]) => {
    let memory: AuditMemory = EMPTY_AUDIT_MEMORY;
    let last: readonly Finding[] = [];
    for (const { atMs, found } of rounds) {
      const judged = confirmFindings(found ? [finding('a')] : [], {
        memory,
        nowMs: atMs,
        graceMsOf: () => GRACE_MS,
      });
      memory = judged.memory;
      last = judged.confirmed;
    }
    return last.length > 0;
  };

  test.each([
    { name: 'not at first', rounds: [[0, true]], counts: false },
    {
      name: 'not before the grace',
      rounds: [
        [0, true],
        [GRACE_MS - 1, true],
      ],
      counts: false,
    },
    {
      name: 'after it',
      rounds: [
        [0, true],
        [GRACE_MS, true],
      ],
      counts: true,
    },
    {
      name: 'for as long as it stands',
      rounds: [
        [0, true],
        [GRACE_MS, true],
        [GRACE_MS * 9, true],
      ],
      counts: true,
    },
    {
      name: 'not when it has gone',
      rounds: [
        [0, true],
        [GRACE_MS, true],
        [GRACE_MS + 1, false],
      ],
      counts: false,
    },
    {
      name: 'anew when it comes back',
      rounds: [
        [0, true],
        [GRACE_MS, true],
        [GRACE_MS + 1, false],
        [GRACE_MS + 2, true],
        [GRACE_MS + 3, true],
      ],
      counts: false,
    },
  ] as const)('$name: $counts', ({ rounds, counts }) => {
    expect(confirmed(rounds.map(([atMs, found]) => ({ atMs, found })))).toBe(counts);
  });

  test('each after its own time', () => {
    const graceMsOf = ({ message }: Finding) => (message === 'patient' ? 10 * GRACE_MS : GRACE_MS);
    const findings = [finding('a'), finding('patient')];
    const { memory } = confirmFindings(findings, { memory: EMPTY_AUDIT_MEMORY, nowMs: 0, graceMsOf });
    const early = confirmFindings(findings, { memory, nowMs: GRACE_MS, graceMsOf });
    expect(early.confirmed).toEqual([finding('a')]);
    const late = confirmFindings(findings, { memory: early.memory, nowMs: 10 * GRACE_MS, graceMsOf });
    expect(late.confirmed).toEqual(findings);
  });
});
