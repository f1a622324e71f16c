import { ADDRESS_BITS, formatAddress, type Family, type IPAddress } from '../../src/net/index.ts';

/**
 * A small piece of a family's addresses, numbered from 0, so that one property can be tried on both. In blocks of 32:
 * those of `SPREAD` lie as far from each other as the ends of a /32 of IPv6, for arithmetic that must not enumerate.
 */
export interface Space {
  readonly family: Family;
  address(number: number): IPAddress;
  text(number: number): string;
  /** The CIDR of 2^hostBits addresses that begins there. */
  cidr(number: number, hostBits: number): string;
  /** The length of such a CIDR's prefix. */
  prefixLength(hostBits: number): number;
  /** The number of the address. */
  number(address: IPAddress): number;
}

const BLOCK = 32;

function createSpace(family: Family, first: bigint, blockStep: bigint): Space {
  const address = (number: number) => ({
    family,
    value: first + BigInt(Math.floor(number / BLOCK)) * blockStep + BigInt(number % BLOCK),
  });
  const text = (number: number) => formatAddress(address(number));
  const prefixLength = (hostBits: number) => ADDRESS_BITS[family] - hostBits;
  return {
    family,
    address,
    text,
    cidr: (number, hostBits) => `${text(number)}/${prefixLength(hostBits)}`,
    prefixLength,
    number: ({ value }) => Number((value - first) / blockStep) * BLOCK + Number((value - first) % blockStep),
  };
}

const IPV4_FIRST = 10n << 24n;
const IPV6_FIRST = 0xfd00n << 112n;

/** One range each. */
export const DENSE: readonly Space[] = [
  createSpace('ipv4', IPV4_FIRST, BigInt(BLOCK)),
  createSpace('ipv6', IPV6_FIRST, BigInt(BLOCK)),
];

/** Of IPv6 three blocks at the beginning, in the middle and near the end of fd00::/32. */
export const SPREAD: readonly Space[] = [
  createSpace('ipv4', IPV4_FIRST, BigInt(BLOCK)),
  createSpace('ipv6', IPV6_FIRST, (1n << 95n) - BigInt(BLOCK)),
];
