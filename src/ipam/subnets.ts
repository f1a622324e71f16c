import { createHash } from 'node:crypto';
import type { IPPool, Labels, NodeSubnet } from '../api/index.ts';
import {
  ADDRESS_BITS,
  cidrContains,
  compareCIDRs,
  intersectRanges,
  lastValue,
  mergeRanges,
  rangeOfCIDR,
  subtractRanges,
  type CIDR,
  type Family,
  type IPAddress,
  type Range,
} from '../net/index.ts';
import { foreignCIDRs, NOTHING_FOREIGN, type Foreign } from './foreign.ts';
import { poolFamilies, servingCIDRs } from './pools.ts';
import { selects } from './selectors.ts';
import { edgesOf, lanReserves, type Edges } from './uses.ts';

/**
 * Whether the subnet is the one address of a pod, which leads to its node wherever it lies. It takes no place away from
 * others: what is drawn from, counted or must not overlap is never one of these.
 */
export function isExclusive({ spec }: NodeSubnet): boolean {
  return spec.exclusive === true;
}

/** The subnets that a node draws from: those that carry its name and its Node's present UID. */
export function ownSubnets(subnets: readonly NodeSubnet[], nodeName: string, nodeUID: string): NodeSubnet[] {
  return subnets.filter(
    (subnet) => subnet.spec.nodeName === nodeName && subnet.spec.nodeUID === nodeUID && !isExclusive(subnet),
  );
}

export interface Drawing {
  readonly pool: IPPool;
  readonly subnets: readonly NodeSubnet[];
  readonly nodeName: string;
  readonly nodeUID: string;
  readonly nodeLabels: Labels;
  /** Names of subnets whose claim is not complete: no address before that (subnet-claim.ts). */
  readonly unconfirmed?: ReadonlySet<string>;
}

/** The node's subnets that it may draw addresses of the pool from: its own, confirmed, not drained. */
export function drawableSubnets(drawing: Drawing): NodeSubnet[] {
  const { pool, subnets, nodeName, nodeUID, nodeLabels, unconfirmed } = drawing;
  return ownSubnets(subnets, nodeName, nodeUID).filter(
    (subnet) => !isDrained(subnet, pool, nodeLabels) && unconfirmed?.has(subnet.metadata.name) !== true,
  );
}

/**
 * Whether nothing new is drawn from the subnet: its pool is gone, another by now, or disabled, no longer lists its
 * CIDR, or no longer selects its node. Without the node's labels that last is not judged.
 */
export function isDrained(subnet: NodeSubnet, pool: IPPool | undefined, nodeLabels?: Labels): boolean {
  if (pool?.metadata.uid !== subnet.spec.poolUID || pool.spec.disabled) return true;
  if (nodeLabels !== undefined && !selects(pool.spec.nodeSelector, nodeLabels)) return true;
  return !pool.spec.cidrs.some((cidr) => cidrContains(cidr, subnet.spec.cidr));
}

/** The addresses that a subnet hands out: all but those that its pool's use keeps back (uses.ts) or that it reserves. */
export function usableRanges({ spec: { cidr } }: InCIDR, pool: IPPool): Range[] {
  const { head, tail } = edgesOf(pool, cidr.family);
  const inner = { first: cidr.first + head, last: lastValue(cidr) - tail };
  return inner.first > inner.last ? [] : subtractRanges(inner, reservedRanges(pool, cidr.family));
}

/** A subnet, or a place where one could be. */
export interface InCIDR {
  readonly spec: { readonly cidr: CIDR };
}

/** What the pool reserves of one family, and of a LAN what belongs to it: sorted and disjoint. */
export function reservedRanges(pool: IPPool, family: Family): Range[] {
  const reserved = (pool.spec.reserved ?? []).filter((cidr) => cidr.family === family).map(rangeOfCIDR);
  return mergeRanges([...reserved, ...lanReserves(pool, family)]);
}

/** How many values of the ranges, none of which reaches beyond a subnet of that size, lie inside their subnet's edges. */
export function countInside(ranges: readonly Range[], size: bigint, { head, tail }: Edges): bigint {
  const inner = size - head - tail;
  /** How many of the values below `end`, counted from 0. */
  const below = (end: bigint) => {
    const inLast = (end % size) - head;
    return (end / size) * inner + (inLast < 0n ? 0n : inLast > inner ? inner : inLast);
  };
  return ranges.reduce((sum, { first, last }) => sum + below(last + 1n) - below(first), 0n);
}

/**
 * The families in which a node can use the pool: those the pool lists and, since others must reach its pods there,
 * the node has an address of. What nodes do not route on a LAN does not depend on their addresses.
 */
export function usableFamilies(pool: IPPool, nodeAddresses: readonly IPAddress[]): Family[] {
  return poolFamilies(pool).filter(
    (family) => pool.spec.use === 'Lan' || nodeAddresses.some((address) => address.family === family),
  );
}

export interface SubnetSearch {
  readonly pool: IPPool;
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly family: Family;
  /** Found taken, but not in `subnets` yet. */
  readonly taken?: readonly CIDR[];
  /** A CIDR of the pool that overlaps these gives no subnet, a LAN's not there. */
  readonly foreign?: Foreign;
}

/**
 * A subnet that overlaps none of the known ones, or undefined if there is none. Sought in the gaps between them,
 * never by enumeration (an IPv6 pool may hold 2^74), from a place that the node's UID decides, so that nodes
 * which start together do not try the same names.
 */
export function freeSubnet(search: SubnetSearch & { readonly nodeUID: string }): CIDR | undefined {
  const { pool, family, nodeUID } = search;
  const slots = freeSlots(search);
  const all = slots.reduce((sum, { count }) => sum + count, 0n);
  if (all === 0n) return undefined;
  const start = startOf(nodeUID) % all;
  const spans = slots.flatMap(({ free }) => free);
  const found = spans.find(({ last }) => last.position >= start) ?? spans[0];
  if (found === undefined) return undefined;
  const steps =
    found.first.position >= start || found.last.position < start ? 0n : start - found.first.position;
  const prefixLength = pool.spec.nodeSubnetPrefixLength[family];
  return { family, first: found.first.value + steps * sizeOf(family, prefixLength), prefixLength };
}

/** How many subnets a node could still claim. */
export function countFreeSubnets(search: SubnetSearch): bigint {
  return freeSlots(search)
    .flatMap(({ free }) => free)
    .reduce((sum, { first, last }) => sum + (last.position - first.position + 1n), 0n);
}

/** The addresses of all subnets that a node could still claim, whole subnets only. */
export function freeSubnetRanges(search: SubnetSearch): Range[] {
  const size = sizeOf(search.family, search.pool.spec.nodeSubnetPrefixLength[search.family]);
  return freeSlots(search)
    .flatMap(({ free }) => free)
    .map(({ first, last }) => ({ first: first.value, last: last.value + size - 1n }));
}

/** A place for a subnet: its number among all of the pool, and its first address. */
interface Slot {
  readonly position: bigint;
  readonly value: bigint;
}

/** The places for subnets in one CIDR of the pool: how many, and the runs of free ones in order. */
interface CIDRSlots {
  readonly count: bigint;
  readonly free: readonly { readonly first: Slot; readonly last: Slot }[];
}

function freeSlots({
  pool,
  pools,
  subnets,
  family,
  taken = [],
  foreign = NOTHING_FOREIGN,
}: SubnetSearch): CIDRSlots[] {
  const prefixLength = pool.spec.nodeSubnetPrefixLength[family];
  const size = sizeOf(family, prefixLength);
  // Nodes stand on the LAN themselves: there it is the piece that holds their address which is not free.
  const isLan = pool.spec.use === 'Lan';
  const takenRanges = mergeRanges(
    [
      ...subnets.filter((subnet) => !isExclusive(subnet)).map(({ spec }) => spec.cidr),
      ...taken,
      ...(isLan ? foreignCIDRs(foreign) : []),
    ]
      .filter((cidr) => cidr.family === family)
      .map(rangeOfCIDR),
  );
  const edges = edgesOf(pool, family);
  const reserved = reservedRanges(pool, family);
  let before = 0n;
  return servingCIDRs(pool, pools, foreign)
    .filter((cidr) => cidr.family === family && cidr.prefixLength <= prefixLength)
    .sort(compareCIDRs)
    .map((cidr) => {
      const count = 1n << BigInt(prefixLength - cidr.prefixLength);
      const offset = before;
      before += count;
      const slotOf = (index: bigint): Slot => ({
        position: offset + index,
        value: cidr.first + index * size,
      });
      const whole = rangeOfCIDR(cidr);
      const unavailable = [
        ...intersectRanges(whole, takenRanges),
        ...intersectRanges(whole, reserved).flatMap((range) => barrenSlots(range, cidr.first, size, edges)),
      ];
      const free = subtractRanges(whole, unavailable)
        .map((gap) => ({
          // Only whole subnets count: a gap may begin or end in the middle of one, where sizes once differed.
          first: (gap.first - cidr.first + size - 1n) / size,
          last: (gap.last - cidr.first + 1n) / size - 1n,
        }))
        .filter(({ first, last }) => first <= last)
        .map(({ first, last }) => ({ first: slotOf(first), last: slotOf(last) }));
      return { count, free };
    });
}

/** The slots of which a reserved range leaves nothing to hand out: their edges are never handed out anyway. */
function barrenSlots({ first, last }: Range, origin: bigint, size: bigint, { head, tail }: Edges): Range[] {
  const from = (first - origin + size - 1n - head) / size;
  const to = (last - origin + 1n + tail) / size - 1n;
  return from > to ? [] : [{ first: origin + from * size, last: origin + (to + 1n) * size - 1n }];
}

/** How many addresses a subnet of that prefix length holds. */
export function sizeOf(family: Family, prefixLength: number): bigint {
  return 1n << BigInt(ADDRESS_BITS[family] - prefixLength);
}

/** Wider than any number of subnets, so that each place is as likely as any other. */
function startOf(nodeUID: string): bigint {
  return BigInt(`0x${createHash('sha256').update(nodeUID).digest('hex').slice(0, 40)}`);
}
