import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  allocationName,
  nodeSubnetName,
  SUBNET_HOLD_ANNOTATION,
  type NodeSubnet,
} from '../../src/api/index.ts';
import { isResting } from '../../src/ipam/index.ts';
import {
  allocationStore,
  createKubeClient,
  loadConnection,
  nodeSubnetStore,
  type KubeClient,
} from '../../src/kube/index.ts';
import type { RestoreOptions } from '../../hack/cluster/control-plane.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { startLossyProxy } from '../apiserver/lossy-proxy.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip, UPLINK } from './namespaces.ts';
import { checkNode, gist, makeNodeChecked } from './node-check.ts';

/**
 * etcd is put back to an older snapshot while pods run (F16). All is read by name: behind an apiserver that was kept
 * running no list tells the truth.
 */

let node: TestNode;
let agent: TestAgent;
let client: KubeClient;
/** Whether the apiserver has served what is no more since it was started. */
let isApiserverStale = false;

// Each of them restarts parts of a control plane.
vi.setConfig({ testTimeout: 120_000 });

const POOL = 'restored';
const BRIDGED = 'restored-bridged';
interface Restore extends RestoreOptions {
  readonly what: string;
  readonly restartAgent: boolean;
}
/** Without a word from the apiserver. */
const UNNOTICED: readonly Restore[] = [
  { what: 'the apiserver kept running', restartApiserver: false, restartAgent: false },
  { what: 'the apiserver restarted', restartApiserver: true, restartAgent: false },
];
const RESTORES: readonly Restore[] = [
  ...UNNOTICED,
  { what: 'everything restarted', restartApiserver: true, restartAgent: true },
  {
    what: 'as the README says',
    restartApiserver: true,
    restartAgent: false,
    raiseRevisions: true,
  },
];

/** The addresses of the sandboxes that live, by what ADD answered and DEL was told. */
const living = new Map<string, readonly string[]>();
const sandboxes = new Set<string>();

beforeAll(async () => {
  node = await startNode();
  const kubeconfig = node.plane.kubeconfig;
  client = createKubeClient(await loadConnection({ kubeconfig, env: {}, clock: createSystemClock() }));
  await makeNodeChecked(node);
});

afterAll(async () => {
  await client.close();
  await node.stop();
});

beforeEach(async () => {
  await node.apply(
    pool(POOL, {
      cidrs: ['10.16.0.0/24', 'fd00:16::/120'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
    }),
  );
  agent = await node.startAgent();
});

afterEach(async () => {
  await agent.kill();
  for (const id of sandboxes) await node.removeSandbox(id);
  sandboxes.clear();
  living.clear();
  if (isApiserverStale) await node.plane.restartApiserver();
  isApiserverStale = false;
  await forgetSubnets();
  await node.kubectl('delete', 'ipallocations,leases', '--all');
});

describe.each(RESTORES)('etcd back at an older snapshot, $what', (restore) => {
  test('gives living sandboxes their addresses back before an ADD could get them, and frees the dead ones', async () => {
    await add('before');
    await add('dead');
    const dead = living.get('dead') ?? [];
    const copy = await node.plane.backUpStore();
    await remove('dead');
    for (let i = 0; i < 8; i++) await add(`after-${i}`);
    await backTo(copy, restore);
    for (let i = 0; i < 8; i++) await add(`next-${i}`);
    await wholeBook();
    for (const address of dead) {
      await eventually(`${address} to be nobody else's than an ADD's`, async () =>
        (await sandboxOf(address)) === ownerOf(address) ? true : undefined,
      );
    }
    await eventually('an Event that tells of it', async () =>
      /(EtcdWentBack|AllocationsRecovered|SubnetRecovered) +node/.test(
        await node.kubectl('get', 'events', '-n', 'default'),
      )
        ? true
        : undefined,
    );
    await node.kubectl('delete', 'events', '--all', '-n', 'default');
    for (const id of ['before', 'after-3', 'next-3']) await remove(id);
    await add('last');
    await ping('last', UPLINK.addresses[0]);
    await wholeBook();
    if (!isApiserverStale) await cleanCheck();
  });

  test('gives nobody the address that a container of another plugin has', async () => {
    const ipam = { type: 'weft-ipam', pool: BRIDGED };
    const config = { cniVersion: '1.0.0', name: 'bridged', type: 'bridge', ipam };
    await node.apply(
      pool(BRIDGED, {
        use: 'Bridge',
        cidrs: ['10.19.0.0/24'],
        nodeSubnetPrefixLength: { ipv4: 29 },
        reuseDelaySeconds: 1,
      }),
    );
    const copy = await node.plane.backUpStore();
    const draw = async (containerID: string): Promise<string | undefined> => {
      const netns = await node.makeSandbox(containerID);
      sandboxes.add(containerID);
      const { answer } = await node.cni({ command: 'ADD', containerID, netns, config });
      const address = answer?.ips?.[0]?.address;
      // What the plugin would do then.
      if (address !== undefined) await ip('-n', containerID, 'address', 'add', address, 'dev', 'lo');
      return address;
    };
    const before = await draw('bridged');
    expect(before).toMatch(/^10\.19\.0\./);
    await backTo(copy, restore);
    const drawn: (string | undefined)[] = [];
    // More than there are.
    for (let i = 0; i < 6; i++) drawn.push(await draw(`beside-${i}`));
    const given = drawn.filter((address) => address !== undefined);
    expect(given.length).toBeGreaterThan(0);
    expect(new Set([before, ...given]).size).toBe(given.length + 1);
  });

  test('gives a node the subnets back that it claimed after the snapshot, and no other can claim them', async () => {
    await agent.kill();
    await forgetSubnets();
    const copy = await node.plane.backUpStore();
    agent = await node.startAgent();
    for (let i = 0; i < 5; i++) await add(`pod-${i}`);
    const before = await subnetsOfNode();
    await backTo(copy, restore);
    await eventually('the subnets to be there again', async () => {
      const owners = await Promise.all(before.map(async ({ spec }) => ownerOfSubnet(spec.cidr)));
      return owners.every((owner) => owner === NODE_NAME) ? true : undefined;
    });
    // Not claimed: that would only by chance have come to the same.
    const names = before.map(({ spec }) => nodeSubnetName(spec.cidr));
    // It says so when it has its answer, which is after others see the object.
    await eventually(`the agent to say that it made them again: ${names.join()}`, () =>
      names.every((name) => recreated().includes(name)) ? true : undefined,
    );
    for (const { spec } of before) {
      const claim = { ...spec, nodeName: 'far-node', nodeUID: 'far-uid' };
      expect(await nodeSubnetStore(client).create(claim)).toEqual({ kind: 'taken' });
    }
    await wholeBook();
    for (let i = 0; i < 5; i++) await add(`next-${i}`);
    await wholeBook();
    await ping('pod-0', UPLINK.addresses[0]);
    if (!isApiserverStale) await cleanCheck();
  });
});

test('a check tells of what the snapshot has forgotten, and of what it brings back, until the node has put it right', async () => {
  await agent.kill();
  const dir = await mkdtemp(join(tmpdir(), 'weft-restore-'));
  const proxy = await startLossyProxy(node.plane, dir);
  try {
    agent = await node.startAgent({ kubeconfig: proxy.kubeconfig });
    await add('before');
    await add('dead');
    const dead = living.get('dead') ?? [];
    const copy = await node.plane.backUpStore();
    await remove('dead');
    await add('after');
    const after = living.get('after') ?? [];
    // The node cannot put anything right before that is over.
    proxy.setFault(({ method, path }) =>
      method !== 'GET' && path.includes('/ipallocations') ? { status: 503 } : 'none',
    );
    await node.plane.restoreStore(copy, { restartApiserver: true });
    const findings = [
      ...after.map((address) => `2 NoAllocation ${allocationName(parseAddress(address))}`),
      ...dead.map((address) => `3 NoSandbox ${allocationName(parseAddress(address))}`),
    ];
    await vi.waitFor(async () => expect((await findingsNow()).sort()).toEqual(findings.sort()), {
      timeout: 60_000,
      interval: 500,
    });
    proxy.setFault(() => 'none');
    await wholeBook();
    await cleanCheck();
  } finally {
    await agent.kill();
    await proxy.stop();
    await rm(dir, { recursive: true, force: true });
  }
});

// Not where the agent is started again with the rest, or the apiserver tells its watches that they are too old: the
// agent then finds the old state by its lists, and there is nothing else to notice.
test.each(UNNOTICED)(
  'an older snapshot, $what, is noticed by a node on which nothing starts',
  async (restore) => {
    const copy = await node.plane.backUpStore();
    for (const id of ['a', 'b', 'c']) await add(id);
    await backTo(copy, restore);
    await wholeBook();
    const events = await node.kubectl('get', 'events', '-n', 'default');
    expect(events).toMatch(new RegExp(`Warning +EtcdWentBack +node/${NODE_NAME}`));
    await node.kubectl('delete', 'events', '--all', '-n', 'default');
  },
);

test('while the controller’s Lease says that claims are held no subnet is claimed', async () => {
  const lease = { namespace: 'weft-system', name: 'weft-controller' };
  const annotations = { [SUBNET_HOLD_ANNOTATION]: 'since noon' };
  await node.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: lease.namespace } });
  await node.apply({
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { ...lease, annotations },
    spec: { holderIdentity: 'a-leader' },
  });
  await node.apply(pool('held', { cidrs: ['10.18.0.0/24'] }));
  await eventually('the agent to say why it claims none', () =>
    agent.log().includes('IPPool held: claims of node subnets are held') ? true : undefined,
  );
  expect(await node.subnets('held')).toEqual([]);
  await node.kubectl('annotate', 'lease', lease.name, '-n', lease.namespace, `${SUBNET_HOLD_ANNOTATION}-`);
  await eventually('the subnet', async () => ((await node.subnets('held')).length === 1 ? true : undefined));
  await node.kubectl('delete', 'lease', lease.name, '-n', lease.namespace);
});

test('a subnet that another node has claimed by then is told of, and its addresses in use are locked for both', async () => {
  await agent.kill();
  await forgetSubnets();
  const copy = await node.plane.backUpStore();
  agent = await node.startAgent();
  await add('early');
  const [v4] = living.get('early') ?? [];
  const [before] = (await subnetsOfNode()).filter(({ spec }) => spec.cidr.family === 'ipv4');
  if (before === undefined || v4 === undefined) throw new Error('the node has no IPv4 subnet');
  await agent.kill();
  await node.plane.restoreStore(copy, { restartApiserver: true });
  const far = { nodeName: 'far-node', nodeUID: 'far-uid', nextHops: [parseAddress('192.0.2.77')] };
  expect(await nodeSubnetStore(client).create({ ...before.spec, ...far })).toMatchObject({ kind: 'created' });
  agent = await node.startAgent();
  await wholeBook();
  await add('late');
  expect(living.get('late')?.[0]).not.toBe(v4);
  expect(await ownerOfSubnet(before.spec.cidr)).toBe('far-node');
  const told = new RegExp(`Warning +TwoOwners +nodesubnet/${before.metadata.name}`);
  await eventually('an Event about it', async () =>
    told.test(await node.kubectl('get', 'events', '-n', 'default')) ? true : undefined,
  );
  await ping('early', UPLINK.addresses[0]);
  expect(await ip('route', 'show', 'type', 'unreachable')).toContain('10.16.0.');
});

test('a subnet of this node in which pods of another live is drawn from by neither', async () => {
  await node.apply(
    pool('disputed', { cidrs: ['10.17.0.0/28'], nodeSubnetPrefixLength: { ipv4: 29 }, reuseDelaySeconds: 1 }),
  );
  const [first] = await eventually('a subnet of that pool', async () => {
    const names = await node.subnets('disputed');
    return names.length === 1 ? names : undefined;
  });
  const { value, family } = parseCIDRStart(first ?? '');
  // What a node does whose subnet was forgotten and claimed by another: its pods' addresses first.
  await allocationStore(client).create({
    address: { family, value: value + 2n },
    pool: 'disputed',
    nodeName: 'far-node',
    attachment: { network: 'weft', containerID: 'far', ifName: 'eth0', kind: 'Interface' },
  });
  const draw = async (id: string) => {
    const netns = await node.makeSandbox(id);
    sandboxes.add(id);
    const config = { ...CONFIG, pool: 'disputed' };
    const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns, config });
    expect(answer?.ips, stdout).toHaveLength(1);
    return parseAddress(answer?.ips?.[0]?.address.replace('/32', '') ?? '').value;
  };
  // The ring comes to the foreign address at the second draw.
  expect(await draw('first')).toBe(value + 1n);
  expect(await draw('second')).toBe(value + 3n);
  const told = new RegExp(`Warning +TwoOwners +nodesubnet/${first ?? ''}`);
  await eventually('an Event about it', async () =>
    told.test(await node.kubectl('get', 'events', '-n', 'default')) ? true : undefined,
  );
  const elsewhere = await draw('third');
  expect(elsewhere < value || elsewhere > value + 7n).toBe(true);
});

function parseCIDRStart(subnetName: string) {
  const { family, first } = parseCIDR(subnetName.replace('-', '/'));
  return { family, value: first };
}

async function backTo(copy: string, restore: Restore): Promise<void> {
  if (restore.restartAgent) await agent.kill();
  await node.plane.restoreStore(copy, restore);
  isApiserverStale = !restore.restartApiserver;
  if (restore.restartAgent) agent = await node.startAgent();
}

/** No address is ever on two living sandboxes, whatever the book says. */
async function add(containerID: string): Promise<void> {
  const netns = await node.makeSandbox(containerID);
  sandboxes.add(containerID);
  const { answer, stdout } = await node.cni({
    command: 'ADD',
    containerID,
    netns,
    config: { ...CONFIG, pool: POOL },
  });
  expect(answer?.ips, `${stdout}\n${agent.log().slice(-3000)}`).toHaveLength(2);
  const addresses = answer?.ips?.map(({ address }) => address.replace(/\/.*/, '')) ?? [];
  for (const address of addresses) expect(ownerOf(address), `${address} for ${containerID}`).toBeUndefined();
  living.set(containerID, addresses);
}

async function remove(containerID: string): Promise<void> {
  const netns = `/run/netns/${containerID}`;
  expect((await node.cni({ command: 'DEL', containerID, netns })).exitCode).toBe(0);
  const addresses = living.get(containerID) ?? [];
  living.delete(containerID);
  for (const address of addresses) {
    await eventually(`${address} to be released`, async () =>
      (await sandboxOf(address)) === containerID ? undefined : true,
    );
  }
  await node.removeSandbox(containerID);
  sandboxes.delete(containerID);
}

/** The living sandbox that has the address. */
function ownerOf(address: string): string | undefined {
  return [...living].find(([, addresses]) => addresses.includes(address))?.[0];
}

/** The container whose the address is by the book, and not released. */
async function sandboxOf(address: string): Promise<string | undefined> {
  const found = await allocationStore(client).get(allocationName(parseAddress(address)));
  return found === undefined || isResting(found) ? undefined : found.spec.attachment?.containerID;
}

/** Waits until each living address is in the book, as that of its sandbox. */
async function wholeBook(): Promise<void> {
  for (const [id, addresses] of living) {
    for (const address of addresses) {
      await eventually(`${address} to be ${id}'s by the book`, async () =>
        (await sandboxOf(address)) === id ? true : undefined,
      ).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${agent.log().slice(-3000)}`, { cause: error });
      });
    }
  }
}

/** Where lists tell the truth. No controller writes a status here. */
async function cleanCheck(): Promise<void> {
  await eventually('a check that finds nothing', async () => {
    return (await findingsNow()).length === 0 ? true : undefined;
  });
}

async function findingsNow(): Promise<string[]> {
  return gist(await checkNode({ client })).filter((line) => !line.startsWith('9 NoStatus'));
}

async function subnetsOfNode(): Promise<NodeSubnet[]> {
  const all = await nodeSubnetStore(client).listOfPool(POOL);
  return all.filter(({ spec }) => spec.nodeName === NODE_NAME);
}

async function ownerOfSubnet(cidr: NodeSubnet['spec']['cidr']): Promise<string | undefined> {
  return (await nodeSubnetStore(client).get(nodeSubnetName(cidr)))?.spec.nodeName;
}

/** The subnets that the agent says it has created again. */
function recreated(): string[] {
  return agent
    .log()
    .split('\n')
    .filter((line) => line.includes('a subnet with living pods was created again'))
    .map((line) => nodeSubnetName(parseCIDR((JSON.parse(line) as { subnet: string }).subnet)));
}

/** As if the node had never held one. Only without an agent. */
async function forgetSubnets(): Promise<void> {
  await node.kubectl('delete', 'nodesubnets', '--all');
  for (const family of ['-4', '-6']) await ip(family, 'route', 'flush', 'proto', '84');
}

async function ping(from: string, to: string): Promise<void> {
  await execa('ip', ['netns', 'exec', from, 'ping', '-c1', '-W2', to]);
}
