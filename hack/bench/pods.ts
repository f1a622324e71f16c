import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { KubeClient } from '../../src/kube/client.ts';
import { TEST_IMAGE } from '../cluster/node-config.ts';
import type { Cluster } from '../cluster/open.ts';
import { step, type Progress } from '../cluster/progress.ts';
import { contenders, isFromPtp, PTP, WEFT } from './contenders.ts';
import type { Figure } from './figures.ts';
import { startupTimes, type PodSeen } from './pod-times.ts';
import { summarize } from './statistics.ts';

const PODS = 100;
/** Of each network, in turns. */
const BURSTS = 2;
const NAMESPACE = 'weft-bench';
const PODS_PATH = `/api/v1/namespaces/${NAMESPACE}/pods`;
/** Sorts before weft's own, so containerd takes it. */
const PTP_CONFLIST = '/etc/cni/net.d/00-bench-ptp.conflist';

/**
 * From the binding of a pod to its being Running, both as a watch shows them, by the clock of this process: the
 * times in the objects are whole seconds. 100 pods are bound to two nodes at once, first with weft's network,
 * then with ptp + host-local on the same nodes by a configuration put before weft's, and so on in turns.
 */
export async function measurePods(
  cluster: Cluster,
  client: KubeClient,
  options: { readonly dual: boolean },
  progress: Progress,
): Promise<Figure[]> {
  const nodes = cluster.nodes.slice(0, 2);
  const times = new Map<string, number[]>([
    [WEFT, []],
    [PTP, []],
  ]);
  const before = await sandboxes(cluster, nodes);
  await client.request({
    method: 'POST',
    path: '/api/v1/namespaces',
    body: { metadata: { name: NAMESPACE } },
  });
  try {
    for (let burst = 1; burst <= BURSTS; burst++) {
      for (const [who, all] of times) {
        if (who === PTP) await putPtpFirst(cluster, nodes, options);
        const seen = await step(progress, `${PODS} pods with ${who}, burst ${burst} of ${BURSTS}`, () =>
          runBurst(client, nodes, `burst-${burst}`),
        );
        const wrong = [...seen.values()].find(({ address }) => isFromPtp(address ?? '') !== (who === PTP));
        if (wrong !== undefined) throw new WrongNetworkError(who, wrong.address);
        all.push(...startupTimes(seen));
        await step(progress, 'removing them', () => removePods(cluster, client, nodes, before));
        if (who === PTP) await takePtpAway(cluster, nodes);
      }
    }
  } finally {
    await removePods(cluster, client, nodes, before);
    await takePtpAway(cluster, nodes);
    await client.request({ method: 'DELETE', path: `/api/v1/namespaces/${NAMESPACE}` });
  }
  const base = summarize(times.get(PTP) ?? []);
  return [...times].map(([who, durations]) => {
    const { count, p50Ms, p99Ms } = summarize(durations);
    const what = `bound to Running, ${PODS} pods on ${nodes.length} nodes`;
    return {
      ...{ part: 'pods', what, who, count, p50Ms, p99Ms },
      ...{ ratio: p50Ms / base.p50Ms, ratioOf: 'p50' as const },
    };
  });
}

/** A pod got its address from another network than the one that was to be measured. */
export class WrongNetworkError extends Error {
  override name = 'WrongNetworkError' as const;
  constructor(who: string, address: string | undefined) {
    super(`a pod that was to get its network from ${who} has the address ${address ?? 'none'}`);
  }
}

/** The pods of a burst did not all run in time. */
export class BurstTimeoutError extends Error {
  override name = 'BurstTimeoutError' as const;
  constructor(running: number, afterMs: number) {
    super(
      `after ${afterMs / 1000} s ${running} of ${PODS} pods run; kubectl -n ${NAMESPACE} describe pods says why`,
    );
  }
}

const Pod = z.object({
  metadata: z.object({ name: z.string() }),
  spec: z.object({ nodeName: z.string().optional() }),
  status: z.object({ phase: z.string().optional(), podIP: z.string().optional() }).optional(),
});
const PodEvent = z.object({ type: z.string(), object: z.unknown() });
const PodList = z.object({ metadata: z.object({ resourceVersion: z.string() }), items: z.array(Pod) });

const BURST_DEADLINE_MS = 240_000;

async function runBurst(
  client: KubeClient,
  nodes: readonly string[],
  prefix: string,
): Promise<Map<string, PodSeen>> {
  const names = Array.from({ length: PODS }, (_, index) => `${prefix}-${index}`);
  await inParallel(names, (name) =>
    client.request({ method: 'POST', path: PODS_PATH, body: podManifest(name) }),
  );
  const { metadata } = PodList.parse(await client.request({ method: 'GET', path: PODS_PATH }));
  const seen = new Map<string, PodSeen>();
  const ended = new AbortController();
  const allRun = Promise.withResolvers<undefined>();
  const watching = client.stream({
    path: PODS_PATH,
    query: { watch: 1, resourceVersion: metadata.resourceVersion },
    signal: ended.signal,
    onLine(line) {
      const nowMs = performance.now();
      const pod = Pod.parse(PodEvent.parse(line).object);
      const { boundMs, runningMs, address } = seen.get(pod.metadata.name) ?? {};
      seen.set(pod.metadata.name, {
        boundMs: boundMs ?? (pod.spec.nodeName === undefined ? undefined : nowMs),
        runningMs: runningMs ?? (pod.status?.phase === 'Running' ? nowMs : undefined),
        address: address ?? pod.status?.podIP,
      });
      if (running(seen) === PODS) allRun.resolve(undefined);
    },
  });
  const deadline = sleep(BURST_DEADLINE_MS, undefined, { signal: ended.signal }).then(() => {
    throw new BurstTimeoutError(running(seen), BURST_DEADLINE_MS);
  });
  const bindAll = async () => {
    await inParallel(names, (name, index) => bind(client, name, nodes[index % nodes.length] ?? ''));
    await allRun.promise;
  };
  try {
    await Promise.race([bindAll(), deadline, watching.then(() => Promise.reject(new WatchEndedError()))]);
    return seen;
  } finally {
    ended.abort();
    await Promise.allSettled([watching, deadline]);
  }
}

/** The apiserver ended the watch while pods were being measured: the burst's times are not to be trusted. */
export class WatchEndedError extends Error {
  override name = 'WatchEndedError' as const;
  constructor() {
    super('the watch of the pods ended before all of them ran; run this part again');
  }
}

const running = (seen: ReadonlyMap<string, PodSeen>): number =>
  [...seen.values()].filter(({ runningMs }) => runningMs !== undefined).length;

/** Nobody schedules it: it waits to be bound. */
function podManifest(name: string): object {
  return {
    metadata: { name },
    spec: {
      schedulerName: NAMESPACE,
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [
        { name: 'main', image: TEST_IMAGE, imagePullPolicy: 'Never', command: ['sleep', '2147483647'] },
      ],
    },
  };
}

async function bind(client: KubeClient, name: string, node: string): Promise<void> {
  const body = { metadata: { name }, target: { apiVersion: 'v1', kind: 'Node', name: node } };
  await client.request({ method: 'POST', path: `${PODS_PATH}/${name}/binding`, body });
}

/** Answers when their sandboxes are gone too, which a removal without grace does not wait for. */
async function removePods(
  cluster: Cluster,
  client: KubeClient,
  nodes: readonly string[],
  before: number,
): Promise<void> {
  await client.request({ method: 'DELETE', path: PODS_PATH, query: { gracePeriodSeconds: 0 } });
  const deadline = performance.now() + REMOVAL_DEADLINE_MS;
  for (;;) {
    await sleep(1_000);
    const pods = PodList.parse(await client.request({ method: 'GET', path: PODS_PATH })).items.length;
    const left = (await sandboxes(cluster, nodes)) - before;
    if (pods === 0 && left <= 0) break;
    if (performance.now() > deadline) throw new SandboxesLeftError(pods, left, REMOVAL_DEADLINE_MS);
  }
  await sleep(SETTLE_MS);
}

/** How many sandboxes with a network of their own there are. */
async function sandboxes(cluster: Cluster, nodes: readonly string[]): Promise<number> {
  const list = ['sh', '-c', 'ls /run/netns | grep -c ^cni- || true'];
  const counts = await Promise.all(nodes.map((node) => cluster.execOnNode(node, list)));
  return counts.reduce((total, count) => total + Number(count), 0);
}

/** What was started for a burst does not go away, and would be measured with the next. */
export class SandboxesLeftError extends Error {
  override name = 'SandboxesLeftError' as const;
  constructor(pods: number, sandboxCount: number, afterMs: number) {
    super(`${afterMs / 1000} s after their removal ${pods} pods and ${sandboxCount} sandboxes are left`);
  }
}

const REMOVAL_DEADLINE_MS = 240_000;
/** For what is done behind a removal, releases among it. */
const SETTLE_MS = 5_000;
/** containerd reads a changed directory at once, but says nothing of it. */
const RELOAD_MS = 3_000;

async function putPtpFirst(
  cluster: Cluster,
  nodes: readonly string[],
  options: { readonly dual: boolean },
): Promise<void> {
  const write = 'cat >"$1.new" && mv "$1.new" "$1"';
  for (const [index, node] of nodes.entries()) {
    const ptp = contenders(options, index).find(({ who }) => who === PTP);
    await cluster.execOnNode(node, ['sh', '-euc', write, 'sh', PTP_CONFLIST], ptp?.conflist ?? '');
  }
  await sleep(RELOAD_MS);
}

async function takePtpAway(cluster: Cluster, nodes: readonly string[]): Promise<void> {
  for (const node of nodes) {
    await cluster.execOnNode(node, ['rm', '-rf', PTP_CONFLIST, '/var/lib/cni/networks/bench-ptp']);
  }
  await sleep(RELOAD_MS);
}

/** Sixteen at a time. */
async function inParallel<T>(
  items: readonly T[],
  work: (item: T, index: number) => Promise<unknown>,
): Promise<void> {
  const queue = items.entries();
  const worker = async () => {
    for (const [index, item] of queue) await work(item, index);
  };
  await Promise.all(Array.from({ length: 16 }, worker));
}
