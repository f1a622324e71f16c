import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hostLinkName } from '../../src/kernel/index.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';

/** What is left over, lost or found in the way on one node, and what the agent makes of it. */

let node: TestNode;
let agent: TestAgent;

/** A file in the place of the kernel's, so that a test can reboot the node. */
const BOOT_ID = '/run/weft/boot-id';
const BOOTS = ['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222'] as const;
const GRACE_SECONDS = 3;
const CLI = new URL('../../dist/kubectl-weft', import.meta.url).pathname;

const sweepPool = (reuseDelaySeconds: number) =>
  pool('sweep', {
    cidrs: ['10.12.0.0/24', 'fd00:12::/64'],
    nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
    reuseDelaySeconds,
  });
const SWEEP_POOL = sweepPool(1);

beforeAll(async () => {
  node = await startNode({ flags: [`--boot-id=${BOOT_ID}`, `--grace-seconds=${GRACE_SECONDS}`] });
  await writeFile(BOOT_ID, `${BOOTS[0]}\n`);
  await node.apply(SWEEP_POOL);
  agent = await node.startAgent();
});

afterAll(async () => {
  await node.stop();
});

describe('an allocation', () => {
  test('whose sandbox vanished without a DEL is released, not before the grace', async () => {
    await add('leaked');
    await node.removeSandbox('leaked');
    const goneMs = performance.now();
    await eventually('the release', async () =>
      (await node.allocations('leaked')).every(({ released }) => released) ? true : undefined,
    );
    expect(performance.now() - goneMs).toBeGreaterThan(GRACE_SECONDS * 1000);
    await eventIs('Normal +AddressesReclaimed');
    await nothingOf('leaked');
  });

  test('that somebody deleted under a living pod is made again, with the pod it was for', async () => {
    await add('readopted', await node.makePod('web-0'));
    const before = await node.allocations('readopted');
    expect(before.map(({ podName }) => podName)).toEqual(['web-0', 'web-0']);
    await node.kubectl('delete', 'ipallocations', ...before.map(({ name }) => name));
    const after = await eventually('both to be there again', async () => {
      const now = await node.allocations('readopted');
      return now.length === 2 ? now : undefined;
    });
    expect(after.map(({ name }) => name).sort()).toEqual(before.map(({ name }) => name).sort());
    expect(after.map(({ podName }) => podName)).toEqual(['web-0', 'web-0']);
    expect(after.map(({ uid: its }) => its)).not.toEqual(before.map(({ uid: its }) => its));
    await eventIs('Warning +AllocationsRecovered');
    await ping('readopted', UPLINK.addresses[0]);
    await remove('readopted');
  });
});

describe('an address that a person holds on the node', () => {
  test('stays as long as the person holds it; released, it rests, and is free', async () => {
    const restSeconds = 4;
    await node.apply(sweepPool(restSeconds));
    const weft = async (...args: string[]) =>
      (await execa(CLI, ['addr', ...args], { env: { KUBECONFIG: node.plane.kubeconfig } })).stdout.trim();
    const address = await weft('request', 'sweep', '--node', NODE_NAME, '--family', 'ipv4');
    const isThere = async () => (await node.allocations()).some(({ name }) => name === address);
    // Longer than the sweep's grace.
    await sleep((GRACE_SECONDS + 2) * 1_000);
    expect(await isThere()).toBe(true);
    const sinceMs = performance.now();
    await weft('release', address);
    expect(await isThere()).toBe(true);
    await eventually('it to be free', async () => ((await isThere()) ? undefined : true));
    expect(performance.now() - sinceMs).toBeGreaterThan(restSeconds * 1_000 - 200);
    await node.apply(SWEEP_POOL);
  });
});

describe('a NodeSubnet in which pods live (F40)', () => {
  test('that somebody deleted is made again at once, and drawn from', async () => {
    await add('subnetless');
    const before = await node.subnets('sweep');
    const uids = await uidsOfSubnets(before);
    await node.kubectl('delete', 'nodesubnets', ...before);
    await eventually('both to be there again', async () => {
      const now = await node.subnets('sweep');
      return before.every((name) => now.includes(name)) ? true : undefined;
    });
    await eventIs('Warning +SubnetRecovered');
    const after = await uidsOfSubnets(before);
    expect(after.filter((uid) => uids.includes(uid))).toEqual([]);
    await ping('subnetless', UPLINK.addresses[0]);
    await add('subnetless-next');
    expect((await node.subnets('sweep')).sort()).toEqual([...before].sort());
    for (const id of ['subnetless', 'subnetless-next']) await remove(id);
  });

  test('is made again with its addresses from the kernel alone, when all objects were pruned and the pool applied again', async () => {
    const addresses = await add('pruned');
    const before = await node.subnets('sweep');
    await agent.kill();
    await node.kubectl('delete', 'ippools', '--all', '--wait=false');
    await node.kubectl('delete', 'nodesubnets,ipallocations', '--all');
    const finalizers = ['--type=merge', '-p', '{"metadata":{"finalizers":null}}'];
    await node.kubectl('patch', 'ippool', 'sweep', ...finalizers);
    await node.apply(SWEEP_POOL);
    agent = await node.startAgent();
    // It serves: by now nobody can get what the pod has.
    expect((await node.subnets('sweep')).sort()).toEqual([...before].sort());
    expect(await node.allocations('pruned')).toHaveLength(2);
    const next = await add('pruned-next');
    expect(next.filter((address) => addresses.includes(address))).toEqual([]);
    await ping('pruned', UPLINK.addresses[0]);
    for (const id of ['pruned', 'pruned-next']) await remove(id);
  });
});

describe('a link', () => {
  test('that an ADD left half-made is removed, and nobody else’s is touched', async () => {
    await ip('link', 'add', 'weft0000000half', 'type', 'veth', 'peer', 'name', 'half-peer');
    await ip('link', 'add', 'foreign0', 'type', 'veth', 'peer', 'name', 'foreign1');
    await eventually('the half-made one to go', async () =>
      (await weftLinks()).length === 0 ? true : undefined,
    );
    expect(await ip('-brief', 'link')).toContain('foreign0');
    await ip('link', 'delete', 'foreign0');
  });

  test('of the very name that an ADD needs does not stand in its way (F35)', async () => {
    const name = hostLinkName('in-the-way', 'eth0');
    await ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'old-peer');
    await ip('address', 'add', '10.12.0.9/32', 'dev', name);
    await add('in-the-way');
    await ping('in-the-way', UPLINK.addresses[0]);
    expect(await ip('-brief', 'address', 'show', 'dev', name)).not.toContain('10.12.0.9/32');
    await remove('in-the-way');
  });

  test('of the same container in a namespace that was made anew is replaced', async () => {
    const first = await add('again');
    // The namespace lives on in a process, as that of a pod that is hard to kill.
    const sleeper = execa('ip', ['netns', 'exec', 'again', 'sleep', '300'], { reject: false });
    await node.removeSandbox('again');
    const second = await add('again');
    expect(second).not.toEqual(first);
    await ping('again', UPLINK.addresses[0]);
    expect((await node.allocations('again')).filter(({ released }) => !released)).toHaveLength(2);
    await remove('again');
    sleeper.kill('SIGKILL');
    await sleeper;
  });
});

test('an address with a foreign route of the same metric is passed over at the second try (F35)', async () => {
  await node.apply(
    pool('routed', { cidrs: ['10.15.0.0/30'], nodeSubnetPrefixLength: { ipv4: 30 }, reuseDelaySeconds: 1 }),
  );
  const foreign = ['route', 'replace', '10.15.0.1', 'dev', UPLINK.name];
  await ip(...foreign);
  const netns = await node.makeSandbox('routed');
  const config = { ...CONFIG, pool: 'routed' };
  const first = await node.cni({ command: 'ADD', containerID: 'routed', netns, config });
  expect(first.answer?.msg).toContain('10.15.0.1/32');
  await nothingOf('routed');
  const second = await node.cni({ command: 'ADD', containerID: 'routed', netns, config });
  expect(second.answer?.ips?.[0]?.address, second.stdout).toBe('10.15.0.2/32');
  await ping('routed', UPLINK.addresses[0]);
  await remove('routed');
  expect(await ip('route', 'show', '10.15.0.1')).toContain(`10.15.0.1 dev ${UPLINK.name}`);
  await ip('route', 'delete', '10.15.0.1', 'dev', UPLINK.name);
});

describe('a Node that is deleted and made anew under its name (F20)', () => {
  test('while its agent runs: its pods and subnets stay its own', async () => {
    await add('renamed');
    const before = await node.subnets('sweep');
    await node.recreateNode();
    await boundToPresentNode(before);
    await ping('renamed', UPLINK.addresses[0]);
    await add('renamed-next');
    expect(await node.subnets('sweep')).toEqual(before);
    for (const id of ['renamed', 'renamed-next']) await remove(id);
  });

  test('while no agent runs: the next one knows its subnets by the routes in the kernel', async () => {
    await add('unseen');
    const before = await node.subnets('sweep');
    await agent.kill();
    await node.recreateNode();
    agent = await node.startAgent();
    await boundToPresentNode(before);
    await ping('unseen', UPLINK.addresses[0]);
    await add('unseen-next');
    expect(await node.subnets('sweep')).toEqual(before);
    for (const id of ['unseen', 'unseen-next']) await remove(id);
  });
});

test('a namespace path that is another pod’s by now is not touched by the old one’s DEL (F10)', async () => {
  await add('old-owner', undefined, 'shared');
  // The old pod's namespace lives on without a name.
  const sleeper = execa('ip', ['netns', 'exec', 'shared', 'sleep', '300'], { reject: false });
  await node.removeSandbox('shared');
  const theirs = await add('new-owner', undefined, 'shared');
  expect(
    (await node.cni({ command: 'DEL', containerID: 'old-owner', netns: '/run/netns/shared' })).exitCode,
  ).toBe(0);
  await nothingOf('old-owner');
  const inside = await ip('-n', 'shared', 'address', 'show', 'dev', 'eth0');
  for (const address of theirs) expect(inside).toContain(address);
  await ping('shared', UPLINK.addresses[0]);
  // The old pod has lost its interface although its namespace is still there.
  const links = await execa('nsenter', [`--net=/proc/${String(sleeper.pid)}/ns/net`, 'ip', '-brief', 'link']);
  expect(links.stdout).not.toContain('eth0');
  await node.cni({ command: 'DEL', containerID: 'new-owner', netns: '/run/netns/shared' });
  await nothingOf('new-owner');
  await node.removeSandbox('shared');
  sleeper.kill('SIGKILL');
  await sleeper;
});

test('pods’ names and containers are in the book, and an ADD without Kubernetes arguments is served', async () => {
  await add('nameless');
  const found = await node.allocations('nameless');
  expect(found.map(({ podName, released }) => ({ podName, released }))).toEqual([
    { podName: undefined, released: false },
    { podName: undefined, released: false },
  ]);
  await remove('nameless');
});

describe('after a reboot (F9)', () => {
  test('what an earlier boot held comes free at once, so that a full subnet is no end', async () => {
    await node.apply(
      pool('boot', {
        cidrs: ['10.13.0.0/30'],
        nodeSubnetPrefixLength: { ipv4: 30 },
        reuseDelaySeconds: 1,
      }),
    );
    const config = { ...CONFIG, pool: 'boot' };
    for (const [round, boot] of [BOOTS[1], BOOTS[0], BOOTS[1]].entries()) {
      const ids = [0, 1, 2].map((i) => `boot-${round}-${i}`);
      for (const id of ids) {
        const netns = await node.makeSandbox(id);
        await eventually(`an address for ${id}`, async () =>
          (await node.cni({ command: 'ADD', containerID: id, netns, config })).exitCode === 0
            ? true
            : undefined,
        );
      }
      expect(await liveOf('boot')).toHaveLength(3);
      await agent.kill();
      for (const id of ids) await node.removeSandbox(id);
      await writeFile(BOOT_ID, `${boot}\n`);
      // A grace that never ends: the boot itself is the proof.
      agent = await node.startAgent({ flags: ['--grace-seconds=600'] });
      await eventually('the earlier boot’s addresses to be released', async () =>
        (await liveOf('boot')).length === 0 ? true : undefined,
      );
    }
  });
});

async function add(containerID: string, args?: string, sandbox = containerID): Promise<string[]> {
  const netns = await node.makeSandbox(sandbox);
  const { answer, stdout } = await node.cni({
    command: 'ADD',
    containerID,
    netns,
    config: { ...CONFIG, pool: 'sweep' },
    ...(args === undefined ? {} : { args }),
  });
  expect(answer?.ips, stdout).toHaveLength(2);
  return answer?.ips?.map(({ address }) => address) ?? [];
}

async function remove(containerID: string): Promise<void> {
  const netns = `/run/netns/${containerID}`;
  expect((await node.cni({ command: 'DEL', containerID, netns })).exitCode).toBe(0);
  await nothingOf(containerID);
  await node.removeSandbox(containerID);
}

async function eventIs(pattern: string): Promise<void> {
  const told = new RegExp(`${pattern} +node/${NODE_NAME}`);
  await eventually(`the Event ${pattern}`, async () =>
    told.test(await node.kubectl('get', 'events', '-n', 'default')) ? true : undefined,
  );
}

async function uidsOfSubnets(names: readonly string[]): Promise<string[]> {
  const text = await node.kubectl('get', 'nodesubnets', ...names, '-o', 'jsonpath={.items[*].metadata.uid}');
  return text.split(' ');
}

async function nothingOf(containerID: string): Promise<void> {
  await eventually(`nothing left of ${containerID}`, async () =>
    (await node.allocations(containerID)).length === 0 ? true : undefined,
  );
}

async function liveOf(poolName: string): Promise<string[]> {
  const all = await node.allocations();
  return all.filter((one) => one.pool === poolName && !one.released).map(({ name }) => name);
}

/** Waits until all of these subnets carry the UID that the Node has now. */
async function boundToPresentNode(names: readonly string[]): Promise<void> {
  const uid = await node.kubectl('get', 'node', NODE_NAME, '-o', 'jsonpath={.metadata.uid}');
  await eventually('the subnets to be bound to the Node’s new UID', async () => {
    const owners = await node.kubectl(
      'get',
      'nodesubnets',
      ...names,
      '-o',
      'jsonpath={.items[*].spec.nodeUID}',
    );
    return owners.split(' ').every((owner) => owner === uid) ? true : undefined;
  });
}

/** A Pod object bound to the node, as the scheduler leaves it. Answers its UID. */

async function ping(from: string, to: string): Promise<void> {
  await execa('ip', ['netns', 'exec', from, 'ping', '-c1', '-W2', to]);
}
