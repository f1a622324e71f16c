import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it, onTestFailed, vi } from 'vitest';
import {
  allocationName,
  IPPool,
  POOL_FINALIZER,
  SUBNET_HOLD_ANNOTATION,
  type NodeSubnet,
  type PoolUse,
} from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import { askHealth } from '../../src/health.ts';
import { allocationStore, nodeSubnetStore, type Log } from '../../src/kube/index.ts';
import {
  cidrOf,
  FAMILIES,
  formatAddress,
  formatCIDR,
  parseAddress,
  parseCIDR,
  type Family,
  type IPAddress,
} from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { keepingLog, mustSucceed, useApiserver } from './apiserver.ts';
import { startLossyProxy, type ProxiedRequest } from './lossy-proxy.ts';

const MAIN = new URL('../../src/controller/main.ts', import.meta.url).pathname;
const apiserver = useApiserver();

/** Short times, so that a test need not wait for minutes. */
const FAST = [
  '--quarantine-seconds=2',
  '--pool-deletion-seconds=2',
  '--status-seconds=1',
  '--lease-seconds=3',
];

interface Running {
  readonly probeSocket: string;
  readonly log: ReturnType<typeof keepingLog>;
  stop(): Promise<void>;
}

let dir: string;
let running: Pick<Running, 'stop'>[];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-controller-'));
  running = [];
});

afterEach(async () => {
  await Promise.all(running.map((controller) => controller.stop()));
  await rm(dir, { recursive: true, force: true });
  await apiserver().kubectl(['delete', 'nodes,ippools,nodesubnets,ipallocations', '--all', '--wait=false']);
  // What a stopped controller holds by its finalizer.
  const names = await mustSucceed(apiserver().kubectl(['get', 'ippools', '-o', 'name']));
  for (const name of names.split('\n').filter(Boolean)) {
    await apiserver().kubectl(['patch', name, '--type=merge', '-p', '{"metadata":{"finalizers":null}}']);
  }
});

function startController(identity: string, more: readonly string[] = [], kubeconfig?: string): Running {
  const stop = new AbortController();
  const log = keepingLog();
  onTestFailed(() => console.error(`controller ${identity} said`, log.lines));
  const probeSocket = join(dir, `${identity}.sock`);
  const ended = runController(parseControllerFlags([...flagsOf(identity, kubeconfig), ...more]), {
    clock: createSystemClock(),
    random: Math.random,
    env: {},
    log: log satisfies Log,
    signal: stop.signal,
  });
  const controller = {
    probeSocket,
    log,
    async stop() {
      stop.abort(new Error('the test has ended'));
      await ended;
    },
  };
  running.push(controller);
  return controller;
}

function flagsOf(identity: string, kubeconfig = apiserver().plane.kubeconfig): string[] {
  const own = [
    `--identity=${identity}`,
    '--namespace=default',
    `--lease-name=${leaseName()}`,
    `--probe-socket=${join(dir, `${identity}.sock`)}`,
    '--metrics-address=',
    `--kubeconfig=${kubeconfig}`,
  ];
  return [...own, ...FAST];
}

/** Another for each test. */
function leaseName(): string {
  return dir.split('-').at(-1)?.toLowerCase() ?? '';
}

/** The same in a process of its own, which can be held up whole. */
function startControllerProcess(identity: string, more: readonly string[], kubeconfig: string) {
  const args = [MAIN, ...flagsOf(identity, kubeconfig), ...more];
  const child = execa(process.execPath, args, { reject: false, all: true });
  let said = '';
  child.all.on('data', (part: Buffer) => (said += part.toString()));
  onTestFailed(() => console.error(`controller ${identity} said`, said));
  const controller = {
    log: () => said,
    signal: (name: NodeJS.Signals) => child.kill(name),
    async stop() {
      child.kill('SIGKILL');
      await child;
    },
  };
  running.push(controller);
  return controller;
}

async function makePool(name: string, cidrs: readonly string[], more: object = {}): Promise<void> {
  await mustSucceed(
    apiserver().kubectl(['create', '-f', '-'], {
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'IPPool',
      metadata: { name },
      spec: { cidrs, ...more },
    }),
  );
}

/** As its owner does. */
async function changePool(name: string, spec: object): Promise<void> {
  const patch = JSON.stringify({ spec });
  await mustSucceed(apiserver().kubectl(['patch', 'ippool', name, '--type=merge', '-p', patch]));
}

async function getPool(name: string): Promise<IPPool | undefined> {
  const found = await apiserver().kubectl(['get', 'ippool', name, '-o', 'json', '--ignore-not-found']);
  return found.stdout === '' ? undefined : IPPool.parse(JSON.parse(String(found.stdout)));
}

/** The Events of one object, as text, a line each. */
async function eventsOf(object: string): Promise<string> {
  const { stdout } = await apiserver().kubectl(['get', 'events', '-n', 'default']);
  return String(stdout)
    .split('\n')
    .filter((line) => line.includes(`${object} `))
    .join('\n');
}

async function makeNode(name: string): Promise<void> {
  await mustSucceed(
    apiserver().kubectl(['create', '-f', '-'], { apiVersion: 'v1', kind: 'Node', metadata: { name } }),
  );
}

async function giveAddresses(nodeName: string, ...given: readonly string[]): Promise<void> {
  const addresses = given.map((address) => ({ type: 'InternalIP', address }));
  const patch = JSON.stringify({ status: { addresses } });
  await mustSucceed(
    apiserver().kubectl(['patch', 'node', nodeName, '--subresource=status', '--type=merge', '-p', patch]),
  );
}

async function uidOfNode(name: string): Promise<string> {
  return mustSucceed(apiserver().kubectl(['get', 'node', name, '-o', 'jsonpath={.metadata.uid}']));
}

async function claimSubnet(
  pool: string,
  cidr: string,
  nodeName: string,
  nodeUID = `uid-of-${nodeName}`,
  nextHops = ['192.0.2.1'],
): Promise<NodeSubnet> {
  const uid = (await getPool(pool))?.metadata.uid ?? '';
  const claimed = await nodeSubnetStore(apiserver().client).create({
    cidr: parseCIDR(cidr),
    pool,
    poolUID: uid,
    nodeName,
    nodeUID,
    nextHops: nextHops.map(parseAddress),
  });
  if (claimed.kind !== 'created') throw new Error(`${cidr} is taken`);
  return claimed.object;
}

/** A pool's reuse delay of 30 s would outlast the quarantine. */
async function restForNoTime(pool: string): Promise<void> {
  await changePool(pool, { reuseDelaySeconds: 0 });
}

async function claimAddress(pool: string, address: string, nodeName: string): Promise<void> {
  const claimed = await allocationStore(apiserver().client).create({
    address: parseAddress(address),
    pool,
    nodeName,
    attachment: { network: 'weft', containerID: `c-${address}`, ifName: 'eth0', kind: 'Interface' },
  });
  if (claimed.kind !== 'created') throw new Error(`${address} is taken`);
}

async function names(kind: string): Promise<string[]> {
  const text = await mustSucceed(apiserver().kubectl(['get', kind, '-o', 'name']));
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('/').at(-1) ?? '');
}

const conditionOf = (pool: IPPool | undefined, type: string) =>
  pool?.status?.conditions?.find((condition) => condition.type === type);

const soon = { timeout: 20_000, interval: 100 };

describe('pools', () => {
  it('get finalizer, numbers and conditions', async () => {
    startController('one');
    await makePool('pods', ['10.20.0.0/24', 'fd20::/64']);
    await vi.waitFor(async () => {
      const pool = await getPool('pods');
      expect(pool?.metadata.finalizers).toEqual([POOL_FINALIZER]);
      expect(conditionOf(pool, 'Ready')?.status).toBe('True');
      expect(pool?.status?.ipv6?.capacity).toBe(String(2n ** 64n));
    }, soon);
    await claimSubnet('pods', '10.20.0.0/26', 'a');
    await makeNode('a');
    await claimAddress('pods', '10.20.0.7', 'a');
    await vi.waitFor(async () => {
      const status = (await getPool('pods'))?.status?.ipv4;
      expect(status).toMatchObject({ capacity: '256', allocated: 1, nodeSubnets: 1, freeSubnets: '3' });
    }, soon);
  });

  it('count what another has in their range, as long as it is there', async () => {
    startController('one');
    await makeNode('a');
    await makePool('pods', ['10.34.0.0/24']);
    await makePool('younger', ['10.34.0.0/26', '10.35.0.0/24']);
    const counted = (free: object) =>
      vi.waitFor(async () => expect((await getPool('pods'))?.status?.ipv4).toMatchObject(free), soon);
    await counted({ freeSubnets: '4', reserved: '4' });
    const left = await claimSubnet('younger', '10.34.0.0/26', 'a');
    await counted({ freeSubnets: '3', reserved: '67' });
    await mustSucceed(apiserver().kubectl(['delete', 'nodesubnet', left.metadata.name]));
    await counted({ freeSubnets: '4', reserved: '4' });
    await claimAddress('younger', '10.34.0.7', 'a');
    await counted({ free: '251' });
    await mustSucceed(apiserver().kubectl(['delete', 'ipallocation', '10.34.0.7']));
    await counted({ free: '252' });

    // Held of a range that is another's by now: no subnet tells of it.
    const printer = {
      apiVersion: 'ipam.weft.dev/v1alpha1',
      kind: 'IPAllocation',
      metadata: { name: '10.34.0.9' },
      spec: { address: '10.34.0.9', pool: 'younger', holder: 'a printer' },
    };
    await mustSucceed(apiserver().kubectl(['create', '-f', '-'], printer));
    await counted({ free: '251' });
    const moved = ['patch', 'ippool', 'younger', '--type=merge', '-p', '{"spec":{"cidrs":["10.35.0.0/24"]}}'];
    await mustSucceed(apiserver().kubectl(moved));
    const scanner = {
      ...printer,
      metadata: { name: '10.34.0.10' },
      spec: { address: '10.34.0.10', pool: 'younger', holder: 'a scanner' },
    };
    await mustSucceed(apiserver().kubectl(['create', '-f', '-'], scanner));
    await counted({ free: '250' });
  });

  it('that overlap an older one say so, and an Event does', async () => {
    startController('one');
    await makePool('older', ['10.21.0.0/16']);
    // creationTimestamp has seconds.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    await makePool('a-younger', ['10.21.4.0/24']);
    await vi.waitFor(async () => {
      expect(conditionOf(await getPool('a-younger'), 'Overlapping')?.message).toContain('IPPool older');
      expect(conditionOf(await getPool('older'), 'Overlapping')?.status).toBe('False');
      const events = await apiserver().kubectl(['get', 'events', '-n', 'default']);
      expect(String(events.stdout)).toMatch(/Warning\s+Overlapping\s+ippool\/a-younger/);
    }, soon);
  });

  it('that name peers to no effect say so, until the peer names them back', async () => {
    startController('one');
    const isolate = (name: string, peers: string[]) =>
      apiserver().kubectl([
        'patch',
        'ippool',
        name,
        '--type=merge',
        '-p',
        JSON.stringify({ spec: { isolation: { mode: 'Isolated', peers } } }),
      ]);
    await makePool('blue', ['10.22.0.0/16']);
    await mustSucceed(isolate('blue', ['green']));
    const reason = async () => conditionOf(await getPool('blue'), 'PeersUnmatched')?.reason;
    await vi.waitFor(async () => expect(await reason()).toBe('NoSuchPool'), soon);
    await makePool('green', ['10.23.0.0/16']);
    await vi.waitFor(async () => expect(await reason()).toBe('PeersMatch'), soon);
    await mustSucceed(isolate('green', []));
    await vi.waitFor(async () => {
      expect(await reason()).toBe('NotNamedBack');
      const events = await apiserver().kubectl(['get', 'events', '-n', 'default']);
      expect(String(events.stdout)).toMatch(/Warning\s+PeersUnmatched\s+ippool\/blue/);
    }, soon);
    await mustSucceed(isolate('green', ['blue']));
    await vi.waitFor(async () => expect(await reason()).toBe('PeersMatch'), soon);
  });

  it.each(FAMILIES)('whose %s range Services use say so', async (family) => {
    startController('one');
    const services = await mustSucceed(
      apiserver().kubectl(['get', 'servicecidr', 'kubernetes', '-o', 'jsonpath={.spec.cidrs[*]}']),
    );
    const range = services.split(' ').find((cidr) => parseCIDR(cidr).family === family) ?? '';
    await makePool(`services-${family}`, [range]);
    await vi.waitFor(async () => {
      const found = conditionOf(await getPool(`services-${family}`), 'Overlapping');
      expect(found).toMatchObject({ status: 'True', reason: 'ServiceRange' });
      expect(await eventsOf(`ippool/services-${family}`)).toMatch(/Warning\s+Overlapping/);
    }, soon);
  });

  it.each([
    { family: 'ipv4', address: '10.24.0.7', range: '10.24.0.0/16' },
    { family: 'ipv6', address: 'fd24::7', range: 'fd24::/64' },
  ])(
    'whose $family range has the address of a node say so, and an Event does',
    async ({ family, address, range }) => {
      startController('one');
      await makeNode('inside');
      await giveAddresses('inside', address);
      await makePool(`around-${family}`, [range]);
      await vi.waitFor(async () => {
        const found = conditionOf(await getPool(`around-${family}`), 'Overlapping');
        expect(found).toMatchObject({ status: 'True', reason: 'NodeAddresses' });
        expect(await eventsOf(`ippool/around-${family}`)).toMatch(/Warning\s+Overlapping/);
      }, soon);
      // For the agents, who see no Node but their own (test/node/pools.test.ts).
      const inside = async () =>
        (await getPool(`around-${family}`))?.status?.nodeAddresses?.map(formatAddress);
      expect(await inside()).toEqual([address]);
      await mustSucceed(apiserver().kubectl(['delete', 'node', 'inside']));
      await vi.waitFor(async () => expect(await inside()).toBeUndefined(), soon);
    },
  );

  it.each([
    { range: '10.199.0.0/16', later: '10.199.64.0/20' },
    { range: 'fd00:10:199::/64', later: 'fd00:10:199::/112' },
  ])('hear at once of a range that Services get later: $later', async ({ range, later }) => {
    startController('one');
    await makePool('quiet', [range]);
    const overlapping = async () => conditionOf(await getPool('quiet'), 'Overlapping');
    await vi.waitFor(async () => expect(await overlapping()).toMatchObject({ status: 'False' }), soon);
    const services = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name: 'later' },
      spec: { cidrs: [later] },
    };
    await mustSucceed(apiserver().kubectl(['create', '-f', '-'], services));
    await vi.waitFor(async () => expect(await overlapping()).toMatchObject({ reason: 'ServiceRange' }), soon);
    await mustSucceed(apiserver().kubectl(['delete', 'servicecidr', 'later']));
    await vi.waitFor(async () => expect(await overlapping()).toMatchObject({ status: 'False' }), soon);
  });

  it.each([
    { reason: 'OlderPool', taken: '10.32.4.0/24', other: '10.33.0.0/24' },
    { reason: 'OlderPool', taken: 'fd32::400/120', other: 'fd33::/120' },
    { reason: 'ServiceRange', taken: '10.96.4.0/24', other: '10.33.0.0/24' },
    { reason: 'ServiceRange', taken: 'fd00:10:96::400/120', other: 'fd33::/120' },
    { reason: 'NodeAddresses', taken: '10.34.4.0/24', other: '10.33.0.0/24' },
    { reason: 'NodeAddresses', taken: 'fd34::400/120', other: 'fd33::/120' },
  ])(
    'one of whose two ranges is already others’ serve from the other: $taken, $reason (B20)',
    async ({ reason, taken, other }) => {
      const { family } = parseCIDR(taken);
      await makeNode('a');
      await giveAddresses('a', '10.34.4.7', 'fd34::407');
      await makePool('older', ['10.32.0.0/20', 'fd32::/116']);
      // creationTimestamp has seconds.
      await new Promise((resolve) => setTimeout(resolve, 1_100));
      await makePool('pods', [taken, other]);
      startController('one');
      await vi.waitFor(async () => {
        const pool = await getPool('pods');
        expect(conditionOf(pool, 'Overlapping')).toMatchObject({ status: 'True', reason });
        expect(conditionOf(pool, 'Overlapping')?.message).toContain(taken);
        expect(conditionOf(pool, 'Overlapping')?.message).not.toContain(other);
        expect(conditionOf(pool, 'Ready')?.status).toBe('True');
        // Those of the other range.
        expect(pool?.status?.[family]?.freeSubnets).toBe('4');
        const older = await getPool('older');
        expect(conditionOf(older, 'Overlapping')?.status).toBe('False');
        expect(older?.status?.[family]?.freeSubnets).toBe('64');
      }, soon);
      // What was claimed before goes on: nothing of it is drained.
      await claimSubnet('pods', taken.replace(/[0-9]+$/, family === 'ipv4' ? '26' : '122'), 'a');
      await vi.waitFor(async () => {
        const pool = await getPool('pods');
        expect(pool?.status?.[family]).toMatchObject({ nodeSubnets: 1, freeSubnets: '4' });
        expect(conditionOf(pool, 'Draining')?.status).toBe('False');
      }, soon);
    },
  );

  it('that are deleted wait for their subnets, say for which, and then go by themselves', async () => {
    startController('one');
    await makePool('pods', ['10.22.0.0/24']);
    await makeNode('a');
    const subnet = await claimSubnet('pods', '10.22.0.64/26', 'a');
    await vi.waitFor(async () => {
      expect((await getPool('pods'))?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    }, soon);
    await mustSucceed(apiserver().kubectl(['delete', 'ippool', 'pods', '--wait=false']));
    await vi.waitFor(async () => {
      expect(conditionOf(await getPool('pods'), 'Ready')?.message).toContain('10.22.0.64/26 of a');
    }, soon);
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    expect(await getPool('pods')).toBeDefined();
    await nodeSubnetStore(apiserver().client).delete(subnet);
    await vi.waitFor(async () => {
      expect(await getPool('pods')).toBeUndefined();
    }, soon);
  });

  it('whose drain has ended say so, and an Event does', async () => {
    startController('one');
    await makePool('drained', ['10.22.0.0/24', '10.22.1.0/24']);
    await makeNode('a');
    const subnet = await claimSubnet('drained', '10.22.1.0/26', 'a');
    const patch = '{"spec":{"cidrs":["10.22.0.0/24"]}}';
    await mustSucceed(apiserver().kubectl(['patch', 'ippool', 'drained', '--type=merge', '-p', patch]));
    const draining = async () => conditionOf(await getPool('drained'), 'Draining')?.status;
    await vi.waitFor(async () => expect(await draining()).toBe('True'), soon);
    await nodeSubnetStore(apiserver().client).delete(subnet);
    await vi.waitFor(async () => {
      expect(await draining()).toBe('False');
      expect(await eventsOf('ippool/drained')).toMatch(/Normal +Drained .*nothing is left/);
    }, soon);
  });

  it('that are disabled say how many addresses are left on which nodes, until none is', async () => {
    startController('one');
    await makePool('disabled', ['10.35.0.0/24', 'fd35::/120']);
    for (const node of ['a', 'b']) await makeNode(node);
    const subnets = [
      await claimSubnet('disabled', '10.35.0.0/26', 'a'),
      await claimSubnet('disabled', 'fd35::40/122', 'a'),
      await claimSubnet('disabled', '10.35.0.64/26', 'b'),
    ];
    for (const address of ['10.35.0.7', '10.35.0.8', 'fd35::47'])
      await claimAddress('disabled', address, 'a');
    await claimAddress('disabled', '10.35.0.71', 'b');
    const draining = async () => conditionOf(await getPool('disabled'), 'Draining');
    await vi.waitFor(async () => expect(await draining()).toMatchObject({ status: 'False' }), soon);
    await changePool('disabled', { disabled: true });

    const left = async (message: string) => {
      const expected = { status: 'True', reason: 'Disabled', message };
      await vi.waitFor(async () => expect(await draining()).toMatchObject(expected), soon);
    };
    const end = (...names: readonly string[]) =>
      mustSucceed(apiserver().kubectl(['delete', 'ipallocations', ...names]));
    const three = 'nothing new is drawn from 3 node subnets, which go when their pods are gone';
    await left(
      `${three}: 4 addresses are left; 10.35.0.0/26 of a (2), 10.35.0.64/26 of b (1), fd35::40/122 of a (1)`,
    );
    const { status } = (await getPool('disabled')) ?? {};
    expect([status?.ipv4?.freeSubnets, status?.ipv6?.freeSubnets]).toEqual(['0', '0']);
    await end('10.35.0.7', '10.35.0.71');
    await left(
      `${three}: 2 addresses are left; 10.35.0.0/26 of a (1), fd35::40/122 of a (1), 10.35.0.64/26 of b (0)`,
    );
    await end('10.35.0.8', allocationName(parseAddress('fd35::47')));
    await left(
      `${three}: 0 addresses are left; 10.35.0.0/26 of a (0), 10.35.0.64/26 of b (0), fd35::40/122 of a (0)`,
    );
    for (const subnet of subnets) await nodeSubnetStore(apiserver().client).delete(subnet);
    await vi.waitFor(async () => {
      expect(await draining()).toMatchObject({ status: 'False', reason: 'NothingLeft' });
      expect(await eventsOf('ippool/disabled')).toMatch(/Normal +Drained .*nothing is left/);
    }, soon);
    expect(conditionOf(await getPool('disabled'), 'Ready')).toMatchObject({
      status: 'False',
      reason: 'Disabled',
    });
  });

  it('without anything claimed go after the wait, not before', async () => {
    startController('one');
    await makePool('pods', ['10.23.0.0/24']);
    await vi.waitFor(async () => {
      expect((await getPool('pods'))?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    }, soon);
    const start = performance.now();
    await mustSucceed(apiserver().kubectl(['delete', 'ippool', 'pods', '--wait=true', '--timeout=20s']));
    expect(performance.now() - start).toBeGreaterThan(1_900);
  });
});

describe('the audit', () => {
  it('shows on the pool what was broken by hand, as long as it is', async () => {
    await makePool('pods', ['10.28.0.0/24']);
    await makeNode('a');
    await claimSubnet('pods', '10.28.0.0/26', 'a', await uidOfNode('a'));
    await claimAddress('pods', '10.28.0.7', 'a');
    startController('one', ['--audit-seconds=0.3', '--grace-seconds=1']);
    await vi.waitFor(async () => {
      expect(conditionOf(await getPool('pods'), 'Consistent')).toMatchObject({ status: 'True' });
    }, soon);

    // As an administrator may: nothing that one object says is wrong with it.
    await claimAddress('pods', '10.28.0.200', 'a');
    await vi.waitFor(async () => {
      expect(conditionOf(await getPool('pods'), 'Consistent')).toMatchObject({
        status: 'False',
        reason: 'OutsideSubnets',
        message: expect.stringContaining('IPAllocation 10.28.0.200 of node a') as string,
      });
      const events = await apiserver().kubectl(['get', 'events', '-n', 'default']);
      expect(String(events.stdout)).toMatch(
        /Warning\s+OutsideSubnets\s+ippool\/pods\s+IPAllocation 10\.28\.0\.200/,
      );
    }, soon);

    await mustSucceed(apiserver().kubectl(['delete', 'ipallocation', '10.28.0.200']));
    await vi.waitFor(async () => {
      expect(conditionOf(await getPool('pods'), 'Consistent')).toMatchObject({ status: 'True' });
      const events = await apiserver().kubectl(['get', 'events', '-n', 'default']);
      expect(String(events.stdout)).toMatch(/Normal\s+Consistent\s+ippool\/pods/);
    }, soon);
  });

  interface Forbidden {
    readonly use: PoolUse;
    readonly family: Family;
    /** Addresses by their numbers in the pool: what is found wrong with each. */
    readonly found: Readonly<Record<number, string>>;
    /** One beside them that anybody may have. */
    readonly fine: number;
  }

  const RANGES = {
    ipv4: { cidr: '10.31.0.0/24', pieceLength: 26, router: '10.31.0.200' },
    ipv6: { cidr: 'fd31::/120', pieceLength: 122, router: 'fd31::c8' },
  };
  const ANYWHERE = {
    5: 'AddressOfANode',
    9: 'Reserved',
    70: 'SubnetOfAnotherNode',
    140: 'OutsideSubnets',
  };

  // The apiserver lets each of them be made, since none of them contradicts itself.
  it.each<Forbidden>([
    { use: 'Pods', family: 'ipv4', fine: 63, found: { ...ANYWHERE, 0: 'AddressOfTheNode' } },
    { use: 'Pods', family: 'ipv6', fine: 63, found: { ...ANYWHERE, 0: 'AddressOfTheNode' } },
    {
      use: 'Bridge',
      family: 'ipv4',
      fine: 62,
      found: { ...ANYWHERE, 0: 'NeverHandedOut', 1: 'AddressOfTheNode', 63: 'NeverHandedOut' },
    },
    {
      use: 'Bridge',
      family: 'ipv6',
      fine: 63,
      found: { ...ANYWHERE, 0: 'NeverHandedOut', 1: 'AddressOfTheNode' },
    },
    {
      use: 'Lan',
      family: 'ipv4',
      fine: 63,
      found: { ...ANYWHERE, 0: 'NeverHandedOut', 200: 'NeverHandedOut', 255: 'NeverHandedOut' },
    },
    {
      use: 'Lan',
      family: 'ipv6',
      fine: 255,
      found: { ...ANYWHERE, 0: 'NeverHandedOut', 200: 'NeverHandedOut' },
    },
  ])(
    'tells of each address that no pod may have, in a pool of use $use of $family (B22)',
    async ({ use, family, found, fine }) => {
      // Events outlive their pools.
      const pool = `${use.toLowerCase()}-${family}`;
      const { cidr, pieceLength: prefixLength, router } = RANGES[family];
      const addressOf = (number: number): IPAddress => ({
        family,
        value: parseCIDR(cidr).first + BigInt(number),
      });
      const nameOf = (number: number | string) => allocationName(addressOf(Number(number)));
      await makePool(pool, [cidr], { use, ...(use === 'Lan' ? { gateway: { [family]: router } } : {}) });
      for (const node of ['a', 'b']) await makeNode(node);
      await giveAddresses('b', formatAddress(addressOf(5)));
      for (const [start, node] of [
        [0, 'a'],
        [64, 'b'],
        [192, 'a'],
      ] as const) {
        const piece = formatCIDR(cidrOf(addressOf(start), prefixLength));
        await claimSubnet(pool, piece, node, await uidOfNode(node), use === 'Lan' ? [] : ['192.0.2.1']);
      }
      startController('one', ['--audit-seconds=0.3', '--grace-seconds=1']);
      const consistent = async () => conditionOf(await getPool(pool), 'Consistent');
      await vi.waitFor(async () => expect(await consistent()).toMatchObject({ status: 'True' }), soon);

      for (const number of [fine, ...Object.keys(found).map(Number)]) {
        await claimAddress(pool, formatAddress(addressOf(number)), 'a');
      }
      await changePool(pool, { reserved: [formatAddress(addressOf(9))] });
      await vi.waitFor(async () => {
        const { status, message } = (await consistent()) ?? {};
        expect(status).toBe('False');
        const events = await eventsOf(`ippool/${pool}`);
        for (const [number, reason] of Object.entries(found)) {
          expect(message).toContain(`IPAllocation ${nameOf(number)} `);
          expect(events).toMatch(new RegExp(`Warning +${reason} .*IPAllocation ${nameOf(number)} `));
        }
      }, soon);
      expect((await consistent())?.message).not.toContain(`IPAllocation ${nameOf(fine)} `);

      const wrong = Object.keys(found).map(nameOf);
      await mustSucceed(apiserver().kubectl(['delete', 'ipallocations', ...wrong]));
      await vi.waitFor(async () => expect(await consistent()).toMatchObject({ status: 'True' }), soon);
    },
  );

  it('tells of what belongs to no pool on the object itself', async () => {
    await makeNode('a');
    startController('one', ['--audit-seconds=0.3', '--grace-seconds=1']);
    await mustSucceed(
      apiserver().kubectl(['create', '-f', '-'], {
        apiVersion: 'ipam.weft.dev/v1alpha1',
        kind: 'IPAllocation',
        metadata: { name: '10.29.0.1' },
        spec: { address: '10.29.0.1', pool: 'nowhere', holder: 'a printer' },
      }),
    );
    await vi.waitFor(async () => {
      const events = await apiserver().kubectl(['get', 'events', '-n', 'default']);
      expect(String(events.stdout)).toMatch(/Warning\s+PoolGone\s+ipallocation\/10\.29\.0\.1/);
    }, soon);
  });
});

describe('nodes that are gone', () => {
  it('lose their addresses first, then their subnets; others keep everything', async () => {
    await makePool('pods', ['10.24.0.0/24']);
    await makeNode('stays');
    await makeNode('goes');
    const kept = await claimSubnet('pods', '10.24.0.0/26', 'stays');
    const lost = await claimSubnet('pods', '10.24.0.64/26', 'goes');
    await claimAddress('pods', '10.24.0.5', 'stays');
    for (const address of ['10.24.0.70', '10.24.0.71', '10.24.0.72'])
      await claimAddress('pods', address, 'goes');
    // A pool's reuse delay of 30 s would outlast the quarantine.
    await mustSucceed(
      apiserver().kubectl([
        'patch',
        'ippool',
        'pods',
        '--type=merge',
        '-p',
        '{"spec":{"reuseDelaySeconds":0}}',
      ]),
    );
    startController('one', ['--deletes-per-second=5']);
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    expect(await names('ipallocations')).toHaveLength(4);
    await mustSucceed(apiserver().kubectl(['delete', 'node', 'goes']));
    const seen: string[] = [];
    await vi.waitFor(async () => {
      const [subnets, allocations] = [await names('nodesubnets'), await names('ipallocations')];
      seen.push(`${allocations.length} ${subnets.length}`);
      expect(subnets).toEqual([kept.metadata.name]);
      expect(allocations).toEqual(['10.24.0.5']);
    }, soon);
    // The subnet was there for as long as an address of it was.
    expect(seen.filter((counts) => counts.endsWith(' 1'))).toEqual(['1 1']);
    expect(lost.metadata.name).not.toBe(kept.metadata.name);
    await vi.waitFor(async () => {
      const told = await eventsOf('ippool/pods');
      expect(told).toMatch(/Normal +AddressesReclaimed .*freed of node goes, which is gone: 3 addresses/);
      expect(told).toMatch(/Normal +AddressesReclaimed .*freed of node goes, which is gone: 1 node subnets/);
    }, soon);
  });

  it('keep everything when they come back within the quarantine', async () => {
    await makePool('pods', ['10.25.0.0/24']);
    await makeNode('a');
    await claimSubnet('pods', '10.25.0.0/26', 'a');
    startController('one');
    await vi.waitFor(async () => {
      expect((await getPool('pods'))?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    }, soon);
    await mustSucceed(apiserver().kubectl(['delete', 'node', 'a']));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await makeNode('a');
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    expect(await names('nodesubnets')).toEqual(['10.25.0.0-26']);
  });
});

describe('60 nodes that are gone at once (F21)', () => {
  const NODES = Array.from({ length: 60 }, (_, i) => `many-${i}`);
  const PER_NODE = 3;
  // Far less than an apiserver takes, also on a busy machine.
  const DELETES_PER_SECOND = 20;

  it('are freed at the rate that is allowed, with few reads for each, and another keeps everything', async () => {
    await makePool('pods', ['10.64.0.0/18']);
    await restForNoTime('pods');
    await makeNodes([...NODES, 'stays']);
    const poolUID = (await getPool('pods'))?.metadata.uid ?? '';
    const [subnets, allocations] = [nodeSubnetStore(apiserver().client), allocationStore(apiserver().client)];
    const fill = async (nodeName: string, number: number) => {
      const base = 10n * 2n ** 24n + 64n * 2n ** 16n + BigInt(number) * 64n;
      const cidr = parseCIDR(`${formatAddress({ family: 'ipv4', value: base })}/26`);
      const nextHops = [parseAddress('192.0.2.1')];
      await subnets.create({
        cidr,
        pool: 'pods',
        poolUID,
        nodeName,
        nodeUID: `uid-of-${nodeName}`,
        nextHops,
      });
      for (let i = 1; i <= PER_NODE; i++) {
        const address = { family: 'ipv4', value: base + BigInt(i) } as const;
        const containerID = `c-${number}-${i}`;
        const attachment = { network: 'weft', containerID, ifName: 'eth0', kind: 'Interface' } as const;
        await allocations.create({ address, pool: 'pods', nodeName, attachment });
      }
    };
    await Promise.all([...NODES, 'stays'].map(fill));

    const proxy = await startLossyProxy(apiserver().plane, dir);
    const deletedAtMs: number[] = [];
    proxy.setFault(({ method }) => {
      if (method === 'DELETE') deletedAtMs.push(performance.now());
      return 'none';
    });
    const controller = startController(
      'one',
      [`--deletes-per-second=${DELETES_PER_SECOND}`],
      proxy.kubeconfig,
    );
    await vi.waitFor(() => askHealth(controller.probeSocket, '/readyz', 1_000), soon);
    await mustSucceed(apiserver().kubectl(['delete', 'nodes', ...NODES]));
    await vi.waitFor(async () => expect(await names('nodesubnets')).toHaveLength(1), {
      timeout: 40_000,
      interval: 500,
    });
    expect(await names('ipallocations')).toHaveLength(PER_NODE);
    await controller.stop();
    await proxy.stop();

    // Each object once, and nothing else.
    expect(deletedAtMs).toHaveLength(NODES.length * (PER_NODE + 1));
    // A turn that comes late does not put off the next, so a few of them may meet.
    const inOneSecond = deletedAtMs.map(
      (first) => deletedAtMs.filter((other) => other >= first && other < first + 1_000).length,
    );
    expect(Math.max(...inOneSecond)).toBeLessThan(1.25 * DELETES_PER_SECOND);
    // One before the addresses, one before the subnet; and now and then one more where a watch is behind.
    const gets = proxy.requests.filter(({ method, path }) => method === 'GET' && !path.includes('watch='));
    const ofNodes = gets.filter(({ path }) => path.startsWith('/api/v1/nodes/'));
    expect(ofNodes.length).toBeGreaterThanOrEqual(NODES.length);
    expect(ofNodes.length).toBeLessThanOrEqual(3 * NODES.length);
    const lists = gets.filter(({ path }) => path.includes('/ipallocations?'));
    expect(lists.length).toBeLessThanOrEqual(3 * NODES.length);
  });

  async function makeNodes(nodeNames: readonly string[]): Promise<void> {
    const items = nodeNames.map((name) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } }));
    await mustSucceed(apiserver().kubectl(['create', '-f', '-'], { apiVersion: 'v1', kind: 'List', items }));
  }
});

describe('sticky addresses', () => {
  const attachment = { network: 'weft', containerID: 'c', ifName: 'eth0', kind: 'Interface' as const };
  const bound = (address: string, pod: string) => ({
    address: parseAddress(address),
    pool: 'pods',
    nodeName: 'goes',
    attachment,
    pod: { namespace: 'default', name: pod },
    sticky: `default/${pod}`,
  });

  it('of a gone node are taken from it and kept, and the way to them is gone first', async () => {
    await makePool('pods', ['10.26.0.0/24'], { reuseDelaySeconds: 1 });
    await makeNode('goes');
    const allocations = allocationStore(apiserver().client);
    await allocations.create(bound('10.26.0.9', 'db-0'));
    const subnets = nodeSubnetStore(apiserver().client);
    const around = await claimSubnet('pods', '10.26.0.64/26', 'goes');
    const cidr = parseCIDR('10.26.0.9/32');
    await subnets.create({ ...around.spec, cidr, exclusive: true });
    await makeStatefulSet('db', 1);
    startController('one', ['--sticky-keep-seconds=1']);
    await mustSucceed(apiserver().kubectl(['delete', 'node', 'goes']));
    await vi.waitFor(async () => {
      const found = await allocations.get('10.26.0.9');
      expect(found?.spec).toMatchObject({ holder: 'sticky', sticky: 'default/db-0' });
      expect(found?.spec.nodeName).toBeUndefined();
      expect(await names('nodesubnets')).toEqual([]);
    }, soon);
  });

  it('are freed when their StatefulSet is smaller for a while, and none else is', async () => {
    await makePool('pods', ['10.27.0.0/24'], { reuseDelaySeconds: 1 });
    const allocations = allocationStore(apiserver().client);
    for (const [address, pod] of [
      ['10.27.0.9', 'shrunk-0'],
      ['10.27.0.10', 'shrunk-1'],
      ['10.27.0.11', 'absent-0'],
    ] as const) {
      const created = await allocations.create(bound(address, pod));
      if (created.kind === 'created') await allocations.empty(created.object);
    }
    await makeStatefulSet('shrunk', 1);
    startController('one', ['--sticky-keep-seconds=2']);
    await vi.waitFor(async () => {
      expect(await names('ipallocations')).toEqual(['10.27.0.9']);
    }, soon);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(await names('ipallocations')).toEqual(['10.27.0.9']);
    expect(await eventsOf('ippool/pods')).toMatch(
      /Normal +AddressesReclaimed .*10\.27\.0\.10, kept for pod default\/shrunk-1, was freed/,
    );
  });

  it('that are kept for a pod which has come back without asking for them are freed', async () => {
    await makePool('pods', ['10.27.0.0/24'], { reuseDelaySeconds: 1 });
    await makeNode('stays');
    const allocations = allocationStore(apiserver().client);
    for (const [address, pod] of [
      ['10.27.0.19', 'kept-0'],
      ['10.27.0.20', 'kept-1'],
      ['10.27.0.21', 'kept-2'],
    ] as const) {
      const created = await allocations.create(bound(address, pod));
      if (created.kind === 'created') await allocations.empty(created.object);
    }
    await makeStatefulSet('kept', 3);
    // A pod is refused without it, and no controller of Kubernetes is here to make it.
    await apiserver().kubectl(['create', 'serviceaccount', 'default', '-n', 'default']);
    // Of kept-2 there is no pod at the moment.
    const spec = { automountServiceAccountToken: false, containers: [{ name: 'c', image: 'none' }] };
    for (const [name, annotations] of [
      ['kept-0', {}],
      ['kept-1', { 'ipam.weft.dev/sticky': 'true' }],
    ] as const) {
      const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, annotations }, spec };
      await mustSucceed(apiserver().kubectl(['create', '-n', 'default', '-f', '-'], pod));
    }
    startController('one', ['--sticky-keep-seconds=1']);
    await vi.waitFor(async () => {
      expect(await names('ipallocations')).toEqual(['10.27.0.20', '10.27.0.21']);
    }, soon);
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(await names('ipallocations')).toEqual(['10.27.0.20', '10.27.0.21']);
  });

  async function makeStatefulSet(name: string, replicas: number): Promise<void> {
    const labels = { app: name };
    const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image: 'none' }] } };
    const spec = { serviceName: name, replicas, selector: { matchLabels: labels }, template };
    const object = { apiVersion: 'apps/v1', kind: 'StatefulSet', metadata: { name }, spec };
    await mustSucceed(apiserver().kubectl(['create', '-n', 'default', '-f', '-'], object));
  }
});

describe('nodes whose agents are silent', () => {
  it('are told of where they hold something, and keep it; not where an agent is Ready', async () => {
    const labels = { 'app.kubernetes.io/name': 'weft-agent' };
    const container = { name: 'c', image: 'none' };
    await apiserver().kubectl(['create', 'serviceaccount', 'default', '-n', 'default']);
    for (const name of ['serves', 'silent', 'empty']) await makeNode(name);
    await makePool('pods', ['10.28.0.0/24']);
    await claimSubnet('pods', '10.28.0.0/26', 'serves');
    await claimSubnet('pods', '10.28.0.64/26', 'silent');
    for (const nodeName of ['serves', 'silent']) {
      const spec = { nodeName, automountServiceAccountToken: false, containers: [container] };
      const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: `agent-${nodeName}`, labels }, spec };
      await mustSucceed(apiserver().kubectl(['create', '-n', 'default', '-f', '-'], pod));
    }
    const ready = JSON.stringify({ status: { conditions: [{ type: 'Ready', status: 'True' }] } });
    await mustSucceed(
      apiserver().kubectl([
        'patch',
        'pod',
        'agent-serves',
        '--subresource=status',
        '--type=merge',
        '-p',
        ready,
      ]),
    );
    startController('one', ['--audit-seconds=1', '--quarantine-seconds=2']);
    const events = async () => String((await apiserver().kubectl(['get', 'events', '-n', 'default'])).stdout);
    await vi.waitFor(
      async () => expect(await events()).toMatch(/Warning\s+AgentSilent\s+node\/silent/),
      soon,
    );
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(await events()).not.toMatch(/AgentSilent\s+node\/(serves|empty)/);
    expect(await names('nodesubnets')).toEqual(['10.28.0.0-26', '10.28.0.64-26']);
    await apiserver().kubectl(['delete', 'pods', '-n', 'default', '--all', '--force', '--grace-period=0']);
  });
});

describe('a leader that acts on what it saw a while ago', () => {
  it('frees nothing that has come to be of another since', async () => {
    await makePool('pods', ['10.27.0.0/24']);
    await makeNode('stays');
    await claimSubnet('pods', '10.27.0.64/26', 'goes');
    for (const address of ['10.27.0.70', '10.27.0.71']) await claimAddress('pods', address, 'goes');
    await mustSucceed(
      apiserver().kubectl([
        'patch',
        'ippool',
        'pods',
        '--type=merge',
        '-p',
        '{"spec":{"reuseDelaySeconds":0}}',
      ]),
    );
    // It lists, deletes the first, and is as good as stopped for five seconds before the second.
    startController('one', ['--deletes-per-second=0.2']);
    await vi.waitFor(async () => {
      expect(await names('ipallocations')).toEqual(['10.27.0.71']);
    }, soon);
    await mustSucceed(apiserver().kubectl(['delete', 'ipallocation', '10.27.0.71']));
    await claimAddress('pods', '10.27.0.71', 'stays');
    await vi.waitFor(
      async () => {
        expect(await names('nodesubnets')).toEqual([]);
      },
      { ...soon, timeout: 30_000 },
    );
    expect(await names('ipallocations')).toEqual(['10.27.0.71']);
  });
});

describe('a leader that is held up in the middle of its work, and goes on beside the next one (F18)', () => {
  it('frees nothing that has come to be of another since, and leads no longer', async () => {
    await makePool('pods', ['10.30.0.0/24']);
    await restForNoTime('pods');
    await makeNode('stays');
    await claimSubnet('pods', '10.30.0.64/26', 'goes');
    const held = ['10.30.0.70', '10.30.0.71', '10.30.0.72'];
    for (const address of held) await claimAddress('pods', address, 'goes');

    // Its second delete is on the way to the apiserver when it stops, the third is still to come.
    const proxy = await startLossyProxy(apiserver().plane, dir);
    const arrives = Promise.withResolvers<undefined>();
    let deletes = 0;
    proxy.setFault(({ method }) => {
      if (method === 'DELETE') deletes++;
      return method === 'DELETE' && deletes === 2 ? { until: arrives.promise } : 'none';
    });
    const old = startControllerProcess('old', ['--deletes-per-second=2'], proxy.kubeconfig);
    await vi.waitFor(() => expect(deletes).toBe(2), { timeout: 30_000, interval: 10 });
    old.signal('SIGSTOP');

    const next = startController('next');
    await vi.waitFor(async () => {
      expect(await names('nodesubnets')).toEqual([]);
      expect(await names('ipallocations')).toEqual([]);
    }, soon);
    await claimSubnet('pods', '10.30.0.64/26', 'stays');
    for (const address of held) await claimAddress('pods', address, 'stays');
    const objects = async () =>
      mustSucceed(
        apiserver().kubectl(['get', 'nodesubnets,ipallocations', '-o', 'jsonpath={.items[*].metadata.uid}']),
      );
    const given = await objects();

    arrives.resolve(undefined);
    old.signal('SIGCONT');
    await vi.waitFor(() => expect(old.log()).toContain('this process no longer leads'), soon);
    // Longer than its turns for what it had still to delete.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(await objects()).toBe(given);
    const lines = next.log.lines.map(({ message }) => message);
    expect(lines).not.toContain('this process no longer leads');
    expect(old.log().match(/elected: this process leads/g)).toHaveLength(1);
    await old.stop();
    await proxy.stop();
  });

  /** A write that reaches the apiserver when another leads. */
  interface LateWrite {
    readonly what: string;
    readonly isMeant: (request: ProxiedRequest) => boolean;
    /** What there is before; then the leader stops at its next such write. */
    readonly prepare: () => Promise<void>;
    readonly provoke: () => Promise<void>;
    /** What happens while the next one leads. */
    readonly meanwhile: () => Promise<void>;
    /** What must stay as it is then. */
    readonly kept: () => Promise<unknown>;
  }

  const isReady = async () => {
    await vi.waitFor(async () => {
      const pool = await getPool('pods');
      expect(pool?.metadata.finalizers).toContain(POOL_FINALIZER);
      expect(conditionOf(pool, 'Ready')?.status).toBe('True');
      expect(pool?.status?.observedGeneration).toBe(pool?.metadata.generation);
    }, soon);
  };
  const deletePool = async () => {
    await mustSucceed(apiserver().kubectl(['delete', 'ippool', 'pods', '--wait=false']));
  };
  const isPatchOf = (path: RegExp) => (request: ProxiedRequest) =>
    request.method === 'PATCH' && path.test(request.path);
  const finalizersOf = async () => {
    const { uid, finalizers } = (await getPool('pods'))?.metadata ?? {};
    return [uid, finalizers];
  };

  it.each<LateWrite>([
    {
      // It has been changed twice since.
      what: 'the status of a pool',
      isMeant: isPatchOf(/\/ippools\/pods\/status/),
      async prepare() {
        await makePool('pods', ['10.36.0.0/24']);
        await isReady();
      },
      provoke: () => changePool('pods', { disabled: true }),
      async meanwhile() {
        await vi.waitFor(async () => {
          expect(conditionOf(await getPool('pods'), 'Ready')?.reason).toBe('Disabled');
        }, soon);
        await changePool('pods', { disabled: false, cidrs: ['10.36.0.0/24', '10.36.1.0/24'] });
        await isReady();
      },
      kept: async () => (await getPool('pods'))?.status,
    },
    {
      // Somebody else's has been added since.
      what: 'the finalizer of a pool',
      isMeant: isPatchOf(/\/ippools\/pods(\?|$)/),
      prepare: () => Promise.resolve(),
      provoke: () => makePool('pods', ['10.36.0.0/24']),
      async meanwhile() {
        await isReady();
        const patch = JSON.stringify({ metadata: { finalizers: [POOL_FINALIZER, 'example.com/other'] } });
        await mustSucceed(apiserver().kubectl(['patch', 'ippool', 'pods', '--type=merge', '-p', patch]));
      },
      kept: finalizersOf,
    },
    {
      // There is another of its name since, deleted, too, and in use.
      what: 'that a deleted pool may go',
      isMeant: isPatchOf(/\/ippools\/pods(\?|$)/),
      async prepare() {
        await makePool('pods', ['10.36.0.0/24']);
        await isReady();
      },
      provoke: deletePool,
      async meanwhile() {
        await vi.waitFor(async () => expect(await getPool('pods')).toBeUndefined(), soon);
        await makePool('pods', ['10.36.0.0/24']);
        await isReady();
        await makeNode('stays');
        await claimSubnet('pods', '10.36.0.64/26', 'stays');
        await deletePool();
        await vi.waitFor(async () => {
          expect(conditionOf(await getPool('pods'), 'Ready')?.message).toContain('10.36.0.64/26 of stays');
        }, soon);
      },
      kept: finalizersOf,
    },
    {
      // The next leader holds claims of subnets by it since.
      what: 'its Lease',
      isMeant: ({ method, path }) => method === 'PUT' && path.includes('/leases/'),
      prepare: () => Promise.resolve(),
      provoke: () => Promise.resolve(),
      async meanwhile() {
        const hold = `${SUBNET_HOLD_ANNOTATION}=since noon`;
        await mustSucceed(apiserver().kubectl(['annotate', 'lease', '-n', 'default', leaseName(), hold]));
      },
      async kept() {
        const found = await mustSucceed(
          apiserver().kubectl(['get', 'lease', '-n', 'default', leaseName(), '-o', 'json']),
        );
        const { metadata, spec } = JSON.parse(found) as { metadata: { annotations?: object }; spec: object };
        return [metadata.annotations, { ...spec, renewTime: 'whenever' }];
      },
    },
  ])('writes in vain: $what', async ({ isMeant, prepare, provoke, meanwhile, kept }) => {
    const proxy = await startLossyProxy(apiserver().plane, dir);
    const old = startControllerProcess('old', [], proxy.kubeconfig);
    await vi.waitFor(() => expect(old.log()).toContain('elected: this process leads'), soon);
    await prepare();
    const arrives = Promise.withResolvers<undefined>();
    let late: ProxiedRequest | undefined;
    proxy.setFault((request) => {
      if (late !== undefined || !isMeant(request)) return 'none';
      late = request;
      old.signal('SIGSTOP');
      return { until: arrives.promise };
    });
    await provoke();
    await vi.waitFor(() => expect(late).toBeDefined(), { ...soon, interval: 10 });

    const next = startController('next');
    await vi.waitFor(() => {
      expect(next.log.lines.map(({ message }) => message)).toContain('elected: this process leads');
    }, soon);
    await meanwhile();
    const before = await kept();
    arrives.resolve(undefined);
    await vi.waitFor(() => expect(late && proxy.codes.get(late)).toBe(409), soon);
    expect(await kept()).toEqual(before);

    old.signal('SIGCONT');
    await vi.waitFor(() => expect(old.log()).toContain('this process no longer leads'), soon);
    // What it has still to do comes to nothing, too.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect(await kept()).toEqual(before);
    const lines = next.log.lines.map(({ message }) => message);
    expect(lines).not.toContain('this process no longer leads');
    await old.stop();
    await proxy.stop();
  });
});

describe('a controller that dies right after one of its writes, the answer lost (F19)', () => {
  it.each([1, 2, 3, 4, 5, 6])(
    'write number %i: the next one ends with the same objects and counts',
    async (last) => {
      await makePool('pods', ['10.28.0.0/24']);
      await makeNode('stays');
      const kept = await claimSubnet('pods', '10.28.0.0/26', 'stays');
      await claimSubnet('pods', '10.28.0.64/26', 'gone');
      await claimAddress('pods', '10.28.0.5', 'stays');
      for (const address of ['10.28.0.70', '10.28.0.71']) await claimAddress('pods', address, 'gone');
      const noRest = '{"spec":{"reuseDelaySeconds":0}}';
      await mustSucceed(apiserver().kubectl(['patch', 'ippool', 'pods', '--type=merge', '-p', noRest]));

      const proxy = await startLossyProxy(apiserver().plane, dir);
      let writes = 0;
      proxy.setFault(({ method, path }) => {
        if (writes >= last) return 'lose-request';
        if (method === 'GET' || !path.includes('/apis/ipam.weft.dev/')) return 'none';
        return ++writes === last ? 'lose-answer' : 'none';
      });
      const first = startController('first', [], proxy.kubeconfig);
      await vi.waitFor(() => expect(writes).toBe(last), soon);
      await first.stop();
      await proxy.stop();

      startController('second');
      await vi.waitFor(async () => {
        expect(await names('nodesubnets')).toEqual([kept.metadata.name]);
        expect(await names('ipallocations')).toEqual(['10.28.0.5']);
        const pool = await getPool('pods');
        expect(pool?.metadata.finalizers).toEqual([POOL_FINALIZER]);
        expect(pool?.status?.ipv4).toMatchObject({ allocated: 1, nodeSubnets: 1, freeSubnets: '3' });
      }, soon);
    },
  );
});

describe('two replicas', () => {
  it('are both ready, one works, and the other takes over', async () => {
    const [first, second] = [startController('one'), startController('two')];
    for (const { probeSocket } of [first, second]) {
      await vi.waitFor(() => askHealth(probeSocket, '/readyz', 1_000), soon);
      await askHealth(probeSocket, '/livez', 1_000);
    }
    const leads = ({ log }: Running) =>
      log.lines.some(({ message }) => message.includes('this process leads'));
    await vi.waitFor(() => {
      expect([first, second].filter(leads)).toHaveLength(1);
    }, soon);
    const [leader, follower] = leads(first) ? [first, second] : [second, first];
    await leader.stop();
    await makePool('pods', ['10.26.0.0/24']);
    await vi.waitFor(async () => {
      expect(leads(follower)).toBe(true);
      expect((await getPool('pods'))?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    }, soon);
  });
});
