import {
  hostSubnetName,
  type IPAllocation,
  type IPPool,
  type NodeSubnet,
  type NodeSubnetSpec,
} from '../api/index.ts';
import { hostCIDR } from '../net/index.ts';
import type { Clock, Random } from './clock.ts';
import { SubnetUnavailableError } from './errors.ts';
import type { NodeSubnetStore, PoolStore } from './store.ts';
import { retried, secureFinalizer, type ClaimingNode } from './subnet-claim.ts';
import { isExclusive } from './subnets.ts';

export interface ExclusiveSubnetParts {
  readonly stores: { readonly subnets: NodeSubnetStore; readonly pools: PoolStore };
  readonly node: ClaimingNode;
  readonly clock: Clock;
  readonly random: Random;
}

/**
 * Makes the one address of an allocation that this node holds lead to this node, wherever it lies: by a NodeSubnet of its
 * own, exclusive (design, section 4). Who holds the IPAllocation has the address, so one that another node left behind
 * under that name is stale, and deleted.
 * `enough` ends it between two requests, and lets the one that is under way be answered.
 * @throws SubnetUnavailableError where the pool is going or another subnet has the name, or the signals' reason
 */
export async function claimExclusiveSubnet(
  parts: ExclusiveSubnetParts,
  { spec: { address } }: IPAllocation,
  pool: IPPool,
  signal: AbortSignal,
  enough: AbortSignal = signal,
): Promise<NodeSubnet> {
  const { node, stores } = parts;
  const until = AbortSignal.any([signal, enough]);
  const { name: poolName, uid: poolUID } = pool.metadata;
  const unavailable = (reason: string) => new SubnetUnavailableError(poolName, address.family, reason);
  // Without next hops it would be one that nobody routes.
  if (node.addresses.length === 0) throw unavailable('the Node has no address');
  const spec: NodeSubnetSpec = {
    cidr: hostCIDR(address),
    pool: poolName,
    poolUID,
    nodeName: node.name,
    nodeUID: node.uid,
    nextHops: [...node.addresses],
    exclusive: true,
  };
  const subnet = await retried(parts, until, async () => {
    for (;;) {
      const outcome = await stores.subnets.create(spec, signal);
      if (outcome.kind === 'created') return outcome.object;
      const found = await stores.subnets.get(hostSubnetName(address), signal);
      if (found === undefined) continue;
      if (!isExclusive(found)) return undefined;
      if (isOfNode(found, node) && found.spec.poolUID === poolUID) return found;
      await stores.subnets.delete(found, signal);
    }
  });
  if (subnet === undefined) throw unavailable('a subnet of another node is that one address');
  const problem = await retried(parts, signal, () => secureFinalizer(parts, subnet, signal));
  if (problem === undefined) return subnet;
  await retried(parts, signal, () => stores.subnets.delete(subnet, signal));
  throw unavailable(problem);
}

/** Deletes that very subnet, whatever version it has by now. Failures are thrown: the caller repeats. */
export async function deleteExclusiveSubnet(
  store: Pick<NodeSubnetStore, 'get' | 'delete'>,
  meant: NodeSubnet,
  signal: AbortSignal,
): Promise<void> {
  let seen: NodeSubnet | undefined = meant;
  while (seen?.metadata.uid === meant.metadata.uid && (await store.delete(seen, signal)) === 'changed') {
    seen = await store.get(meant.metadata.name, signal);
  }
}

/** Whether the node wrote the subnet, as the Node that it is now. */
function isOfNode({ spec }: NodeSubnet, node: ClaimingNode): boolean {
  return spec.nodeName === node.name && spec.nodeUID === node.uid;
}
