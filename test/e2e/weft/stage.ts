import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { IPAllocation, IPPool, NodeSubnet } from '../../../src/api/index.ts';
import { createKubeClient, type KubeClient } from '../../../src/kube/client.ts';
import { kubeconfigConnection } from '../../../src/kube/kubeconfig.ts';
import type { Cluster } from '../../../hack/cluster/open.ts';

/** What the tests of one cluster share: the cluster, a look at its objects, and a way to wait for it. */
export interface Stage {
  readonly cluster: Cluster;
  readonly client: KubeClient;
  /** What each node was like before weft; empty on a cluster that is used again. */
  readonly before: ReadonlyMap<string, readonly string[]>;
  allocations(): Promise<IPAllocation[]>;
  subnets(): Promise<NodeSubnet[]>;
  pool(name: string): Promise<IPPool>;
  /** The pods of a namespace with that label, or all of it. */
  pods(label?: string, namespace?: string): Promise<Pod[]>;
  node(name: string): Promise<Node>;
  /** Runs a script in a pod by `kubectl exec` and answers its stdout. */
  inPod(pod: string, script: string): Promise<string>;
  /** Looks once a second until `look` neither throws nor fails an expectation, and answers what it answers. */
  eventually<T>(what: string, look: () => Promise<T>, seconds?: number): Promise<T>;
  close(): Promise<void>;
}

/** What was waited for did not come. The message ends with what the agents said last. */
export class WaitedInVainError extends Error {
  override name = 'WaitedInVainError' as const;
  constructor(what: string, seconds: number, logs: string, cause: unknown) {
    const last = cause instanceof Error ? cause.message : String(cause);
    super(`after ${seconds} s still not: ${what}\n${last}\n\nThe agents' last lines:\n${logs}`, { cause });
  }
}

export const Pod = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string(),
    uid: z.string(),
    deletionTimestamp: z.string().optional(),
  }),
  spec: z.object({ nodeName: z.string().optional() }),
  status: z.object({
    phase: z.string(),
    podIPs: z.array(z.object({ ip: z.string() })).default([]),
    conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]),
  }),
});
export type Pod = z.output<typeof Pod>;

export const Node = z.object({
  metadata: z.object({ name: z.string(), uid: z.string() }),
  status: z.object({
    addresses: z.array(z.object({ type: z.string(), address: z.string() })),
    conditions: z.array(z.object({ type: z.string(), status: z.string(), lastTransitionTime: z.string() })),
    nodeInfo: z.object({ bootID: z.string() }),
  }),
});
export type Node = z.output<typeof Node>;

const WEFT = '/apis/ipam.weft.dev/v1alpha1';

/** Opens the stage on a cluster that is up. `before`: its nodes before weft, by nodeDumps. */
export async function openStage(cluster: Cluster, before: Stage['before'] = new Map()): Promise<Stage> {
  const connection = await kubeconfigConnection(cluster.kubeconfig);
  const client = createKubeClient(connection, { userAgent: 'weft-e2e' });
  const get = (path: string) => client.request({ method: 'GET', path });
  const list = async <T>(path: string, item: z.ZodType<T>) =>
    z.object({ items: z.array(item) }).parse(await get(path)).items;
  return {
    cluster,
    client,
    before,
    allocations: () => list(`${WEFT}/ipallocations`, IPAllocation),
    subnets: () => list(`${WEFT}/nodesubnets`, NodeSubnet),
    pool: async (name) => IPPool.parse(await get(`${WEFT}/ippools/${name}`)),
    pods: (label = '', namespace = 'default') =>
      list(`/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(label)}`, Pod),
    node: async (name) => Node.parse(await get(`/api/v1/nodes/${name}`)),
    inPod: (pod, script) => cluster.kubectl(['exec', pod, '--', 'sh', '-c', script]),
    async eventually(what, look, seconds = 60) {
      const deadline = performance.now() + seconds * 1000;
      for (;;) {
        try {
          return await look();
        } catch (error) {
          if (performance.now() > deadline) {
            throw new WaitedInVainError(what, seconds, await agentLogs(cluster), error);
          }
        }
        await sleep(1_000);
      }
    },
    close: () => client.close(),
  };
}

/** Whether the pod runs, is ready and is not on its way out. */
export function isReady(pod: Pod): boolean {
  return (
    pod.metadata.deletionTimestamp === undefined &&
    pod.status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True')
  );
}

/** The kubelet's word on its node: what it says, and since when. */
export function readiness(node: Node): { status: string; since: string } {
  const ready = node.status.conditions.find(({ type }) => type === 'Ready');
  return { status: ready?.status ?? 'Unknown', since: ready?.lastTransitionTime ?? '' };
}

async function agentLogs(cluster: Cluster): Promise<string> {
  const tail = ['-l', 'app.kubernetes.io/name=weft-agent', '--all-containers', '--prefix', '--tail=12'];
  try {
    const lines = await cluster.kubectl(['-n', 'weft-system', 'logs', ...tail]);
    return lines.replace(/^(.{400}).*$/gm, '$1 …');
  } catch (error) {
    return `could not be read: ${String(error)}`;
  }
}
