import { describe, expect, it } from 'vitest';
import { createControllerMetrics } from '../../src/controller/metrics.ts';
import { poolStatus } from '../../src/controller/pool-status.ts';
import type { IPAllocation, IPPool, NodeSubnet } from '../../src/api/index.ts';
import { countByInvariant, INVARIANTS } from '../../src/ipam/index.ts';
import { parseExposition } from '../metrics/exposition.ts';
import { allocation, nodeSubnet, pool } from './objects.ts';

function start() {
  const metrics = createControllerMetrics({ nowMs: () => 0 });
  return { metrics, scrape: async () => parseExposition(await metrics.registry.text()) };
}

function statusOf(its: IPPool, subnets: NodeSubnet[] = [], allocations: IPAllocation[] = []) {
  const facts = { nodeAddresses: [], serviceCIDRs: [], nearlyExhausted: 0.9 };
  return poolStatus({ pool: its, pools: [its], subnets, allocations, ...facts }, new Date(0));
}

it('has every counter with 0 from the start, by every value that is known', async () => {
  const { series, value } = await start().scrape();
  const told = [...series].filter(([name]) => !/^(process_|weft_build_info)/.test(name));
  expect(told.filter(([, its]) => its !== 0)).toEqual([]);
  for (const queue of ['pools', 'nodes', 'statefulsets']) {
    expect(value('weft_workqueue_depth', { queue })).toBe(0);
    expect(value('weft_workqueue_adds_total', { queue })).toBe(0);
    expect(value('weft_workqueue_retries_total', { queue })).toBe(0);
    expect(value('weft_workqueue_work_duration_seconds_count', { queue })).toBe(0);
  }
  for (const resource of ['ipallocations', 'nodesubnets']) {
    expect(value('weft_gone_node_deletions_total', { resource })).toBe(0);
  }
  expect(value('weft_leader')).toBe(0);
  expect(value('weft_events_total', { result: 'dropped' })).toBe(0);
});

describe('of pools', () => {
  const pods = pool('pods', ['10.0.0.0/24', 'fd00::/32'], { prefixLength: 26 });
  const status = statusOf(
    pods,
    [nodeSubnet(pods, '10.0.0.0/26', 'a')],
    [
      allocation(pods, '10.0.0.1', 'a'),
      allocation(pods, '10.0.0.2', 'a'),
      allocation(pods, '10.0.0.3', 'a', { releasedAt: '2026-01-01T00:00:00Z' }),
    ],
  );

  it('it tells what was computed for the status, in both families', async () => {
    const { metrics, scrape } = start();
    metrics.leader.pools.computed('pods', status);
    const { value } = await scrape();
    const figure = (name: string, family: string) => value(`weft_pool_${name}`, { pool: 'pods', family });
    expect(figure('addresses_capacity', 'ipv4')).toBe(256);
    expect(figure('addresses_allocated', 'ipv4')).toBe(2);
    expect(figure('addresses_resting', 'ipv4')).toBe(1);
    expect(figure('addresses_reserved', 'ipv4')).toBe(4);
    expect(figure('addresses_free', 'ipv4')).toBe(249);
    expect(figure('subnets_held', 'ipv4')).toBe(1);
    expect(figure('subnets_free', 'ipv4')).toBe(3);
    expect(figure('addresses_capacity', 'ipv6')).toBe(2 ** 96);
    expect(figure('addresses_allocated', 'ipv6')).toBe(0);
    expect(figure('subnets_free', 'ipv6')).toBe(2 ** 90);
    expect(value('weft_pool_condition', { pool: 'pods', condition: 'Ready' })).toBe(1);
    expect(value('weft_pool_condition', { pool: 'pods', condition: 'Exhausted' })).toBe(0);
  });

  it('a pool that is gone is gone here, and the others stay', async () => {
    const { metrics, scrape } = start();
    metrics.leader.pools.computed('pods', status);
    metrics.leader.pools.computed('other', status);
    metrics.leader.pools.gone('pods');
    const { series } = await scrape();
    const named = [...series.keys()].filter((key) => key.startsWith('weft_pool_'));
    expect(named.length).toBeGreaterThan(10);
    expect(named.filter((key) => !key.includes('pool="other"'))).toEqual([]);
  });

  it('a replica that leads no longer tells nothing of pools, and counts on', async () => {
    const { metrics, scrape } = start();
    metrics.leader.pools.computed('pods', status);
    metrics.leader.freedOfNode({ allocations: 5, subnets: 2 });
    metrics.leader.freedKept();
    metrics.etcdWentBack();
    metrics.leader.deposed();
    const { series, value } = await scrape();
    expect([...series.keys()].filter((key) => key.startsWith('weft_pool_'))).toEqual([]);
    expect(value('weft_gone_node_deletions_total', { resource: 'ipallocations' })).toBe(5);
    expect(value('weft_gone_node_deletions_total', { resource: 'nodesubnets' })).toBe(2);
    expect(value('weft_kept_addresses_freed_total')).toBe(1);
    expect(value('weft_etcd_went_back_total')).toBe(1);
  });
});

it('tells whether it leads, as it is at the scrape', async () => {
  const { metrics, scrape } = start();
  let leads = true;
  metrics.readFrom({ isLeading: () => leads });
  expect((await scrape()).value('weft_leader')).toBe(1);
  leads = false;
  expect((await scrape()).value('weft_leader')).toBe(0);
});

it('tells what waits in each queue, what came, how long it took and what is tried again', async () => {
  const { metrics, scrape } = start();
  const { pools, nodes } = metrics.leader.queues;
  pools.added();
  pools.waiting(4);
  pools.reconciled('done', 20);
  pools.reconciled('retried', 2_000);
  nodes.reconciled('given up', 1);
  const { value } = await scrape();
  expect(value('weft_workqueue_depth', { queue: 'pools' })).toBe(4);
  expect(value('weft_workqueue_adds_total', { queue: 'pools' })).toBe(1);
  expect(value('weft_workqueue_retries_total', { queue: 'pools' })).toBe(1);
  expect(value('weft_workqueue_retries_total', { queue: 'nodes' })).toBe(0);
  expect(value('weft_workqueue_work_duration_seconds_count', { queue: 'pools' })).toBe(2);
  expect(value('weft_workqueue_work_duration_seconds_sum', { queue: 'pools' })).toBeCloseTo(2.02);
  expect(value('weft_workqueue_work_duration_seconds_count', { queue: 'nodes' })).toBe(1);
});

it('tells of no finding of any invariant as soon as it leads, before the audit has looked', async () => {
  const { metrics, scrape } = start();
  let leads = false;
  metrics.readFrom({ isLeading: () => leads });
  expect((await scrape()).value('weft_audit_findings', { invariant: '5' })).toBeUndefined();
  leads = true;
  const { value } = await scrape();
  for (const invariant of INVARIANTS) {
    expect(value('weft_audit_findings', { invariant: String(invariant) })).toBe(0);
  }
});

it('tells what the audit found by invariant, and nothing once another leads', async () => {
  const { metrics, scrape } = start();
  metrics.audited(
    countByInvariant([
      {
        invariant: 5,
        severity: 'critical',
        reason: 'OutsideSubnets',
        object: { kind: 'IPAllocation', name: '10.0.0.1' },
        message: '',
      },
    ]),
  );
  const { value } = await scrape();
  expect(value('weft_audit_findings', { invariant: '5' })).toBe(1);
  expect(value('weft_audit_findings', { invariant: '7' })).toBe(0);
  metrics.leader.deposed();
  expect((await scrape()).value('weft_audit_findings', { invariant: '5' })).toBeUndefined();
});
