import {
  mergeRanges,
  rangeOfCIDR,
  rangesHave,
  rangesWith,
  rangesWithout,
  type CIDR,
  type Family,
  type IPAddress,
  type Range,
} from '../net/index.ts';

/** Addresses of both families, each family's ranges merged and in order. */
export type AddressSet = Readonly<Record<Family, readonly Range[]>>;

export function addressSet(cidrs: readonly CIDR[]): AddressSet {
  const ranges = (family: Family): readonly Range[] =>
    mergeRanges(cidrs.filter((cidr) => cidr.family === family).map(rangeOfCIDR));
  return { ipv4: ranges('ipv4'), ipv6: ranges('ipv6') };
}

/** All addresses of all the sets. */
export function unionOfSets(sets: readonly AddressSet[]): AddressSet {
  const ranges = (family: Family): readonly Range[] => mergeRanges(sets.flatMap((one) => one[family]));
  return { ipv4: ranges('ipv4'), ipv6: ranges('ipv6') };
}

/** The addresses of both. */
export function setWith(set: AddressSet, more: AddressSet): AddressSet {
  const ranges = (family: Family): readonly Range[] => rangesWith(set[family], more[family]);
  return { ipv4: ranges('ipv4'), ipv6: ranges('ipv6') };
}

/** The addresses of the one that the other does not have. */
export function setWithout(set: AddressSet, taken: AddressSet): AddressSet {
  const ranges = (family: Family): readonly Range[] => rangesWithout(set[family], taken[family]);
  return { ipv4: ranges('ipv4'), ipv6: ranges('ipv6') };
}

export function setHas(set: AddressSet, { family, value }: IPAddress): boolean {
  return rangesHave(set[family], value);
}
