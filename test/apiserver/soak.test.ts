import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createHistory, type History } from '../../hack/simulation/history.ts';
import type { PodIdentity } from '../../hack/simulation/named-pods.ts';
import { seededRandom } from '../../hack/simulation/seeded-random.ts';
import { soak, type SoakCluster, type SoakNode } from '../../hack/simulation/soak.ts';
import { allocationName, IPAllocation, IP_ALLOCATION, NodeSubnet, NODE_SUBNET } from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runCheck, type CheckResult } from '../../src/cli/check/run-check.ts';
import { runController } from '../../src/controller/run.ts';
import { isExclusive, isResting } from '../../src/ipam/index.ts';
import {
  AlreadyExistsError,
  listAll,
  MERGE_PATCH,
  NotFoundError,
  parsePod,
  pathOf,
} from '../../src/kube/index.ts';
import { cidrsOverlap, formatAddress } from '../../src/net/index.ts';
import { settingsFrom } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { keepingLog, mustSucceed, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

/**
 * Thousands of calls and troubles on several nodes at once, each with an agent whose kernel is simulated and whose
 * decisions are the real code's, and a real controller, over a real apiserver. Whatever happens: no address is ever on
 * two living attachments, none comes back before its delay, none of a tenant's pool is ever a stranger's, and when it is
 * quiet the book says what the kernels say, `check` finds nothing, and who keeps an address gets it on any node.
 * To play one again: WEFT_TEST_SEED=… sh hack/isolated.sh npx vitest run --project apiserver test/apiserver/soak.test.ts
 * A seed decides what is asked for, and the draws of each agent; how processes interleave is up to the machine.
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
    '--metrics-address=',
    '--status-seconds=1',
    '--pool-deletion-seconds=1',
  ];
  controller = runController(parseControllerFlags(flags), {
    clock: createSystemClock(),
    random: seededRandom(SEEDS[0] ?? 0),
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
  const podIdentities = podsOf(run);
  for (const namespace of new Set(podIdentities.map((pod) => pod.namespace))) await makeNamespace(namespace);
  const history = createHistory({
    nowMs: () => performance.now(),
    reuseDelayMs: REUSE_DELAY_SECONDS * 1_000,
    // Of the tenants' namespaces each is labelled as its own tenant's at the most.
    mayEverDraw: (namespace, pool) => !TENANTS.some((its) => pool === `${its}-${run}`) || namespace === pool,
  });
  const log = keepingLog();
  const besides = meanwhile();
  const soaking = soak({
    cluster: soakCluster(),
    history,
    random: seededRandom(seed),
    operations,
    nodes: 5,
    reuseDelayMs: REUSE_DELAY_SECONDS * 1_000,
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
    podIdentities,
    namespaceEdits: TENANTS.flatMap((tenant) =>
      [tenant, null].map((value) => ({ name: `${tenant}-${run}`, labels: { tenant: value } })),
    ),
    log,
  });
  await besides;
  const { done, nodes } = await soaking;
  console.log(
    `seed ${seed}: ${[...done].map(([what, count]) => `${what} ${count}`).join(', ')}; ${history.wirings} wirings`,
  );
  try {
    expect(history.violations).toEqual([]);
    // A soak in which nothing was wired has shown nothing.
    expect(history.wirings).toBeGreaterThan(operations / 4);
    for (const { name, spec } of pools) await applyPool(name, spec);
    await settled(nodes, history);

    for (const { agent, machine } of nodes) {
      for (const link of machine.links()) await agent.del(link);
    }
    await keptAddressesFollow(nodes, podIdentities);
    await eventually('the book to be empty', async () => (await allocations()).length === 0, 60_000);
    expect(history.violations).toEqual([]);
  } finally {
    // What one seed has found must not be found again by the next.
    for (const { agent, machine } of nodes) {
      agent.kill();
      await apiserver().kubectl(['delete', 'node', machine.nodeName]);
    }
    await mustSucceed(apiserver().kubectl(['delete', 'ipallocations', '--all', '--wait=false']));
    await mustSucceed(apiserver().kubectl(['delete', 'ippools', '--all', '--wait=false']));
  }
  await eventually('nothing to be left of gone nodes', async () => (await subnets()).length === 0, 60_000);
}

/** Whoever keeps addresses gets them wherever it comes back; then they are let go. */
async function keptAddressesFollow(
  nodes: readonly SoakNode[],
  identities: readonly PodIdentity[],
): Promise<void> {
  await eventually('nobody but kept addresses to be left', async () =>
    (await allocations()).every(({ spec }) => spec.holder !== undefined),
  );
  const cluster = soakCluster();
  for (const [i, identity] of identities.filter(({ statefulSet }) => statefulSet !== undefined).entries()) {
    const node = nodes[i % nodes.length];
    const key = `${identity.namespace}/${identity.name}`;
    const kept = (await allocations()).filter(({ spec }) => spec.sticky === key);
    if (node === undefined || new Set(kept.map(({ spec }) => spec.pool)).size !== 1) continue;
    await apiserver().kubectl([
      '-n',
      identity.namespace,
      'delete',
      'pod',
      identity.name,
      '--force',
      '--grace-period=0',
    ]);
    const pod = await cluster.createPod(identity, node.machine.nodeName);
    const sandbox = { containerID: `last-${identity.name}`, ifName: 'eth0' };
    const addresses = await node.agent.add(sandbox, pod);
    for (const family of new Set(kept.map(({ spec }) => spec.address.family))) {
      // An agent that was killed has not let an outdated one go: the next ADD, this one, does.
      const its = kept.filter(({ spec }) => spec.address.family === family);
      const had = its.filter(({ spec }) => addresses.includes(formatAddress(spec.address)));
      expect(had, `${key}: ${family} of ${its.map(({ metadata }) => metadata.name).join()}`).toHaveLength(1);
    }
    await eventually(`one address of a family to be kept for ${key}`, async () => {
      const names = (await allocations()).filter(({ spec }) => spec.sticky === key);
      return new Set(names.map(({ spec }) => spec.address.family)).size === names.length;
    });
    await node.agent.del(sandbox);
  }
  for (const { metadata } of (await allocations()).filter(({ spec }) => spec.holder !== undefined)) {
    await mustSucceed(apiserver().kubectl(['delete', 'ipallocation', metadata.name]));
  }
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
      .filter((allocation) => !isResting(allocation) && allocation.spec.holder === undefined)
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
  const held = (await subnets()).filter((subnet) => !isExclusive(subnet));
  for (const [i, one] of held.entries()) {
    for (const other of held.slice(i + 1)) {
      expect(
        cidrsOverlap(one.spec.cidr, other.spec.cidr),
        `${one.metadata.name} ${other.metadata.name}`,
      ).toBe(false);
    }
  }
  expect(history.violations).toEqual([]);
  let checked: CheckResult | undefined;
  await eventually(
    'check to find nothing',
    async () => {
      checked = await check(nodes);
      return checked.findings.length === 0 && checked.unknownNodes.length === 0;
    },
    60_000,
  ).catch((error: unknown) => {
    const found = checked?.findings.map(
      ({ invariant, reason, message }) => `${invariant} ${reason} ${message}`,
    );
    throw new Error(`${String(error)}:\n${found?.join('\n') ?? ''}`, { cause: error });
  });
}

/** What `kubectl weft check` says, with agents that answer as their pods would. */
function check(nodes: readonly SoakNode[]): Promise<CheckResult> {
  const { client } = apiserver();
  const items = nodes.map(({ machine: { nodeName } }) => ({
    metadata: { name: nodeName, labels: { 'app.kubernetes.io/name': 'weft-agent' } },
    spec: { nodeName },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
  }));
  return runCheck({
    client: {
      ...client,
      request: (request) =>
        request.path === '/api/v1/namespaces/weft-system/pods'
          ? Promise.resolve({ metadata: { resourceVersion: '1' }, items })
          : client.request(request),
    },
    exec: (name) =>
      Promise.resolve(nodes.find(({ machine }) => machine.nodeName === name)?.agent.snapshot() ?? ''),
    clock: createSystemClock(),
    namespace: 'weft-system',
    graceMs: 2_000,
    confirmMs: 500,
    recountMs: 2_500,
    signal: new AbortController().signal,
  });
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
    fixedAddresses: true,
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
    ...TENANTS.map((tenant, i) => {
      const spec = {
        ...sizes,
        cidrs: [`10.${run}.${10 + i}.0/26`, `fd00:${run}:${10 + i}::/122`],
        namespaceSelector: { matchLabels: { tenant } },
        priority: 10,
        ...(i === 0 ? { isolation: { mode: 'Isolated' } } : {}),
      };
      return { name: `${tenant}-${run}`, spec, edits: [spec, { ...spec, priority: -1 }] };
    }),
  ];
}

/** Each has a pool and a namespace of its name. */
const TENANTS = ['red', 'blue'];

/** Pods that keep their addresses, that name them (two name the same), and tenants'. */
function podsOf(run: number): PodIdentity[] {
  const many = (count: number, pod: (i: number) => PodIdentity) =>
    Array.from({ length: count }, (_, i) => pod(i));
  const annotations = {};
  const named = [
    [`10.${run}.0.77`, `fd00:${run}::4d`],
    [`10.${run}.0.77`, `fd00:${run}::4d`],
    [`10.${run}.1.99`],
  ];
  return [
    ...many(4, (i) => ({
      ...{ namespace: `shop-${run}`, name: `db-${i}`, statefulSet: 'db' },
      annotations: { 'ipam.weft.dev/sticky': 'true' },
    })),
    ...named.map((fixed, i) => ({
      ...{ namespace: `shop-${run}`, name: `named-${i}`, fixed },
      annotations: { 'ipam.weft.dev/addresses': fixed.join(',') },
    })),
    ...TENANTS.flatMap((tenant) =>
      many(6, (i) => ({ namespace: `${tenant}-${run}`, name: `tenant-${i}`, annotations })),
    ),
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
    editPool: (name, spec) => untilAnswered(() => applyPool(name, spec)),
    async labelNamespace(name, labels) {
      const path = `/api/v1/namespaces/${name}`;
      const request = { method: 'PATCH', path, contentType: MERGE_PATCH } as const;
      await untilAnswered(() => client.request({ ...request, body: { metadata: { labels } } }));
    },
    async createPod({ namespace, name, annotations, statefulSet }, nodeName) {
      const owner = {
        apiVersion: 'apps/v1',
        kind: 'StatefulSet',
        name: statefulSet,
        uid: 'u',
        controller: true,
      };
      const pods = `/api/v1/namespaces/${namespace}/pods`;
      const body = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: {
          ...{ name, annotations },
          ...(statefulSet === undefined ? {} : { ownerReferences: [owner] }),
        },
        spec: {
          nodeName,
          automountServiceAccountToken: false,
          containers: [{ name: 'c', image: 'none' }],
        },
      };
      let made: unknown;
      await untilAnswered(async () => {
        await client.request({ method: 'POST', path: pods, body }).catch(unless(AlreadyExistsError));
        made = await client.request({ method: 'GET', path: `${pods}/${name}` });
      });
      return { namespace, name, uid: parsePod(made).uid };
    },
    async deletePod({ namespace, name }) {
      const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
      await untilAnswered(async () => {
        await client
          .request({ method: 'DELETE', path, query: { gracePeriodSeconds: 0 } })
          .catch(unless(NotFoundError));
      });
    },
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

async function makeNamespace(name: string): Promise<void> {
  const metadata = { name };
  await mustSucceed(
    apiserver().kubectl(['apply', '-f', '-'], { apiVersion: 'v1', kind: 'Namespace', metadata }),
  );
  // A pod is refused without it, and no controller is here to make it.
  const account = {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'default', namespace: name },
  };
  await mustSucceed(apiserver().kubectl(['apply', '-f', '-'], account));
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
