import { request } from 'node:http';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkExitCode } from '../../src/cli/check/exit-code.ts';
import type { CheckParts } from '../../src/cli/check/run-check.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import { NodeSnapshot } from '../../src/ipam/index.ts';
import { createKubeClient, loadConnection, type KubeClient } from '../../src/kube/index.ts';
import { formatAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip } from './namespaces.ts';
import { AGENT_POD, checkNode, gist, makeNodeChecked, showPodStatus } from './node-check.ts';

/** What an agent says of its node, and what a check of the cluster makes of it. */

const SNAPSHOT = new URL('../../dist/snapshot.mjs', import.meta.url).pathname;

let node: TestNode;
let agent: TestAgent;
let client: KubeClient;
const clock = createSystemClock();
const stopController = new AbortController();
let controller: Promise<void>;

beforeAll(async () => {
  // The grace never ends, so that what a test breaks stays broken until it is looked at.
  node = await startNode({ flags: ['--grace-seconds=600'] });
  await node.apply(
    pool('audit', { cidrs: ['10.40.0.0/24', 'fd00:40::/64'], nodeSubnetPrefixLength: { ipv4: 26 } }),
  );
  await makeNodeChecked(node);
  agent = await node.startAgent();
  client = createKubeClient(await loadConnection({ kubeconfig: node.plane.kubeconfig, env: {}, clock }));
  controller = runController(
    parseControllerFlags([
      '--identity=one',
      '--namespace=default',
      '--status-seconds=0.1',
      '--probe-socket=/run/weft/controller.sock',
      `--kubeconfig=${node.plane.kubeconfig}`,
    ]),
    { clock, random: Math.random, env: {}, log: SILENT, signal: stopController.signal },
  );
  await add('lives');
  await eventually('a status that counts it', async () => {
    const text = await node.kubectl('get', 'ippool', 'audit', '-o', 'jsonpath={.status.ipv6.allocated}');
    return text === '1' ? true : undefined;
  });
});

afterAll(async () => {
  stopController.abort(new Error('the tests have ended'));
  await controller;
  await client.close();
  await node.stop();
});

describe('the snapshot', () => {
  test('names the sandboxes with what they really have, and nothing that is wrong', async () => {
    const snapshot = await takeSnapshot();
    expect(snapshot.nodeName).toBe(NODE_NAME);
    expect(snapshot.kernel).toEqual({ missing: [], extra: [], diverting: [] });
    const held = await node.allocations('lives');
    expect(snapshot.sandboxes).toHaveLength(1);
    const [sandbox] = snapshot.sandboxes;
    expect(sandbox).toMatchObject({ containerID: 'lives', ifName: 'eth0', network: 'weft' });
    expect(sandbox?.addresses).toHaveLength(2);
    expect(sandbox?.addressesInPod).toEqual(sandbox?.addresses);
    expect(held.map(({ name }) => name)).toContain(sandbox?.addresses.map(formatAddress)[0]);
  });

  test('shows what somebody has just taken out of the kernel; then it is repaired, and the Node has an Event', async () => {
    const [subnet, address] = [await ownSubnet(), await liveAddress()];
    const { kernel } = await snapshotAfter(async () => {
      await ip('route', 'delete', address, 'proto', '85');
      await ip('route', 'delete', 'unreachable', subnet, 'proto', '84');
    });
    expect(kernel.extra).toEqual([]);
    expect(kernel.missing).toHaveLength(2);
    expect(kernel.missing.join()).toContain(`unreachable ${subnet}`);
    expect(kernel.missing.join()).toContain(`${address}/32`);
    await eventually('both to be back', whole);
    expect(await ip('route', 'show', 'proto', '85')).toContain(address);
    await eventually('an Event on the Node', () => hasEvent('NetworkRepaired\\s+node/test-node'));
  });

  test.each([
    {
      name: 'a route',
      make: ['route', 'add', '10.99.0.0/24', 'dev', 'lo', 'proto', '84'],
      shows: '10.99.0.0/24',
    },
    {
      name: 'an address',
      make: ['address', 'add', '10.99.2.1/32', 'dev', 'vxlan.weft'],
      shows: '10.99.2.1/32',
    },
  ])('shows $name with our mark that nothing asks for, and it goes', async ({ make, shows }) => {
    const { kernel } = await snapshotAfter(() => ip(...make));
    expect(kernel.missing).toEqual([]);
    expect(kernel.extra.join()).toContain(shows);
    await eventually('it to go', whole);
  });

  test("shows a pod's route without a pod, which only a person takes away", async () => {
    await ip('route', 'add', '10.99.1.1', 'dev', 'lo', 'proto', '85');
    expect((await takeSnapshot()).kernel.extra).toEqual([expect.stringContaining('10.99.1.1/32')]);
    await ip('route', 'delete', '10.99.1.1', 'proto', '85');
    expect(await whole()).toBe(true);
  });

  test('shows filters that somebody has changed, and they are put back', async () => {
    const { kernel } = await snapshotAfter(() => execa('nft', ['add', 'chain', 'inet', 'weft', 'foreign']));
    expect(kernel.missing).toEqual(['table inet weft']);
    await eventually('the table to be as it was', whole);
  });

  test('shows an interface that was left half-made', async () => {
    await ip('link', 'add', 'weft0000000half', 'type', 'veth', 'peer', 'name', 'half-peer');
    expect((await takeSnapshot()).kernel.extra).toEqual(['half-made link weft0000000half']);
    await ip('link', 'delete', 'weft0000000half');
  });
});

describe('the check', () => {
  test('of a healthy cluster finds nothing', async () => {
    const result = await check();
    expect(result).toEqual({ findings: [], unknownNodes: [] });
    expect(checkExitCode(result)).toBe(0);
  });

  test('finds nothing in pods that have ended, or are on the host’s network, with an address that another has (F25)', async () => {
    const podIP = await liveAddress();
    for (const [name, phase] of [
      ['ended', 'Succeeded'],
      ['failed', 'Failed'],
    ] as const) {
      await node.makePod(name);
      await showPodStatus(node, { name, namespace: 'default' }, { phase, podIP, podIPs: [{ ip: podIP }] });
    }
    await showPodStatus(node, AGENT_POD, { podIP, podIPs: [{ ip: podIP }] });
    expect(await check()).toEqual({ findings: [], unknownNodes: [] });
    expect((await node.allocations('lives')).map(({ released }) => released)).toEqual([false, false]);
  });

  test('finds an allocation without a sandbox, and none when it has gone', async () => {
    const name = await leak();
    const result = await check();
    expect(gist(result)).toEqual([`3 NoSandbox ${name}`]);
    expect(checkExitCode(result)).toBe(1);
    await node.kubectl('delete', 'ipallocation', name);
    expect(gist(await check())).toEqual([]);
  });

  test('leaves alone what is younger than the grace', async () => {
    const name = await leak();
    expect(gist(await check({ graceMs: 60_000 }))).toEqual([]);
    await node.kubectl('delete', 'ipallocation', name);
  });

  test('reports only what both looks show', async () => {
    const name = await leak();
    // Between the two.
    const sleep = async () => void (await node.kubectl('delete', 'ipallocation', name, '--ignore-not-found'));
    expect(gist(await check({ clock: { ...clock, sleep } }))).toEqual([]);
  });

  test('finds an address that the book gives to another; the sweep has an Event for it', async () => {
    const name = await liveAddress();
    await node.kubectl('delete', 'ipallocation', name);
    // The sweep gives it back to the sandbox within a second: whoever is faster has it.
    await eventually('somebody else to have the address', async () => {
      await node.kubectl('delete', 'ipallocation', name, '--ignore-not-found');
      await node.apply(allocation(name, { holder: 'somebody' })).catch(() => undefined);
      return (await holderOf(name)) === 'somebody' ? true : undefined;
    });
    const result = await check();
    expect(gist(result)).toEqual([`2 AddressOfAnother ${name}`]);
    expect(result.findings[0]?.severity).toBe('critical');
    expect(result.findings[0]?.message).toContain('holder "somebody"');
    await eventually('an Event on the allocation', () => hasEvent(`AddressConflict\\s+ipallocation/${name}`));
    await node.kubectl('delete', 'ipallocation', name);
    await eventually('the address to be the sandbox’s again', async () =>
      (await node.allocations('lives')).length === 2 ? true : undefined,
    );
  });

  test('finds that a pod has taken its address away', async () => {
    const name = await liveAddress();
    await ip('-n', 'lives', 'address', 'delete', `${name}/32`, 'dev', 'eth0');
    expect(gist(await check())).toEqual([`10 AddressMissingInPod ${name}`]);
    await ip('-n', 'lives', 'address', 'add', `${name}/32`, 'dev', 'eth0');
  });

  test('says nothing of a node whose agent is away, and is not clean', async () => {
    const name = await leak();
    await agent.kill();
    const result = await check();
    expect(result).toEqual({
      findings: [],
      unknownNodes: [{ name: NODE_NAME, reason: expect.stringContaining('no agent answers') as string }],
    });
    expect(checkExitCode(result)).toBe(3);
    agent = await node.startAgent();
    expect(gist(await check())).toEqual([`3 NoSandbox ${name}`]);
    await node.kubectl('delete', 'ipallocation', name);
  });

  test('finds a status that nobody mends', async () => {
    stopController.abort(new Error('the tests need it no more'));
    await controller;
    const patch = JSON.stringify({ status: { ipv4: { allocated: 7 } } });
    await node.kubectl('patch', 'ippool', 'audit', '--subresource=status', '--type=merge', '-p', patch);
    const result = await check();
    expect(gist(result)).toEqual(['9 WrongCount audit']);
    expect(result.findings[0]?.message).toContain('ipv4.allocated is 7 and counts 1');
  });

  test('of an apiserver that is away could not be done', async () => {
    const connection = await loadConnection({ kubeconfig: node.plane.kubeconfig, env: {}, clock });
    const nobody = createKubeClient({ ...connection, server: new URL('https://127.0.0.1:1') });
    const result = await check({ client: nobody });
    await nobody.close();
    expect(result.couldNot).toMatch(/no answer from the apiserver/);
    expect(checkExitCode(result)).toBe(3);
  });
});

const SILENT = { info: () => undefined, warn: () => undefined, error: () => undefined };

const check = (changes: Partial<CheckParts> = {}) => checkNode({ client, ...changes });

async function takeSnapshot(): Promise<NodeSnapshot> {
  return NodeSnapshot.parse(JSON.parse((await execa('node', [SNAPSHOT])).stdout));
}

/** What the agent answers when it goes on, having stood still meanwhile: what changed is read before it is repaired. */
async function snapshotAfter(change: () => Promise<unknown>): Promise<NodeSnapshot> {
  const { pid } = agent;
  if (pid === undefined) throw new Error('the agent did not start');
  process.kill(pid, 'SIGSTOP');
  try {
    await change();
  } finally {
    // The question waits in the socket.
    setImmediate(() => process.kill(pid, 'SIGCONT'));
  }
  return NodeSnapshot.parse(JSON.parse(await get('/snapshot')));
}

function get(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: '/run/weft/agent.sock', path }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => (text += part));
      response.on('end', () => resolve(text));
    });
    asked.on('error', reject);
    asked.end();
  });
}

async function whole(): Promise<true | undefined> {
  const { missing, extra } = (await takeSnapshot()).kernel;
  return missing.length + extra.length === 0 ? true : undefined;
}

async function hasEvent(pattern: string): Promise<true | undefined> {
  return new RegExp(pattern).test(await node.kubectl('get', 'events', '-n', 'default')) ? true : undefined;
}

/** The IPv4 address of the sandbox that lives, which is the name of its allocation, too. */
async function liveAddress(): Promise<string> {
  const found = (await node.allocations('lives')).find(({ name }) => name.includes('.'));
  if (found === undefined) throw new Error('the sandbox has no IPv4 address');
  return found.name;
}

async function ownSubnet(): Promise<string> {
  const found = (await node.subnets('audit')).find((name) => name.includes('.'));
  return found?.replace('-', '/') ?? '';
}

/** An allocation of this node for a sandbox that never was; answers its name. */
async function leak(): Promise<string> {
  const name = (await ownSubnet()).replace(/(\d+)\/26$/, (_, first: string) => String(Number(first) + 40));
  const attachment = { network: 'weft', containerID: 'never-was', ifName: 'eth0', kind: 'Interface' };
  await node.apply(allocation(name, { attachment }));
  return name;
}

function allocation(address: string, whose: object): object {
  return {
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'IPAllocation',
    metadata: { name: address },
    spec: { address, pool: 'audit', nodeName: NODE_NAME, ...whose },
  };
}

async function holderOf(name: string): Promise<string> {
  return node.kubectl('get', 'ipallocation', name, '--ignore-not-found', '-o', 'jsonpath={.spec.holder}');
}

async function add(containerID: string): Promise<void> {
  const netns = await node.makeSandbox(containerID);
  const { answer, stdout } = await node.cni({ command: 'ADD', containerID, netns, config: CONFIG });
  expect(answer?.ips, stdout).toHaveLength(2);
}
