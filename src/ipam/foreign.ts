import { hostCIDR, rangesHave, subtractRanges, type CIDR, type IPAddress, type Range } from '../net/index.ts';

/** Addresses that are not pods', wherever the pools lie; as far as they are known. */
export interface Foreign {
  /** The InternalIPs of nodes. */
  readonly nodes: readonly IPAddress[];
  /** The ranges of Services. */
  readonly services: readonly CIDR[];
}

export const NOTHING_FOREIGN: Foreign = { nodes: [], services: [] };

/** What a new NodeSubnet must not overlap. */
export function foreignCIDRs({ nodes, services }: Foreign): CIDR[] {
  return [...nodes.map(hostCIDR), ...services];
}

/** What of the ranges, sorted, disjoint and of one family, no node has for its address. */
export function withoutNodes(ranges: readonly Range[], nodes: readonly IPAddress[]): readonly Range[] {
  const inside = nodes.filter(({ value }) => rangesHave(ranges, value));
  if (inside.length === 0) return ranges;
  const taken = inside.map(({ value }) => ({ first: value, last: value }));
  return ranges.flatMap((range) => subtractRanges(range, taken));
}
