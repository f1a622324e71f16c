import { allocationName, nodeSubnetName } from '../api/index.ts';
import { sizeOf } from '../ipam/index.ts';
import type { CIDR } from '../net/index.ts';
import type { AgentCaches } from './caches.ts';

export interface RereadParts {
  readonly caches: Pick<AgentCaches, 'pools' | 'subnets' | 'allocations' | 'node'>;
  readonly markedSubnets: () => readonly CIDR[];
  /** Names of the addresses that interfaces of this node have. */
  readonly wired: { keys(): Iterable<string> };
}

/** The addresses of larger subnets are too many to ask for each. */
const MOST_ADDRESSES = 256n;

/**
 * Asks etcd itself for all that this node's decisions rest on: the pools, its own subnets, and its own allocations,
 * those known and those that may have come back with an older state. After an etcd restore lists do not tell
 * (Informer.reread).
 */
export async function rereadOwnObjects(
  { caches, markedSubnets, wired }: RereadParts,
  signal: AbortSignal,
): Promise<void> {
  const { name: nodeName } = caches.node();
  const ownCIDRs = () =>
    caches.subnets
      .list()
      .filter(({ spec }) => spec.nodeName === nodeName)
      .map(({ spec }) => spec.cidr);
  await caches.pools.reread(caches.pools.keys(), signal);
  await caches.subnets.reread([...ownCIDRs(), ...markedSubnets()].map(nodeSubnetName), signal);
  const small = [...ownCIDRs(), ...markedSubnets()].filter(
    ({ family, prefixLength }) => sizeOf(family, prefixLength) <= MOST_ADDRESSES,
  );
  await caches.allocations.feed.reread(
    [...caches.allocations.keys(), ...wired.keys(), ...small.flatMap(namesIn)],
    signal,
  );
}

function namesIn({ family, first, prefixLength }: CIDR): string[] {
  return Array.from({ length: Number(sizeOf(family, prefixLength)) }, (_, index) =>
    allocationName({ family, value: first + BigInt(index) }),
  );
}
