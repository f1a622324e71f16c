import type { NodeSubnet } from '../../api/index.ts';
import { cidrOf, FAMILIES, type Family, type IPAddress } from '../../net/index.ts';

/** Finds the NodeSubnets that hold an address without looking at all of them: there are as many as nodes. */
export interface SubnetIndex {
  /** All that hold the address, the longest prefix first: that one routes. */
  holding(address: IPAddress): NodeSubnet[];
}

export function createSubnetIndex(subnets: readonly NodeSubnet[]): SubnetIndex {
  // Few lengths are in use, so one look for each of them.
  const byLength: Record<Family, Map<number, Map<bigint, NodeSubnet>>> = { ipv4: new Map(), ipv6: new Map() };
  for (const subnet of subnets) {
    const { family, first, prefixLength } = subnet.spec.cidr;
    const ofLength = byLength[family].get(prefixLength) ?? new Map<bigint, NodeSubnet>();
    byLength[family].set(prefixLength, ofLength.set(first, subnet));
  }
  const ordered = Object.fromEntries(
    FAMILIES.map((family) => [family, [...byLength[family]].sort(([a], [b]) => b - a)]),
  ) as Record<Family, [number, Map<bigint, NodeSubnet>][]>;

  return {
    holding: (address) =>
      ordered[address.family].flatMap(
        ([prefixLength, ofLength]) => ofLength.get(cidrOf(address, prefixLength).first) ?? [],
      ),
  };
}
