import { rm, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { LEADING_STEPS } from '../../src/agent/steps.ts';
import { ip, UPLINK } from './namespaces.ts';
import {
  CONFIG,
  eventually,
  NODE_NAME,
  pool,
  startNode,
  type CallResult,
  type TestAgent,
  type TestNode,
} from './node.ts';

/** Pods that name their addresses, and pods that keep them, on one real node beside another that is only objects. */

let node: TestNode;
let agent: TestAgent;

const FATAL_STEP = '/run/weft/fatal-step';
const MORTAL = {
  program: new URL('./kill-at-step.ts', import.meta.url).pathname,
  env: { WEFT_TEST_FATAL_STEP: FATAL_STEP },
};
const OTHER = { name: 'other-node', address: '192.0.2.20' };
/** Of the pool, the other node's part. */
const OTHERS = '10.20.0.0/26';

beforeAll(async () => {
  node = await startNode();
  await node.makeNamespace('default');
  await node.makeNamespace('blue', { labels: { tenant: 'blue' } });
  await node.apply(fixedPool());
  await node.apply(
    pool('strict', { cidrs: ['10.21.0.0/24', 'fd00:21::/64'], priority: -1, reuseDelaySeconds: 1 }),
  );
  await node.apply(
    pool('blue', {
      cidrs: ['10.22.0.0/24', 'fd00:22::/64'],
      fixedAddresses: true,
      namespaceSelector: { matchLabels: { tenant: 'blue' } },
    }),
  );
  await node.apply(await subnetOfOther(OTHERS));
  agent = await node.startAgent(MORTAL);
  await eventually('the node’s own subnet', async () => await ownSubnet());
});

afterAll(async () => {
  await node.stop();
});

/** What was drawn in the test before rests for a second. */
beforeEach(async () => {
  await eventually('nothing to be left', async () =>
    (await node.allocations()).some(({ released }) => released) ? undefined : true,
  );
});

describe('a pod that names its address', () => {
  test('gets it in a subnet of its node, without a subnet of its own', async () => {
    const wanted = await inOwnSubnet(9);
    expect(addressesOf(await add('inside', { addresses: wanted }))[0]).toBe(wanted);
    expect(await exclusiveSubnets()).toEqual([]);
    await ping('inside');
    await del('inside');
    // It comes free without a rest: the pool's delay is for addresses that anybody may draw.
    expect((await node.allocations()).filter(({ name }) => name === wanted)).toEqual([]);
  });

  test('gets it on this node although it lies in another’s subnet, and is reached', async () => {
    expect(await ip('route', 'show', '10.20.0.7')).toBe('');
    const got = addressesOf(await add('outside', { addresses: '10.20.0.7,fd00:20::7' }));
    expect(got).toEqual(['10.20.0.7', 'fd00:20::7']);
    expect(await exclusiveSubnets()).toEqual(['10.20.0.7-32', 'fd00-0020-0000-0000-0000-0000-0000-0007-128']);
    expect(await ip('route', 'show', '10.20.0.7')).toMatch(/^10\.20\.0\.7 dev weft/);
    await ping('outside');
    await del('outside');
    expect(await exclusiveSubnets()).toEqual([]);
    expect(await node.allocations()).toEqual([]);
  });

  test('gets it in a subnet that its node has of another pool, with a way of its own: it counts for its pool', async () => {
    await node.apply(
      pool('earlier', { cidrs: ['10.26.0.0/28'], nodeSubnetPrefixLength: { ipv4: 28 }, priority: -9 }),
    );
    await eventually('its subnet', async () => ((await node.subnets('earlier'))[0] ? true : undefined));
    await node.apply(fixedPool(['10.20.0.0/24', '10.26.0.0/24', 'fd00:20::/64']));
    await eventually('the address', async () =>
      (await add('between', { addresses: '10.26.0.9' })).exitCode === 0 ? true : undefined,
    );
    expect(await node.subnets('fixed')).toContain('10.26.0.9-32');
    expect(await node.allocations('between')).toMatchObject([{ pool: 'fixed' }, { pool: 'fixed' }]);
    await ping('between');
    await del('between');
    expect(await exclusiveSubnets()).toEqual([]);
    await node.apply(fixedPool());
    await node.kubectl('delete', 'ippool', 'earlier', '--wait=false');
  });

  test('draws of the family that it does not name like any other', async () => {
    const got = addressesOf(await add('half', { addresses: '10.20.0.8' }));
    expect(got[0]).toBe('10.20.0.8');
    expect(got[1]).toMatch(/^fd00:20::/);
    await del('half');
  });

  test.each([
    ['late', '10.20.0.9', '10.20.0.9'],
    ['late-ipv6', 'fd00:20::9', 'fd00:20::9'],
    ['late-half', 'fd00:20::9', '10.20.0.8,fd00:20::9'],
    ['late-other-half', '10.20.0.9', '10.20.0.9,fd00:20::8'],
  ])(
    'that another pod has (%s: %s of %s) gets code 11 and an Event that name the holder, and none instead (B24)',
    async (name, taken, addresses) => {
      await add('holder', { addresses: taken });
      const refused = await add(name, { addresses });
      expect(refused.answer?.code).toBe(11);
      expect(refused.answer?.msg).toContain(
        `${taken}, which this pod is to have, belongs to pod default/holder on node ${NODE_NAME}`,
      );
      expect(await eventOn(name)).toMatchObject({ reason: 'IPAddressTaken', message: refused.answer?.msg });
      // Of the family that was free it has none either.
      await eventually('nothing half made', async () =>
        (await node.allocations(name)).length === 0 ? true : undefined,
      );
      await del('holder');
      expect(addressesOf(await again(name))).toEqual(expect.arrayContaining(addresses.split(',')));
      await del(name);
      expect(await exclusiveSubnets()).toEqual([]);
    },
  );

  test.each([
    ['malformed', '["10.20.0.9"]', 'is not an IP address', 'InvalidIPAnnotation'],
    ['misspelt', '10.020.0.9', 'without leading zeros', 'InvalidIPAnnotation'],
    ['twice', '10.20.0.9,10.20.0.10', 'it names two of ipv4', 'InvalidIPAnnotation'],
    ['foreign', '203.0.113.9', 'it lies in no IPPool', 'IPAddressRefused'],
    [
      'tenants',
      '10.22.0.9',
      'it lies in IPPool blue, from which this pod may not draw here and now: its namespaceSelector tenant=blue does ' +
        'not match namespace default',
      'IPAddressRefused',
    ],
    ['strictly', '10.21.0.9', 'IPPool strict does not allow it', 'IPAddressRefused'],
    ['reserved', '10.20.0.200', 'IPPool fixed reserves it', 'IPAddressRefused'],
    ['nodes-own', '10.20.0.80', 'it is the first of a /28 of IPPool fixed', 'IPAddressRefused'],
    ['malformed-ipv6', 'fd00:20::fffff', 'is not an IP address', 'InvalidIPAnnotation'],
    ['misspelt-ipv6', 'FD00:20::0:9', 'write it as fd00:20::9', 'InvalidIPAnnotation'],
    ['mapped-ipv6', '::ffff:10.20.0.9', 'IPv4-mapped IPv6 is not allowed', 'InvalidIPAnnotation'],
    ['twice-ipv6', 'fd00:20::9,fd00:20::a', 'it names two of ipv6', 'InvalidIPAnnotation'],
    ['foreign-ipv6', '2001:db8:99::9', 'it lies in no IPPool', 'IPAddressRefused'],
    [
      'tenants-ipv6',
      'fd00:22::9',
      'it lies in IPPool blue, from which this pod may not draw here and now: its namespaceSelector tenant=blue does ' +
        'not match namespace default',
      'IPAddressRefused',
    ],
    ['strictly-ipv6', 'fd00:21::9', 'IPPool strict does not allow it', 'IPAddressRefused'],
    ['reserved-ipv6', 'fd00:20::c8', 'IPPool fixed reserves it', 'IPAddressRefused'],
    ['nodes-own-ipv6', 'fd00:20::50', 'it is the first of a /124 of IPPool fixed', 'IPAddressRefused'],
    ['half-malformed', '10.20.0.9,fd00:20::fffff', 'is not an IP address', 'InvalidIPAnnotation'],
    ['half-foreign', '10.20.0.9,2001:db8:99::9', 'it lies in no IPPool', 'IPAddressRefused'],
    ['half-tenants', '10.20.0.9,fd00:22::9', 'it lies in IPPool blue', 'IPAddressRefused'],
    ['half-reserved', '10.20.0.9,fd00:20::c8', 'IPPool fixed reserves it', 'IPAddressRefused'],
    ['half-reserved-ipv4', '10.20.0.200,fd00:20::9', 'IPPool fixed reserves it', 'IPAddressRefused'],
    [
      'of-two-pools',
      '10.20.0.9,fd00:21::9',
      'no IPPool has all of 10.20.0.9, fd00:21::9',
      'IPAddressRefused',
    ],
  ])(
    'that cannot be (%s) gets code 105 and an Event, and none instead (B24)',
    async (name, addresses, why, reason) => {
      const refused = await add(name, { addresses });
      expect(refused.answer?.code).toBe(105);
      expect(refused.answer?.msg).toContain(why);
      expect(await eventOn(name)).toMatchObject({ type: 'Warning', reason, message: refused.answer?.msg });
      expect(await node.allocations(name)).toEqual([]);
      expect(await exclusiveSubnets()).toEqual([]);
      await forget(name);
    },
  );

  test('is made again under its name within 100 ms, GC running: it has its address again (F23)', async () => {
    await add('twin', { addresses: '10.20.0.11' });
    let isOver = false;
    const collecting = collectUntil(() => isOver);
    for (let round = 0; round < 5; round++) {
      const id = `twin-next-${round}`;
      const netns = await node.makeSandbox(id);
      const removing = node.cni({ command: 'DEL', containerID: 'twin', netns: '/run/netns/twin' });
      const args = argsOf('twin');
      const next = node.cni({ command: 'ADD', containerID: id, netns, config: CONFIG, args });
      expect((await removing).exitCode).toBe(0);
      expect(addressesOf(await next)[0]).toBe('10.20.0.11');
      // The old sandbox's DEL, said late and again, is not the new one's.
      await node.cni({ command: 'DEL', containerID: 'twin', netns: '/run/netns/twin' });
      await ping(id);
      await node.cni({ command: 'DEL', containerID: id, netns });
      await node.removeSandbox(id);
      expect(addressesOf(await again('twin'))[0]).toBe('10.20.0.11');
    }
    isOver = true;
    await collecting;
    await del('twin');
  });

  /** GC with the lists of a runtime that read them a moment ago: of the old sandbox alone, and of the new ones. */
  async function collectUntil(isOver: () => boolean): Promise<void> {
    const next = [0, 1, 2, 3, 4].map((round) => `twin-next-${round}`);
    while (!isOver()) {
      for (const listed of [['twin'], ['twin', ...next]]) {
        const valid = listed.map((containerID) => ({ containerID, ifname: 'eth0' }));
        const config = { ...CONFIG, 'cni.dev/valid-attachments': valid };
        expect((await node.cni({ command: 'GC', config })).exitCode).toBe(0);
      }
    }
  }
});

describe('an address that another node has the way to', () => {
  test('is routed there from this node’s own subnet, and not drawn here', async () => {
    await node.apply(
      pool('tight', {
        cidrs: ['10.23.0.0/30'],
        nodeSubnetPrefixLength: { ipv4: 30 },
        priority: -5,
        reuseDelaySeconds: 0,
      }),
    );
    await eventually('its subnet', async () => ((await node.subnets('tight')).length > 0 ? true : undefined));
    await node.apply(await exclusiveOfOther('10.23.0.2', 'tight'));
    await eventually('the route', async () =>
      (await ip('route', 'show', '10.23.0.2')).includes(`via ${OTHER.address}`) ? true : undefined,
    );
    const config = { ...CONFIG, pool: 'tight' };
    const got = [await add('t1', { config }), await add('t2', { config })].map((one) => addressesOf(one)[0]);
    expect(got.sort()).toEqual(['10.23.0.1', '10.23.0.3']);
    expect((await add('t3', { config })).answer?.code).toBe(11);
    await node.kubectl('delete', 'nodesubnet', '10.23.0.2-32');
    await eventually('the route to go', async () =>
      (await ip('route', 'show', '10.23.0.2')) === '' ? true : undefined,
    );
    await eventually('the address', async () => ((await again('t3')).exitCode === 0 ? true : undefined));
    for (const name of ['t1', 't2', 't3']) await del(name);
    await node.kubectl('delete', 'ippool', 'tight', '--wait=false');
  });

  test('and that this node’s pod is to have by now is stale: it goes, and the pod is reached', async () => {
    const wanted = await inOwnSubnet(10);
    await node.apply(await exclusiveOfOther(wanted, 'fixed'));
    await eventually('the route', async () =>
      (await ip('route', 'show', wanted)).includes(`via ${OTHER.address}`) ? true : undefined,
    );
    expect(addressesOf(await add('home', { addresses: wanted }))[0]).toBe(wanted);
    expect(await exclusiveSubnets()).toEqual([]);
    expect(await ip('route', 'show', wanted)).toMatch(/dev weft/);
    await ping('home');
    await del('home');
  });
});

describe('a StatefulSet’s pod with the annotation', () => {
  test('has its addresses again when it is made again, and nobody has them meanwhile', async () => {
    const first = addressesOf(await add('db-0', { sticky: true }));
    expect(first).toHaveLength(2);
    await del('db-0');
    const kept = await node.allocations();
    expect(kept).toHaveLength(2);
    expect(await node.kubectl('get', 'ipallocation', first[0] ?? '', '-o', 'jsonpath={.spec}')).toContain(
      '"holder":"sticky"',
    );
    const thief = await add('thief', { addresses: first[0] ?? '' });
    expect(thief.answer?.msg).toContain('is kept for pod default/db-0');
    await forget('thief');
    expect(addressesOf(await add('db-0', { sticky: true }))).toEqual(first);
    expect((await node.allocations()).map(({ uid }) => uid).sort()).toEqual(
      kept.map(({ uid }) => uid).sort(),
    );
    await ping('db-0');
    // A DEL right after an ADD finds the address that was bound a moment ago.
    await del('db-0');
    expect(addressesOf(await add('db-0', { sticky: true }))).toEqual(first);
    await del('db-0');
    await freeKept();
  });

  test('keeps its address also if somebody deletes the object under it', async () => {
    const [address = ''] = addressesOf(await add('db-9', { sticky: true }));
    await node.kubectl('delete', 'ipallocation', address);
    await eventually('the object to be there again, and sticky', async () => {
      const text = await node.kubectl('get', 'ipallocations', '-o', 'jsonpath={.items[*].spec.sticky}');
      return text === 'default/db-9 default/db-9' ? true : undefined;
    });
    await del('db-9');
    expect(await node.allocations()).toHaveLength(2);
    await freeKept();
  });

  test('keeps its address also if an older state, in which it waited, comes back under it', async () => {
    const [address = ''] = addressesOf(await add('db-8', { sticky: true }));
    await node.kubectl(
      ...['patch', 'ipallocation', address, '--type=merge', '-p'],
      JSON.stringify({ spec: { nodeName: null, attachment: null, holder: 'sticky' } }),
    );
    await eventually('it to be bound again', async () => {
      const spec = await node.kubectl('get', 'ipallocation', address, '-o', 'jsonpath={.spec}');
      return spec.includes('"attachment"') && spec.includes('default/db-8') ? true : undefined;
    });
    await ping('db-8');
    await del('db-8');
    expect(await node.allocations()).toHaveLength(2);
    await freeKept();
  });

  test('has the address here that it had on another node, as soon as that lets it go', async () => {
    await node.apply(boundElsewhere('10.20.0.12', 'db-1'));
    const refused = await add('db-1', { sticky: true });
    expect(refused.answer?.code).toBe(11);
    expect(refused.answer?.msg).toContain(`belongs to pod default/db-1 on node ${OTHER.name}`);
    const waiting = again('db-1');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await node.kubectl(
      ...['patch', 'ipallocation', '10.20.0.12', '--type=merge', '-p'],
      JSON.stringify({ spec: { nodeName: null, attachment: null, holder: 'sticky' } }),
    );
    expect(addressesOf(await waiting)[0]).toBe('10.20.0.12');
    expect(await exclusiveSubnets()).toEqual(['10.20.0.12-32']);
    await ping('db-1');
    await del('db-1');
    expect(await exclusiveSubnets()).toEqual([]);
    await freeKept();
  });

  test('gets a new address, and an Event, where the old one is being drained, which rests before it is free', async () => {
    const restSeconds = 4;
    const now = ['10.20.0.0/24', 'fd00:20::/64'];
    await node.apply(fixedPool([...now, '10.24.0.0/24'], restSeconds));
    await node.apply(keptFor('10.24.0.9', 'db-2'));
    await node.apply(fixedPool(now, restSeconds));
    const got = await eventually('a new address', async () => {
      const result = await add('db-2', { sticky: true });
      if (addressesOf(result)[0] !== '10.24.0.9') return result;
      await del('db-2');
      return undefined;
    });
    const sinceMs = performance.now();
    expect(addressesOf(got)[0]).toMatch(/^10\.20\./);
    await eventually('the old one to be free', async () =>
      (await node.allocations()).some(({ name }) => name === '10.24.0.9') ? undefined : true,
    );
    expect(performance.now() - sinceMs).toBeGreaterThan(restSeconds * 1_000 - 200);
    expect(await eventOn('db-2')).toMatchObject({ reason: 'IPAddressNotKept' });
    await del('db-2');
    await freeKept();
    await node.apply(fixedPool());
  });

  test('that no StatefulSet made is told that the annotation means nothing, and runs', async () => {
    const annotations = { 'ipam.weft.dev/sticky': 'true' };
    expect((await add('plain', { annotations })).exitCode).toBe(0);
    expect((await eventOn('plain')).message).toContain('on the pods of a StatefulSet only');
    await del('plain');
    await eventually('its addresses to be free', async () =>
      (await node.allocations()).length === 0 ? true : undefined,
    );
  });
});

describe.each(LEADING_STEPS)('the agent is killed at %s', (step) => {
  test('the pod has its address again, one way leads to it, and nothing is left behind', async () => {
    const name = `killed-${LEADING_STEPS.indexOf(step)}-0`;
    const wish = { addresses: '10.20.0.13', sticky: true };
    await prepare(name, wish);
    const netns = `/run/netns/${name}`;
    if (step.startsWith('release')) expect((await again(name)).exitCode).toBe(0);
    await writeFile(FATAL_STEP, step);
    const command = step.startsWith('release') ? 'DEL' : 'ADD';
    const call = node.beginCni({ command, containerID: name, netns, args: argsOf(name) });
    await agent.ended;
    call.kill();
    await rm(FATAL_STEP);
    agent = await node.startAgent(MORTAL);
    if (command === 'DEL') await node.cni({ command, containerID: name, netns });
    expect(addressesOf(await again(name))[0]).toBe('10.20.0.13');
    expect(await exclusiveSubnets()).toEqual(['10.20.0.13-32']);
    await ping(name);
    await del(name);
    await freeKept();
    await eventually('nothing to be left', async () =>
      (await node.allocations()).length + (await exclusiveSubnets()).length === 0 ? true : undefined,
    );
  });
});

test('an exclusive subnet whose address no pod has is given back', async () => {
  const own = await exclusiveOfOther('10.20.0.14', 'fixed');
  const spec = {
    ...own.spec,
    nodeName: NODE_NAME,
    nodeUID: await nodeUID(),
    nextHops: [UPLINK.addresses[0]],
  };
  await node.apply({ ...own, spec });
  await eventually('it to go', async () => ((await exclusiveSubnets()).length === 0 ? true : undefined));
});

test('a living pod whose subnet somebody deleted and gave to another node is led to again', async () => {
  const [address = ''] = addressesOf(await add('orphan', {}));
  const cidr = await ownSubnet();
  await agent.kill();
  await node.kubectl('delete', 'nodesubnet', (cidr ?? '').replace('/', '-'));
  await node.apply(await subnetOfOther(cidr ?? ''));
  agent = await node.startAgent(MORTAL);
  await eventually('a subnet for the one address', async () =>
    (await exclusiveSubnets()).includes(`${address}-32`) ? true : undefined,
  );
  await ping('orphan');
  await del('orphan');
});

interface Wish {
  readonly addresses?: string;
  readonly sticky?: boolean;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly config?: object;
}

const made = new Map<string, { args: string; config: object }>();

/** Makes the pod and its sandbox, if they are not there, and ADDs it. */
async function add(name: string, wish: Wish): Promise<CallResult> {
  if (!made.has(name)) await prepare(name, wish);
  return again(name);
}

async function prepare(name: string, wish: Wish): Promise<void> {
  await node.makeSandbox(name);
  const annotations = {
    ...(wish.addresses === undefined ? {} : { 'ipam.weft.dev/addresses': wish.addresses }),
    ...(wish.sticky === true ? { 'ipam.weft.dev/sticky': 'true' } : {}),
    ...wish.annotations,
  };
  const set = { apiVersion: 'apps/v1', kind: 'StatefulSet', uid: 'u', controller: true };
  const ownerReferences = wish.sticky === true ? [{ ...set, name: name.replace(/-[0-9]+$/, '') }] : [];
  const args = await node.makePod(name, { annotations, ownerReferences });
  made.set(name, { args, config: wish.config ?? CONFIG });
}

async function again(name: string): Promise<CallResult> {
  const { args, config } = knownAs(name);
  return node.cni({ command: 'ADD', containerID: name, netns: `/run/netns/${name}`, args, config });
}

/** DEL, and the end of pod and sandbox. */
async function del(name: string): Promise<void> {
  const { args, config } = knownAs(name);
  const { exitCode } = await node.cni({
    command: 'DEL',
    containerID: name,
    netns: `/run/netns/${name}`,
    args,
    config,
  });
  expect(exitCode).toBe(0);
  await forget(name);
}

async function forget(name: string): Promise<void> {
  await node.kubectl('delete', 'pod', name, '--grace-period=0', '--force');
  await node.removeSandbox(name);
  made.delete(name);
}

function knownAs(name: string): { args: string; config: object } {
  const known = made.get(name);
  if (known === undefined) throw new Error(`no pod ${name} was made`);
  return known;
}

function argsOf(name: string): string {
  return knownAs(name).args;
}

function addressesOf(result: CallResult): string[] {
  expect(result.answer?.code, result.stdout).toBeUndefined();
  return result.answer?.ips?.map(({ address }) => address.split('/')[0] ?? '') ?? [];
}

async function eventOn(pod: string) {
  return eventually(`the Event on ${pod}`, async () => (await node.podEvents(pod))[0]);
}

async function ping(from: string): Promise<void> {
  await execa('ip', ['netns', 'exec', from, 'ping', '-c1', '-W2', UPLINK.addresses[0]]);
}

/** The names of all exclusive subnets. */
async function exclusiveSubnets(): Promise<string[]> {
  const names = await node.subnets();
  return names.filter((name) => /-(32|128)$/.test(name)).sort();
}

/** The node's own IPv4 subnet of the pool. */
async function ownSubnet(): Promise<string | undefined> {
  const names = (await node.subnets('fixed')).filter((name) => name.endsWith('-28'));
  return names.map((name) => name.replace('-', '/'))[0];
}

async function inOwnSubnet(offset: number): Promise<string> {
  const cidr = (await ownSubnet()) ?? '';
  return cidr.replace(/[0-9]+\/28$/, (end) => String(Number.parseInt(end) + offset));
}

async function nodeUID(): Promise<string> {
  return node.kubectl('get', 'node', NODE_NAME, '-o', 'jsonpath={.metadata.uid}');
}

function fixedPool(cidrs = ['10.20.0.0/24', 'fd00:20::/64'], reuseDelaySeconds = 1): object {
  return pool('fixed', {
    cidrs,
    nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
    reserved: ['10.20.0.200', 'fd00:20::c8'],
    fixedAddresses: true,
    priority: 5,
    reuseDelaySeconds,
  });
}

async function subnetOfOther(cidr: string, poolName = 'fixed') {
  const poolUID = await node.kubectl('get', 'ippool', poolName, '-o', 'jsonpath={.metadata.uid}');
  return {
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'NodeSubnet',
    metadata: { name: cidr.replace('/', '-') },
    spec: { cidr, pool: poolName, poolUID, nodeName: OTHER.name, nodeUID: 'u', nextHops: [OTHER.address] },
  };
}

async function exclusiveOfOther(address: string, poolName: string) {
  const subnet = await subnetOfOther(`${address}/32`, poolName);
  return { ...subnet, spec: { ...subnet.spec, exclusive: true } };
}

function boundElsewhere(address: string, pod: string): object {
  return allocation(address, {
    nodeName: OTHER.name,
    attachment: { network: 'weft', containerID: 'theirs', ifName: 'eth0', kind: 'Interface' },
    pod: { namespace: 'default', name: pod },
    sticky: `default/${pod}`,
  });
}

function keptFor(address: string, pod: string): object {
  return allocation(address, { holder: 'sticky', sticky: `default/${pod}` });
}

function allocation(address: string, spec: object): object {
  return {
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'IPAllocation',
    metadata: { name: address },
    spec: { address, pool: 'fixed', ...spec },
  };
}

/** What a controller does when the StatefulSet has gone. */
async function freeKept(): Promise<void> {
  await node.kubectl('delete', 'ipallocations', '--all');
}
