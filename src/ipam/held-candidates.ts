import { allocationName, type IPPool, type NodeSubnet } from '../api/index.ts';
import {
  compareCIDRs,
  countAddresses,
  mergeRanges,
  rangeOfCIDR,
  subtractRanges,
  type CIDR,
  type Family,
  type IPAddress,
  type Range,
} from '../net/index.ts';
import { servingCIDRs } from './pools.ts';
import { isDrained, sizeOf, usableRange } from './subnets.ts';

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
  /** Addresses that are not pods': a CIDR of the pool that overlaps them gives none. */
  readonly foreign?: readonly CIDR[];
}

/**
 * The addresses to try for a holder on no node, lowest first: those outside all NodeSubnets before those inside, so
 * that nodes keep what they have; inside, the emptiest subnet first. Never one that is, or as the first of a subnet
 * would become, a node's own. Sought in the gaps between what is in use: a pool may hold 2^74 addresses.
 */
export function* heldCandidates(search: HeldSearch): Generator<HeldCandidate, undefined> {
  const { pool, family } = search;
  const size = sizeOf(family, pool.spec.nodeSubnetPrefixLength[family]);
  for (const { first, last } of outsideSubnets(search)) {
    for (let value = first; value <= last; value++) {
      if (value % size !== 0n) yield candidateOf({ family, value });
    }
  }
  for (const { subnet, gaps } of emptiestFirst(search)) {
    for (const { first, last } of gaps) {
      for (let value = first; value <= last; value++) yield candidateOf({ family, value }, subnet);
    }
  }
  return undefined;
}

/** What of the pool's serving CIDRs is in no NodeSubnet and in nobody's hands, in order. */
function outsideSubnets({ pool, pools, subnets, family, inUse, foreign }: HeldSearch): Range[] {
  const taken = mergeRanges([
    ...subnets.flatMap(({ spec }) => (spec.cidr.family === family ? [rangeOfCIDR(spec.cidr)] : [])),
    ...rangesOf(inUse, family),
  ]);
  return servingCIDRs(pool, pools, foreign)
    .filter((cidr) => cidr.family === family)
    .sort(compareCIDRs)
    .flatMap((cidr) => subtractRanges(rangeOfCIDR(cidr), taken));
}

function emptiestFirst(search: HeldSearch): { readonly subnet: NodeSubnet; readonly gaps: Range[] }[] {
  const { pool, subnets, family, inUse } = search;
  const used = mergeRanges(rangesOf(inUse, family));
  return subnets
    .filter((subnet) => subnet.spec.cidr.family === family && !isDrained(subnet, pool))
    .map((subnet) => {
      const gaps = subtractRanges(usableRange(subnet), used);
      return { subnet, gaps, free: countAddresses(gaps) };
    })
    .sort((a, b) =>
      a.free !== b.free ? (a.free > b.free ? -1 : 1) : compareCIDRs(a.subnet.spec.cidr, b.subnet.spec.cidr),
    );
}

function rangesOf(addresses: readonly IPAddress[], family: Family): Range[] {
  return addresses.flatMap((one) => (one.family === family ? [{ first: one.value, last: one.value }] : []));
}

function candidateOf(address: IPAddress, subnet?: NodeSubnet): HeldCandidate {
  return { address, name: allocationName(address), ...(subnet === undefined ? {} : { subnet }) };
}
