import { formatAddress, InvalidAddressError, parseAddress, type IPAddress } from './address.ts';
import { ADDRESS_BITS, type Family } from './family.ts';

/** A block of addresses. `first` is its lowest address as a number; the bits behind the prefix are zero. */
export interface CIDR {
  readonly family: Family;
  readonly first: bigint;
  readonly prefixLength: number;
}

/** The text is not a CIDR in its one accepted spelling. */
export class InvalidCIDRError extends Error {
  override name = 'InvalidCIDRError' as const;
  readonly text: string;

  constructor(text: string, reason: string) {
    super(`"${text}" is not a CIDR: ${reason}`);
    this.text = text;
  }
}

/**
 * Parses a CIDR whose address is canonical and has no bits set behind the prefix.
 * @throws InvalidCIDRError
 */
export function parseCIDR(text: string): CIDR {
  const match = /^([^/]+)\/(0|[1-9][0-9]{0,2})$/.exec(text);
  const [, addressText, lengthText] = match ?? [];
  if (addressText === undefined || lengthText === undefined) {
    throw new InvalidCIDRError(text, 'expected address/prefix length');
  }
  const address = addressOf(text, addressText);
  const prefixLength = Number(lengthText);
  if (prefixLength > ADDRESS_BITS[address.family]) {
    throw new InvalidCIDRError(
      text,
      `the prefix length of ${address.family} is at most ${ADDRESS_BITS[address.family]}`,
    );
  }
  const cidr = cidrOf(address, prefixLength);
  if (cidr.first !== address.value) {
    throw new InvalidCIDRError(text, `bits are set behind the prefix, write ${formatCIDR(cidr)}`);
  }
  return cidr;
}

export function formatCIDR(cidr: CIDR): string {
  return `${formatAddress(firstAddress(cidr))}/${cidr.prefixLength}`;
}

/** The CIDR of that length that holds the address. */
export function cidrOf(address: IPAddress, prefixLength: number): CIDR {
  const hostBits = BigInt(ADDRESS_BITS[address.family] - prefixLength);
  return { family: address.family, first: (address.value >> hostBits) << hostBits, prefixLength };
}

/** A CIDR of one address: /32 or /128. */
export function hostCIDR(address: IPAddress): CIDR {
  return { family: address.family, first: address.value, prefixLength: ADDRESS_BITS[address.family] };
}

/** How many addresses it holds, network and broadcast included. */
export function cidrSize(cidr: CIDR): bigint {
  return 1n << BigInt(ADDRESS_BITS[cidr.family] - cidr.prefixLength);
}

export function firstAddress(cidr: CIDR): IPAddress {
  return { family: cidr.family, value: cidr.first };
}

/** The highest address of the block, as a number. */
export function lastValue(cidr: CIDR): bigint {
  return cidr.first + cidrSize(cidr) - 1n;
}

export function cidrHasAddress(cidr: CIDR, address: IPAddress): boolean {
  return cidr.family === address.family && address.value >= cidr.first && address.value <= lastValue(cidr);
}

/** Whether every address of `inner` is in `outer`. */
export function cidrContains(outer: CIDR, inner: CIDR): boolean {
  return outer.family === inner.family && inner.first >= outer.first && lastValue(inner) <= lastValue(outer);
}

export function cidrsOverlap(a: CIDR, b: CIDR): boolean {
  return cidrContains(a, b) || cidrContains(b, a);
}

export function sameCIDR(a: CIDR, b: CIDR): boolean {
  return a.family === b.family && a.first === b.first && a.prefixLength === b.prefixLength;
}

/** Orders IPv4 before IPv6, then by first address, then the wider first: for sorting. */
export function compareCIDRs(a: CIDR, b: CIDR): number {
  if (a.family !== b.family) return a.family === 'ipv4' ? -1 : 1;
  if (a.first !== b.first) return a.first < b.first ? -1 : 1;
  return a.prefixLength - b.prefixLength;
}

function addressOf(text: string, addressText: string): IPAddress {
  try {
    return parseAddress(addressText);
  } catch (error) {
    if (error instanceof InvalidAddressError) throw new InvalidCIDRError(text, error.message);
    throw error;
  }
}
