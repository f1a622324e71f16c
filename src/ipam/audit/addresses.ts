import { nodeAddressIn, type IPPool, type NodeSubnet } from '../../api/index.ts';
import {
  cidrHasAddress,
  formatAddress,
  formatCIDR,
  rangesHave,
  type CIDR,
  type Family,
  type IPAddress,
  type Range,
} from '../../net/index.ts';
import { isResting } from '../release.ts';
import { isExclusive, reservedRanges } from '../subnets.ts';
import { keptBackAs } from '../uses.ts';
import { findingOn, judgedAllocations } from './allocations.ts';
import { unreadableNames, type AuditedAllocation, type Book } from './book.ts';
import type { Finding } from './finding.ts';
import { createSubnetIndex } from './subnet-index.ts';

/**
 * Invariant 5: an address lies in a subnet of its node, that in its pool. What names a node that is gone is not judged:
 * it is about to be freed. Nor is an address that rests: nobody has it, and its name comes free by itself.
 */
export function auditAddresses(book: Book): Finding[] {
  const index = createSubnetIndex(book.subnets);
  const nodes = new Set(book.nodes.map(({ name }) => name));
  const nodeOf = new Map(
    book.nodes.flatMap(({ name, addresses }) =>
      addresses.map((address): [string, string] => [formatAddress(address), name]),
    ),
  );
  const pools = new Map(book.pools.map((pool) => [pool.metadata.name, pool]));
  const unreadPools = unreadableNames(book, 'IPPool');
  const cidrsOf = poolTerritories(book);
  const reservedOf = new Map(
    book.pools.map((pool) => [
      pool.metadata.name,
      { ipv4: reservedRanges(pool, 'ipv4'), ipv6: reservedRanges(pool, 'ipv6') },
    ]),
  );
  return judgedAllocations(book).flatMap((allocation) => {
    if (isResting(allocation)) return [];
    const { nodeName, attachment, spec } = allocation;
    if (nodeName !== undefined && nodes.has(nodeName)) {
      const pool = pools.get(spec.pool);
      const wrong = wrongSubnet(allocation, nodeName, index.holding(spec.address), pool);
      if (wrong.length > 0) return wrong;
      const owner = nodeOf.get(formatAddress(spec.address));
      if (owner !== undefined && attachment !== undefined) return [addressOfANode(allocation, owner)];
      const kept = keptBack(allocation, pool);
      if (kept.length > 0) return kept;
      return reserved(allocation, reservedOf.get(spec.pool));
    }
    if (attachment === undefined) {
      if (unreadPools.has(spec.pool)) return [];
      return outsidePool(allocation, pools.get(spec.pool), cidrsOf.get(spec.pool) ?? []);
    }
    // A node that is gone is another audit's finding.
    return nodeName === undefined ? [noNode(allocation)] : [];
  });
}

/** What a person may hold addresses of: the pool's ranges, and its subnets in ranges that are drained. */
function poolTerritories({ pools, subnets }: Book): ReadonlyMap<string, readonly CIDR[]> {
  const territories = new Map(pools.map((pool) => [pool.metadata.name, [...pool.spec.cidrs]]));
  const listed = new Map(pools.map((pool) => [pool.metadata.uid, pool]));
  for (const { spec } of subnets) {
    const pool = listed.get(spec.poolUID);
    if (pool !== undefined) territories.get(pool.metadata.name)?.push(spec.cidr);
  }
  return territories;
}

function wrongSubnet(
  allocation: AuditedAllocation,
  nodeName: string,
  holding: readonly NodeSubnet[],
  itsPool: IPPool | undefined,
): Finding[] {
  const { address, pool } = allocation.spec;
  const [longest] = holding;
  const own = holding.find(({ spec }) => spec.nodeName === nodeName);
  const title = `IPAllocation ${allocation.metadata.name} of node ${nodeName}`;
  if (longest === undefined) {
    return [
      findingOn(allocation, {
        invariant: 5,
        severity: 'critical',
        reason: 'OutsideSubnets',
        message:
          `${title} lies in no NodeSubnet: no other node has a route to it. Start its pod anew; if no pod has it, ` +
          'delete the object',
      }),
    ];
  }
  // Of two subnets that overlap, the overlap is the finding.
  if (own === undefined || (own !== longest && isExclusive(longest))) {
    return [
      findingOn(allocation, {
        invariant: 5,
        severity: 'critical',
        reason: 'SubnetOfAnotherNode',
        message:
          `${title} lies in ${formatCIDR(longest.spec.cidr)}, which node ${longest.spec.nodeName} holds: its packets ` +
          'go there. Start its pod anew; if no pod has it, delete the object',
      }),
    ];
  }
  if (own.spec.pool !== pool) {
    return [
      findingOn(allocation, {
        invariant: 5,
        severity: 'warning',
        reason: 'SubnetOfAnotherPool',
        message:
          `${title} counts for IPPool ${pool}, and its NodeSubnet ${formatCIDR(own.spec.cidr)} for IPPool ` +
          `${own.spec.pool}: it is treated as an address of the latter. Start its pod anew`,
      }),
    ];
  }
  return isNodesOwn(address, own, itsPool)
    ? [
        findingOn(allocation, {
          invariant: 5,
          severity: 'critical',
          reason: 'AddressOfTheNode',
          message:
            `${title} is the node's own address in ${formatCIDR(own.spec.cidr)}, which is never handed ` +
            'out. Delete the object, and start a pod that has it anew',
        }),
      ]
    : [];
}

/** What a person holds may be for that node. */
function addressOfANode(allocation: AuditedAllocation, owner: string): Finding {
  const { name } = allocation.metadata;
  return findingOn(allocation, {
    invariant: 5,
    severity: 'critical',
    reason: 'AddressOfANode',
    message:
      `IPAllocation ${name} has the address of node ${owner}: two machines answer for it. Start its pod anew, and put ` +
      `the addresses of nodes into spec.reserved of IPPool ${allocation.spec.pool}`,
  });
}

/** What a person holds may be the router: nobody was handed it. */
function keptBack(allocation: AuditedAllocation, pool: IPPool | undefined): Finding[] {
  const { address } = allocation.spec;
  const role = pool === undefined ? undefined : keptBackAs(address, pool);
  if (allocation.attachment === undefined || role === undefined) return [];
  return [
    findingOn(allocation, {
      invariant: 5,
      severity: 'critical',
      reason: 'NeverHandedOut',
      message:
        `IPAllocation ${allocation.metadata.name} of node ${allocation.nodeName ?? 'none'} is the ${role} of its ` +
        `network by IPPool ${allocation.spec.pool}, which is never handed out. Start its pod anew; if no pod has it, ` +
        'delete the object',
    }),
  ];
}

/** What a person holds may be reserved: nobody was handed it. */
function reserved(
  allocation: AuditedAllocation,
  ranges: Readonly<Record<Family, readonly Range[]>> | undefined,
): Finding[] {
  const { address, pool } = allocation.spec;
  if (allocation.attachment === undefined || ranges === undefined) return [];
  if (!rangesHave(ranges[address.family], address.value)) return [];
  return [
    findingOn(allocation, {
      invariant: 5,
      severity: 'warning',
      reason: 'Reserved',
      message:
        `IPAllocation ${allocation.metadata.name} is among the reserved addresses of IPPool ${pool}, which are not for ` +
        'pods: it was handed out before they were reserved. Start its pod anew',
    }),
  ];
}

/** An exclusive subnet is its pod's whole subnet, and in a piece of a LAN, which nobody routes, no node has one. */
function isNodesOwn(address: IPAddress, subnet: NodeSubnet, pool: IPPool | undefined): boolean {
  const { spec } = subnet;
  if (spec.nextHops.length === 0 || isExclusive(subnet)) return false;
  return address.value === nodeAddressIn(spec.cidr, pool?.spec.use).value;
}

function outsidePool(
  allocation: AuditedAllocation,
  pool: IPPool | undefined,
  territory: readonly CIDR[],
): Finding[] {
  const { address, pool: poolName } = allocation.spec;
  if (pool === undefined) {
    return [
      findingOn(allocation, {
        invariant: 5,
        severity: 'warning',
        reason: 'PoolGone',
        message:
          `IPAllocation ${allocation.metadata.name} is held for IPPool ${poolName}, and there is none: delete the ` +
          'object, or make the pool again',
      }),
    ];
  }
  if (territory.some((cidr) => cidrHasAddress(cidr, address))) return [];
  return [
    findingOn(allocation, {
      invariant: 5,
      severity: 'warning',
      reason: 'OutsidePool',
      message:
        `IPAllocation ${allocation.metadata.name} is held for IPPool ${poolName}, none of whose ranges holds ` +
        `${formatAddress(address)}: delete the object, or add a range to spec.cidrs of the pool`,
    }),
  ];
}

function noNode(allocation: AuditedAllocation): Finding {
  return findingOn(allocation, {
    invariant: 5,
    severity: 'warning',
    reason: 'NoNode',
    message:
      `IPAllocation ${allocation.metadata.name} names a sandbox and no node: no agent looks after it. Delete the ` +
      'object; the agent of the node where its pod runs makes it again',
  });
}
