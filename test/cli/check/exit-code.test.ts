import { expect, test } from 'vitest';
import { checkExitCode } from '../../../src/cli/check/exit-code.ts';
import type { CheckResult } from '../../../src/cli/check/run-check.ts';

const problem: CheckResult['findings'][number] = {
  invariant: 9,
  severity: 'warning',
  reason: 'NoStatus',
  object: { kind: 'IPPool', name: 'p' },
  message: 'IPPool p has no status',
};
const silent = { name: 'n1', reason: 'no weft-agent runs there' };

test.each<{ name: string; result: CheckResult; code: number }>([
  { name: 'nothing is wrong', result: { findings: [], unknownNodes: [] }, code: 0 },
  { name: 'something is', result: { findings: [problem], unknownNodes: [] }, code: 1 },
  {
    name: 'something is, and a node is silent',
    result: { findings: [problem], unknownNodes: [silent] },
    code: 1,
  },
  { name: 'a node is silent', result: { findings: [], unknownNodes: [silent] }, code: 3 },
  { name: 'the apiserver is', result: { findings: [], unknownNodes: [], couldNot: 'no answer' }, code: 3 },
])('$name: $code', ({ result, code }) => {
  expect(checkExitCode(result)).toBe(code);
});
