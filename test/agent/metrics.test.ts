import { describe, expect, it } from 'vitest';
import { createAgentMetrics } from '../../src/agent/metrics.ts';
import type { SweepSummary } from '../../src/agent/sweep.ts';
import { cniErrorObject } from '../../src/cni/index.ts';
import { ClaimDeadlineError, PoolExhaustedError } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { nodeSubnet, pool } from '../controller/objects.ts';
import { parseExposition } from '../metrics/exposition.ts';

function start() {
  const metrics = createAgentMetrics({ nowMs: () => 0 });
  return { metrics, scrape: async () => parseExposition(await metrics.registry.text()) };
}

const SWEPT: SweepSummary = {
  judged: true,
  released: 0,
  readopted: 0,
  conflicts: 0,
  linksRemoved: 0,
  suspects: 0,
};

describe('from the start', () => {
  it('every counter is there with 0, by every value that is known', async () => {
    const { series, value } = await start().scrape();
    const told = [...series].filter(([name]) => !/^(process_|weft_build_info)/.test(name));
    expect(told.filter(([, its]) => its !== 0)).toEqual([]);
    const names = new Set(told.map(([name]) => name.replace(/_(bucket|sum|count)?(\{.*)?$|\{.*/, '')));
    for (const name of [
      'weft_claims_total',
      'weft_claim_tries_total',
      'weft_releases_total',
      'weft_release_retries_total',
      'weft_subnet_claims_total',
      'weft_subnets_given_back_total',
      'weft_drift_repaired_total',
      'weft_connections_ended_total',
      'weft_connection_passes_total',
      'weft_unmet_needs',
      'weft_sweeps_total',
      'weft_sweep_released_total',
      'weft_sweep_readopted_total',
      'weft_sweep_links_removed_total',
      'weft_sweep_conflicts',
      'weft_node_findings',
      'weft_api_requests_total',
    ]) {
      expect(names, name).toContain(name);
    }
    for (const verb of ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC']) {
      expect(value('weft_cni_duration_seconds_count', { verb, result: 'ok' }), verb).toBe(0);
    }
    expect(value('weft_claims_total', { result: 'exhausted' })).toBe(0);
  });

  it('the codes that an ADD may well fail with are there', async () => {
    const { value } = await start().scrape();
    const failures = [
      new PoolExhaustedError({
        pool: 'p',
        family: 'ipv4',
        subnets: [],
        usable: 0n,
        inUse: 0,
        resting: 0,
        reserved: 0n,
      }),
      new ClaimDeadlineError('p', 1, undefined),
      Object.assign(new Error('refused'), { name: 'ForbiddenError' }),
      Object.assign(new Error('refused'), { name: 'NetlinkError' }),
      new TypeError('a mistake of ours'),
    ];
    for (const failure of failures) {
      const { code } = cniErrorObject(failure, '1.1.0');
      expect(value('weft_cni_duration_seconds_count', { verb: 'ADD', result: String(code) })).toBe(0);
    }
  });
});

describe('counted', () => {
  it('are calls, by verb and result, in seconds', async () => {
    const { metrics, scrape } = start();
    metrics.calls('ADD', 'ok', 7);
    metrics.calls('ADD', 'ok', 40);
    metrics.calls('ADD', 11, 45_000);
    metrics.calls('DEL', 'gone', 1);
    metrics.calls(undefined, 6, 1);
    const { value } = await scrape();
    const ok = { verb: 'ADD', result: 'ok' };
    expect(value('weft_cni_duration_seconds_count', ok)).toBe(2);
    expect(value('weft_cni_duration_seconds_sum', ok)).toBeCloseTo(0.047);
    expect(value('weft_cni_duration_seconds_bucket', { ...ok, le: '0.01' })).toBe(1);
    expect(value('weft_cni_duration_seconds_count', { verb: 'ADD', result: '11' })).toBe(1);
    expect(value('weft_cni_duration_seconds_count', { verb: 'DEL', result: 'gone' })).toBe(1);
    expect(value('weft_cni_duration_seconds_count', { verb: 'unknown', result: '6' })).toBe(1);
  });

  it('are claims, releases, subnets and drift', async () => {
    const { metrics, scrape } = start();
    metrics.claims.created();
    metrics.claims.created();
    metrics.claims.taken();
    metrics.claims.retried();
    metrics.claimEnded('claimed');
    metrics.claimEnded('exhausted');
    metrics.releases.marked();
    metrics.releases.deleted();
    metrics.releases.retried();
    metrics.subnets.claimed();
    metrics.subnets.taken();
    metrics.subnets.unavailable();
    metrics.subnets.givenBack();
    metrics.driftRepaired(3);
    const { value } = await scrape();
    expect(value('weft_claim_tries_total', { result: 'created' })).toBe(2);
    expect(value('weft_claim_tries_total', { result: 'taken' })).toBe(1);
    expect(value('weft_claim_tries_total', { result: 'retried' })).toBe(1);
    expect(value('weft_claims_total', { result: 'claimed' })).toBe(1);
    expect(value('weft_claims_total', { result: 'exhausted' })).toBe(1);
    expect(value('weft_claims_total', { result: 'failed' })).toBe(0);
    expect(value('weft_releases_total', { step: 'marked' })).toBe(1);
    expect(value('weft_releases_total', { step: 'deleted' })).toBe(1);
    expect(value('weft_release_retries_total')).toBe(1);
    for (const result of ['claimed', 'taken', 'unavailable']) {
      expect(value('weft_subnet_claims_total', { result }), result).toBe(1);
    }
    expect(value('weft_subnets_given_back_total')).toBe(1);
    expect(value('weft_drift_repaired_total')).toBe(3);
  });

  it('are sweeps and what they did; what stands is what the last one that could see has seen', async () => {
    const { metrics, scrape } = start();
    const answers: (() => Promise<SweepSummary>)[] = [
      async () => ({ ...SWEPT, released: 2, readopted: 1, linksRemoved: 1, conflicts: 3, suspects: 4 }),
      async () => ({ ...SWEPT, released: 1, conflicts: 1, suspects: 2 }),
      async () => ({ ...SWEPT, judged: false }),
      async () => {
        throw new Error('the dump was interrupted');
      },
    ];
    const sweep = metrics.counted(async () => answers.shift()?.() ?? SWEPT);
    for (let i = 0; i < 3; i++) await sweep();
    await expect(sweep()).rejects.toThrow('interrupted');
    const { value } = await scrape();
    expect(value('weft_sweeps_total', { result: 'judged' })).toBe(2);
    expect(value('weft_sweeps_total', { result: 'blind' })).toBe(1);
    expect(value('weft_sweeps_total', { result: 'failed' })).toBe(1);
    expect(value('weft_sweep_released_total')).toBe(3);
    expect(value('weft_sweep_readopted_total')).toBe(1);
    expect(value('weft_sweep_links_removed_total')).toBe(1);
    expect(value('weft_sweep_conflicts')).toBe(1);
    expect(value('weft_sweep_suspects')).toBe(2);
    await sweep();
    expect((await scrape()).value('weft_sweep_conflicts')).toBe(0);
  });
});

it('reads at each scrape what this node holds, has under way, and whether its data path is whole', async () => {
  const { metrics, scrape } = start();
  const both = pool('both', ['10.0.0.0/16', 'fd00::/48']);
  const gone = pool('gone', ['10.9.0.0/16']);
  const elsewhere = pool('elsewhere', ['10.8.0.0/16']);
  elsewhere.spec.nodeSelector = { matchLabels: { zone: 'b' } };
  const subnets = [
    nodeSubnet(both, '10.0.0.0/26', 'n1'),
    nodeSubnet(both, '10.0.0.64/26', 'n1'),
    nodeSubnet(both, '10.0.1.0/26', 'n2'),
    nodeSubnet(gone, '10.9.0.0/26', 'n1'),
  ];
  const dataPath: { broken?: { forMs: number } } = {};
  metrics.readFrom({
    node: () => ({
      name: 'n1',
      uid: 'uid-n1',
      labels: { zone: 'a' },
      addresses: [parseAddress('192.0.2.1'), parseAddress('2001:db8::1')],
    }),
    pools: () => [both, elsewhere],
    subnets: () => subnets,
    pendingReleases: () => ({ releasing: 1, resting: 20, undoing: 0 }),
    broken: () => dataPath.broken,
  });
  const { value } = await scrape();
  expect(value('weft_node_subnets', { pool: 'both', family: 'ipv4' })).toBe(2);
  expect(value('weft_node_subnets', { pool: 'both', family: 'ipv6' })).toBe(0);
  expect(value('weft_node_subnets', { pool: 'gone', family: 'ipv4' })).toBe(1);
  // The node has nothing to do with it.
  expect(value('weft_node_subnets', { pool: 'elsewhere', family: 'ipv4' })).toBeUndefined();
  expect(value('weft_releases_pending', { state: 'resting' })).toBe(20);
  expect(value('weft_releases_pending', { state: 'undoing' })).toBe(0);
  expect(value('weft_data_path_broken_seconds')).toBe(0);
  dataPath.broken = { forMs: 61_500 };
  subnets.pop();
  const later = await scrape();
  expect(later.value('weft_data_path_broken_seconds')).toBe(61.5);
  expect(later.value('weft_node_subnets', { pool: 'gone', family: 'ipv4' })).toBeUndefined();
});
