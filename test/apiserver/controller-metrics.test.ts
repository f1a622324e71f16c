import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { IP_ALLOCATION, IPAllocation, IPPool, type PoolUsage } from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import { INVARIANTS, poolUsage, type Invariant } from '../../src/ipam/index.ts';
import { allocationStore, listAll, nodeSubnetStore, pathOf } from '../../src/kube/index.ts';
import { FAMILIES, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { VERSION } from '../../src/version.ts';
import type { Scrape } from '../metrics/exposition.ts';
import { freePort, scrape } from '../metrics/scrape.ts';
import { keepingLog, mustSucceed, useApiserver } from './apiserver.ts';

/** What controllers tell Prometheus, beside the objects that they tell it of. */

const apiserver = useApiserver();
const soon = { timeout: 20_000, interval: 100 };
const FAST = ['--quarantine-seconds=1', '--status-seconds=1', '--lease-seconds=3'];

/** What the fields of a status are called as figures. */
const FIGURES: Readonly<Record<keyof PoolUsage, string>> = {
  capacity: 'addresses_capacity',
  allocated: 'addresses_allocated',
  resting: 'addresses_resting',
  reserved: 'addresses_reserved',
  free: 'addresses_free',
  nodeSubnets: 'subnets_held',
  freeSubnets: 'subnets_free',
};

interface Replica {
  readonly port: number;
  readonly log: ReturnType<typeof keepingLog>;
  stop(): Promise<void>;
}

let dir: string;
const running = new Set<Replica>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-controller-metrics-'));
  await makeNode('a');
});

afterEach(async () => {
  for (const replica of running) await replica.stop();
});

afterAll(async () => {
  await rm(dir, { recursive: true, force: true });
});

describe('the figures of a pool', () => {
  it('are those of the objects, in both families, and follow them', async () => {
    await makePool('figures', ['10.30.0.0/24', 'fd30::/32']);
    await claimSubnet('figures', '10.30.0.64/26', 'a');
    for (const address of ['10.30.0.65', '10.30.0.66', '10.30.0.67']) await claimAddress('figures', address);
    const { port } = await startReplica('figures');
    const figure = (found: Scrape, name: string, family: string) =>
      found.value(`weft_pool_${name}`, { pool: 'figures', family });
    await vi.waitFor(async () => {
      const found = await scrape(port);
      expect(figure(found, 'addresses_capacity', 'ipv4')).toBe(256);
      expect(figure(found, 'addresses_allocated', 'ipv4')).toBe(3);
      expect(figure(found, 'addresses_resting', 'ipv4')).toBe(0);
      // The first address of each of its four subnets.
      expect(figure(found, 'addresses_reserved', 'ipv4')).toBe(4);
      expect(figure(found, 'addresses_free', 'ipv4')).toBe(249);
      expect(figure(found, 'subnets_held', 'ipv4')).toBe(1);
      expect(figure(found, 'subnets_free', 'ipv4')).toBe(3);
      expect(figure(found, 'addresses_capacity', 'ipv6')).toBe(2 ** 96);
      expect(figure(found, 'addresses_allocated', 'ipv6')).toBe(0);
      expect(figure(found, 'subnets_free', 'ipv6')).toBe(2 ** 90);
      expect(found.value('weft_pool_condition', { pool: 'figures', condition: 'Ready' })).toBe(1);
    }, soon);

    const store = allocationStore(apiserver().client);
    const seen = await store.get('10.30.0.66');
    if (seen === undefined) throw new Error('claimed above');
    await store.markReleased(seen, new Date());
    await vi.waitFor(async () => {
      const found = await scrape(port);
      expect(figure(found, 'addresses_allocated', 'ipv4')).toBe(2);
      expect(figure(found, 'addresses_resting', 'ipv4')).toBe(1);
      // The status says the same, a little later, and both are what a recount comes to (invariant 9).
      const read = await getPool('figures');
      const recount = await recounted(read);
      expect(recount.ipv4?.allocated).toBe(2);
      for (const family of FAMILIES) {
        const counts = recount[family];
        expect(read.status?.[family]).toEqual(counts);
        expect(
          Object.values(FIGURES).map((name) => figure(found, name, family)),
          family,
        ).toEqual(Object.keys(FIGURES).map((field) => Number(counts?.[field as keyof PoolUsage])));
      }
    }, soon);
  });

  it('go with the pool', async () => {
    await makePool('goes', ['10.31.0.0/24']);
    const { port } = await startReplica('goes', ['--pool-deletion-seconds=1']);
    const series = async () =>
      [...(await scrape(port)).series.keys()].filter((key) => key.includes('"goes"'));
    await vi.waitFor(async () => {
      expect((await series()).length).toBeGreaterThan(5);
    }, soon);
    await mustSucceed(apiserver().kubectl(['delete', 'ippool', 'goes', '--wait=true', '--timeout=20s']));
    await vi.waitFor(async () => {
      expect(await series()).toEqual([]);
    }, soon);
  });

  it('are told by the replica that leads alone, so that a sum counts nothing twice', async () => {
    await makePool('summed', ['10.32.0.0/24']);
    const replicas = [await startReplica('two'), await startReplica('two')];
    const capacities = async () => {
      const scrapes = await Promise.all(
        replicas.filter((one) => running.has(one)).map(({ port }) => scrape(port)),
      );
      return {
        told: scrapes.map((one) =>
          one.value('weft_pool_addresses_capacity', { pool: 'summed', family: 'ipv4' }),
        ),
        leaders: scrapes.map((one) => one.value('weft_leader')),
      };
    };
    const first = await vi.waitFor(async () => {
      const { told, leaders } = await capacities();
      expect(told.filter((value) => value !== undefined)).toEqual([256]);
      expect(leaders.map((value) => value === 1)).toEqual(told.map((value) => value === 256));
      return leaders.indexOf(1);
    }, soon);
    await replicas[first]?.stop();
    await vi.waitFor(async () => {
      expect(await capacities()).toEqual({ told: [256], leaders: [1] });
    }, soon);
  });

  it('go when a leader loses its Lease, though it lives on', async () => {
    await makePool('deposed', ['10.33.0.0/24']);
    const { port } = await startReplica('deposed');
    const told = async () => {
      const found = await scrape(port);
      return [
        found.value('weft_leader'),
        found.value('weft_pool_addresses_capacity', { pool: 'deposed', family: 'ipv4' }),
      ];
    };
    await vi.waitFor(async () => {
      expect(await told()).toEqual([1, 256]);
    }, soon);
    const usurp = {
      spec: {
        holderIdentity: 'another',
        leaseDurationSeconds: 3600,
        renewTime: '2100-01-01T00:00:00.000000Z',
      },
    };
    await mustSucceed(
      apiserver().kubectl([
        'patch',
        'lease',
        'deposed',
        '-n',
        'default',
        '--type=merge',
        '-p',
        JSON.stringify(usurp),
      ]),
    );
    await vi.waitFor(async () => {
      expect(await told()).toEqual([0, undefined]);
    }, soon);
  });
});

describe('what a controller does', () => {
  it('is counted: requests, work, Events, and what it frees of nodes that are gone', async () => {
    await makePool('older', ['10.34.0.0/16'], 0);
    // creationTimestamp has seconds.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    await makePool('younger', ['10.34.1.0/24']);
    await claimSubnet('older', '10.34.0.0/26', 'gone');
    for (const address of ['10.34.0.1', '10.34.0.2']) await claimAddress('older', address, 'gone');
    const { port } = await startReplica('counted');
    await vi.waitFor(async () => {
      const { value } = await scrape(port);
      expect(value('weft_gone_node_deletions_total', { resource: 'ipallocations' })).toBe(2);
      expect(value('weft_gone_node_deletions_total', { resource: 'nodesubnets' })).toBe(1);
      expect(value('weft_events_total', { result: 'written' })).toBeGreaterThan(0);
      expect(value('weft_events_total', { result: 'failed' })).toBe(0);
      expect(value('weft_pool_condition', { pool: 'younger', condition: 'Overlapping' })).toBe(1);
    }, soon);
    const { value } = await scrape(port);
    expect(value('weft_api_requests_total', { verb: 'delete', code: '200' })).toBe(3);
    expect(value('weft_api_requests_total', { verb: 'watch', code: '200' })).toBeGreaterThanOrEqual(4);
    expect(value('weft_api_requests_total', { verb: 'list', code: '200' })).toBeGreaterThanOrEqual(4);
    expect(value('weft_api_requests_total', { verb: 'list', code: 'unreachable' })).toBe(0);
    expect(value('weft_api_request_duration_seconds_count', { verb: 'delete' })).toBe(3);
    expect(value('weft_workqueue_adds_total', { queue: 'pools' })).toBeGreaterThanOrEqual(2);
    expect(value('weft_workqueue_work_duration_seconds_count', { queue: 'nodes' })).toBeGreaterThanOrEqual(2);
    expect(
      value('weft_build_info', { part: 'controller', version: VERSION, node_version: process.version }),
    ).toBe(1);
  });

  it('finds in the objects is counted by invariant, as long as it stands', async () => {
    await makePool('audited', ['10.36.0.0/24']);
    await claimSubnet('audited', '10.36.0.0/26', 'a');
    await claimAddress('audited', '10.36.0.9');
    const { port } = await startReplica('audited', ['--audit-seconds=0.3', '--grace-seconds=1']);
    // Once it has looked for long enough.
    await vi.waitFor(async () => {
      const { conditions = [] } = (await getPool('audited')).status ?? {};
      expect(conditions.map(({ type }) => type)).toContain('Consistent');
    }, soon);
    const findings = async (invariant: Invariant) =>
      (await scrape(port)).value('weft_audit_findings', { invariant: String(invariant) });
    for (const invariant of INVARIANTS) expect(await findings(invariant)).toBeGreaterThanOrEqual(0);
    expect(await findings(5)).toBe(0);

    for (const address of ['10.36.0.200', '10.36.0.201']) await claimAddress('audited', address);
    await vi.waitFor(async () => expect(await findings(5)).toBe(2), soon);
    for (const left of [1, 0]) {
      await mustSucceed(apiserver().kubectl(['delete', 'ipallocation', `10.36.0.20${left}`]));
      await vi.waitFor(async () => expect(await findings(5)).toBe(left), soon);
    }
  });

  it('goes on while its port is in use, and is told when that is free', async () => {
    const port = await freePort();
    const other = createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    const replica = await startReplica('no-port', [], port);
    await makePool('no-port', ['10.35.0.0/24']);
    await vi.waitFor(async () => {
      expect((await getPool('no-port')).status?.ipv4?.capacity).toBe('256');
    }, soon);
    expect(replica.log.lines.map(({ message }) => message)).toContain(
      'metrics cannot be served there: all else works, trying again',
    );
    await new Promise((resolve) => other.close(resolve));
    await vi.waitFor(async () => {
      expect((await scrape(port)).value('weft_leader')).toBe(1);
    }, soon);
  });
});

/** One replica of its own Lease, unless another names the same. */
async function startReplica(lease: string, more: readonly string[] = [], given?: number): Promise<Replica> {
  const port = given ?? (await freePort());
  const stop = new AbortController();
  const log = keepingLog();
  const own = [
    `--identity=on-${port}`,
    '--namespace=default',
    `--lease-name=${lease}`,
    `--probe-socket=${join(dir, `${port}.sock`)}`,
    `--kubeconfig=${apiserver().plane.kubeconfig}`,
    `--metrics-address=127.0.0.1:${port}`,
  ];
  const ended = runController(parseControllerFlags([...own, ...FAST, ...more]), {
    clock: createSystemClock(),
    random: Math.random,
    env: {},
    log,
    signal: stop.signal,
  });
  const replica: Replica = {
    port,
    log,
    async stop() {
      running.delete(replica);
      stop.abort(new Error('the test has ended'));
      await ended;
    },
  };
  running.add(replica);
  if (given === undefined) await vi.waitFor(() => scrape(port), soon);
  return replica;
}

async function makePool(name: string, cidrs: readonly string[], reuseDelaySeconds = 30): Promise<void> {
  const apiVersion = 'ipam.weft.dev/v1alpha1';
  const object = { apiVersion, kind: 'IPPool', metadata: { name }, spec: { cidrs, reuseDelaySeconds } };
  await mustSucceed(apiserver().kubectl(['create', '-f', '-'], object));
}

/** From the objects as they are in etcd. */
async function recounted(pool: IPPool): Promise<ReturnType<typeof poolUsage>> {
  const { client } = apiserver();
  const { items } = await listAll(client, { path: pathOf(IP_ALLOCATION) });
  const subnets = await nodeSubnetStore(client).listOfPool(pool.metadata.name);
  const allocations = items.map((object) => IPAllocation.parse(object));
  return poolUsage({ pool, pools: [pool], subnets, allocations, labelsOf: () => ({}) });
}

async function getPool(name: string): Promise<IPPool> {
  return IPPool.parse(
    JSON.parse(await mustSucceed(apiserver().kubectl(['get', 'ippool', name, '-o', 'json']))),
  );
}

async function makeNode(name: string): Promise<void> {
  await mustSucceed(
    apiserver().kubectl(['create', '-f', '-'], { apiVersion: 'v1', kind: 'Node', metadata: { name } }),
  );
}

async function claimSubnet(pool: string, cidr: string, nodeName: string): Promise<void> {
  await nodeSubnetStore(apiserver().client).create({
    cidr: parseCIDR(cidr),
    pool,
    poolUID: (await getPool(pool)).metadata.uid,
    nodeName,
    nodeUID: `uid-of-${nodeName}`,
    nextHops: [parseAddress('192.0.2.1')],
  });
}

async function claimAddress(pool: string, address: string, nodeName = 'a'): Promise<void> {
  await allocationStore(apiserver().client).create({
    address: parseAddress(address),
    pool,
    nodeName,
    attachment: { network: 'weft', containerID: `c-${address}`, ifName: 'eth0', kind: 'Interface' },
  });
}
