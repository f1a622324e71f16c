import type { IPAllocation } from '../api/index.ts';
import {
  ADDRESSES_ANNOTATION,
  InvalidAnnotationError,
  isResting,
  parsePoolNames,
  type Claimer,
} from '../ipam/index.ts';
import type { Namespace, Pod } from '../kube/index.ts';

export interface BoundPods {
  /** The pods bound to the node. */
  readonly pods: readonly Pod[];
  /** The node's allocations. */
  readonly allocations: Iterable<IPAllocation>;
  readonly node: Claimer['node'];
  readonly namespace: (name: string) => Namespace | undefined;
}

/**
 * Those of the node's pods that will ask for an address: bound, not on the host's network, not at their end, and
 * without one. Whose namespace is not known yet, or whose annotations cannot be read, is left to its ADD; so is who names
 * its addresses, which need lie in no subnet of the node.
 */
export function waitingClaimers({ pods, allocations, node, namespace }: BoundPods): Claimer[] {
  const served = new Set<string>();
  for (const allocation of allocations) {
    const { pod } = allocation.spec;
    if (pod !== undefined && !isResting(allocation)) served.add(`${pod.namespace}/${pod.name}`);
  }
  return pods
    .filter((pod) => pod.phase === 'Pending' && !pod.hostNetwork && !pod.isTerminating)
    .filter((pod) => pod.annotations[ADDRESSES_ANNOTATION] === undefined)
    .filter((pod) => !served.has(`${pod.namespace}/${pod.name}`))
    .flatMap((pod) => claimerOf(pod, namespace(pod.namespace), node) ?? []);
}

function claimerOf(pod: Pod, its: Namespace | undefined, node: Claimer['node']): Claimer | undefined {
  if (its === undefined) return undefined;
  const { name, labels } = its;
  try {
    const pools = parsePoolNames(its.annotations, `Namespace ${name}`);
    const podPools = parsePoolNames(pod.annotations, `Pod ${name}/${pod.name}`);
    return { node, namespace: { name, labels, pools }, podPools };
  } catch (error) {
    if (error instanceof InvalidAnnotationError) return undefined;
    throw error;
  }
}
