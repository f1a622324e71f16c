import { rm, stat, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { addressOfAllocationName } from '../../src/api/index.ts';
import { formatAddress } from '../../src/net/index.ts';
import {
  eventually,
  NODE_NAME,
  pool,
  startNode,
  type Allocation,
  type TestAgent,
  type TestNode,
} from './node.ts';
import { ip, UPLINK } from './namespaces.ts';
import {
  HOST_BINARIES,
  installPlugins,
  type PluginAnswer,
  type PluginCall,
  type ReferencePlugins,
} from './reference-plugins.ts';

/** weft-ipam under the reference plugins: real executables, agent, apiserver and kernel. */

const CHECKOUT = new URL('../../', import.meta.url).pathname;

let node: TestNode;
let agent: TestAgent;
let plugins: ReferencePlugins;

/** An agent that dies at the step that the file names. */
const FATAL_STEP = '/run/weft/fatal-step';
const MORTAL = {
  program: new URL('./kill-at-step.ts', import.meta.url).pathname,
  env: { WEFT_TEST_FATAL_STEP: FATAL_STEP },
};

const BRIDGE = {
  cniVersion: '1.0.0',
  name: 'bridged',
  type: 'bridge',
  bridge: 'br-weft',
  isGateway: true,
  ipam: { type: 'weft-ipam', pool: 'bridged' },
};
const PTP = { cniVersion: '1.0.0', name: 'linked', type: 'ptp', ipam: { type: 'weft-ipam', pool: 'linked' } };
const MACVLAN = {
  cniVersion: '1.0.0',
  name: 'lan',
  type: 'macvlan',
  master: 'lan0',
  ipam: { type: 'weft-ipam', pool: 'lan' },
};

beforeAll(async () => {
  node = await startNode();
  const reuse = { reuseDelaySeconds: 1 };
  await node.apply(pool('pods', { cidrs: ['10.2.0.0/16', 'fd00:2::/64'], ...reuse }));
  await node.apply(
    pool('bridged', {
      use: 'Bridge',
      cidrs: ['10.9.0.0/24', 'fd09::/64'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      ...reuse,
    }),
  );
  await node.apply(pool('linked', { use: 'Bridge', cidrs: ['10.8.0.0/24', 'fd08::/64'], ...reuse }));
  await node.apply(
    pool('tiny', {
      use: 'Bridge',
      cidrs: ['10.7.0.0/24'],
      nodeSubnetPrefixLength: { ipv4: 30 },
      reuseDelaySeconds: 0,
    }),
  );
  for (const [name, cidr] of [
    ['lost', '10.6.0.0/24'],
    ['strayed', '10.5.0.0/24'],
  ] as const) {
    const nodeSubnetPrefixLength = { ipv4: 30 };
    await node.apply(
      pool(name, { use: 'Bridge', cidrs: [cidr], nodeSubnetPrefixLength, reuseDelaySeconds: 0 }),
    );
  }
  await node.apply(
    pool('lan', {
      use: 'Lan',
      cidrs: ['192.168.7.0/24', 'fd07::/64'],
      gateway: { ipv4: '192.168.7.1', ipv6: 'fd07::1' },
      nodeSubnetPrefixLength: { ipv4: 32, ipv6: 128 },
      ...reuse,
    }),
  );
  await node.apply(
    pool('rented', {
      use: 'Bridge',
      cidrs: ['10.33.0.0/24', 'fd33::/64'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      namespaceSelector: { matchLabels: { tenant: 'blue' } },
      ...reuse,
    }),
  );
  for (const tenant of ['blue', 'red']) await node.makeNamespace(tenant, { labels: { tenant } });
  agent = await node.startAgent();
  plugins = await installPlugins(CHECKOUT);
  await makeLan();
});

afterAll(async () => {
  await node.stop();
});

test('is the same file as weft, installed once', async () => {
  const [weft, alias] = [await stat(`${HOST_BINARIES}/weft`), await stat(`${HOST_BINARIES}/weft-ipam`)];
  expect(alias.ino).toBe(weft.ino);
});

describe('under bridge', () => {
  test('two containers reach their gateway, each other, the node, and pods of weft; CHECK and DEL', async () => {
    const a = await attach('bridge-a', BRIDGE);
    const b = await attach('bridge-b', BRIDGE);
    const [ipv4, ipv6] = a.answer.ips ?? [];
    expect(ipv4).toMatchObject({
      address: expect.stringMatching(/^10\.9\.0\.\d+\/28$/) as string,
      gateway: expect.stringMatching(/^10\.9\.0\.\d+$/) as string,
    });
    expect(ipv6?.address).toMatch(/^fd09::.*\/124$/);
    const netns = await node.makeSandbox('bridge-pod');
    const pod = await node.cni({ command: 'ADD', containerID: 'bridge-pod', netns });
    const targets = [
      ...(a.answer.ips ?? []).map(({ gateway }) => gateway ?? ''),
      ...addressesOf(b.answer),
      ...UPLINK.addresses,
      ...addressesOf(pod.answer ?? {}),
    ];
    expect(targets).toHaveLength(8);
    for (const target of targets) await ping('bridge-a', target);
    for (const address of addressesOf(a.answer)) await ping('bridge-pod', address);

    const held = await node.allocations('bridge-a');
    expect(held.map(({ pool: its }) => its)).toEqual(['bridged', 'bridged']);
    const checked = { ...BRIDGE, prevResult: a.answer };
    expect(await call({ command: 'CHECK', config: checked }, 'bridge-a')).toMatchObject({ exitCode: 0 });
    const wrong = { ...checked, prevResult: b.answer };
    const refused = await plainCall('weft-ipam', 'CHECK', 'bridge-a', wrong);
    expect(refused.answer).toMatchObject({
      code: 107,
      msg: expect.stringContaining('prevResult says') as string,
    });

    await node.cni({ command: 'DEL', containerID: 'bridge-pod', netns });
    for (const id of ['bridge-a', 'bridge-b']) await detach(id, BRIDGE);
    for (const id of ['bridge-a', 'bridge-b']) await nothingOf(id);
  });

  test('never hands out network, gateway and broadcast address, and says when the bridge is full', async () => {
    const config = { ...BRIDGE, name: 'tiny', bridge: 'br-tiny', ipam: { type: 'weft-ipam', pool: 'tiny' } };
    const { answer } = await attach('tiny-a', config);
    expect(answer.ips?.[0]?.address).toMatch(/^10\.7\.0\.\d+\/30$/);
    const last = Number(/\.(\d+)\/30/.exec(answer.ips?.[0]?.address ?? '')?.[1]);
    expect(last % 4).toBe(2);
    const netns = await node.makeSandbox('tiny-b');
    const full = await plugins.call({ command: 'ADD', config, containerID: 'tiny-b', netns });
    expect(full.answer).toMatchObject({
      code: 11,
      msg: expect.stringMatching(
        /a bridge has room for one of each family, and its 10\.7\.0\.\d+\/30 is full/,
      ) as string,
    });
    expect(await node.subnets('tiny')).toHaveLength(1);
    await detach('tiny-a', config);
    // Some plugins say DEL before they delete the interface: the address rests, whatever the pool says.
    await nothingOf('tiny-a');
    expect(await node.allocations('tiny-a')).toHaveLength(1);
  });

  test('as a second interface reaches its bridge, and leaves the first one its default route', async () => {
    const netns = await node.makeSandbox('both');
    const first = await node.cni({ command: 'ADD', containerID: 'both', netns });
    const neighbour = await attach('neighbour', BRIDGE);
    const before = await ip('-n', 'both', 'route', 'show', 'default');
    const second = await plugins.call({
      command: 'ADD',
      config: BRIDGE,
      containerID: 'both',
      ifName: 'net1',
      netns,
    });
    expect(second.exitCode, second.stdout).toBe(0);
    expect(second.answer.routes?.map(({ dst }) => dst)).toEqual(['10.9.0.0/24', 'fd09::/64']);
    expect(await ip('-n', 'both', 'route', 'show', 'default')).toBe(before);
    for (const address of addressesOf(neighbour.answer)) await ping('both', address, 'net1');
    for (const address of UPLINK.addresses) await ping('both', address, 'eth0');
    expect(await liveOf('both')).toHaveLength(4);

    // A third of a name that is taken: refused, and what follows must not take from the living.
    const again = await plugins.call({
      command: 'ADD',
      config: BRIDGE,
      containerID: 'both',
      ifName: 'eth0',
      netns,
    });
    expect(again.exitCode).not.toBe(0);
    await plugins.call({ command: 'DEL', config: BRIDGE, containerID: 'both', ifName: 'eth0' });
    expect(await liveOf('both')).toHaveLength(4);
    for (const { address } of first.answer?.ips ?? [])
      await execa('ping', ['-c1', '-W2', address.split('/')[0] ?? '']);

    await plugins.call({ command: 'DEL', config: BRIDGE, containerID: 'both', ifName: 'net1', netns });
    await eventually('the addresses of net1 to be released', async () =>
      (await liveOf('both')).length === 2 ? true : undefined,
    );
    for (const address of UPLINK.addresses) await ping('both', address);
    await node.cni({ command: 'DEL', containerID: 'both', netns });
    await detach('neighbour', BRIDGE);
  });

  test('an agent that is killed between ADD and DEL, and is away for a DEL, forgets nothing', async () => {
    const { answer } = await attach('restart-a', BRIDGE);
    await attach('restart-b', BRIDGE);
    await agent.kill();
    for (const address of addressesOf(answer)) await ping('restart-b', address);
    expect(await call({ command: 'DEL', config: BRIDGE }, 'restart-a')).toMatchObject({ exitCode: 0 });
    agent = await node.startAgent();
    // By the note that the executable left: the sandbox is still there.
    await nothingOf('restart-a');
    expect(await liveOf('restart-b')).toHaveLength(2);
    await node.removeSandbox('restart-a');
    await detach('restart-b', BRIDGE);
    await nothingOf('restart-b');
  });
});

describe('under bridge, from a pool that is a tenant’s', () => {
  const RENTED = {
    ...BRIDGE,
    name: 'rented',
    bridge: 'br-rented',
    ipam: { type: 'weft-ipam', pool: 'rented' },
  };

  test.each([
    {
      whose: 'of another namespace',
      name: 'red-pod',
      namespace: 'red',
      who: `by namespace red on node ${NODE_NAME}`,
      why: 'does not match namespace red',
    },
    {
      whose: 'that no runtime names',
      name: 'bare',
      namespace: undefined,
      who: `on node ${NODE_NAME}`,
      why: 'admits pods of Kubernetes only',
    },
  ])('a pod $whose gets code 11, and nothing is left of it', async ({ name, namespace, who, why }) => {
    // A bridge of its own: the reference plugin gives up on one for good whose very first ADD has failed (its issue 620).
    const config = { ...RENTED, bridge: 'br-refused' };
    const args = namespace === undefined ? undefined : await node.makePod(name, { namespace });
    await node.makeSandbox(name);
    const refused = await call({ command: 'ADD', config, args }, name);
    const message = `IPPool rented cannot be drawn from ${who}: rented: its namespaceSelector tenant=blue ${why}`;
    expect(refused.answer).toMatchObject({ code: 11, msg: message });
    if (namespace !== undefined) {
      const event = await eventually('the Event', async () => (await node.podEvents(name))[0]);
      expect(event).toMatchObject({ type: 'Warning', reason: 'NoIPPool', message });
    }
    expect(await node.allocations(name)).toEqual([]);
    expect(await node.subnets('rented')).toEqual([]);
    // What the plugin itself has made goes with the DEL that a runtime sends then.
    expect(await call({ command: 'DEL', config, args }, name)).toMatchObject({ exitCode: 0 });
    expect(await linksIn(name)).toEqual(['lo']);
    expect(await node.allocations(name)).toEqual([]);
    await node.removeSandbox(name);
  });

  test('a pod of its namespace gets its addresses, and the book names it', async () => {
    const args = await node.makePod('blue-pod', { namespace: 'blue' });
    const { answer } = await attach('blue-pod', RENTED, args);
    expect(answer.ips?.map(({ address }) => address)).toEqual([
      expect.stringMatching(/^10\.33\.0\.\d+\/28$/),
      expect.stringMatching(/^fd33::.*\/124$/),
    ]);
    for (const target of UPLINK.addresses) await ping('blue-pod', target);
    const held = await liveOf('blue-pod');
    expect(held.map(({ name }) => parseAllocation(name)).sort()).toEqual(addressesOf(answer).sort());
    const [, uid] = /K8S_POD_UID=(.+)$/.exec(args) ?? [];
    for (const { name } of held) {
      const text = await node.kubectl('get', 'ipallocation', name, '-o', 'jsonpath={.spec.pod}');
      expect(JSON.parse(text)).toEqual({ namespace: 'blue', name: 'blue-pod', uid });
    }
    expect(await node.podEvents('blue-pod')).toEqual([]);
    await detach('blue-pod', RENTED);
    await nothingOf('blue-pod');
  });
});

describe('under ptp', () => {
  test('two containers reach each other and the node; another ADD takes nothing from the first', async () => {
    const a = await attach('ptp-a', PTP);
    const b = await attach('ptp-b', PTP);
    for (const target of [...addressesOf(b.answer), ...UPLINK.addresses]) await ping('ptp-a', target);

    const again = await call({ command: 'ADD', config: PTP }, 'ptp-a');
    expect(again.answer).toMatchObject({ code: 106 });
    expect(await liveOf('ptp-a')).toHaveLength(2);
    for (const address of addressesOf(a.answer)) await ping('ptp-b', address);
    for (const id of ['ptp-a', 'ptp-b']) await detach(id, PTP);
    await nothingOf('ptp-a');
  });
});

describe('under macvlan', () => {
  test('containers have the prefix and the router of the LAN, and the node does nothing about it', async () => {
    const a = await attach('lan-a', MACVLAN);
    const b = await attach('lan-b', MACVLAN);
    expect(a.answer.ips).toEqual([
      {
        address: expect.stringMatching(/^192\.168\.7\.\d+\/24$/) as string,
        gateway: '192.168.7.1',
        interface: 0,
      },
      { address: expect.stringMatching(/^fd07::.*\/64$/) as string, gateway: 'fd07::1', interface: 0 },
    ]);
    for (const target of ['192.168.7.1', 'fd07::1', ...addressesOf(b.answer)]) await ping('lan-a', target);
    expect(await ip('route', 'show', 'proto', '84')).not.toContain('192.168.7');
    expect(await ip('-6', 'route', 'show', 'proto', '84')).not.toContain('fd07');
    const table = (await execa('nft', ['list', 'table', 'inet', 'weft'])).stdout;
    expect(table).toContain('10.9.0.');
    expect(table).not.toMatch(/192\.168\.7|fd07/);
    const lans = await node.kubectl(
      'get',
      'nodesubnets',
      '-o',
      'jsonpath={.items[?(@.spec.pool=="lan")].spec.nextHops}',
    );
    expect(lans.replaceAll(' ', '')).toBe('[][][][]');
    for (const id of ['lan-a', 'lan-b']) await detach(id, MACVLAN);
    await eventually('the pieces of the LAN to go back', async () =>
      (await node.subnets('lan')).length === 0 ? true : undefined,
    );
  });

  test('as a second interface has its place on the LAN, and weft’s own keeps the default route, also behind its DEL', async () => {
    const id = 'lan-second';
    const netns = await node.makeSandbox(id);
    const first = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(first.answer?.ips, first.stdout).toHaveLength(2);
    const before = await defaultRoutesOf(id);
    expect(before).toEqual([expect.stringContaining('dev eth0'), expect.stringContaining('dev eth0')]);
    const net1 = { config: MACVLAN, containerID: id, ifName: 'net1', netns };

    const second = await plugins.call({ command: 'ADD', ...net1 });
    expect(second.exitCode, second.stdout).toBe(0);
    expect(second.answer.ips).toMatchObject([
      { address: expect.stringMatching(/^192\.168\.7\.\d+\/24$/) as string, gateway: '192.168.7.1' },
      { address: expect.stringMatching(/^fd07::.*\/64$/) as string, gateway: 'fd07::1' },
    ]);
    expect(second.answer.routes ?? []).toEqual([]);
    expect(await prefixesOn(id, 'net1')).toEqual(second.answer.ips?.map(({ address }) => address).sort());
    expect(await defaultRoutesOf(id)).toEqual(before);
    for (const address of ['192.168.7.1', 'fd07::1']) await ping(id, address, 'net1');
    for (const address of addressesOf(second.answer)) await ping('lan-router', address);
    for (const address of UPLINK.addresses) await ping(id, address, 'eth0');
    expect((await liveOf(id)).map(({ pool: its }) => its).sort()).toEqual(['lan', 'lan', 'pods', 'pods']);

    // Said twice, as runtimes do.
    for (let i = 0; i < 2; i++) {
      expect(await plugins.call({ command: 'DEL', ...net1 })).toMatchObject({ exitCode: 0 });
    }
    await eventually('the addresses of net1 to be released', async () =>
      (await liveOf(id)).length === 2 ? true : undefined,
    );
    expect((await liveOf(id)).map(({ pool: its }) => its)).toEqual(['pods', 'pods']);
    expect(await linksIn(id)).toEqual(['eth0', 'lo']);
    expect(await defaultRoutesOf(id)).toEqual(before);
    for (const address of UPLINK.addresses) await ping(id, address);
    expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
    await nothingOf(id);
    await node.removeSandbox(id);
  });
});

describe('by itself', () => {
  test('said again answers the same until the interface is there, and after a restart of the agent too', async () => {
    await node.makeSandbox('alone');
    const first = await plainCall('weft-ipam', 'ADD', 'alone', BRIDGE);
    expect(first.exitCode, first.stdout).toBe(0);
    expect(first.answer.interfaces).toBeUndefined();
    expect(first.answer.routes?.map(({ dst }) => dst)).toEqual(['0.0.0.0/0', '::/0']);
    expect((await plainCall('weft-ipam', 'ADD', 'alone', BRIDGE)).answer).toEqual(first.answer);
    await agent.kill();
    agent = await node.startAgent();
    expect((await plainCall('weft-ipam', 'ADD', 'alone', BRIDGE)).answer).toEqual(first.answer);
    expect(await liveOf('alone')).toHaveLength(2);
    await plainCall('weft-ipam', 'DEL', 'alone', BRIDGE);
    await nothingOf('alone');
    // What rests is another's to be: the next ADD has another address.
    const next = await plainCall('weft-ipam', 'ADD', 'alone', BRIDGE);
    expect(next.answer.ips).not.toEqual(first.answer.ips);
    await plainCall('weft-ipam', 'DEL', 'alone', BRIDGE);
  });

  test.each(['add:claim-sent', 'add:claimed'])(
    'an agent that is killed at %s: the call goes on, and one address of each family is in use',
    async (step) => {
      const id = step.replace(':', '-');
      await node.makeSandbox(id);
      await agent.kill();
      agent = await node.startAgent(MORTAL);
      await writeFile(FATAL_STEP, step);
      const adding = plainCall('weft-ipam', 'ADD', id, BRIDGE);
      await agent.ended;
      await rm(FATAL_STEP);
      agent = await node.startAgent();
      const first = await adding;
      // On a machine that is slow the agent may be away for longer than the executable waits.
      const { exitCode, stdout, answer } =
        first.answer.code === 11 ? await plainCall('weft-ipam', 'ADD', id, BRIDGE) : first;
      expect(exitCode, stdout).toBe(0);
      const held = await eventually('one of each family to be held', async () => {
        const live = await liveOf(id);
        return live.length === 2 ? live : undefined;
      });
      expect(held.map(({ name }) => parseAllocation(name)).sort()).toEqual(addressesOf(answer).sort());
      await plainCall('weft-ipam', 'DEL', id, BRIDGE);
      await nothingOf(id);
    },
  );

  test.each(['0.3.1', '0.4.0', '1.0.0', '1.1.0'])('answers in version %s', async (cniVersion) => {
    const id = `version-${cniVersion.replaceAll('.', '-')}`;
    await node.makeSandbox(id);
    const { answer } = await plainCall('weft-ipam', 'ADD', id, { ...BRIDGE, cniVersion });
    expect(answer).toMatchObject({ cniVersion, ips: [{}, {}] });
    await plainCall('weft-ipam', 'DEL', id, BRIDGE);
  });

  test.each([
    { name: 'pods', message: /pods: its use is Pods: weft-ipam draws from pools of use Bridge or Lan only/ },
    { name: 'nowhere', message: /nowhere: there is no such IPPool/ },
  ])('refuses to draw from the pool $name', async ({ name, message }) => {
    await node.makeSandbox(`refused-${name}`);
    const config = { ...BRIDGE, ipam: { type: 'weft-ipam', pool: name } };
    const { answer } = await plainCall('weft-ipam', 'ADD', `refused-${name}`, config);
    expect(answer).toMatchObject({ code: 11, msg: expect.stringMatching(message) as string });
  });

  test('is not what weft itself draws from', async () => {
    const netns = await node.makeSandbox('own');
    const config = { cniVersion: '1.1.0', name: 'weft', type: 'weft', pool: 'bridged' };
    const { answer } = await node.cni({ command: 'ADD', containerID: 'own', netns, config });
    expect(answer?.msg).toMatch(/bridged: its use is Bridge: only weft-ipam draws from it/);
  });

  test('answers STATUS as weft does', async () => {
    const config = { ...BRIDGE, cniVersion: '1.1.0' };
    expect(await plugins.call({ command: 'STATUS', config })).toMatchObject({ exitCode: 0 });
  });

  test('GC releases what the runtime does not list of that network, and of no other', async () => {
    // What must stay is older than what must go.
    await attach('gc-kept', BRIDGE);
    await attach('gc-other', PTP);
    const netns = await node.makeSandbox('gc-pod');
    await node.cni({ command: 'ADD', containerID: 'gc-pod', netns });
    await attach('gc-gone', BRIDGE);
    await eventually('all to be older than the grace', async () => {
      const config = {
        ...BRIDGE,
        cniVersion: '1.1.0',
        'cni.dev/valid-attachments': [{ containerID: 'gc-kept', ifname: 'eth0' }],
      };
      await plainCall('weft-ipam', 'GC', 'gc', config);
      return (await liveOf('gc-gone')).length === 0 ? true : undefined;
    });
    for (const id of ['gc-kept', 'gc-other', 'gc-pod']) expect(await liveOf(id)).toHaveLength(2);
    for (const id of ['gc-gone', 'gc-kept']) await detach(id, BRIDGE);
    await detach('gc-other', PTP);
    await node.cni({ command: 'DEL', containerID: 'gc-pod', netns });
  });
});

test('the sweep releases what a vanished sandbox had, not before the grace, and nothing of a living one', async () => {
  await attach('swept', BRIDGE);
  await attach('living', BRIDGE);
  // Without the links: only the sandbox counts.
  await ip('-n', 'living', 'link', 'delete', 'eth0');
  const goneMs = performance.now();
  await node.removeSandbox('swept');
  await eventually('the release', async () => ((await liveOf('swept')).length === 0 ? true : undefined));
  expect(performance.now() - goneMs).toBeGreaterThan(3_000);
  expect(await liveOf('living')).toHaveLength(2);
  await detach('living', BRIDGE);
});

test("an address whose object is deleted under a living container gets it back, and is nobody else's meanwhile", async () => {
  const config = { ...BRIDGE, name: 'lost', bridge: 'br-lost', ipam: { type: 'weft-ipam', pool: 'lost' } };
  const { answer } = await attach('lost-a', config);
  const [address] = addressesOf(answer);
  const before = await liveOf('lost-a');
  expect(before.map(({ name }) => name)).toEqual([address]);
  await node.makeSandbox('lost-b');
  await node.kubectl('delete', 'ipallocation', address ?? '');
  // The bridge has room for this one address.
  const refused = await plainCall('weft-ipam', 'ADD', 'lost-b', config);
  expect(refused.answer).toMatchObject({ code: 11, msg: expect.stringContaining('is full') as string });
  await eventually('the object to be back', async () =>
    (await liveOf('lost-a')).length === 1 ? true : undefined,
  );
  expect((await liveOf('lost-a')).map(({ name }) => name)).toEqual([address]);
  expect((await plainCall('weft-ipam', 'ADD', 'lost-b', config)).answer).toMatchObject({ code: 11 });

  // A DEL that comes while the object is away is the end of it.
  await node.kubectl('delete', 'ipallocation', address ?? '');
  await detach('lost-a', config);
  await nothingOf('lost-a');
});

test('an address that loses its object, and its subnet, while no agent runs is nobody else’s until its namespace is gone', async () => {
  const ipam = { type: 'weft-ipam', pool: 'strayed' };
  const config = { ...BRIDGE, name: 'strayed', bridge: 'br-strayed', ipam };
  const { answer } = await attach('stray', config);
  const [address = ''] = addressesOf(answer);
  const subnets = await node.subnets('strayed');
  await agent.kill();
  await node.kubectl('delete', 'ipallocation', address);
  await node.kubectl('delete', 'nodesubnet', ...subnets);
  agent = await node.startAgent();

  await node.makeSandbox('beside');
  const refused = await plainCall('weft-ipam', 'ADD', 'beside', config);
  expect(refused.answer).toMatchObject({ code: 11, msg: expect.stringContaining('is full') as string });
  expect(await node.subnets('strayed')).toEqual(subnets);
  await node.removeSandbox('stray');
  const given = await eventually('the address, since its namespace is gone', async () => {
    const { answer: next } = await plainCall('weft-ipam', 'ADD', 'beside', config);
    return addressesOf(next)[0];
  });
  expect(given).toBe(address);
  await plainCall('weft-ipam', 'DEL', 'beside', config);
  await nothingOf('beside');
});

/** Makes the sandbox, and attaches it as a runtime does. */
async function attach(
  containerID: string,
  config: PluginCall['config'],
  args?: string,
): Promise<{ readonly answer: PluginAnswer }> {
  await node.makeSandbox(containerID);
  const added = await call({ command: 'ADD', config, args }, containerID);
  expect(added.exitCode, added.stdout).toBe(0);
  return added;
}

/** Detaches it twice, which must do no harm, and removes the sandbox. */
async function detach(containerID: string, config: PluginCall['config']): Promise<void> {
  for (let i = 0; i < 2; i++) {
    const deleted = await call({ command: 'DEL', config }, containerID);
    expect(deleted.exitCode, deleted.stdout).toBe(0);
  }
  await node.removeSandbox(containerID);
}

function call(request: Pick<PluginCall, 'command' | 'config' | 'args'>, containerID: string) {
  return plugins.call({ ...request, containerID, netns: `/run/netns/${containerID}` });
}

/** weft-ipam called directly, as a plugin calls it. */
async function plainCall(program: string, command: string, containerID: string, config: object) {
  const { exitCode, stdout } = await execa(`${HOST_BINARIES}/${program}`, [], {
    input: JSON.stringify(config),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerID,
      CNI_IFNAME: 'eth0',
      CNI_NETNS: `/run/netns/${containerID}`,
      CNI_PATH: HOST_BINARIES,
    },
    extendEnv: false,
    reject: false,
  });
  return { exitCode, stdout, answer: stdout === '' ? {} : (JSON.parse(stdout) as PluginAnswer) };
}

async function liveOf(containerID: string): Promise<Allocation[]> {
  return (await node.allocations(containerID)).filter(({ released }) => !released);
}

async function nothingOf(containerID: string): Promise<void> {
  await eventually(`nothing of ${containerID} to be left`, async () =>
    (await liveOf(containerID)).length === 0 ? true : undefined,
  );
}

function addressesOf({ ips = [] }: { readonly ips?: readonly { readonly address: string }[] }): string[] {
  return ips.map(({ address }) => address.split('/')[0] ?? '');
}

function parseAllocation(name: string): string {
  return formatAddress(addressOfAllocationName(name));
}

/** The links inside a sandbox by name, sorted. */
async function linksIn(sandbox: string): Promise<string[]> {
  const links = JSON.parse(await ip('-n', sandbox, '-json', 'link', 'show')) as { ifname: string }[];
  return links.map(({ ifname }) => ifname).sort();
}

/** The global addresses of a link inside a sandbox, with their prefix lengths, sorted. */
async function prefixesOn(sandbox: string, ifName: string): Promise<string[]> {
  const shown = await ip('-n', sandbox, '-json', 'address', 'show', 'dev', ifName, 'scope', 'global');
  const links = JSON.parse(shown) as { addr_info?: { local?: string; prefixlen?: number }[] }[];
  return links
    .flatMap(({ addr_info = [] }) => addr_info)
    .flatMap(({ local, prefixlen }) => (local === undefined ? [] : `${local}/${prefixlen}`))
    .sort();
}

/** Of IPv4 and of IPv6. */
function defaultRoutesOf(sandbox: string): Promise<string[]> {
  return Promise.all(['-4', '-6'].map((family) => ip('-n', sandbox, family, 'route', 'show', 'default')));
}

/** Waits for the first answer: an address on a LAN is being looked for by its neighbours first. */
async function ping(sandbox: string, address: string, ifName?: string): Promise<void> {
  const by = ifName === undefined ? [] : ['-I', ifName];
  await eventually(
    `${address} to answer ${sandbox}`,
    async () => {
      const { exitCode } = await execa(
        'ip',
        ['netns', 'exec', sandbox, 'ping', '-c1', '-W1', ...by, address],
        {
          reject: false,
        },
      );
      return exitCode === 0 ? true : undefined;
    },
    10_000,
  );
}

/** A LAN at the node's link lan0, with its router. */
async function makeLan(): Promise<void> {
  await ip('netns', 'add', 'lan-router');
  await ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', 'lan-router');
  await ip('link', 'set', 'lan0', 'up');
  for (const prefix of ['192.168.7.1/24', 'fd07::1/64']) {
    const nodad = prefix.includes(':') ? ['nodad'] : [];
    await ip('-n', 'lan-router', 'address', 'add', prefix, 'dev', 'eth0', ...nodad);
  }
  await ip('-n', 'lan-router', 'link', 'set', 'eth0', 'up');
}
