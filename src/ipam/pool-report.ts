import type { IPAllocation, IPPool, NodeSubnet, PoolUsage } from '../api/index.ts';
import {
  ADDRESS_BITS,
  cidrContains,
  cidrHasAddress,
  cidrOf,
  compareAddresses,
  compareCIDRs,
  firstAddress,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { isResting } from './release.ts';
import { isDrained } from './subnets.ts';
import { countingFor, poolUsage, type CountedAllocation, type UsageInput } from './usage.ts';

/** How a pool is used, as a person looks at it. Everything is counted from the objects. */
export interface PoolReport {
  readonly usage: FamilyUsage;
  /** Allocations without a pod, which no pod's end will free: they keep a drain from ending. By address. */
  readonly holders: readonly IPAllocation[];
  /** The CIDRs that the pool lists, and, last, what is left of those that were taken out of the list. */
  readonly cidrs: readonly CIDRReport[];
  readonly nodes: readonly NodeReport[];
}

export type FamilyUsage = Partial<Record<Family, PoolUsage>>;

export interface CIDRReport {
  /** Absent: what is drained, all CIDRs that are no longer listed together. */
  readonly cidr: CIDR | undefined;
  readonly usage: FamilyUsage;
}

export interface NodeReport {
  readonly nodeName: string;
  /** Those that are drained come last. */
  readonly subnets: readonly { readonly cidr: CIDR; readonly isDrained: boolean }[];
  readonly usage: FamilyUsage;
}

export interface PoolReportInput extends UsageInput {
  readonly allocations: readonly IPAllocation[];
}

/**
 * Counts a pool as a whole, by CIDR and by node. Each part is counted as a pool of that part alone, by the one
 * function that counts pools, so the parts cannot disagree with the whole about what a word means.
 */
export function poolReport(input: PoolReportInput): PoolReport {
  const { pool, pools, subnets } = input;
  const { name, uid } = pool.metadata;
  const own = subnets.filter(({ spec }) => spec.poolUID === uid);
  // What another pool that overlaps this one has given there is not free.
  const counts = countingFor(pool, pools, subnets);
  const allocations = input.allocations.filter(
    ({ spec }) => counts(spec.pool) || spec.nodeName === undefined,
  );
  return {
    usage: poolUsage({ ...input, allocations }),
    holders: allocations
      .filter(({ spec }) => spec.pool === name && spec.holder !== undefined)
      .filter((allocation) => !isResting(allocation))
      .sort((a, b) => compareAddresses(a.spec.address, b.spec.address)),
    cidrs: cidrReports({ ...input, allocations }, own),
    nodes: nodeReports({ ...input, allocations }, own),
  };
}

function cidrReports(input: UsageInput, own: readonly NodeSubnet[]): CIDRReport[] {
  const { cidrs } = input.pool.spec;
  const holding = (address: IPAddress) => cidrs.find((cidr) => cidrHasAddress(cidr, address));
  const allocationsOf = Map.groupBy(input.allocations, ({ spec }) => holding(spec.address));
  const subnetsOf = Map.groupBy(own, ({ spec }) => cidrs.find((cidr) => cidrContains(cidr, spec.cidr)));
  const parts = [...cidrs].sort(compareCIDRs).map((cidr) => ({
    cidr,
    usage: usageOfPart(input, {
      cidrs: [cidr],
      subnets: subnetsOf.get(cidr) ?? [],
      allocations: allocationsOf.get(cidr) ?? [],
    }),
  }));
  const drained = usageOfPart(input, {
    cidrs: [],
    subnets: subnetsOf.get(undefined) ?? [],
    allocations: allocationsOf.get(undefined) ?? [],
  });
  return Object.keys(drained).length === 0 ? parts : [...parts, { cidr: undefined, usage: drained }];
}

function nodeReports(input: UsageInput, own: readonly NodeSubnet[]): NodeReport[] {
  const { pool, labelsOf } = input;
  const subnetAt = longestHolding(own);
  const allocationsOf = Map.groupBy(input.allocations, ({ spec }) => subnetAt(spec.address)?.spec.nodeName);
  const byNode = [...Map.groupBy(own, ({ spec }) => spec.nodeName)];
  return byNode
    .sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }))
    .map(([nodeName, subnets]) => {
      const judged = subnets
        .map((one) => ({ cidr: one.spec.cidr, isDrained: isDrained(one, pool, labelsOf?.(nodeName)) }))
        .sort((a, b) => Number(a.isDrained) - Number(b.isDrained) || compareCIDRs(a.cidr, b.cidr));
      return {
        nodeName,
        subnets: judged,
        usage: usageOfPart(input, {
          cidrs: judged.flatMap((one) => (one.isDrained ? [] : [one.cidr])),
          subnets,
          allocations: allocationsOf.get(nodeName) ?? [],
        }),
      };
    });
}

interface Part {
  readonly cidrs: readonly CIDR[];
  readonly subnets: readonly NodeSubnet[];
  readonly allocations: readonly CountedAllocation[];
}

/** The usage of a pool that consisted of this part. */
function usageOfPart(input: UsageInput, { cidrs, subnets, allocations }: Part): FamilyUsage {
  const pool: IPPool = { ...input.pool, spec: { ...input.pool.spec, cidrs: [...cidrs] } };
  return poolUsage({ ...input, pool, subnets, allocations });
}

/** Finds the longest subnet that holds an address, without looking at all of them for each. */
function longestHolding(subnets: readonly NodeSubnet[]): (address: IPAddress) => NodeSubnet | undefined {
  const key = (family: Family, first: bigint, prefixLength: number) => `${family} ${first} ${prefixLength}`;
  const byCIDR = new Map(
    subnets.map((subnet) => {
      const { family, first, prefixLength } = subnet.spec.cidr;
      return [key(family, first, prefixLength), subnet];
    }),
  );
  const lengths = [...new Set(subnets.map(({ spec }) => spec.cidr.prefixLength))].sort((a, b) => b - a);
  return (address) => {
    for (const length of lengths) {
      if (length > ADDRESS_BITS[address.family]) continue;
      const around = firstAddress(cidrOf(address, length));
      const found = byCIDR.get(key(around.family, around.value, length));
      if (found !== undefined) return found;
    }
    return undefined;
  };
}
