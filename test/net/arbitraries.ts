import fc from 'fast-check';
import { ADDRESS_BITS, cidrOf, FAMILIES, type CIDR, type IPAddress } from '../../src/net/index.ts';

const MAPPED = 0xffffn << 32n;

/** Any address that weft can spell; IPv4-mapped IPv6 is refused by design. */
export const anyAddress: fc.Arbitrary<IPAddress> = fc
  .constantFrom(...FAMILIES)
  .chain((family) =>
    fc
      .bigInt({ min: 0n, max: (1n << BigInt(ADDRESS_BITS[family])) - 1n })
      .map((value) => ({ family, value })),
  )
  .filter((address) => address.family === 'ipv4' || address.value >> 32n !== MAPPED >> 32n);

/** Any CIDR whose first address weft can spell. */
export const anyCIDR: fc.Arbitrary<CIDR> = anyAddress
  .chain((address) =>
    fc.nat({ max: ADDRESS_BITS[address.family] }).map((prefixLength) => cidrOf(address, prefixLength)),
  )
  .filter((cidr) => cidr.family === 'ipv4' || cidr.first >> 32n !== MAPPED >> 32n);
