import { allocationName, type IPPool, type Labels, type NodeSubnet } from '../api/index.ts';
import {
  cidrOf,
  compareCIDRs,
  countAddresses,
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
import { servingCIDRs } from './pools.ts';
import { isDrained, reservedRanges, usableRanges } from './subnets.ts';

/** An address that a holder without a pod may try to get. `subnet`: the NodeSubnet it lies in. */
export interface HeldCandidate {
  readonly address: IPAddress;
  /** The name of its allocation. */
  readonly name: string;
  readonly subnet?: NodeSubnet;
}

export interface HeldSearch {
  readonly pool: IPPool;
  readonly pools: readonly IPPool[];
  /** All there are: other pools' lie in the way as well. */
  readonly subnets: readonly NodeSubnet[];
  readonly family: Family;
  /** Addresses with an allocation, alive or resting. */
  readonly inUse: readonly IPAddress[];
  /** A CIDR of the pool that overlaps these gives none. */
  readonly foreign?: Foreign;
  readonly labelsOf?: (nodeName: string) => Labels | undefined;
}

/**
 * The addresses to try for a holder on no node, lowest first: those outside all NodeSubnets before those inside, so
 * that nodes keep what they have; inside, the emptiest subnet first. Never one that a subnet does not hand out, nor
 * one that a subnet made there later would not: a node may claim it around the address. Sought in the gaps between
 * what is in use: a pool may hold 2^74 subnets.
 */
export function* heldCandidates(search: HeldSearch): Generator<HeldCandidate, undefined> {
  const { pool, family } = search;
  const prefixLength = pool.spec.nodeSubnetPrefixLength[family];
  for (const gap of outsideSubnets(search)) {
    for (const place of placesIn(gap, family, prefixLength)) {
      yield* candidatesIn(intersectRanges(gap, usableRanges({ spec: { cidr: place } }, pool)), family);
    }
  }
  for (const { subnet, gaps } of emptiestFirst(search)) yield* candidatesIn(gaps, family, subnet);
  return undefined;
}

/** What of the pool's serving CIDRs is in no NodeSubnet, not reserved, and in nobody's hands, in order. */
function outsideSubnets({
  pool,
  pools,
  subnets,
  family,
  inUse,
  foreign = NOTHING_FOREIGN,
}: HeldSearch): Range[] {
  const taken = mergeRanges([
    ...[...subnets.map(({ spec }) => spec.cidr), ...foreignCIDRs(foreign)]
      .filter((cidr) => cidr.family === family)
      .map(rangeOfCIDR),
    ...reservedRanges(pool, family),
    ...rangesOf(inUse, family),
  ]);
  return servingCIDRs(pool, pools, foreign)
    .filter((cidr) => cidr.family === family)
    .sort(compareCIDRs)
    .flatMap((cidr) => subtractRanges(rangeOfCIDR(cidr), taken));
}

/** The places for subnets of which the range covers something, one after the other. */
function* placesIn({ first, last }: Range, family: Family, prefixLength: number): Generator<CIDR, undefined> {
  for (let value = first; value <= last;) {
    const place = cidrOf({ family, value }, prefixLength);
    yield place;
    value = lastValue(place) + 1n;
  }
  return undefined;
}

function* candidatesIn(
  ranges: readonly Range[],
  family: Family,
  subnet?: NodeSubnet,
): Generator<HeldCandidate, undefined> {
  for (const { first, last } of ranges) {
    for (let value = first; value <= last; value++) {
      const address: IPAddress = { family, value };
      yield { address, name: allocationName(address), ...(subnet === undefined ? {} : { subnet }) };
    }
  }
  return undefined;
}

function emptiestFirst(search: HeldSearch): { readonly subnet: NodeSubnet; readonly gaps: Range[] }[] {
  const { pool, subnets, family, inUse, foreign = NOTHING_FOREIGN, labelsOf } = search;
  const used = mergeRanges(rangesOf([...inUse, ...foreign.nodes], family));
  return subnets
    .filter(
      (subnet) =>
        subnet.spec.cidr.family === family && !isDrained(subnet, pool, labelsOf?.(subnet.spec.nodeName)),
    )
    .map((subnet) => {
      const gaps = usableRanges(subnet, pool).flatMap((range) => subtractRanges(range, used));
      return { subnet, gaps, free: countAddresses(gaps) };
    })
    .sort((a, b) =>
      a.free !== b.free ? (a.free > b.free ? -1 : 1) : compareCIDRs(a.subnet.spec.cidr, b.subnet.spec.cidr),
    );
}

function rangesOf(addresses: readonly IPAddress[], family: Family): Range[] {
  return addresses.flatMap((one) => (one.family === family ? [{ first: one.value, last: one.value }] : []));
}
