import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createKubeClient, loadConnection, type KubeClient } from '../../src/kube/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { withAgentPods } from '../apiserver/agent-pods.ts';
import { startLossyProxy, type LossyProxy } from '../apiserver/lossy-proxy.ts';
import { checkNode, gist } from './node-check.ts';
import { ip } from './namespaces.ts';
import { eventually, NODE_NAME, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { startSecondNode, type SecondNode } from './second-node.ts';

/**
 * A node comes back that was given up: its Node had been deleted, and what its pod had, who runs on there, is by now
 * another's on another node (F22). Agents, executables and kernels of both nodes are real, and so are apiserver and
 * controller.
 */

const QUARANTINE_SECONDS = 2;
const SNAPSHOT = new URL('../../dist/snapshot.mjs', import.meta.url).pathname;

let node: TestNode;
let agent: TestAgent;
let second: SecondNode;
let proxy: LossyProxy;
let client: KubeClient;
let dir: string;

beforeAll(async () => {
  node = await startNode({ flags: ['--grace-seconds=1', '--audit-seconds=0.5'] });
  dir = await mkdtemp(join(tmpdir(), 'weft-proxy-'));
  proxy = await startLossyProxy(node.plane, dir);
  const { kubeconfig } = node.plane;
  client = createKubeClient(await loadConnection({ kubeconfig, env: {}, clock: createSystemClock() }));
  await node.apply(
    pool('healed', {
      cidrs: ['10.34.0.0/24', 'fd00:34::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
      fixedAddresses: true,
    }),
  );
  agent = await startAgent();
  second = await startSecondNode(node);
  node.startController([
    '--identity=one',
    '--namespace=default',
    `--quarantine-seconds=${QUARANTINE_SECONDS}`,
    '--status-seconds=0.5',
  ]);
});

afterAll(async () => {
  await client.close();
  await second.stop();
  await node.stop();
  await proxy.stop();
  await rm(dir, { recursive: true });
});

test.each([
  { what: 'runs on', name: 'db', isAnew: false },
  { what: 'is started anew', name: 'web', isAnew: true },
])(
  'its agent $what: a sandbox with the address of another is told of and claims nothing; with its DEL all is quiet, and the other’s address is its own (F22)',
  { timeout: 120_000 },
  async ({ name, isAnew }) => {
    const [old, next, other] = [`${name}-old`, `${name}-next`, `${name}-other`];
    const addresses = await add(old, name);
    await proxy.setDown(true);
    await node.kubectl('delete', 'pod', name, '--grace-period=0', '--force');
    await node.kubectl('delete', 'node', NODE_NAME);
    await addNext(name, next, addresses);
    const theirs = await allocationsOf(next);
    expect(await addressesIn(old)).toEqual(addresses);

    await node.recreateNode();
    if (isAnew) await agent.kill();
    await proxy.setDown(false);
    if (isAnew) agent = await startAgent();
    await says('False', 'AddressOfAnother');
    const objects = theirs.map(({ metadata }) => metadata.name);
    for (const [i, address] of addresses.entries()) {
      const has = `interface eth0 of container ${old} on node ${NODE_NAME}`;
      await told('Pod', name, 'AddressConflict', `${address} is on ${has}, too: end that sandbox`);
      const owner = `pod default/${name}, interface eth0 of container ${next} on node ${second.name}`;
      await told(
        'Node',
        NODE_NAME,
        'AddressConflict',
        `${has} has ${address}, which by the book belongs to ${owner}`,
      );
      await told('IPAllocation', objects[i] ?? '', 'AddressOfAnother', `by the book belongs to ${owner}`);
    }
    await eventually('the check to say so, and nothing else', () =>
      finds(objects.map((object) => `1 AddressOnTwoSandboxes ${object}`)),
    );
    // Nobody takes anything from anybody, however often the agent looks.
    expect(await node.allocations(old)).toEqual([]);
    expect(await allocationsOf(next)).toEqual(theirs);
    expect(await addressesIn(old)).toEqual(addresses);
    for (const address of addresses) await second.run('ping', '-c1', '-W2', address);

    // A kubelet that is back ends what the apiserver does not know.
    const del = { command: 'DEL', containerID: old, netns: `/run/netns/${old}` };
    for (let i = 0; i < 2; i++) expect((await node.cni(del)).exitCode).toBe(0);
    await node.removeSandbox(old);
    await says('True', 'NothingFound');
    await eventually('the check to find nothing', () => finds([]));
    expect(await allocationsOf(next)).toEqual(theirs);
    // From the node where it was before, and from a pod there, which has an address of its own.
    const others = await add(other);
    expect(others.filter((address) => addresses.includes(address))).toEqual([]);
    for (const address of addresses) {
      await reached(address);
      await reached(address, other);
      const family = address.includes(':') ? '-6' : '-4';
      expect(await ip(family, 'route', 'get', address)).toMatch(/ via \S+ dev eth0/);
    }
  },
);

/** On the first node, which may be cut off. */
function startAgent(): Promise<TestAgent> {
  return node.startAgent({ kubeconfig: proxy.kubeconfig });
}

/** A pod on the node that will be away; answers its addresses. */
async function add(containerID: string, podName = containerID): Promise<string[]> {
  const args = await node.makePod(podName);
  const netns = await node.makeSandbox(containerID);
  const { answer, stdout } = await node.cni({ command: 'ADD', containerID, netns, args });
  expect(answer?.ips, stdout).toHaveLength(2);
  return answer?.ips?.map(({ address }) => address.split('/')[0] ?? '') ?? [];
}

/** The pod of the same name on the other node, which names these addresses; said again until it has them. */
async function addNext(podName: string, containerID: string, addresses: readonly string[]): Promise<void> {
  const annotations = { 'ipam.weft.dev/addresses': addresses.join() };
  const args = await node.makePod(podName, { annotations, nodeName: second.name });
  const netns = await second.makeSandbox(containerID);
  await eventually('the pod that names the addresses to get them', async () => {
    const { answer, stdout } = await second.cni({ command: 'ADD', containerID, netns, args });
    if (answer?.code === 11) return undefined;
    expect(
      answer?.ips?.map(({ address }) => address.split('/')[0]),
      stdout,
    ).toEqual(addresses);
    return true;
  });
}

/** The objects as they are, with uid and version. IPv4 first, as the addresses are in an answer. */
async function allocationsOf(containerID: string) {
  const text = await node.kubectl('get', 'ipallocations', '-o', 'json');
  const { items } = JSON.parse(text) as {
    items: { metadata: { name: string }; spec: { attachment?: { containerID: string } } }[];
  };
  const found = items.filter(({ spec }) => spec.attachment?.containerID === containerID);
  expect(found).toHaveLength(2);
  return found.sort((a, b) => Number(a.metadata.name.includes('-')) - Number(b.metadata.name.includes('-')));
}

/** The global addresses that a sandbox of the first node has in the kernel. */
async function addressesIn(sandbox: string): Promise<string[]> {
  const shown = await ip('-n', sandbox, '-json', 'address', 'show', 'dev', 'eth0', 'scope', 'global');
  const links = JSON.parse(shown) as { addr_info?: { local?: string }[] }[];
  return links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => local ?? []));
}

/** Waits until the condition of the node that is back says so. */
async function says(status: string, reason: string): Promise<void> {
  const path = '{.status.conditions[?(@.type=="WeftConsistent")]}';
  await eventually(`the Node to say ${status} ${reason}`, async () => {
    const text = await node.kubectl('get', 'node', NODE_NAME, '-o', `jsonpath=${path}`);
    const said = text === '' ? {} : (JSON.parse(text) as { status?: string; reason?: string });
    return said.status === status && said.reason === reason ? true : undefined;
  });
}

/** Waits for the Event on that object. */
async function told(kind: string, name: string, reason: string, message: string): Promise<void> {
  await eventually(`the Event ${reason} on ${kind} ${name}: ${message}`, async () => {
    const selector = `involvedObject.kind=${kind},involvedObject.name=${name},reason=${reason}`;
    const text = await node.kubectl('get', 'events', '-A', '--field-selector', selector, '-o', 'json');
    const { items } = JSON.parse(text) as { items: { message: string }[] };
    return items.some((event) => event.message.includes(message)) ? true : undefined;
  });
}

/** Whether a check of both nodes finds exactly that. */
async function finds(expected: readonly string[]): Promise<true | undefined> {
  const result = await checkNode({
    client: withAgentPods(client, [NODE_NAME, second.name]),
    exec: async (nodeName) =>
      nodeName === NODE_NAME ? (await execa('node', [SNAPSHOT])).stdout : second.run('node', SNAPSHOT),
  });
  const isWhole = result.couldNot === undefined && result.unknownNodes.length === 0;
  return isWhole && gist(result).sort().join() === [...expected].sort().join() ? true : undefined;
}

/** Waits until the address answers the node that is back, or a sandbox there. */
async function reached(address: string, sandbox?: string): Promise<void> {
  const within = sandbox === undefined ? [] : ['ip', 'netns', 'exec', sandbox];
  const [program = '', ...args] = [...within, 'ping', '-c1', '-W1', address];
  await eventually(`${address} to answer ${sandbox ?? 'the node'}`, async () =>
    (await execa(program, args, { reject: false })).exitCode === 0 ? true : undefined,
  );
}
