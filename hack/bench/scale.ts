import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import * as z from 'zod';
import {
  API_VERSION,
  IP_ALLOCATION,
  IP_POOL,
  IPPool,
  NODE_SUBNET,
  NodeSubnet,
  NodeSubnetSpec,
  nodeSubnetName,
} from '../../src/api/index.ts';
import { askHealth } from '../../src/health.ts';
import {
  claimAddresses,
  createReleaseQueue,
  createRingCursor,
  createTakenNames,
  type ClaimParts,
} from '../../src/ipam/index.ts';
import {
  allocationStore,
  createKubeClient,
  pathOf,
  ServerError,
  type KubeClient,
} from '../../src/kube/index.ts';
import { kubeconfigConnection } from '../../src/kube/kubeconfig.ts';
import { cidrOf, parseAddress, type CIDR } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { buildAll } from '../build.ts';
import { startControlPlane, type ControlPlane } from '../cluster/control-plane.ts';
import { step, type Progress } from '../cluster/progress.ts';
import type { Figure } from './figures.ts';
import { SCALE_SIZES, type Options } from './options.ts';
import { summarize } from './statistics.ts';
import { renderTable } from './table.ts';

const IN_FLIGHT = 32;
/** Every so many-th agent has the watches of all subnets and pools too. */
const SAMPLED = 50;
const CHECKOUT = join(import.meta.dirname, '../..');

/**
 * A large cluster on one real etcd and apiserver, its nodes simulated: each has a NodeSubnet and the one watch that
 * every agent has of its own allocations, and claims its addresses by the real code, while the real controller counts
 * them. Some agents have the watches of all subnets and pools too: what those bring is the same for each. Measured: the
 * rate of claims under all those watches, what they bring an agent, and the controller's memory and its time from a
 * restart to being ready, when the cluster is at rest.
 */
export async function measureScale(
  progress: Progress,
  { nodes: only }: Pick<Options, 'nodes'>,
): Promise<Figure[]> {
  await buildAll();
  const figures: Figure[] = [];
  for (const { nodes, each } of SCALE_SIZES.filter((size) => only === undefined || size.nodes === only)) {
    const measured = await measureSize(nodes, each, progress);
    // The next may fail, and a run takes long.
    process.stderr.write(renderTable(measured, [], []));
    figures.push(...measured);
  }
  return figures;
}

async function measureSize(nodes: number, each: number, progress: Progress): Promise<Figure[]> {
  const dir = await mkdtemp(join(tmpdir(), 'weft-scale-'));
  const plane = await startControlPlane({
    dir,
    // All nodes speak from this one process: the limits are for many.
    extraApiserverArgs: ['--max-requests-inflight=4000', '--max-mutating-requests-inflight=2000'],
  });
  const connection = await kubeconfigConnection(plane.kubeconfig);
  const client = createKubeClient(connection, { userAgent: 'weft-scale', connections: IN_FLIGHT });
  const watching = new AbortController();
  try {
    await applyKinds(plane);
    const pool = await step(progress, `${nodes} nodes with their subnets`, () => makeNodes(client, nodes));
    const watches = await step(progress, `${nodes} watches`, () =>
      openWatches(client, nodes, watching.signal),
    );
    const { durationsMs, seconds, brought, megabytes } = await besideController(plane, dir, async () => {
      const beganMs = performance.now();
      const claims = await step(progress, `${nodes * each} claims`, () =>
        claimAll(client, pool, nodes, each),
      );
      return {
        durationsMs: claims,
        seconds: (performance.now() - beganMs) / 1000,
        brought: watches.brought(),
      };
    });
    const behindMs = await step(progress, 'until all watches know all', () => untilToldOf(client));
    // Of a cluster at rest: watches that nothing is told to cost nothing, and those that are behind are told for minutes.
    watching.abort(new Error('measured'));
    const controller = await step(progress, 'the controller, restarted', () => measureController(plane, dir));
    const who = `${nodes} nodes, ${each} each`;
    const { p50Ms, p99Ms, count } = summarize(durationsMs);
    return [
      {
        part: 'scale',
        what: `claims, ${IN_FLIGHT} in flight`,
        who,
        count,
        p50Ms,
        p99Ms,
        perSecond: count / seconds,
      },
      {
        ...{ part: 'scale', what: 'own watch of an agent, while claiming', who, count: nodes },
        bytesPerSecond: brought.bytes / nodes / seconds,
      },
      {
        ...{ part: 'scale', what: 'its watches of pools and subnets', who, count: nodes / SAMPLED },
        bytesPerSecond: brought.sampledBytes / (nodes / SAMPLED) / seconds,
      },
      {
        ...{ part: 'scale', what: 'watches ended by a busy apiserver', who, count: brought.resumed },
        perSecond: brought.resumed / seconds,
      },
      {
        ...{ part: 'scale', what: 'how far behind the watches are at the end', who, count: 1 },
        p50Ms: behindMs,
      },
      {
        ...{ part: 'scale', what: 'controller, memory while they come', who, count: 1 },
        megabytes,
        target: { value: 'megabytes', bound: 'at most', limit: 256 },
      },
      {
        ...{ part: 'scale', what: 'controller, memory after a restart', who, count: 1 },
        megabytes: controller.megabytes,
        target: { value: 'megabytes', bound: 'at most', limit: 256 },
      },
      {
        ...{ part: 'scale', what: 'controller, restart to ready', who, count: controller.readyMs.length },
        ...{ p50Ms: summarize(controller.readyMs).p50Ms },
        target: { value: 'p50Ms', bound: 'at most', limit: 15_000 },
      },
    ];
  } finally {
    watching.abort(new Error('measured'));
    await client.close();
    await plane.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function applyKinds(plane: ControlPlane): Promise<void> {
  const kubectl = join(plane.binaries, 'kubectl');
  const to = ['--kubeconfig', plane.kubeconfig];
  await execa(kubectl, [...to, 'apply', '--server-side', '-k', join(CHECKOUT, 'crds')]);
  await execa(kubectl, [...to, 'wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
}

const nodeName = (index: number): string => `node-${index}`;
const subnetOf = (index: number): CIDR =>
  cidrOf(
    { family: 'ipv4', value: parseAddress('10.0.0.0').value + BigInt(index) * SUBNET_SIZE },
    SUBNET_LENGTH,
  );
const SUBNET_LENGTH = 25;
const SUBNET_SIZE = 128n;

/** Subnets before watchers, as a cluster grows: each agent claims its subnet before it serves. */
async function makeNodes(client: KubeClient, nodes: number): Promise<IPPool> {
  const made = await client.request({
    method: 'POST',
    path: pathOf(IP_POOL),
    body: {
      apiVersion: API_VERSION,
      kind: IP_POOL.kind,
      metadata: { name: 'scale' },
      spec: { cidrs: ['10.0.0.0/8'], nodeSubnetPrefixLength: { ipv4: SUBNET_LENGTH } },
    },
  });
  const pool = IPPool.parse(made);
  await inParallel(nodes, async (index) => {
    const name = nodeName(index);
    const node = { apiVersion: 'v1', kind: 'Node', metadata: { name } };
    const { metadata } = (await client.request({ method: 'POST', path: '/api/v1/nodes', body: node })) as {
      metadata: { uid: string };
    };
    const spec: NodeSubnetSpec = {
      ...{ cidr: subnetOf(index), pool: 'scale', poolUID: pool.metadata.uid },
      ...{ nodeName: name, nodeUID: metadata.uid, nextHops: [parseAddress('192.0.2.1')] },
    };
    await client.request({
      method: 'POST',
      path: pathOf(NODE_SUBNET),
      body: {
        apiVersion: API_VERSION,
        kind: NODE_SUBNET.kind,
        metadata: { name: nodeSubnetName(spec.cidr) },
        spec: NodeSubnetSpec.encode(spec),
      },
    });
  });
  return pool;
}

/** What the watches have come to so far. */
interface Watches {
  brought(): {
    /** What the watches of all agents' own allocations have brought, as JSON. */
    readonly bytes: number;
    /** What those of pools and subnets have, which a sample of agents has. */
    readonly sampledBytes: number;
    /** How often the apiserver ended one that it found too slow, and it was resumed. */
    readonly resumed: number;
  };
}

/**
 * The watch of its own allocations that each agent has, and of a sample of agents those of pools and subnets. Resumed
 * where the apiserver ends it, as an agent does: a busy one ends those that do not keep up.
 */
async function openWatches(client: KubeClient, nodes: number, signal: AbortSignal): Promise<Watches> {
  const brought = { bytes: 0, sampledBytes: 0, resumed: 0 };
  const { metadata } = Listed.parse(
    await client.request({ method: 'GET', path: pathOf(IP_ALLOCATION), query: { limit: 1 } }),
  );

  async function follow({ path, fieldSelector, counter }: Watched, onOpen: () => void): Promise<void> {
    let { resourceVersion } = metadata;
    while (!signal.aborted) {
      await client.stream({
        path,
        query: {
          watch: true,
          ...(fieldSelector === undefined ? {} : { fieldSelector }),
          resourceVersion,
          allowWatchBookmarks: true,
        },
        signal,
        onOpen,
        onLine(line) {
          brought[counter] += JSON.stringify(line).length + 1;
          ({ resourceVersion } = WatchLine.parse(line).object.metadata);
        },
      });
      brought.resumed++;
    }
  }

  async function open(watched: Watched): Promise<void> {
    const opened = Promise.withResolvers<undefined>();
    follow(watched, () => opened.resolve(undefined)).catch((error: unknown) => {
      opened.reject(error);
      if (!signal.aborted) process.stderr.write(`a watch of ${watched.path} is lost: ${String(error)}\n`);
    });
    await opened.promise;
  }

  await inParallel(nodes, async (index) => {
    await open({
      path: pathOf(IP_ALLOCATION),
      fieldSelector: `spec.nodeName=${nodeName(index)}`,
      counter: 'bytes',
    });
    if (index % SAMPLED !== 0) return;
    await open({ path: pathOf(IP_POOL), counter: 'sampledBytes' });
    await open({ path: pathOf(NODE_SUBNET), counter: 'sampledBytes' });
  });
  return { brought: () => ({ ...brought }) };
}

type Watched = {
  readonly path: string;
  readonly fieldSelector?: string;
  readonly counter: 'bytes' | 'sampledBytes';
};

const Revision = z.object({ resourceVersion: z.string() });
const Listed = z.object({ metadata: Revision });
const WatchLine = z.object({ object: z.object({ metadata: Revision }) });

/**
 * How long it takes the apiserver to tell all watches what it has stored. Each event of a custom resource is offered to
 * every watch, so that with thousands of nodes it falls behind what one process can claim at once.
 */
async function untilToldOf(client: KubeClient): Promise<number> {
  const beganMs = performance.now();
  // What is written last has the last revision of all.
  const node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'last' } };
  const { metadata } = Listed.parse(
    await client.request({ method: 'POST', path: '/api/v1/nodes', body: node }),
  );
  const list = {
    method: 'GET',
    path: pathOf(IP_ALLOCATION),
    query: { limit: 1, resourceVersion: metadata.resourceVersion, resourceVersionMatch: 'NotOlderThan' },
  } as const;
  for (;;) {
    try {
      await client.request(list);
      return performance.now() - beganMs;
    } catch (error) {
      if (!(error instanceof ServerError) || performance.now() - beganMs > BEHIND_MS) throw error;
    }
  }
}

const BEHIND_MS = 900_000;

/** Each node's addresses by the real code, the nodes in turns; how long each claim took. */
async function claimAll(client: KubeClient, pool: IPPool, nodes: number, each: number): Promise<number[]> {
  const clock = createSystemClock();
  const store = allocationStore(client);
  const inFlight = new Set<string>();
  const random = Math.random;
  const releases = createReleaseQueue({ store, clock, random, inFlight, reuseDelayMs: () => 0 });
  const durationsMs: number[] = [];
  const perNode = Array.from({ length: nodes }, (_, index) => {
    const parts: ClaimParts = {
      ...{ store, clock, random, inFlight, releases },
      cursor: createRingCursor(),
      taken: createTakenNames(clock),
    };
    const subnet = NodeSubnet.parse({
      metadata: { name: '', uid: '', resourceVersion: '', creationTimestamp: '' },
      spec: NodeSubnetSpec.encode({
        ...{ cidr: subnetOf(index), pool: 'scale', poolUID: pool.metadata.uid },
        ...{ nodeName: nodeName(index), nodeUID: 'x', nextHops: [parseAddress('192.0.2.1')] },
      }),
    });
    return { parts, subnet, allocations: new Map() };
  });
  await inParallel(nodes * each, async (number) => {
    const index = number % nodes;
    const its = perNode[index];
    if (its === undefined) return;
    const beganMs = performance.now();
    const [claimed] = await claimAddresses(its.parts, {
      ...{ pool, subnets: [its.subnet], nodeName: nodeName(index), allocations: its.allocations },
      attachment: {
        ...{ network: 'weft', containerID: `${index}-${number}`.padStart(64, '0'), ifName: 'eth0' },
        ...{ kind: 'Interface', netns: { path: '/run/netns/cni-x', inode: 1, bootID: 'x' } },
      },
      pod: { namespace: 'default', name: `pod-${number}`, uid: String(number).padStart(36, '0') },
      deadlineMs: 60_000,
    });
    durationsMs.push(performance.now() - beganMs);
    if (claimed !== undefined) its.allocations.set(claimed.metadata.name, claimed);
  });
  return durationsMs;
}

/** Started three times: the time until it is ready, and the most memory it had when it had led for a while. */
async function measureController(
  plane: ControlPlane,
  dir: string,
): Promise<{ readonly readyMs: number[]; readonly megabytes: number }> {
  const readyMs: number[] = [];
  let megabytes = 0;
  for (let run = 0; run < 3; run++) {
    const beganMs = performance.now();
    const controller = startController(plane, dir);
    try {
      await untilReady(controller.probe);
      readyMs.push(performance.now() - beganMs);
      // Long enough to take the Lease over, count everything and write the status.
      await sleep(LEADS_MS);
      megabytes = Math.max(megabytes, await peakMegabytes(controller.process.pid));
    } finally {
      await killController(controller);
    }
  }
  return { readyMs, megabytes };
}

/** What `work` answers, and the most memory that a controller had which led meanwhile. */
async function besideController<Result>(
  plane: ControlPlane,
  dir: string,
  work: () => Promise<Result>,
): Promise<Result & { readonly megabytes: number }> {
  const controller = startController(plane, dir);
  try {
    await untilReady(controller.probe);
    const result = await work();
    return { ...result, megabytes: await peakMegabytes(controller.process.pid) };
  } finally {
    await killController(controller);
  }
}

function startController(plane: ControlPlane, dir: string) {
  const probe = join(dir, 'probe.sock');
  const started = execa(
    'node',
    [
      // As in config/controller.
      ...['--max-semi-space-size=1', '--heap-growing-percent=10', '--optimize-for-size', '--liftoff-only'],
      join(CHECKOUT, 'dist/controller.mjs'),
      ...['--identity=scale', '--namespace=default', `--probe-socket=${probe}`],
      `--kubeconfig=${plane.kubeconfig}`,
    ],
    { reject: false, env: { MALLOC_ARENA_MAX: '2' }, stdio: 'ignore' },
  );
  return { process: started, probe };
}

type Controller = ReturnType<typeof startController>;

async function killController(controller: Controller): Promise<void> {
  controller.process.kill('SIGKILL');
  await controller.process;
}

const LEADS_MS = 40_000;

async function untilReady(probe: string): Promise<void> {
  const endMs = performance.now() + 120_000;
  for (;;) {
    try {
      await askHealth(probe, '/readyz', 1_000);
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
      await sleep(20);
    }
  }
}

async function peakMegabytes(pid: number | undefined): Promise<number> {
  const text = await readFile(`/proc/${String(pid)}/status`, 'utf8');
  return (Number(/^VmHWM:\s+([0-9]+) kB$/m.exec(text)?.[1]) * 1024) / 1e6;
}

async function inParallel(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
}
