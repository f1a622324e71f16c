import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createHistory, type History } from '../../hack/simulation/history.ts';
import type { PodIdentity } from '../../hack/simulation/named-pods.ts';
import {
  createPoolHistory,
  type PoolHistory,
  type PoolIdentity,
} from '../../hack/simulation/pool-history.ts';
import { seededRandom } from '../../hack/simulation/seeded-random.ts';
import {
  soak,
  type SoakCluster,
  type SoakNode,
  type SoakPool,
  type Tally,
} from '../../hack/simulation/soak.ts';
import {
  allocationName,
  IPAllocation,
  IPPoolSpec,
  IP_ALLOCATION,
  IP_POOL,
  NodeSubnet,
  NODE_SUBNET,
  StoredMetadata,
  type Labels,
} from '../../src/api/index.ts';
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
import { cidrHasAddress, cidrsOverlap, formatAddress } from '../../src/net/index.ts';
import { settingsFrom } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { withAgentPods } from './agent-pods.ts';
import { keepingLog, mustSucceed, startApiserver, type TestApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

/**
 * Thousands of calls and troubles on several nodes at once, each with an agent whose kernel is simulated and whose
 * decisions are the real code's, and a real controller, over a real apiserver. Whatever happens: no address is ever on
 * two living attachments, none comes back before its delay, none of a tenant's pool is ever a stranger's, none is given of
 * what its pool gives no more, and a deleted pool waits for its pods and no longer. When it is quiet the book says what the
 * kernels say, `check` finds nothing, and who keeps an address gets it on any node.
 * Each run has an apiserver of its own, and says how to play it again. A seed decides what is asked for, and the draws of
 * each agent and of the controller; how processes interleave is up to the machine, and UIDs, by which nodes choose their
 * subnets, are the apiserver's.
 */
const given = process.env.WEFT_TEST_SEED;
const SEEDS =
  given === undefined ? [1, 2, 3].map(() => Math.floor(Math.random() * 2 ** 31)) : [Number(given)];
/** Of each run, of which there are four; of what is drawn a part is left out, where there is nothing to do it to. */
const OPERATIONS = 4_200;
const CARRIED_OUT = 2_500;
const REUSE_DELAY_SECONDS = 1;
/** A node that was cut off reads of a pool's write that much later at the most, and an ADD under way has gone by the old. */
const POOL_LAG_MS = 15_000;

const UNDISTURBED = 'with etcd and the apiserver left alone';
const KILLED = 'while etcd and the apiserver are killed and held up';

let server: TestApiserver | undefined;
beforeEach(async () => {
  server = await startApiserver();
});
afterEach(async () => {
  await server?.stop();
  server = undefined;
});
const apiserver = (): TestApiserver => {
  if (server === undefined) throw new Error('there is an apiserver during a test alone');
  return server;
};

test.each(SEEDS)(`seed %i, ${UNDISTURBED}`, { timeout: 600_000 }, async (seed) => {
  await soaked(seed, UNDISTURBED);
});

test.each(SEEDS.slice(0, 1))(`seed %i, ${KILLED} (F15)`, { timeout: 600_000 }, async (seed) => {
  const { plane } = apiserver();
  const troubles = [
    () => plane.killEtcd(),
    () => plane.restartApiserver(),
    () => plane.pauseEtcd(LONGEST_HOLD_MS),
    () => plane.restartApiserver(),
    () => plane.killEtcd(),
    () => plane.restartApiserver(),
  ];
  const meanwhile = async () => {
    for (const trouble of troubles) {
      await trouble();
      await sleep(3_000);
    }
  };
  await soaked(seed, KILLED, { poolLagMs: POOL_LAG_MS + LONGEST_HOLD_MS, meanwhile });
});

/** Longer than an ADD may take, and a Lease lasts. */
const LONGEST_HOLD_MS = 16_000;

interface SoakedOptions {
  readonly poolLagMs?: number;
  /** Begins with the soak, whose end waits for it. */
  readonly meanwhile?: () => Promise<void>;
}

/** `how`: what its test is called by, beside the seed. */
async function soaked(seed: number, how: string, options: SoakedOptions = {}): Promise<void> {
  console.log(
    `seed ${seed}, ${how}; to play it again: WEFT_TEST_SEED=${seed} sh hack/isolated.sh ` +
      `npx vitest run --project apiserver test/apiserver/soak.test.ts -t '${how}'`,
  );
  const random = seededRandom(seed);
  const [soaks, controllers] = [seededRandom(random() * 2 ** 32), seededRandom(random() * 2 ** 32)];
  const stop = new AbortController();
  const controller = startController(controllers, stop.signal);
  // Whoever waits for it is told, at the end.
  controller.catch(() => undefined);
  try {
    await soakedBeside(soaks, options);
  } finally {
    stop.abort(new Error('the soak has ended'));
    await controller;
  }
}

function startController(random: () => number, signal: AbortSignal): Promise<void> {
  const { dir, plane } = apiserver();
  const flags = [
    '--identity=soak',
    '--namespace=default',
    '--lease-name=soak',
    `--probe-socket=${join(dir, 'probe.sock')}`,
    `--kubeconfig=${plane.kubeconfig}`,
    '--quarantine-seconds=2',
    '--metrics-address=',
    '--status-seconds=1',
    '--pool-deletion-seconds=1',
  ];
  const clock = createSystemClock();
  return runController(parseControllerFlags(flags), { clock, random, env: {}, log: keepingLog(), signal });
}

/** While a controller runs. */
async function soakedBeside(
  random: () => number,
  { poolLagMs = POOL_LAG_MS, meanwhile = () => Promise.resolve() }: SoakedOptions,
): Promise<void> {
  const poolHistory = createPoolHistory({
    nowMs: () => performance.now(),
    wallMs: () => Date.now(),
    lagMs: poolLagMs,
    labelsOf,
  });
  await writeFirst(poolHistory);
  for (const namespace of new Set(PODS.map((pod) => pod.namespace))) await makeNamespace(namespace);
  const history = createHistory({
    nowMs: () => performance.now(),
    reuseDelayMs: REUSE_DELAY_SECONDS * 1_000,
    // Of the tenants' namespaces each is labelled as its own tenant's at the most.
    mayEverDraw: (namespace, pool) => !TENANTS.includes(pool) || namespace === pool,
    whyNotGiven: poolHistory.whyNotGiven,
  });
  const besides = meanwhile();
  const soaking = soak({
    cluster: soakCluster(),
    history,
    random,
    operations: OPERATIONS,
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
    pools: POOLS,
    poolHistory,
    poolLagMs,
    podIdentities: PODS,
    namespaceEdits: TENANTS.flatMap((tenant) =>
      [tenant, null].map((value) => ({ name: tenant, labels: { tenant: value } })),
    ),
    log: keepingLog(),
  });
  await besides;
  const { tallies, nodes } = await soaking;
  const figures = [...tallies].map(([what, tally]) => `${what} ${tally.done} of ${begun(tally)}`);
  const sum = (of: (tally: Tally) => number) =>
    [...tallies.values()].reduce((total, tally) => total + of(tally), 0);
  const [done, failed] = [sum((tally) => tally.done), sum((tally) => tally.failed)];
  console.log(
    `done: ${figures.join(', ')}; in all ${done} done, ${failed} refused or cut off; ${history.wirings} wirings`,
  );
  try {
    expect(history.violations).toEqual([]);
    // What was never done has shown nothing.
    const hardlyDone = [...tallies].filter(([, tally]) => tally.done < leastDone(tally));
    expect(hardlyDone).toEqual([]);
    expect(done + failed).toBeGreaterThan(CARRIED_OUT);
    expect(history.wirings).toBeGreaterThan(OPERATIONS / 6);
    await writeFirst(poolHistory);
    await settled(nodes, history);

    for (const { agent, machine } of nodes) {
      for (const link of machine.links()) await agent.del(link);
    }
    await keptAddressesFollow(nodes);
    await eventually('the book to be empty', async () => (await allocations()).length === 0, 60_000);
    expect(history.violations).toEqual([]);
  } finally {
    for (const { agent } of nodes) agent.kill();
  }
  for (const { machine } of nodes) {
    await mustSucceed(apiserver().kubectl(['delete', 'node', machine.nodeName]));
  }
  await eventually('nothing to be left of gone nodes', async () => (await subnets()).length === 0, 60_000);
}

const begun = (tally: Tally): number => tally.done + tally.failed + tally['left out'];

/** Far below what any seed does, since much is begun on a node that is cut off, full or empty. */
const leastDone = (tally: Tally): number => (begun(tally) < 100 ? 1 : begun(tally) / 10);

async function writeFirst(poolHistory: PoolHistory): Promise<void> {
  for (const { name, spec } of POOLS) await poolHistory.write(name, spec, () => applyPool(name, spec));
}

/** Whoever keeps addresses that its pool gives gets them wherever it comes back; then they are let go. */
async function keptAddressesFollow(nodes: readonly SoakNode[]): Promise<void> {
  await eventually('nobody but kept addresses to be left', async () =>
    (await allocations()).every(({ spec }) => spec.holder !== undefined),
  );
  const cluster = soakCluster();
  for (const [i, identity] of PODS.filter(({ statefulSet }) => statefulSet !== undefined).entries()) {
    const node = nodes[i % nodes.length];
    const key = `${identity.namespace}/${identity.name}`;
    const kept = (await allocations()).filter((one) => one.spec.sticky === key && isListed(one));
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

/** Whether the pool, as it is at first, lists the address. */
function isListed({ spec: { address, pool } }: IPAllocation): boolean {
  const its = POOLS.find(({ name }) => name === pool);
  if (its === undefined) return false;
  return IPPoolSpec.parse(its.spec).cidrs.some((cidr) => cidrHasAddress(cidr, address));
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
      await freeUnlisted();
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

/** As `check` advises: what is kept in a range that its pool had for a while, and its pod may never come back for. */
async function freeUnlisted(): Promise<void> {
  for (const allocation of await allocations()) {
    if (allocation.spec.holder === undefined || isListed(allocation)) continue;
    const { name } = allocation.metadata;
    await mustSucceed(apiserver().kubectl(['delete', 'ipallocation', name, '--ignore-not-found']));
  }
}

/** What `kubectl weft check` says, with agents that answer as their pods would. */
function check(nodes: readonly SoakNode[]): Promise<CheckResult> {
  const { client } = apiserver();
  return runCheck({
    client: withAgentPods(
      client,
      nodes.map(({ machine }) => machine.nodeName),
    ),
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

/** Each has a pool and a namespace of its name. */
const TENANTS = ['red', 'blue'];

/**
 * Two pools, scarce enough that nodes take from each other what comes free, whose pieces have different sizes, and which
 * are edited into each other; and one for each tenant.
 */
const POOLS = pools();

function pools(): SoakPool[] {
  const sizes = { nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 }, reuseDelaySeconds: REUSE_DELAY_SECONDS };
  const main = {
    ...sizes,
    cidrs: ['10.1.0.0/25', '10.1.1.0/25', 'fd00:1::/121', 'fd00:1::80/121'],
    priority: 1,
    fixedAddresses: true,
  };
  const spill = {
    ...sizes,
    nodeSubnetPrefixLength: { ipv4: 29, ipv6: 125 },
    cidrs: ['10.1.2.0/26', 'fd00:1:1::/121'],
  };
  // Into each other's ranges, whichever of them is the older by then.
  const grownMain = { ...main, cidrs: [...main.cidrs, '10.1.2.0/26'] };
  const grownSpill = { ...spill, cidrs: [...spill.cidrs, '10.1.1.0/25', 'fd00:1::80/121'] };
  return [
    {
      name: 'main',
      spec: main,
      edits: [
        main,
        { ...main, cidrs: ['10.1.0.0/25', 'fd00:1::/121'] },
        { ...main, cidrs: ['10.1.1.0/25', 'fd00:1::/121', 'fd00:1::80/121'] },
        { ...main, disabled: true },
        { ...main, reserved: ['10.1.0.0/27', 'fd00:1::/123'] },
        { ...main, nodeSelector: { matchLabels: { half: 'even' } } },
        grownMain,
      ],
    },
    {
      name: 'spill',
      spec: spill,
      edits: [
        spill,
        { ...spill, nodeSelector: { matchLabels: { half: 'odd' } } },
        grownSpill,
        { ...grownSpill, priority: 5 },
      ],
    },
    ...TENANTS.map((tenant, i) => {
      const spec = {
        ...sizes,
        cidrs: [`10.1.${10 + i}.0/26`, `fd00:1:${10 + i}::/122`],
        namespaceSelector: { matchLabels: { tenant } },
        priority: 10,
        ...(i === 0 ? { isolation: { mode: 'Isolated' } } : {}),
      };
      return { name: tenant, spec, edits: [spec, { ...spec, priority: -1 }] };
    }),
  ];
}

/** They keep their addresses, or name them (two name the same), or are tenants'. */
const PODS = pods();

function pods(): PodIdentity[] {
  const many = (count: number, pod: (i: number) => PodIdentity) =>
    Array.from({ length: count }, (_, i) => pod(i));
  const annotations = {};
  const named = [['10.1.0.77', 'fd00:1::4d'], ['10.1.0.77', 'fd00:1::4d'], ['10.1.1.99']];
  return [
    ...many(4, (i) => ({
      ...{ namespace: 'shop', name: `db-${i}`, statefulSet: 'db' },
      annotations: { 'ipam.weft.dev/sticky': 'true' },
    })),
    ...named.map((fixed, i) => ({
      ...{ namespace: 'shop', name: `named-${i}`, fixed },
      annotations: { 'ipam.weft.dev/addresses': fixed.join(',') },
    })),
    ...TENANTS.flatMap((tenant) => many(6, (i) => ({ namespace: tenant, name: `tenant-${i}`, annotations }))),
  ];
}

/** By what a pool may select nodes. */
function labelsOf(nodeName: string): Labels {
  return { half: Number(nodeName.slice(1)) % 2 === 0 ? 'even' : 'odd' };
}

function soakCluster(): SoakCluster {
  const { client, kubectl } = apiserver();
  return {
    client,
    async createNode(name) {
      const node = { apiVersion: 'v1', kind: 'Node', metadata: { name, labels: labelsOf(name) } };
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
    writePool: (name, spec) => untilAnswered(() => applyPool(name, spec)),
    async deletePool(name) {
      const path = `${pathOf(IP_POOL)}/${name}`;
      await untilAnswered(async () => {
        await client.request({ method: 'DELETE', path }).catch(unless(NotFoundError));
      });
    },
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
async function untilAnswered<T>(act: () => Promise<T>): Promise<T> {
  let last: unknown;
  const { answer } = await eventually(
    'the apiserver to carry it out',
    () =>
      act().then(
        (answered) => ({ answer: answered }),
        (error: unknown) => {
          last = error;
          return sleep(500, undefined);
        },
      ),
    90_000,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${String(last)}`, { cause: last });
  });
  return answer;
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

async function applyPool(name: string, spec: object): Promise<PoolIdentity> {
  const pool = { apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPPool', metadata: { name }, spec };
  const apply = ['apply', '--server-side', '--force-conflicts', '-o', 'json', '-f', '-'];
  const { metadata } = JSON.parse(await mustSucceed(apiserver().kubectl(apply, pool))) as {
    metadata: unknown;
  };
  return StoredMetadata.parse(metadata);
}

async function allocations(): Promise<IPAllocation[]> {
  const { items } = await listAll(apiserver().client, { path: pathOf(IP_ALLOCATION) });
  return items.map((item) => IPAllocation.parse(item));
}

async function subnets(): Promise<NodeSubnet[]> {
  const { items } = await listAll(apiserver().client, { path: pathOf(NODE_SUBNET) });
  return items.map((item) => NodeSubnet.parse(item));
}
