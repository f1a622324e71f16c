import type { NodeSubnet } from '../api/index.ts';
import {
  allocationStore,
  createKubeClient,
  listServiceCIDRs,
  loadConnection,
  nodeSubnetStore,
  poolStore,
  type KubeClient,
} from '../kube/index.ts';
import { hostCIDR, type CIDR } from '../net/index.ts';
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

/** Addresses that are not pods', as far as this user can see: those of nodes with subnets, and of Services. */
export async function foreignCIDRs(
  { client }: Cluster,
  subnets: readonly NodeSubnet[],
  signal: AbortSignal,
): Promise<CIDR[]> {
  const services = (await listServiceCIDRs(client, signal)) ?? [];
  return [...subnets.flatMap(({ spec }) => spec.nextHops).map(hostCIDR), ...services];
}
