import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The text of config/monitoring/dashboard.json: rows of panels over weft's metrics, as Grafana imports it. */
export function renderDashboard(): string {
  const dashboard = {
    uid: 'weft',
    title: 'weft',
    description: 'Pools, addresses, nodes and the controller. What the metrics mean: docs/metrics.md.',
    tags: ['weft', 'kubernetes', 'network'],
    schemaVersion: 39,
    version: 1,
    editable: true,
    refresh: '1m',
    time: { from: 'now-6h', to: 'now' },
    templating: { list: [DATA_SOURCE, POOLS] },
    panels: placed(ROWS),
  };
  return `${JSON.stringify(dashboard, undefined, 2)}\n`;
}

interface Panel {
  readonly title: string;
  readonly about: string;
  readonly unit?: 'short' | 's' | 'ops' | 'bytes' | 'percentunit';
  /** Expressions by legend. */
  readonly lines: Readonly<Record<string, string>>;
}

interface Row {
  readonly title: string;
  readonly panels: readonly Panel[];
}

/** Pools' figures are told by the leading replica alone: the max over instances is the leader's. */
const ROWS: readonly Row[] = [
  {
    title: 'Pools',
    panels: [
      {
        title: 'Addresses in use',
        about: 'Allocated and resting addresses, of all that may be given out.',
        unit: 'percentunit',
        lines: {
          '{{pool}} {{family}}':
            'max by (pool, family) ((weft_pool_addresses_allocated{pool=~"$pool"} + weft_pool_addresses_resting{pool=~"$pool"}) ' +
            '/ (weft_pool_addresses_capacity{pool=~"$pool"} - weft_pool_addresses_reserved{pool=~"$pool"} > 0))',
        },
      },
      {
        title: 'Allocated addresses',
        about: 'Addresses that a sandbox or a holder has.',
        lines: {
          '{{pool}} {{family}}': 'max by (pool, family) (weft_pool_addresses_allocated{pool=~"$pool"})',
        },
      },
      {
        title: 'Resting addresses',
        about: 'Released ones whose reuse delay runs.',
        lines: {
          '{{pool}} {{family}}': 'max by (pool, family) (weft_pool_addresses_resting{pool=~"$pool"})',
        },
      },
      {
        title: 'Subnets',
        about: 'Held by nodes. At 0 free ones a node that is full stays full.',
        lines: {
          '{{pool}} {{family}} held': 'max by (pool, family) (weft_pool_subnets_held{pool=~"$pool"})',
        },
      },
      {
        title: 'Conditions that want a look',
        about: 'Exhausted, nearly exhausted, overlapping, draining; not ready.',
        lines: {
          '{{pool}} {{condition}}':
            'max by (pool, condition) (weft_pool_condition{pool=~"$pool", condition=~"Exhausted|NearlyExhausted|Overlapping|Draining"}) > 0',
          '{{pool}} not ready':
            'max by (pool) (weft_pool_condition{pool=~"$pool", condition="Ready"}) == bool 0 > 0',
        },
      },
      {
        title: 'Findings of the audits',
        about:
          'Objects that contradict each other, and nodes that contradict them, by invariant; addresses of living pods that others own.',
        lines: {
          'invariant {{invariant}}': 'max by (invariant) (weft_audit_findings)',
          'invariant {{invariant}}, {{instance}}': 'weft_node_findings > 0',
          'two owners, {{instance}}': 'weft_sweep_conflicts > 0',
        },
      },
    ],
  },
  {
    title: 'Pods',
    panels: [
      {
        title: 'ADDs by result',
        about: 'Answers a second: ok, or the code of the CNI error.',
        unit: 'ops',
        lines: { '{{result}}': 'sum by (result) (rate(weft_cni_duration_seconds_count{verb="ADD"}[5m]))' },
      },
      {
        title: 'How long an ADD takes',
        about: 'In the agent, of those that went well.',
        unit: 's',
        lines: Object.fromEntries(
          [0.5, 0.9, 0.99].map((quantile) => [
            `p${quantile * 100}`,
            `histogram_quantile(${quantile}, sum by (le) (rate(weft_cni_duration_seconds_bucket{verb="ADD", result="ok"}[5m])))`,
          ]),
        ),
      },
      {
        title: 'Claims by how they ended',
        about: 'Of an attachment’s addresses.',
        unit: 'ops',
        lines: { '{{result}}': 'sum by (result) (rate(weft_claims_total[5m]))' },
      },
      {
        title: 'Freed by the sweep, made again by the sweep',
        about: 'Sandboxes that went without a DEL; allocations that somebody deleted under a living pod.',
        lines: {
          'released {{instance}}': 'increase(weft_sweep_released_total[15m]) > 0',
          'made again {{instance}}': 'increase(weft_sweep_readopted_total[15m]) > 0',
        },
      },
    ],
  },
  {
    title: 'Nodes',
    panels: [
      {
        title: 'Broken data paths',
        about:
          'For how long routes or filters of a node have not been as they should be. At 60 s STATUS fails.',
        unit: 's',
        lines: { '{{instance}}': 'weft_data_path_broken_seconds > 0' },
      },
      {
        title: 'Drift repaired',
        about: 'What others had changed and weft put back, in 15 minutes.',
        lines: { '{{instance}}': 'increase(weft_drift_repaired_total[15m]) > 0' },
      },
      {
        title: 'Memory',
        about: 'Of each process, the largest five.',
        unit: 'bytes',
        lines: {
          '{{part}} {{instance}}':
            'topk(5, process_resident_memory_bytes * on (instance) group_left (part) weft_build_info)',
        },
      },
      {
        title: 'CPU',
        about: 'Of each process, the busiest five, in cores.',
        lines: {
          '{{part}} {{instance}}':
            'topk(5, rate(process_cpu_seconds_total[5m]) * on (instance) group_left (part) weft_build_info)',
        },
      },
    ],
  },
  {
    title: 'Apiserver and controller',
    panels: [
      {
        title: 'Requests by verb and code',
        about: '409 is an answer: somebody else was faster.',
        unit: 'ops',
        lines: { '{{verb}} {{code}}': 'sum by (verb, code) (rate(weft_api_requests_total[5m]))' },
      },
      {
        title: 'How long requests take, p99',
        about: 'What creates take, pods wait.',
        unit: 's',
        lines: {
          '{{verb}}':
            'histogram_quantile(0.99, sum by (le, verb) (rate(weft_api_request_duration_seconds_bucket{verb!="watch"}[5m])))',
        },
      },
      {
        title: 'Replicas that lead',
        about: 'One, but for moments.',
        lines: { leaders: 'sum(weft_leader)' },
      },
      {
        title: 'Work that waits',
        about: 'Keys in the controller’s queues.',
        lines: { '{{queue}}': 'max by (queue) (weft_workqueue_depth)' },
      },
    ],
  },
];

const DATA_SOURCE = { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus' };
const SOURCE = { type: 'prometheus', uid: '${datasource}' };
const POOLS = {
  name: 'pool',
  label: 'Pool',
  type: 'query',
  datasource: SOURCE,
  query: { query: 'label_values(weft_pool_addresses_capacity, pool)', refId: 'pools' },
  refresh: 2,
  multi: true,
  includeAll: true,
  allValue: '.*',
  current: { text: 'All', value: '$__all' },
};

/** Grafana's grid is 24 wide. */
const GRID_WIDTH = 24;
const PANEL = { w: 12, h: 8 };

function placed(rows: readonly Row[]): unknown[] {
  const panels: unknown[] = [];
  let y = 0;
  for (const { title, panels: ofRow } of rows) {
    panels.push(rowPanel(title, panels.length + 1, y));
    y += 1;
    ofRow.forEach((panel, i) => {
      const x = (i * PANEL.w) % GRID_WIDTH;
      panels.push(graph(panel, panels.length + 1, { ...PANEL, x, y }));
      if (x + PANEL.w === GRID_WIDTH || i === ofRow.length - 1) y += PANEL.h;
    });
  }
  return panels;
}

function rowPanel(title: string, id: number, y: number): unknown {
  return { type: 'row', id, title, collapsed: false, gridPos: { w: GRID_WIDTH, h: 1, x: 0, y }, panels: [] };
}

function graph({ title, about, unit = 'short', lines }: Panel, id: number, gridPos: object): unknown {
  return {
    type: 'timeseries',
    id,
    title,
    description: about,
    datasource: SOURCE,
    gridPos,
    fieldConfig: {
      defaults: { unit, min: 0, custom: { fillOpacity: 8, showPoints: 'never' } },
      overrides: [],
    },
    options: {
      legend: { displayMode: 'list', placement: 'bottom' },
      tooltip: { mode: 'multi', sort: 'desc' },
    },
    targets: Object.entries(lines).map(([legendFormat, expr], i) => ({
      refId: String.fromCharCode('A'.charCodeAt(0) + i),
      datasource: SOURCE,
      expr,
      legendFormat,
    })),
  };
}

if (import.meta.main) {
  await writeFile(
    join(import.meta.dirname, '..', 'config', 'monitoring', 'dashboard.json'),
    renderDashboard(),
  );
  console.log('config/monitoring/dashboard.json');
}
