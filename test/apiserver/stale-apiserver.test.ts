import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, onTestFailed, test } from 'vitest';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import {
  allocationStore,
  createKubeClient,
  loadConnection,
  nodeSubnetStore,
  type KubeClient,
} from '../../src/kube/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { keepingLog, mustSucceed, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

/** Two apiservers of one etcd, of which one is held up on its way to it (F17). */

const server = useApiserver();
let relay: Relay;
let behind: { readonly kubeconfig: string };
let throughBehind: KubeClient;

beforeAll(async () => {
  relay = await startRelay(Number(new URL(server().plane.etcdUrl).port));
  behind = await server().plane.startAnotherApiserver(relay.port);
  const { kubeconfig } = behind;
  throughBehind = createKubeClient(await loadConnection({ kubeconfig, env: {}, clock: createSystemClock() }));
});

afterAll(async () => {
  relay.thaw();
  await throughBehind.close();
  // The apiserver keeps its connections until it ends, which is after this.
  relay.stop();
});

const POOL = 'stale';
const QUARANTINE_MS = 3_000;
const subnet = parseCIDR('10.40.0.0/28');

test('a controller of which the apiserver is behind frees nothing that lives, and no subnet is given twice (F17)', async () => {
  const { kubectl, client } = server();
  const apply = (object: object) => mustSucceed(kubectl(['apply', '--server-side', '-f', '-'], object));
  await apply({
    ...{ apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPPool', metadata: { name: POOL } },
    spec: { cidrs: ['10.40.0.0/24'] },
  });
  const makeNode = () => apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' } });
  const poolUID = await mustSucceed(kubectl(['get', 'ippool', POOL, '-o', 'jsonpath={.metadata.uid}']));
  await makeNode();
  const claim = (nodeName: string) => ({
    ...{ cidr: subnet, pool: POOL, poolUID, nodeName, nodeUID: `uid-of-${nodeName}` },
    nextHops: [parseAddress('192.0.2.1')],
  });
  const [subnets, allocations] = [nodeSubnetStore(client), allocationStore(client)];
  expect(await subnets.create(claim('n'))).toMatchObject({ kind: 'created' });
  const create = async (address: string) => {
    const attachment = { network: 'weft', containerID: address, ifName: 'eth0', kind: 'Interface' } as const;
    const spec = { address: parseAddress(address), pool: POOL, nodeName: 'n', attachment };
    expect(await allocations.create(spec)).toMatchObject({ kind: 'created' });
  };
  const left = async () => {
    const names = await mustSucceed(kubectl(['get', 'ipallocations,nodesubnets', '-o', 'name']));
    return names.split('\n').filter(Boolean).length;
  };
  await create('10.40.0.2');
  const controller = startController();
  await eventually('the controller to lead', () =>
    controller.log.lines.some(({ message }) => message.startsWith('elected')),
  );

  // It has seen the Node go, and not come back.
  const isNodeSeen = async () => {
    // From the cache of that apiserver, as old as it may be.
    const query = { resourceVersion: '0' };
    const nodes = await throughBehind.request({ method: 'GET', path: '/api/v1/nodes', query });
    return (nodes as { items: unknown[] }).items.length > 0;
  };
  await mustSucceed(kubectl(['delete', 'node', 'n']));
  await eventually('the other apiserver to know', async () => !(await isNodeSeen()));
  await sleep(300);
  relay.freeze();
  await makeNode();
  await create('10.40.0.3');
  const late = nodeSubnetStore(throughBehind).create(claim('other'));
  await sleep(2 * QUARANTINE_MS);
  expect(await isNodeSeen()).toBe(false);
  expect(await left()).toBe(3);
  relay.thaw();
  expect(await late).toEqual({ kind: 'taken' });
  await eventually('the other apiserver to be as far', isNodeSeen, 60_000);
  await sleep(2 * QUARANTINE_MS);
  expect(await left()).toBe(3);
  expect((await subnets.get('10.40.0.0-28'))?.spec.nodeName).toBe('n');

  // All of this by a controller that does its work.
  await mustSucceed(kubectl(['delete', 'node', 'n']));
  await eventually('what is gone to be freed', async () => (await left()) === 0, 60_000);
  await controller.stop();
});

function startController() {
  const stop = new AbortController();
  const log = keepingLog();
  onTestFailed(() => console.error('the controller said', log.lines));
  const ended = runController(
    parseControllerFlags([
      '--identity=one',
      '--namespace=default',
      '--lease-name=stale',
      `--probe-socket=${join(server().dir, 'stale.sock')}`,
      '--metrics-address=',
      `--kubeconfig=${behind.kubeconfig}`,
      `--quarantine-seconds=${QUARANTINE_MS / 1_000}`,
      '--status-seconds=1',
      '--lease-seconds=3',
    ]),
    { clock: createSystemClock(), random: Math.random, env: {}, log, signal: stop.signal },
  );
  return {
    log,
    async stop() {
      stop.abort(new Error('the test has ended'));
      await ended;
    },
  };
}

/** Passes on what is said to a port of this machine, unless it is frozen: then nothing in either direction. */
interface Relay {
  readonly port: number;
  freeze(): void;
  thaw(): void;
  /** Takes no further connections, and ends those that there are. */
  stop(): void;
}

async function startRelay(to: number): Promise<Relay> {
  const sockets = new Set<Socket>();
  let isFrozen = false;
  const relay = createServer((one) => {
    const other = connect(to, '127.0.0.1');
    for (const [from, onto] of [
      [one, other],
      [other, one],
    ] as const) {
      sockets.add(from);
      from.on('data', (data) => void onto.write(data));
      from.on('error', () => onto.destroy());
      from.on('close', () => {
        sockets.delete(from);
        onto.destroy();
      });
      if (isFrozen) from.pause();
    }
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  return {
    port: (relay.address() as AddressInfo).port,
    freeze() {
      isFrozen = true;
      for (const socket of sockets) socket.pause();
    },
    thaw() {
      isFrozen = false;
      for (const socket of sockets) socket.resume();
    },
    stop() {
      relay.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
