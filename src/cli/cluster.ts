import type { Labels } from '../api/index.ts';
import { isSelective, type ClusterView, type Foreign } from '../ipam/index.ts';
import {
  allocationStore,
  createKubeClient,
  listNodeLabels,
  listServiceCIDRs,
  loadConnection,
  nodeSubnetStore,
  poolStore,
  type KubeClient,
} from '../kube/index.ts';
import { VERSION } from '../version.ts';
import type { Call, World } from './command.ts';

/** The cluster that a command works on, with the rights of who calls it. */
export interface Cluster {
  readonly client: KubeClient;
  readonly pools: ReturnType<typeof poolStore>;
  readonly subnets: ReturnType<typeof nodeSubnetStore>;
  readonly allocations: ReturnType<typeof allocationStore>;
}

/**
 * Connects to the cluster that the flags and the environment lead to, does the work, and closes the connections.
 * `annotations` are put on the allocations that the work creates.
 * @throws KubeConfigError, and what the work throws
 */
export async function withCluster<T>(
  call: Call,
  world: World,
  work: (cluster: Cluster) => Promise<T>,
  annotations: Readonly<Record<string, string>> = {},
): Promise<T> {
  const [kubeconfig, context] = [call.text('kubeconfig'), call.text('context')];
  const connection = await loadConnection({
    env: world.env,
    clock: world.clock,
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(context === undefined ? {} : { context }),
  });
  const client = createKubeClient(connection, { userAgent: `kubectl-weft/${VERSION}`, connections: 8 });
  try {
    return await work({
      client,
      pools: poolStore(client),
      subnets: nodeSubnetStore(client),
      allocations: allocationStore(client, undefined, { annotations }),
    });
  } finally {
    await client.close();
  }
}

/** What, beside weft's own objects, decides which addresses can be had. */
export interface Surroundings {
  readonly foreign: Foreign;
  readonly labelsOf: (nodeName: string) => Labels | undefined;
}

/** The surroundings as far as this user may see them. Nodes are many: they are asked for only where a pool selects. */
export async function readSurroundings(
  { client }: Cluster,
  { pools, subnets }: ClusterView,
  signal: AbortSignal,
): Promise<Surroundings> {
  const selectsNodes = pools.some(({ spec }) => isSelective(spec.nodeSelector));
  const [services, labels] = await Promise.all([
    listServiceCIDRs(client, signal),
    selectsNodes ? listNodeLabels(client, signal) : undefined,
  ]);
  return {
    // Of nodes without subnets nothing but their Nodes tells.
    foreign: { nodes: subnets.flatMap(({ spec }) => spec.nextHops), services: services ?? [] },
    labelsOf: (nodeName) => labels?.get(nodeName),
  };
}
