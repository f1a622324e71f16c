import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ip, UPLINK } from './namespaces.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type CallResult, type TestNode } from './node.ts';

/** Which pods draw from which pools, on one real node with real pods and namespaces. */

let node: TestNode;

beforeAll(async () => {
  node = await startNode();
  await node.makeNamespace('blue', { labels: { tenant: 'blue' } });
  await node.makeNamespace('green', {
    labels: { tenant: 'green' },
    annotations: { 'ipam.weft.dev/pools': 'green' },
  });
  await node.makeNamespace('red', { labels: { tenant: 'red' } });
  await node.apply(tenantPool('blue', '10.1.0.0/24'));
  await node.apply(tenantPool('green', '10.2.0.0/24'));
  await node.startAgent();
});

afterAll(async () => {
  await node.stop();
});

describe('tenants', () => {
  test('a namespace draws from the pool that admits it', async () => {
    expect(addressOf(await add('b1', { namespace: 'blue' }))).toMatch(/^10\.1\.0\./);
    expect(addressOf(await add('g1', { namespace: 'green' }))).toMatch(/^10\.2\.0\./);
  });

  test('another tenant’s pool is refused, whatever the annotation says, and an Event on the pod tells why', async () => {
    const refused = await add('thief', { namespace: 'blue', pools: 'green' });
    expect(refused.answer?.code).toBe(11);
    const why = `no IPPool can be drawn from by namespace blue on node ${NODE_NAME}: green: its namespaceSelector tenant=green does not match namespace blue`;
    expect(refused.answer?.msg).toBe(why);
    const event = await eventually('the Event', async () => (await node.podEvents('thief'))[0]);
    expect(event).toMatchObject({ type: 'Warning', reason: 'NoIPPool', message: why });
    expect((await node.allocations('thief')).length).toBe(0);
  });

  test.each([
    { what: 'alone', name: 'envious', tenant: 'envious', pools: 'green' },
    { what: 'beside its own', name: 'greedy', tenant: 'blue', pools: 'blue,green' },
  ])(
    'and refused to a namespace whose own annotation names it $what: its pods are told why',
    async ({ name, tenant, pools }) => {
      const annotations = { 'ipam.weft.dev/pools': pools };
      await node.makeNamespace(name, { labels: { tenant }, annotations });
      const refused = await add(name, { namespace: name });
      const why =
        `no IPPool can be drawn from by namespace ${name} on node ${NODE_NAME}: green: its namespaceSelector ` +
        `tenant=green does not match namespace ${name}`;
      expect(refused.answer).toMatchObject({ code: 11, msg: why });
      const event = await eventually('the Event', async () => (await node.podEvents(name))[0]);
      expect(event).toMatchObject({ type: 'Warning', reason: 'NoIPPool', message: why });
      expect(await node.allocations(name)).toEqual([]);
    },
  );

  test('a configuration that names another tenant’s pool is refused, too', async () => {
    const refused = await add('second', { namespace: 'blue', config: { ...CONFIG, pool: 'green' } });
    expect(refused.answer?.msg).toContain('green: its namespaceSelector tenant=green does not match');
  });

  test('a namespace without any pool is told which there are, and waits', async () => {
    const refused = await add('lost', { namespace: 'red' });
    expect(refused.answer?.msg).toMatch(/blue: its namespaceSelector .*; green: its namespaceSelector /);
    await node.kubectl('label', 'namespace', 'red', 'tenant=blue', '--overwrite');
    const served = await eventually('the label to count', async () => {
      const again = await addAgain('lost');
      return again.exitCode === 0 ? again : undefined;
    });
    expect(addressOf(served)).toMatch(/^10\.1\.0\./);
  });

  test('a pod that no runtime names draws from no tenant’s pool', async () => {
    await node.makeSandbox('bare');
    const refused = await node.cni({
      command: 'ADD',
      containerID: 'bare',
      netns: '/run/netns/bare',
      config: CONFIG,
    });
    expect(refused.answer?.msg).toContain('admits pods of Kubernetes only');
    await node.removeSandbox('bare');
  });

  test('an annotation that is no list of names is an error of its own', async () => {
    const refused = await add('typo', { namespace: 'blue', pools: '["blue"]' });
    expect(refused.answer).toMatchObject({ code: 105 });
    expect(refused.answer?.msg).toContain('Pod blue/typo has the annotation ipam.weft.dev/pools');
    const event = await eventually('the Event', async () => (await node.podEvents('typo'))[0]);
    expect(event.reason).toBe('InvalidIPAnnotation');
  });

  test('a pod that the apiserver does not know gets nothing: it might be anybody’s', async () => {
    await node.makeSandbox('ghost');
    const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=ghost;K8S_POD_UID=x';
    const call = { command: 'ADD', containerID: 'ghost', netns: '/run/netns/ghost', config: CONFIG, args };
    const refused = await node.cni(call);
    expect(refused.answer?.code).toBe(11);
    expect(refused.answer?.msg).toContain('the apiserver knows no pod blue/ghost with the UID x');
    await node.removeSandbox('ghost');
  });
});

describe('the pod behind an ADD', () => {
  test('may have a second sandbox before the first has gone: two addresses, and each DEL frees its own (F26)', async () => {
    const args = await node.makePod('twice', { namespace: 'blue' });
    const call = (command: string, containerID: string) =>
      node.cni({ command, containerID, netns: `/run/netns/${containerID}`, config: CONFIG, args });
    for (const name of ['twice-1', 'twice-2']) await node.makeSandbox(name);
    const [first, second] = [await call('ADD', 'twice-1'), await call('ADD', 'twice-2')];
    expect(addressOf(first)).toMatch(/^10\.1\.0\./);
    expect(addressOf(second)).toMatch(/^10\.1\.0\./);
    expect(addressOf(second)).not.toBe(addressOf(first));
    expect((await call('DEL', 'twice-1')).exitCode).toBe(0);
    await eventually('the first one’s address to come free', async () =>
      (await node.allocations('twice-1')).every(({ released }) => released) ? true : undefined,
    );
    const kept = await node.allocations('twice-2');
    expect(kept).toMatchObject([{ name: addressOf(second), podName: 'twice', released: false }]);
    await call('DEL', 'twice-2');
    for (const name of ['twice-1', 'twice-2']) await node.removeSandbox(name);
  });

  test('may be a static one: it runs under the hash of its file, and its mirror is the pod, which keeps its address (F24)', async () => {
    const hash = 'b1946ac92492d2347c6235b4d2611184';
    const annotations = { 'kubernetes.io/config.hash': hash, 'ipam.weft.dev/pools': 'blue' };
    await node.makePod('static', { namespace: 'blue', annotations });
    await node.makeSandbox('static');
    const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=static;K8S_POD_UID=${hash}`;
    const call = { containerID: 'static', netns: '/run/netns/static', config: CONFIG, args };
    const address = addressOf(await node.cni({ command: 'ADD', ...call }));
    expect(address).toMatch(/^10\.1\.0\./);
    const [given] = await node.allocations('static');
    expect(given).toMatchObject({ name: address, podName: 'static', released: false });

    // Longer than the grace and a sweep: who looked for a pod with that UID would find none.
    await sleep(5_000);
    expect(await node.allocations('static')).toEqual([given]);

    // What an agent makes again is the same pod's.
    await node.kubectl('delete', 'ipallocation', address);
    const again = await eventually('the sweep', async () => (await node.allocations('static'))[0]);
    expect(again).toEqual({ ...given, uid: again.uid });
    expect(again.uid).not.toBe(given?.uid);
    await node.cni({ command: 'DEL', ...call });
    await node.removeSandbox('static');
  });
});

describe('a pool that fills up', () => {
  const small = (spec: object) =>
    pool('small', { nodeSubnetPrefixLength: { ipv4: 30 }, reuseDelaySeconds: 3, ...spec });

  beforeAll(async () => {
    await node.makeNamespace('small');
    await node.apply(small({ cidrs: ['10.3.0.0/30'], reserved: ['10.3.0.2'], priority: 5 }));
    await eventually('its subnet', async () =>
      (await node.subnets('small')).length === 1 ? true : undefined,
    );
  });

  test('gives what it does not reserve, and then says how many are in use, resting and reserved (B17, F28)', async () => {
    const got = [await add('s1', { namespace: 'small' }), await add('s2', { namespace: 'small' })];
    expect(got.map(addressOf).sort()).toEqual(['10.3.0.1', '10.3.0.3']);
    const full = await add('s3', { namespace: 'small' });
    expect(full.answer?.code).toBe(11);
    expect(full.answer?.msg).toBe(
      'IPPool small has no free ipv4 address on this node: of 2 usable in 10.3.0.0/30, 2 are in use and 0 rest after ' +
        'their release; 1 more are reserved. Add a CIDR to the pool, or wait for pods to go',
    );
    const event = await eventually('the Event', async () => (await node.podEvents('s3'))[0]);
    expect(event).toMatchObject({ reason: 'IPPoolExhausted', message: full.answer?.msg });
  });

  test('gives again as soon as a CIDR is added: its ADD is just said again', async () => {
    await node.apply(small({ cidrs: ['10.3.0.0/30', '10.3.0.4/30'], reserved: ['10.3.0.2'], priority: 5 }));
    const served = await eventually('the new CIDR', async () => {
      const again = await addAgain('s3');
      return again.exitCode === 0 ? again : undefined;
    });
    expect(addressOf(served)).toMatch(/^10\.3\.0\.[567]$/);
  });

  test('is drained of a CIDR that is taken out: nothing new is drawn, and the subnet goes with its last pod', async () => {
    await node.apply(small({ cidrs: ['10.3.0.4/30'], priority: 5 }));
    const moved = await eventually('nothing to be drawn from the old CIDR', async () => {
      await del('s1');
      const again = await addAgain('s1');
      return addressOf(again).startsWith('10.3.0.') && Number(addressOf(again).split('.')[3]) > 4
        ? again
        : undefined;
    });
    expect(moved.exitCode).toBe(0);
    expect(await node.subnets('small')).toContain('10.3.0.0-30');
    await del('s2');
    await eventually('the old subnet to go', async () =>
      (await node.subnets('small')).includes('10.3.0.0-30') ? undefined : true,
    );
  });

  test('disabled: nothing new, and what is in use goes on', async () => {
    await node.apply(small({ cidrs: ['10.3.0.4/30'], priority: 5, disabled: true }));
    const refused = await eventually('the pool to be disabled', async () => {
      const answer = await add('s4', { namespace: 'small' });
      if (answer.exitCode === 0) await del('s4');
      return answer.exitCode === 0 ? undefined : answer;
    });
    expect(refused.answer?.msg).toContain('small: it is disabled');
    expect((await node.allocations('s3')).length).toBe(1);
    expect(await node.subnets('small')).toEqual(['10.3.0.4-30']);
    // s1 has moved here.
    await del('s1');
    await del('s3');
    await eventually('the subnet to go back with its last address', async () =>
      (await node.subnets('small')).length === 0 ? true : undefined,
    );
  });
});

test('a node that stops matching is drained', async () => {
  await node.makeNamespace('zoned');
  await node.kubectl('label', 'node', NODE_NAME, 'zone=a');
  await node.apply(
    pool('zoned', {
      cidrs: ['10.4.0.0/24'],
      priority: 9,
      reuseDelaySeconds: 1,
      nodeSelector: { matchLabels: { zone: 'a' } },
    }),
  );
  const first = await eventually('the pool to be drawn from', async () => {
    const answer = await add('z1', { namespace: 'zoned' });
    return answer.exitCode === 0 ? answer : undefined;
  });
  expect(addressOf(first)).toMatch(/^10\.4\.0\./);
  await node.kubectl('label', 'node', NODE_NAME, 'zone=b', '--overwrite');
  const refused = await eventually('the label to count', async () => {
    const answer = await add('z2', { namespace: 'zoned' });
    if (answer.exitCode === 0) await del('z2');
    return answer.exitCode === 0 ? undefined : answer;
  });
  expect(refused.answer?.msg).toContain(`zoned: its nodeSelector zone=a does not match node ${NODE_NAME}`);
  await del('z1');
  await eventually('its subnet to go', async () =>
    (await node.subnets('zoned')).length === 0 ? true : undefined,
  );
});

test('subnets come ahead of need: a tenant’s, when a pod of it is bound', async () => {
  await node.makeNamespace('ahead', { labels: { tenant: 'ahead' } });
  await node.apply(tenantPool('ahead', '10.5.0.0/24'));
  await node.makePod('ahead-1', { namespace: 'ahead' });
  await eventually('a subnet before any ADD', async () =>
    (await node.subnets('ahead')).length === 1 ? true : undefined,
  );
});

describe('a pool in whose ranges others are already (B20)', () => {
  test.each([
    { name: 'overlaps-older', cidr: '10.1.0.128/25', whose: 'an older pool' },
    { name: 'overlaps-services', cidr: '10.96.0.0/24', whose: 'the Services' },
    { name: 'overlaps-nodes', cidr: '192.0.2.0/24', whose: 'the nodes' },
  ])('of $whose gets no subnet, and its pods are told so', async ({ name, cidr }) => {
    await node.makeNamespace(name, { labels: { tenant: name } });
    await node.apply(tenantPool(name, cidr));
    await eventually('the pool to be seen', async () => {
      const refused = await add(name, { namespace: name });
      expect(refused.answer?.code, refused.stdout).toBe(11);
      return /overlap|the address of a node/.test(refused.answer?.msg ?? '') ? true : undefined;
    });
    await sleep(2_000); // rounds of the agent that could claim one ahead
    expect(await node.subnets(name)).toEqual([]);
    expect(await node.allocations(name)).toEqual([]);
    // Who was there first goes on.
    expect(addressOf(await add(`${name}-older`, { namespace: 'blue' }))).toMatch(/^10\.1\.0\./);
    await node.kubectl('delete', 'ippool', name, '--wait=false');
  });

  test('of a node that holds no subnet gets none: the controller tells the agents of it', async () => {
    const controller = node.startController([
      '--identity=one',
      '--namespace=default',
      '--status-seconds=0.5',
    ]);
    onTestFinished(() => controller.kill());
    await node.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'bare' } });
    const addresses = [{ type: 'InternalIP', address: '10.49.0.7' }];
    const patch = JSON.stringify({ status: { addresses } });
    await node.kubectl('patch', 'node', 'bare', '--subresource=status', '--type=merge', '-p', patch);
    await node.makeNamespace('around', { labels: { tenant: 'around' } });
    await node.apply(tenantPool('around', '10.49.0.0/24'));
    const told = () => node.kubectl('get', 'ippool', 'around', '-o', 'jsonpath={.status.nodeAddresses[*]}');
    await eventually('the controller to tell of it', async () =>
      (await told()) === '10.49.0.7' ? true : undefined,
    );
    await eventually('the agent to know', async () => {
      const { answer, stdout } = await add('around', { namespace: 'around' });
      expect(answer?.code, stdout).toBe(11);
      return answer?.msg?.includes('hold 10.49.0.7, the address of a node') === true ? true : undefined;
    });
    expect(await node.subnets('around')).toEqual([]);
    await node.kubectl('delete', 'node', 'bare');
    await eventually('an address, since that node has gone', async () =>
      addressOf(await addAgain('around')).startsWith('10.49.0.') ? true : undefined,
    );
    await node.kubectl('delete', 'ippool', 'around', '--wait=false');
  });

  test('that routes of the host lead to gives addresses all the same: its pods are the longer way, and the routes stay', async () => {
    const wider = ['10.48.0.0/16', 'via', '192.0.2.77', 'proto', 'static'];
    const longer = ['10.48.0.0/25', 'via', '192.0.2.77', 'proto', 'static'];
    for (const route of [wider, longer]) await ip('route', 'add', ...route);
    await node.makeNamespace('routed', { labels: { tenant: 'routed' } });
    await node.apply(tenantPool('routed', '10.48.0.0/24'));
    const address = await eventually('an address', async () => {
      const { answer } = await add('routed', { namespace: 'routed' });
      return answer?.ips?.[0]?.address.split('/')[0];
    });
    expect(address).toMatch(/^10\.48\.0\./);
    expect(await ip('route', 'get', address)).toMatch(/ dev weft/);
    await execa('ip', ['netns', 'exec', 'routed', 'ping', '-c1', '-W2', UPLINK.addresses[0]]);
    for (const route of [wider, longer]) {
      expect(await ip('route', 'show', route[0] ?? '')).toContain('via 192.0.2.77 dev eth0 proto static');
      await ip('route', 'delete', ...route);
    }
    await node.kubectl('delete', 'ippool', 'routed', '--wait=false');
  });
});

test('nothing comes ahead for pods that will not ask: ended ones, and those on the host’s network (F25)', async () => {
  await node.makeNamespace('ended', { labels: { tenant: 'ended' } });
  await node.apply(tenantPool('ended', '10.8.0.0/24'));
  const living = await eventually('an address of another pod', async () =>
    (await node.allocations()).find(({ name, released }) => name.startsWith('10.1.0.') && !released),
  );
  // All of them have the address of a living pod in their status, as what was given on after their end.
  for (const [name, phase, spec] of [
    ['succeeded', 'Succeeded', {}],
    ['failed', 'Failed', {}],
    ['on-host', 'Pending', { hostNetwork: true }],
  ] as const) {
    await node.apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'ended' },
      spec: {
        ...{ nodeName: NODE_NAME, automountServiceAccountToken: false, ...spec },
        containers: [{ name: 'c', image: 'none' }],
      },
    });
    const status = { phase, podIP: living.name, podIPs: [{ ip: living.name }] };
    const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
    await node.kubectl('-n', 'ended', 'patch', 'pod', name, ...patch);
  }
  await sleep(3_000); // three rounds of the agent
  // It was Pending for a moment, before this test could say otherwise.
  await eventually('no subnet of it', async () =>
    (await node.subnets('ended')).length === 0 ? true : undefined,
  );
  await sleep(3_000);
  expect(await node.subnets('ended')).toEqual([]);
  expect((await node.allocations()).find(({ uid }) => uid === living.uid)).toEqual(living);
  await node.makePod('begins', { namespace: 'ended' });
  await eventually('a subnet for one that will ask', async () =>
    (await node.subnets('ended')).length === 1 ? true : undefined,
  );
});

interface Made {
  readonly namespace: string;
  readonly pools?: string;
  readonly config?: object;
}

const made = new Map<string, { args: string; config: object }>();

/** Makes the pod and its sandbox, and ADDs it. Said again, only the ADD. */
async function add(name: string, { namespace, pools, config = CONFIG }: Made): Promise<CallResult> {
  if (!made.has(name)) {
    await node.makeSandbox(name);
    const annotations = pools === undefined ? {} : { annotations: { 'ipam.weft.dev/pools': pools } };
    made.set(name, { args: await node.makePod(name, { namespace, ...annotations }), config });
  }
  return addAgain(name);
}

async function addAgain(name: string): Promise<CallResult> {
  const known = made.get(name);
  if (known === undefined) throw new Error(`no pod ${name} was made`);
  return node.cni({ command: 'ADD', containerID: name, netns: `/run/netns/${name}`, ...known });
}

async function del(name: string): Promise<void> {
  await node.cni({ command: 'DEL', containerID: name, netns: `/run/netns/${name}` });
}

function addressOf(result: CallResult): string {
  return result.answer?.ips?.[0]?.address.split('/')[0] ?? String(result.answer?.msg);
}

function tenantPool(name: string, cidr: string): object {
  return pool(name, {
    cidrs: [cidr],
    namespaceSelector: { matchLabels: { tenant: name } },
    reuseDelaySeconds: 1,
  });
}
