import { nodeAddressIn, type IPPool, type NodeSubnet } from '../api/index.ts';
import {
  cidrContains,
  compareCIDRs,
  formatAddress,
  formatCIDR,
  hostCIDR,
  type IPAddress,
} from '../net/index.ts';

/**
 * The subnets that no node routes to, each with the reason: with one node's token a longer prefix inside another
 * node's subnet, or around a node's own address, would draw traffic that is not that node's.
 *
 * | a subnet                                                          | loses against                 |
 * |-------------------------------------------------------------------|-------------------------------|
 * | overlaps one of another node, neither exclusive                   | the older one                 |
 * | is exclusive, and another node's own address in its subnet        | that                          |
 * | holds an address of this node                                     | that                          |
 * | holds another node's next hop, inside the CIDRs of its own pool   | the next hop of an older one  |
 * | holds another node's next hop, outside them                       | that                          |
 *
 * An exclusive one lies inside another's on purpose: the address is its node's pod's, as the name of its IPAllocation
 * makes sure. A node with a living pod of that address does not ask this function about it (agent/exclusive-subnets.ts).
 * A next hop can be changed at any time, so inside a pool a younger subnet's takes no route from anybody.
 * `ownAddresses` are this node's, by its Node object.
 */
export function disputedSubnets({
  subnets,
  pools,
  ownAddresses,
}: {
  readonly subnets: readonly NodeSubnet[];
  readonly pools: readonly IPPool[];
  readonly ownAddresses: readonly IPAddress[];
}): ReadonlyMap<NodeSubnet, string> {
  const reasons = new Map<NodeSubnet, string>();
  // CIDRs nest or are disjoint: in this order, what holds an entry is on the stack when the entry comes.
  const around: NodeSubnet[] = [];
  for (const { cidr, subnet, hop } of inOrder(subnets, ownAddresses)) {
    for (let last = around.at(-1); last !== undefined && !cidrContains(last.spec.cidr, cidr);) {
      around.pop();
      last = around.at(-1);
    }
    for (const outer of around) {
      if (subnet !== undefined && hop === undefined) {
        if (isNodesOwn(subnet, outer, pools)) {
          const owner = `"${outer.spec.nodeName}"`;
          reasons.set(subnet, `it is the address of node ${owner} in ${formatCIDR(outer.spec.cidr)}`);
        }
        if (!excludeEachOther(outer, subnet)) continue;
        const [older, younger] = isOlder(outer, subnet) ? [outer, subnet] : [subnet, outer];
        reasons.set(younger, `it overlaps ${named(older)}, which is older`);
      } else if (hop !== undefined && losesAgainst(outer, subnet, pools)) {
        reasons.set(outer, `it holds ${formatAddress(hop)}, the address of a node`);
      }
    }
    if (subnet !== undefined && hop === undefined) around.push(subnet);
  }
  return reasons;
}

interface Entry {
  readonly cidr: NodeSubnet['spec']['cidr'];
  /** The subnet itself, or that whose next hop it is; undefined: this node's own address. */
  readonly subnet: NodeSubnet | undefined;
  readonly hop?: IPAddress;
}

/** Subnets and next hops by address; what is around others comes before them. */
function inOrder(subnets: readonly NodeSubnet[], ownAddresses: readonly IPAddress[]): Entry[] {
  const entries: Entry[] = [
    ...subnets.map((subnet) => ({ cidr: subnet.spec.cidr, subnet })),
    ...subnets.flatMap((subnet) => subnet.spec.nextHops.map((hop) => ({ cidr: hostCIDR(hop), subnet, hop }))),
    ...ownAddresses.map((hop) => ({ cidr: hostCIDR(hop), subnet: undefined, hop })),
  ];
  return entries.sort(
    (a, b) => compareCIDRs(a.cidr, b.cidr) || Number(a.hop !== undefined) - Number(b.hop !== undefined),
  );
}

function excludeEachOther(a: NodeSubnet, b: NodeSubnet): boolean {
  return a.spec.nodeName !== b.spec.nodeName && a.spec.exclusive !== true && b.spec.exclusive !== true;
}

/** Whether it is another node's own address in that node's subnet around it. */
function isNodesOwn({ spec }: NodeSubnet, around: NodeSubnet, pools: readonly IPPool[]): boolean {
  if (spec.exclusive !== true || around.spec.exclusive === true) return false;
  if (around.spec.nodeName === spec.nodeName) return false;
  const pool = pools.find(({ metadata }) => metadata.uid === around.spec.poolUID);
  return spec.cidr.first === nodeAddressIn(around.spec.cidr, pool?.spec.use).value;
}

function losesAgainst(outer: NodeSubnet, hopOf: NodeSubnet | undefined, pools: readonly IPPool[]): boolean {
  if (hopOf === undefined) return true;
  if (hopOf.spec.nodeName === outer.spec.nodeName) return false;
  return isOlder(hopOf, outer) || !isListed(outer, pools);
}

function isListed({ spec }: NodeSubnet, pools: readonly IPPool[]): boolean {
  const pool = pools.find(({ metadata }) => metadata.uid === spec.poolUID);
  return pool?.spec.cidrs.some((cidr) => cidrContains(cidr, spec.cidr)) === true;
}

/** By the time of creation, then by name: a total order. */
function isOlder(a: NodeSubnet, b: NodeSubnet): boolean {
  const [bornA, bornB] = [Date.parse(a.metadata.creationTimestamp), Date.parse(b.metadata.creationTimestamp)];
  return bornA !== bornB ? bornA < bornB : a.metadata.name < b.metadata.name;
}

function named({ spec }: NodeSubnet): string {
  return `${formatCIDR(spec.cidr)} of node "${spec.nodeName}"`;
}
