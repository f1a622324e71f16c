import type { IPAllocation, IPPool, Labels, NodeSubnet, PoolUsage } from '../api/index.ts';
import {
  cidrsOverlap,
  countAddresses,
  mergeRanges,
  rangeOfCIDR,
  rangesHave,
  subtractRanges,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { NOTHING_FOREIGN, withoutNodes, type Foreign } from './foreign.ts';
import { poolFamilies } from './pools.ts';
import { isResting } from './release.ts';
import { edgesOf } from './uses.ts';
import {
  countFreeSubnets,
  countInside,
  freeSubnetRanges,
  isDrained,
  isExclusive,
  reservedRanges,
  sizeOf,
  usableRanges,
} from './subnets.ts';

/** An allocation, as far as counting needs it: whole objects need not be kept. */
export interface CountedAllocation {
  readonly spec: {
    readonly address: IPAddress;
    readonly pool: string;
    /** Who holds it without a sandbox. */
    readonly holder?: string | undefined;
  };
  readonly status?: IPAllocation['status'];
}

export interface UsageInput {
  readonly pool: IPPool;
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly allocations: readonly CountedAllocation[];
  /** A CIDR of the pool that overlaps these gives no subnet, and no pod gets the address of a node. */
  readonly foreign?: Foreign;
  /** The labels of a node, where it is there: a pool that does not select the node gives it nothing. */
  readonly labelsOf?: (nodeName: string) => Labels | undefined;
}

/**
 * What the pool has and what of it is used, per family, computed from the objects.
 * `capacity`: every address of its CIDRs, and of its NodeSubnets in CIDRs that were taken out of the list.
 * `allocated`, `resting`: its allocations, alive and released. `free`: what a pod could still get.
 * `reserved`: the rest, which nobody gets: what the pool reserves, what its use keeps back (uses.ts), what is
 * drained, the addresses of nodes, and what others hold. So capacity = allocated + resting + free + reserved.
 */
export function poolUsage(input: UsageInput): Partial<Record<Family, PoolUsage>> {
  const families = new Set(poolFamilies(input.pool));
  // A family that was taken out of the list is counted for as long as something of it is left.
  for (const subnet of ofPool(input)) families.add(subnet.spec.cidr.family);
  for (const { spec } of input.allocations) {
    if (spec.pool === input.pool.metadata.name) families.add(spec.address.family);
  }
  return Object.fromEntries([...families].map((family) => [family, familyUsage(family, input)]));
}

/**
 * Tells of the name of a pool, there or not, whether allocations that name it can count for `pool`: to go through all of
 * a large cluster's for each pool would take too long. Another pool's addresses lie in the ranges that it lists, or in
 * NodeSubnets that it has kept of ranges that are another's by now. Not so those without a node, which people hold
 * or are kept for pods: no NodeSubnet tells of them, so whoever counts adds those of all pools.
 */
export function countingFor(
  pool: IPPool,
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
): (name: string) => boolean {
  const isInside = (cidr: CIDR) => pool.spec.cidrs.some((own) => cidrsOverlap(cidr, own));
  const inside = new Set(subnets.filter(({ spec }) => isInside(spec.cidr)).map(({ spec }) => spec.pool));
  const apart = new Set(
    pools
      .filter(({ metadata, spec }) => !inside.has(metadata.name) && !spec.cidrs.some(isInside))
      .map(({ metadata }) => metadata.name),
  );
  return (name) => name === pool.metadata.name || !apart.has(name);
}

/** Whether, in some family, a node got all the addresses it can get from this pool, and needs more than it has. */
export function isExhausted(input: UsageInput): boolean {
  return exhaustedFamilies(input).length > 0;
}

/** Families in which no subnet is free and some node's subnets of the pool are full. */
export function exhaustedFamilies(input: UsageInput): Family[] {
  return poolFamilies(input.pool).filter(
    (family) => countFreeSubnets({ ...input, family }) === 0n && fullNodes(family, input).length > 0,
  );
}

/** The names of the nodes that hold subnets of the pool in this family, all of them full. */
export function fullNodes(family: Family, input: UsageInput): string[] {
  const { pool, labelsOf } = input;
  const nodes = nodesOf(family, input);
  const subnets = ofPool(input).filter(
    (subnet) =>
      subnet.spec.cidr.family === family && !isDrained(subnet, pool, labelsOf?.(subnet.spec.nodeName)),
  );
  const all = mergeRanges(subnets.map(({ spec }) => rangeOfCIDR(spec.cidr)));
  const inside = nodes.filter(({ value }) => rangesHave(all, value));
  const usable = new Map(subnets.map((subnet) => [subnet, withoutNodes(usableRanges(subnet, pool), inside)]));
  // All subnets of a pool have one size and lie at multiples of it, so an address tells its subnet.
  const size = sizeOf(family, pool.spec.nodeSubnetPrefixLength[family]);
  const handedOut = mergeRanges([...usable.values()].flat());
  const usedOf = new Map<bigint, bigint>();
  for (const { spec } of input.allocations) {
    const { value, family: its } = spec.address;
    if (its !== family || !rangesHave(handedOut, value)) continue;
    const first = value - (value % size);
    usedOf.set(first, (usedOf.get(first) ?? 0n) + 1n);
  }
  const freeOfNode = new Map<string, bigint>();
  for (const [{ spec }, ranges] of usable) {
    const free = countAddresses(ranges) - (usedOf.get(spec.cidr.first) ?? 0n);
    freeOfNode.set(spec.nodeName, (freeOfNode.get(spec.nodeName) ?? 0n) + free);
  }
  return [...freeOfNode].filter(([, free]) => free === 0n).map(([nodeName]) => nodeName);
}

function nodesOf(family: Family, { foreign = NOTHING_FOREIGN }: UsageInput): IPAddress[] {
  return foreign.nodes.filter((address) => address.family === family);
}

function ofPool({ pool, subnets }: UsageInput): NodeSubnet[] {
  return subnets.filter((subnet) => subnet.spec.poolUID === pool.metadata.uid && !isExclusive(subnet));
}

function familyUsage(family: Family, input: UsageInput): PoolUsage {
  const { pool } = input;
  const listed = pool.spec.cidrs.filter((cidr) => cidr.family === family).map(rangeOfCIDR);
  const held = ofPool(input).filter(({ spec }) => spec.cidr.family === family);
  const ofFamily = input.allocations.filter(({ spec }) => spec.address.family === family);
  const own = ofFamily.filter(({ spec }) => spec.pool === pool.metadata.name);

  const territory = mergeRanges([...listed, ...held.map(({ spec }) => rangeOfCIDR(spec.cidr))]);
  const strays = own.filter(({ spec }) => !rangesHave(territory, spec.address.value)).length;
  const capacity = countAddresses(territory) + BigInt(strays);

  const freeSubnets = countFreeSubnets({ ...input, family });
  const resting = own.filter(isResting).length;
  const allocated = own.length - resting;
  const free = countFree(family, held, ofFamily, input);
  return {
    capacity: String(capacity),
    allocated,
    resting,
    reserved: String(capacity - BigInt(own.length) - free),
    free: String(free),
    nodeSubnets: held.length,
    freeSubnets: String(freeSubnets),
  };
}

/** Addresses that a claim could get: those of the subnets drawn from and of the free ones, less what is used. */
function countFree(
  family: Family,
  held: readonly NodeSubnet[],
  allocations: readonly CountedAllocation[],
  input: UsageInput,
): bigint {
  const { pool, labelsOf } = input;
  const drawn = held.filter((subnet) => !isDrained(subnet, pool, labelsOf?.(subnet.spec.nodeName)));
  const handedOut = mergeRanges(drawn.flatMap((subnet) => usableRanges(subnet, pool)));
  const inDrawn = withoutNodes(handedOut, nodesOf(family, input));
  const reserved = reservedRanges(pool, family);
  const inFree = freeSubnetRanges({ ...input, family }).flatMap((range) => subtractRanges(range, reserved));
  // Subnets are aligned to their size, so where a value lies in a free one follows from the value.
  const size = sizeOf(family, pool.spec.nodeSubnetPrefixLength[family]);
  const edges = edgesOf(pool, family);
  const isInside = (value: bigint) => countInside([{ first: value, last: value }], size, edges) > 0n;
  const used = allocations.filter(
    ({ spec: { address } }) =>
      rangesHave(inDrawn, address.value) || (rangesHave(inFree, address.value) && isInside(address.value)),
  );
  return countAddresses(inDrawn) + countInside(inFree, size, edges) - BigInt(used.length);
}
