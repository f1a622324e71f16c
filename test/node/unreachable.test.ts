import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startSimulatedAgent, type SimulatedAgent } from '../../hack/simulation/agent.ts';
import { createHistory } from '../../hack/simulation/history.ts';
import { createMachine } from '../../hack/simulation/machine.ts';
import type { PodReference } from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import { createKubeClient, loadConnection, type KubeClient } from '../../src/kube/index.ts';
import { settingsFrom } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { startLossyProxy, type LossyProxy } from '../apiserver/lossy-proxy.ts';
import { CONFIG, eventually, NODE_NAME, pool, startNode, type TestNode } from './node.ts';
import { ip, UPLINK } from './namespaces.ts';

/**
 * A node that cannot reach the apiserver while its pod is deleted there by force (F22): agent, executable and kernel of
 * that node are real, and so are apiserver and controller; of another node, which wants the address, the kernel is not.
 */

const OTHER = 'other-node';
const GRACE_SECONDS = 2;
const QUARANTINE_SECONDS = 3;
const DEAD_BY_ALL_TIMERS_MS = 3 * (GRACE_SECONDS + QUARANTINE_SECONDS) * 1_000;

let node: TestNode;
let proxy: LossyProxy;
let dir: string;
let client: KubeClient;
let other: SimulatedAgent;
let controller: Promise<void>;
const stop = new AbortController();
const clock = createSystemClock();

beforeAll(async () => {
  node = await startNode({ flags: [`--grace-seconds=${GRACE_SECONDS}`] });
  dir = await mkdtemp(join(tmpdir(), 'weft-proxy-'));
  proxy = await startLossyProxy(node.plane, dir);
  client = createKubeClient(await loadConnection({ kubeconfig: node.plane.kubeconfig, env: {}, clock }));
  await node.apply(
    pool('forced', {
      cidrs: ['10.18.0.0/24'],
      nodeSubnetPrefixLength: { ipv4: 26 },
      reuseDelaySeconds: 1,
      fixedAddresses: true,
    }),
  );
  await node.startAgent({ kubeconfig: proxy.kubeconfig });
  const parts = { clock, random: Math.random, log: SILENT };
  controller = runController(
    parseControllerFlags([
      '--identity=one',
      '--namespace=default',
      `--quarantine-seconds=${QUARANTINE_SECONDS}`,
      '--metrics-address=',
      '--probe-socket=/run/weft/controller.sock',
      `--kubeconfig=${node.plane.kubeconfig}`,
    ]),
    { ...parts, env: {}, signal: stop.signal },
  );
  await node.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: OTHER } });
  const addresses = [{ type: 'InternalIP', address: '192.0.2.11' }];
  const patch = JSON.stringify({ status: { addresses } });
  await node.kubectl('patch', 'node', OTHER, '--subresource=status', '--type=merge', '-p', patch);
  const history = createHistory({ nowMs: clock.nowMs, reuseDelayMs: 0, mayEverDraw: () => true });
  other = startSimulatedAgent({
    ...parts,
    machine: createMachine(OTHER, history),
    client,
    settings: settingsFrom({ 'sweep-seconds': '1', 'grace-seconds': String(GRACE_SECONDS) }),
    relistJitterMs: 0,
  });
  await other.serving;
});

afterAll(async () => {
  stop.abort(new Error('the tests have ended'));
  other.kill();
  await controller;
  await client.close();
  await node.stop();
  await proxy.stop();
  await rm(dir, { recursive: true });
});

test('what a pod had that was deleted by force stays its own until its node is back and says that the sandbox is gone (F22)', async () => {
  const address = await addPod('stuck');
  await proxy.setDown(true);
  await deleteByForce('stuck');
  await expectHeld('stuck', address);

  // Back, and the sandbox runs on: there may be a finalizer in the kubelet's way, or a process that does not die.
  await proxy.setDown(false);
  await sleep(3 * GRACE_SECONDS * 1_000);
  await expectHeldNow('stuck', address);

  // The kubelet ends what the apiserver does not know.
  const del = { command: 'DEL', containerID: 'stuck', netns: '/run/netns/stuck', config: CONFIG };
  expect((await node.cni(del)).exitCode).toBe(0);
  await node.removeSandbox('stuck');
  const next = await makePod('stuck', OTHER, address);
  await eventually('the pod that names the address to get it', () => addOnOther('stuck-next', next, address));
  await other.del({ containerID: 'stuck-next', ifName: 'eth0' });
  await deleteByForce('stuck');
});

test('or until its Node is deleted and the quarantine has passed (F22)', async () => {
  const address = await addPod('lost');
  await proxy.setDown(true);
  await deleteByForce('lost');
  await expectHeld('lost', address);

  const deletedMs = performance.now();
  await node.kubectl('delete', 'node', NODE_NAME);
  const next = await makePod('lost', OTHER, address);
  await eventually('the pod that names the address to get it', () => addOnOther('lost-next', next, address));
  expect(performance.now() - deletedMs).toBeGreaterThan(QUARANTINE_SECONDS * 1_000);
});

const SILENT = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** Makes the pod on the real node; answers its address. */
async function addPod(name: string): Promise<string> {
  const args = await node.makePod(name);
  const netns = await node.makeSandbox(name);
  const { answer, stdout } = await node.cni({
    command: 'ADD',
    containerID: name,
    netns,
    args,
    config: CONFIG,
  });
  const address = answer?.ips?.[0]?.address.split('/')[0];
  if (address === undefined) throw new Error(stdout);
  return address;
}

async function deleteByForce(name: string): Promise<void> {
  await node.kubectl('delete', 'pod', name, '--grace-period=0', '--force');
}

/**
 * For longer than all timers together nobody frees the address, and nobody gets it: neither who asks for any, nor the
 * very pod, made anew on another node, that names it.
 */
async function expectHeld(name: string, address: string): Promise<void> {
  const endMs = performance.now() + DEAD_BY_ALL_TIMERS_MS;
  const next = await makePod(name, OTHER, address);
  const key = { containerID: `${name}-early`, ifName: 'eth0' };
  while (performance.now() < endMs) {
    await expect(other.add(key, next)).rejects.toThrow(
      `${address}, which this pod is to have, belongs to pod default/${name} on node ${NODE_NAME}`,
    );
    expect(await other.add({ ...key, ifName: 'any' })).not.toContain(address);
    await other.del({ ...key, ifName: 'any' });
    await expectHeldNow(name, address);
  }
  await other.del(key);
  await deleteByForce(name);
}

async function expectHeldNow(name: string, address: string): Promise<void> {
  expect(await node.allocations(name)).toMatchObject([{ name: address, released: false, podName: name }]);
  expect(await ip('-n', name, 'address', 'show', 'dev', 'eth0')).toContain(`${address}/32`);
  await execa('ip', ['netns', 'exec', name, 'ping', '-c1', '-W2', UPLINK.addresses[0]]);
}

/** A pod that names its address, bound to a node. */
async function makePod(name: string, nodeName: string, address: string): Promise<PodReference> {
  await node.apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', annotations: { 'ipam.weft.dev/addresses': address } },
    spec: { nodeName, automountServiceAccountToken: false, containers: [{ name: 'c', image: 'none' }] },
  });
  const uid = await node.kubectl('get', 'pod', name, '-o', 'jsonpath={.metadata.uid}');
  return { namespace: 'default', name, uid };
}

async function addOnOther(
  containerID: string,
  pod: PodReference,
  address: string,
): Promise<true | undefined> {
  const addresses = await other.add({ containerID, ifName: 'eth0' }, pod).catch((): string[] => []);
  return addresses.includes(address) ? true : undefined;
}
