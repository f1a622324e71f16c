import type { Finding, Severity } from '../../ipam/index.ts';
import type { Paint, Style } from '../style.ts';
import { renderTable, type Cell } from '../table.ts';
import type { Plain } from '../yaml.ts';
import type { CheckResult } from './run-check.ts';

/** What a script reads. */
export function checkData({ findings, unknownNodes, couldNot }: CheckResult): Plain {
  return {
    findings: findings.map(({ invariant, severity, reason, object, node, pool, message }) => ({
      invariant,
      severity,
      reason,
      object: { kind: object.kind, name: object.name },
      ...(node === undefined ? {} : { node }),
      ...(pool === undefined ? {} : { pool }),
      message,
    })),
    unknownNodes: unknownNodes.map(({ name, reason }) => ({ name, reason })),
    ...(couldNot === undefined ? {} : { couldNot }),
  };
}

const HEADINGS = ['SEVERITY', 'RULE', 'OBJECT', 'NODE', 'REASON'];

/** What a person reads: the findings as a table, each in words below it, and last what could not be seen. */
export function checkText(result: CheckResult, style: Style): string {
  const { findings, unknownNodes, couldNot } = result;
  if (couldNot !== undefined) return `${style.red('could not check')}: ${couldNot}\n`;
  const unknown = unknownNodes.map(({ name, reason }) => `${style.yellow('unknown')}  ${name}: ${reason}\n`);
  if (findings.length === 0) return [...unknown, summaryOf(result, style)].join('');
  const table = renderTable([
    HEADINGS.map((text): Cell => ({ text, paint: style.bold })),
    ...findings.map((finding) => rowOf(finding, style)),
  ]);
  const details = findings.map(({ message }, index) => `${index + 1}. ${message}\n`);
  return [table, '\n', ...details, '\n', ...unknown, summaryOf(result, style)].join('');
}

function rowOf({ severity, invariant, object, node, reason }: Finding, style: Style): Cell[] {
  const paints: Readonly<Record<Severity, Paint>> = { critical: style.red, warning: style.yellow };
  return [
    { text: severity, paint: paints[severity] },
    String(invariant),
    `${object.kind} ${object.name}`,
    node ?? '-',
    reason,
  ];
}

function summaryOf({ findings, unknownNodes }: CheckResult, style: Style): string {
  const problems = findings.length === 1 ? '1 problem' : `${findings.length} problems`;
  const silent = unknownNodes.length === 1 ? '1 node' : `${unknownNodes.length} nodes`;
  if (findings.length > 0) {
    return `${style.red(problems)}${unknownNodes.length > 0 ? `, and nothing is known of ${silent}` : ''}\n`;
  }
  if (unknownNodes.length > 0) {
    return `${style.yellow('nothing wrong where it could be seen')}; nothing is known of ${silent}\n`;
  }
  return `${style.green('clean')}: the book, the nodes and their kernels agree\n`;
}
