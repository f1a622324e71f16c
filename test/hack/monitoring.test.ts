import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parser } from '@prometheus-io/lezer-promql';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import * as z from 'zod';
import { renderDashboard } from '../../hack/generate-dashboard.ts';
import { createAgentMetrics } from '../../src/agent/metrics.ts';
import { createControllerMetrics } from '../../src/controller/metrics.ts';

const MONITORING = join(import.meta.dirname, '..', '..', 'config', 'monitoring');

const Rule = z.looseObject({
  alert: z.string().regex(/^Weft[A-Z][A-Za-z]+$/),
  expr: z.string(),
  labels: z.object({ severity: z.enum(['critical', 'warning']) }),
  annotations: z.looseObject({ summary: z.string() }),
});
const Rules = z.looseObject({
  spec: z.object({ groups: z.array(z.object({ name: z.string(), rules: z.array(Rule) })) }),
});
const Dashboard = z.looseObject({
  panels: z.array(
    z.looseObject({ title: z.string(), targets: z.array(z.looseObject({ expr: z.string() })).default([]) }),
  ),
});

const clock = { nowMs: () => 0 };
const labelsOf = new Map(
  [createAgentMetrics(clock), createControllerMetrics(clock)]
    .flatMap(({ registry }) => registry.metrics)
    .flatMap(({ name, type, labels = [] }): [string, readonly string[]][] =>
      type === 'histogram'
        ? [
            [`${name}_bucket`, [...labels, 'le']],
            [`${name}_count`, labels],
            [`${name}_sum`, labels],
          ]
        : [[name, labels]],
    ),
);

/** What Prometheus itself adds to whatever it scrapes. */
const ADDED = ['instance'];

const rules = Rules.parse(parse(await readFile(join(MONITORING, 'alerts.yaml'), 'utf8'))).spec.groups.flatMap(
  (group) => group.rules,
);
const panels = Dashboard.parse(JSON.parse(renderDashboard())).panels;
const expressions = [
  ...rules.map(({ alert, expr }) => ({ where: `alert ${alert}`, expr })),
  ...panels.flatMap(({ title, targets }) =>
    targets.map(({ expr }, i) => ({ where: `panel "${title}" ${i + 1}`, expr })),
  ),
];

it('the dashboard is what `npm run generate` writes', async () => {
  const file = join(MONITORING, 'dashboard.json');
  expect(await readFile(file, 'utf8'), 'stale: npm run generate').toBe(renderDashboard());
});

it('names each alert once', () => {
  const names = rules.map(({ alert }) => alert);
  expect(names.length).toBeGreaterThan(10);
  expect(new Set(names).size).toBe(names.length);
});

it.each(['weft_unmet_needs', 'weft_events_total'])(
  'alerts by %s, which no other figure stands for',
  (metric) => {
    expect(rules.filter(({ expr }) => nodesOf(expr, 'Identifier').includes(metric))).toHaveLength(1);
  },
);

describe.each(expressions)('$where', ({ expr }) => {
  it('is PromQL', () => {
    expect(nodesOf(expr, '⚠')).toEqual([]);
  });

  it('speaks of metrics and labels that weft has', () => {
    const metrics = nodesOf(expr, 'Identifier');
    expect(metrics.length).toBeGreaterThan(0);
    const labels = new Set(ADDED);
    for (const metric of metrics) {
      expect([...labelsOf.keys()]).toContain(metric);
      for (const label of labelsOf.get(metric) ?? []) labels.add(label);
    }
    for (const label of nodesOf(expr, 'LabelName')) expect([...labels]).toContain(label);
  });
});

it('fills its texts from labels that the expression keeps', () => {
  for (const { alert, expr, annotations } of rules) {
    const used = [...JSON.stringify(annotations).matchAll(/\$labels\.([a-z_]+)/g)].map(([, label]) => label);
    const kept = nodesOf(expr, 'GroupingLabels').map((text) => text.replace(/[()\s]/g, '').split(','));
    const first = kept[0];
    for (const label of used) {
      if (first !== undefined) expect(first, alert).toContain(label);
      else
        expect([...(labelsOf.get(nodesOf(expr, 'Identifier')[0] ?? '') ?? []), ...ADDED], alert).toContain(
          label,
        );
    }
  }
});

/** The texts of all nodes of that name in the expression's tree. */
function nodesOf(expr: string, name: string): string[] {
  const found: string[] = [];
  parser.parse(expr).iterate({
    enter: (node) => {
      if (node.name === name || (name === '⚠' && node.type.isError))
        found.push(expr.slice(node.from, node.to));
    },
  });
  return found;
}
