import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createHistory, type History } from '../../hack/simulation/history.ts';
import { seededRandom } from '../../hack/simulation/seeded-random.ts';
import { soak, type SoakCluster, type SoakNode } from '../../hack/simulation/soak.ts';
import { allocationName, IPAllocation, IP_ALLOCATION, NodeSubnet, NODE_SUBNET } from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import { isResting } from '../../src/ipam/index.ts';
import { AlreadyExistsError, listAll, NotFoundError, pathOf } from '../../src/kube/index.ts';
import { cidrHasAddress, cidrsOverlap, formatAddress } from '../../src/net/index.ts';
import { settingsFrom } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { keepingLog, mustSucceed, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

/**
 * Thousands of calls and troubles on several nodes at once, each with an agent whose kernel is simulated and whose
 * decisions are the real code's, and a real controller, over a real apiserver. Whatever happens: no address is ever on
 * two living attachments, none comes back before its delay, and when it is quiet the book says what the kernels say.
 * To play one again: WEFT_TEST_SEED=… npx vitest run --project apiserver test/apiserver/soak.test.ts
 */
const given = process.env.WEFT_TEST_SEED;
const SEEDS =
  given === undefined ? [1, 2, 3].map(() => Math.floor(Math.random() * 2 ** 31)) : [Number(given)];
const OPERATIONS = 3_400;
const REUSE_DELAY_SECONDS = 1;

const apiserver = useApiserver();
const stop = new AbortController();
let controller: Promise<void>;
let dir: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-soak-'));
  const flags = [
    '--identity=soak',
    '--namespace=default',
    '--lease-name=soak',
    `--probe-socket=${join(dir, 'probe.sock')}`,
    `--kubeconfig=${apiserver().plane.kubeconfig}`,
    '--quarantine-seconds=2',
    '--status-seconds=1',
  ];
  controller = runController(parseControllerFlags(flags), {
    clock: createSystemClock(),
    random: Math.random,
    env: {},
    log: keepingLog(),
    signal: stop.signal,
  });
});

afterAll(async () => {
  stop.abort(new Error('the soak has ended'));
  await controller;
  await rm(dir, { recursive: true });
});

test.each(SEEDS)('seed %i', { timeout: 600_000 }, async (seed) => {
  await soaked(seed, SEEDS.indexOf(seed) + 1, OPERATIONS);
});

test('while etcd and the apiserver are killed and held up (F15)', { timeout: 600_000 }, async () => {
  const { plane } = apiserver();
  const troubles = [
    () => plane.killEtcd(),
    () => plane.restartApiserver(),
    // Longer than an ADD may take, and a Lease lasts.
    () => plane.pauseEtcd(16_000),
    () => plane.restartApiserver(),
    () => plane.killEtcd(),
    () => plane.restartApiserver(),
  ];
  await soaked(SEEDS[0] ?? 0, SEEDS.length + 1, OPERATIONS, async () => {
    for (const trouble of troubles) {
      await trouble();
      await sleep(3_000);
    }
  });
});

/** `meanwhile` begins with the soak, whose end waits for it. */
async function soaked(
  seed: number,
  run: number,
  operations: number,
  meanwhile: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const pools = poolsOf(run);
  for (const { name, spec } of pools) await applyPool(name, spec);
  const history = createHistory({
    nowMs: () => performance.now(),
    reuseDelayMs: REUSE_DELAY_SECONDS * 1_000,
  });
  const log = keepingLog();
  const besides = meanwhile();
  const soaking = soak({
    cluster: soakCluster(),
    history,
    random: seededRandom(seed),
    operations,
    nodes: 5,
    settings: settingsFrom({
      'sweep-seconds': '0.5',
      'grace-seconds': '2',
      'add-seconds': '3',
      'subnet-wait-seconds': '1',
      'give-back-seconds': '3',
      'quarantine-seconds': '2',
      'spare-addresses': '2',
    }),
    poolEdits: pools.flatMap(({ name, edits }) => edits.map((spec) => ({ name, spec }))),
    log,
  });
  await besides;
  const { done, nodes } = await soaking;
  console.log(
    `seed ${seed}: ${[...done].map(([what, count]) => `${what} ${count}`).join(', ')}; ${history.wirings} wirings`,
  );
  expect(history.violations).toEqual([]);
  // A soak in which nothing was wired has shown nothing.
  expect(history.wirings).toBeGreaterThan(operations / 4);
  for (const { name, spec } of pools) await applyPool(name, spec);
  await settled(nodes, history);

  for (const { agent, machine } of nodes) {
    for (const link of machine.links()) await agent.del(link);
  }
  await eventually('the book to be empty', async () => (await allocations()).length === 0, 60_000);
  expect(history.violations).toEqual([]);
  for (const { agent, machine } of nodes) {
    agent.kill();
    await apiserver().kubectl(['delete', 'node', machine.nodeName]);
  }
  await mustSucceed(apiserver().kubectl(['delete', 'ippools', '--all', '--wait=false']));
  await eventually('nothing to be left of gone nodes', async () => (await subnets()).length === 0, 60_000);
}

/** The book says what the kernels say, subnets are disjoint, and each address lies in one of its own node. */
async function settled(nodes: readonly SoakNode[], history: History): Promise<void> {
  const wired = () =>
    nodes.flatMap(({ machine }) =>
      machine
        .links()
        .flatMap(({ containerID, addresses }) =>
          addresses.map((address) => `${allocationName(address)} ${machine.nodeName} ${containerID}`),
        ),
    );
  const booked = async () =>
    (await allocations())
      .filter((allocation) => !isResting(allocation))
      .map(
        ({ metadata, spec }) =>
          `${metadata.name} ${spec.nodeName ?? '-'} ${spec.attachment?.containerID ?? '-'}`,
      );
  let last = '';
  await eventually(
    'the book to say what the kernels say',
    async () => {
      const [kernel, book] = [wired().sort(), (await booked()).sort()];
      last = `only in the kernels: ${minus(kernel, book)}; only in the book: ${minus(book, kernel)}`;
      return kernel.join() === book.join();
    },
    60_000,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}; ${last}`, { cause: error });
  });
  const held = await subnets();
  for (const [i, one] of held.entries()) {
    for (const other of held.slice(i + 1)) {
      expect(
        cidrsOverlap(one.spec.cidr, other.spec.cidr),
        `${one.metadata.name} ${other.metadata.name}`,
      ).toBe(false);
    }
  }
  for (const { spec } of await allocations()) {
    const home = held.find((subnet) => cidrHasAddress(subnet.spec.cidr, spec.address));
    expect(home?.spec.nodeName, formatAddress(spec.address)).toBe(spec.nodeName);
  }
  expect(history.violations).toEqual([]);
}

function minus(a: readonly string[], b: readonly string[]): string {
  return a.filter((one) => !b.includes(one)).join(', ') || 'nothing';
}

/** Two pools in a range of their own for each seed, scarce enough that nodes take from each other what comes free. */
function poolsOf(run: number) {
  const sizes = { nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 }, reuseDelaySeconds: REUSE_DELAY_SECONDS };
  const main = {
    ...sizes,
    cidrs: [`10.${run}.0.0/25`, `10.${run}.1.0/25`, `fd00:${run}::/120`],
    priority: 1,
  };
  const spill = { ...sizes, cidrs: [`10.${run}.2.0/26`, `fd00:${run}:1::/121`] };
  return [
    {
      name: `main-${run}`,
      spec: main,
      edits: [
        main,
        { ...main, cidrs: [`10.${run}.0.0/25`, `fd00:${run}::/120`] },
        { ...main, cidrs: [`10.${run}.1.0/25`, `fd00:${run}::/120`] },
        { ...main, disabled: true },
        { ...main, reserved: [`10.${run}.0.0/27`, `fd00:${run}::/123`] },
      ],
    },
    { name: `spill-${run}`, spec: spill, edits: [spill, { ...spill, priority: 5 }] },
  ];
}

function soakCluster(): SoakCluster {
  const { client, kubectl } = apiserver();
  return {
    client,
    async createNode(name) {
      const node = { apiVersion: 'v1', kind: 'Node', metadata: { name } };
      await untilAnswered(async () => {
        await client
          .request({ method: 'POST', path: '/api/v1/nodes', body: node })
          .catch(unless(AlreadyExistsError));
      });
      const addresses = ['192.0.2.1', '2001:db8::1'].map((address) => ({ type: 'InternalIP', address }));
      const patch = JSON.stringify({ status: { addresses } });
      await untilAnswered(() =>
        mustSucceed(kubectl(['patch', 'node', name, '--subresource=status', '--type=merge', '-p', patch])),
      );
    },
    async deleteNode(name) {
      const path = `/api/v1/nodes/${name}`;
      await untilAnswered(async () => {
        await client.request({ method: 'DELETE', path }).catch(unless(NotFoundError));
      });
    },
    editPool: applyPool,
  };
}

/** What a person does whose apiserver is away for a moment. */
async function untilAnswered(act: () => Promise<unknown>): Promise<void> {
  let last: unknown;
  await eventually(
    'the apiserver to carry it out',
    () =>
      act().then(
        () => true,
        (error: unknown) => {
          last = error;
          return sleep(500, false);
        },
      ),
    90_000,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${String(last)}`, { cause: last });
  });
}

/** An earlier try, whose answer was lost, has done it. */
function unless(done: typeof AlreadyExistsError | typeof NotFoundError) {
  return (error: unknown) => {
    if (!(error instanceof done)) throw error;
  };
}

async function applyPool(name: string, spec: object): Promise<void> {
  const pool = { apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPPool', metadata: { name }, spec };
  await mustSucceed(apiserver().kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], pool));
}

async function allocations(): Promise<IPAllocation[]> {
  const { items } = await listAll(apiserver().client, { path: pathOf(IP_ALLOCATION) });
  return items.map((item) => IPAllocation.parse(item));
}

async function subnets(): Promise<NodeSubnet[]> {
  const { items } = await listAll(apiserver().client, { path: pathOf(NODE_SUBNET) });
  return items.map((item) => NodeSubnet.parse(item));
}
