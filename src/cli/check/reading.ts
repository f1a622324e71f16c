import * as z from 'zod';
import { IP_ALLOCATION, IP_POOL, IPAllocation, IPPool, NODE_SUBNET, NodeSubnet } from '../../api/index.ts';
import type { AuditedNode, ClusterReading, UnreadableObject } from '../../ipam/index.ts';
import { listAll, listServiceCIDRs, NODES, parseNode, pathOf, type KubeClient } from '../../kube/index.ts';

/** What the apiserver says at about one moment, and which agent speaks for which node. */
export interface ApiReading extends Omit<ClusterReading, 'snapshots'> {
  readonly agents: readonly AgentPod[];
  /** Nodes that an agent is to run on. */
  readonly agentNodes: readonly string[];
  /** When the youngest object was made, by the apiserver's clock; 0 where there is none. */
  readonly youngestMs: number;
}

/** A pod that runs an agent. */
export interface AgentPod {
  readonly name: string;
  readonly nodeName: string;
  readonly isReady: boolean;
}

/**
 * Reads all that the audit needs, consistently but for the moment between the lists: what only one of two readings
 * shows is no finding.
 * @throws KubeError, UnreachableError, or the signal's reason
 */
export async function readCluster(
  client: KubeClient,
  { namespace, signal }: { readonly namespace: string; readonly signal: AbortSignal },
): Promise<ApiReading> {
  const list = async (path: string) => (await listAll(client, { path, signal })).items;
  const [pools, subnets, allocations, nodes, pods, serviceCIDRs] = await Promise.all([
    list(pathOf(IP_POOL)),
    list(pathOf(NODE_SUBNET)),
    list(pathOf(IP_ALLOCATION)),
    list(NODES),
    list(`/api/v1/namespaces/${namespace}/pods`),
    listServiceCIDRs(client, signal),
  ]);
  const unreadable: UnreadableObject[] = [];
  const readable = <T>(
    kind: UnreadableObject['object']['kind'],
    parse: (object: unknown) => T,
    items: unknown[],
  ) => items.flatMap((item) => parseOrNote(kind, parse, item, unreadable));

  const read = {
    pools: readable('IPPool', (object) => IPPool.parse(object), pools),
    subnets: readable('NodeSubnet', (object) => NodeSubnet.parse(object), subnets),
    allocations: readable('IPAllocation', (object) => IPAllocation.parse(object), allocations),
    nodes: readable('Node', auditedNode, nodes),
  };
  const made = [...read.pools, ...read.subnets, ...read.allocations].map(({ metadata }) =>
    Date.parse(metadata.creationTimestamp),
  );
  return {
    book: { pools: read.pools, subnets: read.subnets, nodes: read.nodes, serviceCIDRs, unreadable },
    allocations: read.allocations,
    agents: pods.flatMap(agentPod),
    agentNodes: read.nodes.filter(runsAgents).map(({ name }) => name),
    // Not spread into a call: there may be more of them than a call takes arguments.
    youngestMs: made.reduce((latest, ms) => Math.max(latest, ms), 0),
  };
}

/** An object that cannot be read is a finding of its own; the others are audited all the same. */
function parseOrNote<T>(
  kind: UnreadableObject['object']['kind'],
  parse: (object: unknown) => T,
  item: unknown,
  unreadable: UnreadableObject[],
): T[] {
  try {
    return [parse(item)];
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error;
    const { name, uid } = Named.parse(item).metadata;
    unreadable.push({ object: { kind, name, uid }, problem: z.prettifyError(error).replaceAll('\n', ' ') });
    return [];
  }
}

function auditedNode(object: unknown): AuditedNode {
  const { metadata, status } = NodeTimes.parse(object);
  const ready = status.conditions.find(({ type }) => type === 'Ready')?.lastTransitionTime;
  const times = [metadata.creationTimestamp, ...(ready === undefined ? [] : [ready])].map((time) =>
    Date.parse(time),
  );
  return { ...parseNode(object), settledAtMs: Math.max(...times) };
}

/** The DaemonSet's agents run on Linux alone. */
function runsAgents({ labels }: AuditedNode): boolean {
  return (labels['kubernetes.io/os'] ?? 'linux') === 'linux';
}

function agentPod(object: unknown): AgentPod[] {
  const { metadata, spec, status } = PodOfNamespace.parse(object);
  const isAgent = metadata.labels['app.kubernetes.io/name'] === 'weft-agent';
  if (!isAgent || spec.nodeName === undefined || status.phase !== 'Running') return [];
  const isReady = status.conditions.some(({ type, status: is }) => type === 'Ready' && is === 'True');
  return [{ name: metadata.name, nodeName: spec.nodeName, isReady }];
}

const Named = z.object({ metadata: z.object({ name: z.string(), uid: z.string() }) });

const NodeTimes = z.object({
  metadata: z.object({ creationTimestamp: z.string() }),
  status: z
    .object({
      conditions: z
        .array(z.object({ type: z.string(), lastTransitionTime: z.string().optional() }))
        .default([]),
    })
    .prefault({}),
});

const PodOfNamespace = z.object({
  metadata: z.object({ name: z.string(), labels: z.record(z.string(), z.string()).default({}) }),
  spec: z.object({ nodeName: z.string().optional() }),
  status: z
    .object({
      phase: z.string().default('Unknown'),
      conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]),
    })
    .prefault({}),
});
