import { describe, expect, test } from 'vitest';
import { checkData, checkText } from '../../../src/cli/check/report.ts';
import type { CheckResult } from '../../../src/cli/check/run-check.ts';
import { styleFor } from '../../../src/cli/style.ts';

const plain = styleFor({ isTerminal: false }, {});
const two: CheckResult['findings'][number] = {
  invariant: 1,
  severity: 'critical',
  reason: 'AddressOnTwoSandboxes',
  object: { kind: 'IPAllocation', name: '10.0.0.5', uid: 'u' },
  node: 'a',
  pool: 'pods',
  message: '10.0.0.5 is on a and on b: delete one of the pods',
};
const counts: CheckResult['findings'][number] = {
  invariant: 9,
  severity: 'warning',
  reason: 'NoStatus',
  object: { kind: 'IPPool', name: 'p' },
  message: 'IPPool p has no status: is there a controller?',
};
const silent = { name: 'n1', reason: 'no weft-agent runs there' };

describe('a check for people', () => {
  test('that is clean says so', () => {
    expect(checkText({ findings: [], unknownNodes: [] }, plain)).toBe(
      'clean: the book, the nodes and their kernels agree\n',
    );
  });

  test('with findings: a table, each in words, and how many', () => {
    const text = checkText({ findings: [two, counts], unknownNodes: [] }, plain);
    expect(text).toBe(
      [
        'SEVERITY  RULE  OBJECT                 NODE  REASON',
        'critical  1     IPAllocation 10.0.0.5  a     AddressOnTwoSandboxes',
        'warning   9     IPPool p               -     NoStatus',
        '',
        '1. 10.0.0.5 is on a and on b: delete one of the pods',
        '2. IPPool p has no status: is there a controller?',
        '',
        '2 problems',
        '',
      ].join('\n'),
    );
  });

  test('never calls clean what was not looked at', () => {
    expect(checkText({ findings: [], unknownNodes: [silent] }, plain)).toBe(
      'unknown  n1: no weft-agent runs there\nnothing wrong where it could be seen; nothing is known of 1 node\n',
    );
    const text = checkText({ findings: [counts], unknownNodes: [silent, { ...silent, name: 'n2' }] }, plain);
    expect(text).toContain('1 problem, and nothing is known of 2 nodes\n');
    expect(checkText({ findings: [], unknownNodes: [], couldNot: 'no answer' }, plain)).toBe(
      'could not check: no answer\n',
    );
  });
});

test('a check for scripts carries all but uids', () => {
  expect(checkData({ findings: [two], unknownNodes: [silent], couldNot: 'x' })).toEqual({
    findings: [
      {
        invariant: 1,
        severity: 'critical',
        reason: 'AddressOnTwoSandboxes',
        object: { kind: 'IPAllocation', name: '10.0.0.5' },
        node: 'a',
        pool: 'pods',
        message: '10.0.0.5 is on a and on b: delete one of the pods',
      },
    ],
    unknownNodes: [silent],
    couldNot: 'x',
  });
});
