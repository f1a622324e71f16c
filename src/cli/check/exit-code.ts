import type { CheckResult } from './run-check.ts';

/** 0 clean, 1 problems, 3 could not check. What was not looked at is never clean. */
export function checkExitCode({ findings, unknownNodes, couldNot }: CheckResult): 0 | 1 | 3 {
  if (findings.length > 0) return 1;
  return couldNot !== undefined || unknownNodes.length > 0 ? 3 : 0;
}
