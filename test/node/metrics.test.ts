import { once } from 'node:events';
import { createServer } from 'node:http';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Scrape } from '../metrics/exposition.ts';
import { scrape } from '../metrics/scrape.ts';
import { ip } from './namespaces.ts';
import {
  CONFIG,
  eventually,
  pool,
  startNode,
  type CallResult,
  type TestAgent,
  type TestNode,
} from './node.ts';

/** What an agent tells Prometheus of what it does. */

let node: TestNode;
let agent: TestAgent;

/** Where an agent serves without being told. */
const PORT = 9144;

beforeAll(async () => {
  node = await startNode();
  await node.apply(
    pool('metrics', {
      cidrs: ['10.16.0.0/24', 'fd00:16::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
    }),
  );
  agent = await node.startAgent();
});

afterAll(async () => {
  await node.stop();
});

test('every figure is there before there is anything to count', async () => {
  const { value } = await scrape(PORT);
  for (const verb of ['ADD', 'DEL']) {
    expect(value('weft_cni_duration_seconds_count', { verb, result: 'ok' })).toBe(0);
  }
  expect(value('weft_cni_duration_seconds_count', { verb: 'ADD', result: '11' })).toBe(0);
  expect(value('weft_claims_total', { result: 'exhausted' })).toBe(0);
  expect(value('weft_sweep_released_total')).toBe(0);
  expect(value('weft_drift_repaired_total')).toBe(0);
  expect(value('weft_data_path_broken_seconds')).toBe(0);
  expect(value('weft_node_subnets', { pool: 'metrics', family: 'ipv4' })).toBe(1);
  expect(value('weft_node_subnets', { pool: 'metrics', family: 'ipv6' })).toBe(1);
  expect(value('weft_subnet_claims_total', { result: 'claimed' })).toBe(2);
  expect(value('process_resident_memory_bytes')).toBeGreaterThan(50e6);
});

test('an ADD and a DEL show as calls, claims, requests and releases', async () => {
  expect((await add('counted')).exitCode).toBe(0);
  const added = await scraped('the ADD', (now) => calls(now, 'ADD', 'ok') === 1);
  expect(added.value('weft_cni_duration_seconds_sum', { verb: 'ADD', result: 'ok' })).toBeGreaterThan(0.001);
  expect(added.value('weft_claims_total', { result: 'claimed' })).toBe(1);
  expect(added.value('weft_claim_tries_total', { result: 'created' })).toBe(2);
  // Two subnets and two addresses.
  expect(added.value('weft_api_requests_total', { verb: 'create', code: '201' })).toBe(4);

  await remove('counted');
  const released = await scraped(
    'both addresses to be deleted',
    ({ value }) => value('weft_releases_total', { step: 'deleted' }) === 2,
  );
  expect(calls(released, 'DEL', 'ok')).toBe(1);
  expect(released.value('weft_releases_total', { step: 'marked' })).toBe(2);
  expect(released.value('weft_releases_pending', { state: 'resting' })).toBe(0);
  expect(released.value('weft_sweep_released_total')).toBe(0);
});

test('an ADD into a full pool shows with its code, and with names that others had', async () => {
  await node.apply(
    pool('tiny', { cidrs: ['10.17.0.0/30'], nodeSubnetPrefixLength: { ipv4: 30 }, reuseDelaySeconds: 1 }),
  );
  await eventually('its subnet', async () => ((await node.subnets('tiny')).length === 1 ? true : undefined));
  // Of no node: the agent's own cache does not show them.
  for (const last of [1, 2, 3]) {
    await node.apply({
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'IPAllocation',
      metadata: { name: `10.17.0.${last}` },
      spec: { address: `10.17.0.${last}`, pool: 'tiny', holder: 'a printer' },
    });
  }
  const { answer } = await add('refused', { ...CONFIG, pool: 'tiny' });
  expect(answer?.code).toBe(11);
  const found = await scraped('the failure', (now) => calls(now, 'ADD', '11') === 1);
  expect(calls(found, 'ADD', 'ok')).toBe(1);
  expect(found.value('weft_claims_total', { result: 'exhausted' })).toBe(1);
  expect(found.value('weft_claim_tries_total', { result: 'taken' })).toBe(3);
  expect(found.value('weft_api_requests_total', { verb: 'create', code: '409' })).toBe(3);
  await node.removeSandbox('refused');
});

test('what the sweep releases, and makes again, shows as that', async () => {
  await add('leaked');
  await node.removeSandbox('leaked');
  await scraped('the release by the sweep', ({ value }) => value('weft_sweep_released_total') === 2);
  await add('robbed');
  const held = await node.allocations('robbed');
  await node.kubectl('delete', 'ipallocations', ...held.map(({ name }) => name));
  const found = await scraped(
    'both objects to be made again',
    ({ value }) => value('weft_sweep_readopted_total') === 2,
  );
  expect(found.value('weft_sweep_released_total')).toBe(2);
  expect(found.value('weft_sweep_conflicts')).toBe(0);
  expect(found.value('weft_sweeps_total', { result: 'judged' })).toBeGreaterThan(3);
  expect(found.value('weft_sweeps_total', { result: 'failed' })).toBe(0);
  await remove('robbed');
});

test('a table that somebody flushed shows as drift when it is put back', async () => {
  await execa('nft', ['delete', 'table', 'inet', 'weft']);
  await scraped('the repair', ({ value }) => (value('weft_drift_repaired_total') ?? 0) > 0);
  expect((await execa('nft', ['list', 'tables'])).stdout).toContain('table inet weft');
});

describe('the port', () => {
  test('is the loopback’s alone', async () => {
    const listening = (await execa('ss', ['-tlnH'])).stdout
      .split('\n')
      .filter((line) => line.includes(`:${PORT} `));
    expect(listening).toHaveLength(1);
    expect(listening[0]).toContain(`127.0.0.1:${PORT}`);
  });

  test('is not opened by an agent that stands by, before it serves', async () => {
    const next = await node.startAgent({
      flags: ['--metrics-address=[::1]:9155'],
      probe: '/run/weft/next.sock',
    });
    await eventually('it to stand by', () => (next.log().includes('standing by') ? true : undefined));
    const open = async () => (await execa('ss', ['-tlnH'])).stdout.includes('[::1]:9155');
    expect(await open()).toBe(false);
    await agent.kill();
    agent = next;
    await eventually('its port', async () => ((await open()) ? true : undefined));
    const text = await (await fetch('http://[::1]:9155/metrics')).text();
    expect(text).toContain('weft_node_subnets{pool="metrics",family="ipv4"} 1');
  });

  test('that another process has keeps no pod from starting, and is had when that ends', async () => {
    await agent.kill();
    const other = createServer().listen(PORT, '127.0.0.1');
    await once(other, 'listening');
    agent = await node.startAgent();
    expect((await add('without-port')).exitCode).toBe(0);
    expect(agent.log()).toContain('metrics cannot be served there: all else works, trying again');
    await new Promise((resolve) => other.close(resolve));
    const found = await eventually('the metrics', async () => scrape(PORT).catch(() => undefined));
    expect(calls(found, 'ADD', 'ok')).toBe(1);
    await remove('without-port');
  });

  test('may be none', async () => {
    await agent.kill();
    agent = await node.startAgent({ flags: ['--metrics-address='] });
    expect((await execa('ss', ['-tlnHp'])).stdout).not.toContain(`pid=${agent.pid ?? ''},`);
    expect((await add('no-metrics')).exitCode).toBe(0);
    await remove('no-metrics');
  });
});

/** Scrapes until what is waited for shows: a text may be half a second old. */
function scraped(what: string, shows: (found: Scrape) => boolean): Promise<Scrape> {
  return eventually(`${what} to show`, async () => {
    const found = await scrape(PORT);
    return shows(found) ? found : undefined;
  });
}

function calls({ value }: Scrape, verb: string, result: string): number | undefined {
  return value('weft_cni_duration_seconds_count', { verb, result });
}

async function add(
  containerID: string,
  config: object = { ...CONFIG, pool: 'metrics' },
): Promise<CallResult> {
  const netns = await node.makeSandbox(containerID);
  return node.cni({ command: 'ADD', containerID, netns, config });
}

async function remove(containerID: string): Promise<void> {
  const netns = `/run/netns/${containerID}`;
  expect((await node.cni({ command: 'DEL', containerID, netns })).exitCode).toBe(0);
  expect(await ip('netns')).toContain(containerID);
  await node.removeSandbox(containerID);
}
