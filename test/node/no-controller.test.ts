import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCheck } from '../../src/cli/check/run-check.ts';
import {
  allocationStore,
  createKubeClient,
  loadConnection,
  nodeSubnetStore,
  type KubeClient,
} from '../../src/kube/index.ts';
import { FAMILIES, cidrHasAddress, formatAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { withAgentPods } from '../apiserver/agent-pods.ts';
import { startLossyProxy, type LossyProxy } from '../apiserver/lossy-proxy.ts';
import { eventually, NODE_NAME, pool, startNode, type TestNode } from './node.ts';
import { UPLINK } from './namespaces.ts';
import { startSecondMachine, type SecondMachine } from './second-machine.ts';

/**
 * No controller is anywhere, as in all of this folder, while hundreds of pods start and a node joins (F41): agent,
 * executable and kernel of both nodes are real. Nothing is known of the pods before they ask, and subnets are small:
 * each node claims one after another while its pods wait for it.
 */

let node: TestNode;
let second: SecondMachine;
let proxy: LossyProxy;
let client: KubeClient;
let dir: string;
const clock = createSystemClock();

const JOINED = 'joined-node';
const POOL = 'alone';
const NODE_NAMES = [NODE_NAME, JOINED] as const;
type NodeName = (typeof NODE_NAMES)[number];
const PODS: Readonly<Record<NodeName, number>> = { [NODE_NAME]: 140, [JOINED]: 60 };
/** So many ADDs have been answered when the other node comes. */
const BEFORE_JOIN = 20;
/** On each node. */
const AT_ONCE = 6;
/** Of 16 addresses the first one is the node's own. */
const ADDRESSES_OF_SUBNET = 15;
const SNAPSHOT = join(import.meta.dirname, '../../dist/snapshot.mjs');

interface Pod {
  readonly nodeName: NodeName;
  readonly containerID: string;
  readonly addresses: readonly string[];
}

beforeAll(async () => {
  node = await startNode();
  second = await startSecondMachine();
  dir = await mkdtemp(join(tmpdir(), 'weft-no-controller-'));
  // The way to the apiserver, which listens on loopback alone.
  proxy = await startLossyProxy(node.plane, dir, UPLINK.addresses[0]);
  client = createKubeClient(await loadConnection({ kubeconfig: node.plane.kubeconfig, env: {}, clock }));
  await node.apply(
    pool(POOL, {
      cidrs: ['10.46.0.0/22', 'fd00:46::/112'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      reuseDelaySeconds: 1,
    }),
  );
  for (const nodeName of NODE_NAMES) {
    for (const id of sandboxesOf(nodeName)) await (isSecond(nodeName) ? second : node).makeSandbox(id);
  }
  await node.startAgent();
});

afterAll(async () => {
  await client.close();
  await node.stop();
  await proxy.stop();
  await second.stop();
  await rm(dir, { recursive: true });
});

test(
  '200 ADDs go through and a node joins meanwhile, without a controller: all addresses differ, and each node has the subnets that it needs (F41)',
  { timeout: 180_000 },
  async () => {
    const pods: Pod[] = [];
    const enough = Promise.withResolvers<undefined>();
    const joinAndAdd = async () => {
      await enough.promise;
      await joinSecond();
      // The first one did not stand still meanwhile.
      expect(pods.length).toBeGreaterThan(BEFORE_JOIN);
      await addAll(JOINED, pods);
    };
    const joining = joinAndAdd();
    const adding = addAll(NODE_NAME, pods, () => {
      if (pods.length >= BEFORE_JOIN) enough.resolve(undefined);
    });
    await Promise.all([adding, joining]);

    const given = pods.flatMap(({ addresses }) => addresses);
    expect(given).toHaveLength(2 * (PODS[NODE_NAME] + PODS[JOINED]));
    expect(new Set(given).size).toBe(given.length);
    await expectInOwnSubnets(pods);
    for (const [from, to] of [NODE_NAMES, [...NODE_NAMES].reverse()]) {
      const source = pods.findLast(({ nodeName }) => nodeName === from);
      const target = pods.findLast(({ nodeName }) => nodeName === to);
      for (const address of target?.addresses ?? []) await ping(source, address);
    }
    expect(await findings()).toEqual(['NoStatus']);
    // Nobody has led, and nobody has counted.
    expect(await node.kubectl('get', 'leases', '-A', '-o', 'name')).not.toContain('weft');
    expect(await node.kubectl('get', 'ippool', POOL, '-o', 'jsonpath={.status}')).toBe('');

    await inLanes(pods, async (pod) => {
      const netns = `/run/netns/${pod.containerID}`;
      const call = { command: 'DEL', containerID: pod.containerID, netns, ...placeOf(pod.nodeName) };
      expect((await node.cni(call)).exitCode).toBe(0);
    });
    await eventually('nothing to be left', async () =>
      (await node.allocations()).length === 0 ? true : undefined,
    );
  },
);

/** Makes its Node and starts its agent, and waits until that serves. */
async function joinSecond(): Promise<void> {
  await node.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: JOINED } });
  const addresses = second.addresses.map((address) => ({ type: 'InternalIP', address }));
  const patch = JSON.stringify({ status: { addresses } });
  await node.kubectl('patch', 'node', JOINED, '--subresource=status', '--type=merge', '-p', patch);
  const { kubeconfig } = proxy;
  const agent = await node.startAgent({ ...placeOf(JOINED), nodeName: JOINED, kubeconfig, unready: true });
  await eventually('the agent of the node that joins to serve', async () => {
    const { exitCode } = await node.cni({ command: 'STATUS', ...placeOf(JOINED) });
    return exitCode === 0 ? true : undefined;
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${agent.log()}`, { cause: error });
  });
}

/** All pods of a node, some at once; each ADD succeeds at the first try. */
async function addAll(nodeName: NodeName, pods: Pod[], onAdded?: () => void): Promise<void> {
  await inLanes(sandboxesOf(nodeName), async (containerID) => {
    const netns = `/run/netns/${containerID}`;
    const call = { command: 'ADD', containerID, netns, ...placeOf(nodeName) };
    const { exitCode, stdout, answer } = await node.cni(call);
    expect(exitCode, stdout).toBe(0);
    const addresses = (answer?.ips ?? []).map(({ address }) => address.split('/')[0] ?? '');
    expect(addresses, stdout).toHaveLength(2);
    pods.push({ nodeName, containerID, addresses });
    onAdded?.();
  });
}

/** Also what their containers are called. */
function sandboxesOf(nodeName: NodeName): string[] {
  return Array.from({ length: PODS[nodeName] }, (_, i) => `${nodeName}-${i}`);
}

/** Where what belongs to the node is run. */
function placeOf(nodeName: string): { readonly within?: readonly string[] } {
  return isSecond(nodeName) ? { within: second.within } : {};
}

const isSecond = (nodeName: string) => nodeName === JOINED;

/** By the book each address is its pod's, and lies in one of the subnets of its node, of which there are as many as it takes. */
async function expectInOwnSubnets(pods: readonly Pod[]): Promise<void> {
  const subnets = await nodeSubnetStore(client).listOfPool(POOL);
  for (const nodeName of NODE_NAMES) {
    const uid = await node.kubectl('get', 'node', nodeName, '-o', 'jsonpath={.metadata.uid}');
    const own = subnets.filter(({ spec }) => spec.nodeName === nodeName && spec.nodeUID === uid);
    for (const family of FAMILIES) {
      const ofFamily = own.filter(({ spec }) => spec.cidr.family === family);
      const needed = Math.ceil(PODS[nodeName] / ADDRESSES_OF_SUBNET);
      expect(ofFamily.length, `${nodeName} ${family}`).toBeGreaterThanOrEqual(needed);
    }
    const book = await allocationStore(client).listOfNode(nodeName);
    for (const { spec } of book) {
      const around = own.filter(({ spec: { cidr } }) => cidrHasAddress(cidr, spec.address));
      expect(around, formatAddress(spec.address)).toHaveLength(1);
    }
    const held = book.map(
      ({ spec }) => `${spec.attachment?.containerID ?? '-'} ${formatAddress(spec.address)}`,
    );
    const given = pods
      .filter((pod) => pod.nodeName === nodeName)
      .flatMap(({ containerID, addresses }) => addresses.map((address) => `${containerID} ${address}`));
    expect(held.sort()).toEqual(given.sort());
  }
}

/** What `kubectl weft check` says, with agents that answer as their pods would. */
async function findings(): Promise<string[]> {
  const result = await runCheck({
    client: withAgentPods(client, NODE_NAMES),
    exec: async (nodeName) => {
      const [command = '', ...args] = [...(placeOf(nodeName).within ?? []), 'node', SNAPSHOT];
      return (await execa(command, args)).stdout;
    },
    clock,
    namespace: 'weft-system',
    graceMs: 0,
    confirmMs: 1_000,
    recountMs: 1,
    signal: new AbortController().signal,
  });
  expect(result).toMatchObject({ unknownNodes: [] });
  return result.findings.map(({ reason }) => reason);
}

async function ping(from: Pod | undefined, address: string): Promise<void> {
  if (from === undefined) throw new Error('there is no such pod');
  const within = placeOf(from.nodeName).within ?? [];
  const command = ['ip', 'netns', 'exec', from.containerID, 'ping', '-c1', '-W2', address];
  const [program = '', ...args] = [...within, ...command];
  await execa(program, args);
}

async function inLanes<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  const left = all.values();
  const lane = async () => {
    for (const one of left) await work(one);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}
