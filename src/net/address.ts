import ipaddr from 'ipaddr.js';
import { ADDRESS_BITS, type Family } from './family.ts';

/** One IPv4 or IPv6 address. `value` is the address as an unsigned number of 32 or 128 bits. */
export interface IPAddress {
  readonly family: Family;
  readonly value: bigint;
}

/** The text is not an address in its one accepted spelling. */
export class InvalidAddressError extends Error {
  override name = 'InvalidAddressError' as const;
  readonly text: string;

  constructor(text: string, reason: string) {
    super(`"${text}" is not an IP address: ${reason}`);
    this.text = text;
  }
}

/**
 * Parses an address in its one accepted spelling: dotted quad without leading zeros, or RFC 5952 lower case.
 * IPv4-mapped IPv6, zones, and any second spelling are refused, since two spellings would be two locks.
 * @throws InvalidAddressError
 */
export function parseAddress(text: string): IPAddress {
  const address = parseAddressInAnySpelling(text);
  const canonical = formatAddress(address);
  if (canonical !== text) throw new InvalidAddressError(text, `write it as ${canonical}`);
  return address;
}

/**
 * Parses what a person typed: IPv6 in upper case, with leading zeros or uncompressed is welcome, and the address that
 * is answered has one spelling again. Zones and IPv4-mapped IPv6 stay refused: they are other addresses.
 * @throws InvalidAddressError
 */
export function parseAddressInAnySpelling(text: string): IPAddress {
  // The library alone would also read "10.1", octal and hexadecimal.
  if (text.includes('%')) throw new InvalidAddressError(text, 'a zone is not allowed');
  if (!text.includes(':') && !ipaddr.IPv4.isValidFourPartDecimal(text)) {
    throw new InvalidAddressError(text, 'IPv4 is four decimal numbers without leading zeros');
  }
  let parsed: ipaddr.IPv4 | ipaddr.IPv6;
  try {
    parsed = ipaddr.parse(text);
  } catch {
    throw new InvalidAddressError(text, 'neither IPv4 nor IPv6');
  }
  if (parsed instanceof ipaddr.IPv6 && parsed.isIPv4MappedAddress()) {
    throw new InvalidAddressError(text, 'IPv4-mapped IPv6 is not allowed, write the IPv4 address');
  }
  return addressFromBytes(Uint8Array.from(parsed.toByteArray()));
}

/** Like parseAddress, with undefined for what is no address. */
export function tryParseAddress(text: string): IPAddress | undefined {
  try {
    return parseAddress(text);
  } catch (error) {
    if (error instanceof InvalidAddressError) return undefined;
    throw error;
  }
}

/** The canonical text: dotted quad, or RFC 5952. */
export function formatAddress(address: IPAddress): string {
  if (address.family === 'ipv4') return formatIPv4(address.value);
  return new ipaddr.IPv6([...addressBytes(address)]).toRFC5952String();
}

/** The address in network byte order: 4 or 16 bytes. */
export function addressBytes(address: IPAddress): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BITS[address.family] / 8);
  let rest = address.value;
  for (let i = bytes.length - 1; i >= 0; i--) {
    bytes[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

/**
 * The address that 4 or 16 bytes in network byte order hold.
 * @throws InvalidAddressError for any other length
 */
export function addressFromBytes(bytes: Uint8Array): IPAddress {
  if (bytes.length !== 4 && bytes.length !== 16) {
    throw new InvalidAddressError(Buffer.from(bytes).toString('hex'), 'it has neither 4 nor 16 bytes');
  }
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return { family: bytes.length === 4 ? 'ipv4' : 'ipv6', value };
}

export function sameAddress(a: IPAddress, b: IPAddress): boolean {
  return a.family === b.family && a.value === b.value;
}

/** Orders IPv4 before IPv6, then by number: for sorting. */
export function compareAddresses(a: IPAddress, b: IPAddress): number {
  if (a.family !== b.family) return a.family === 'ipv4' ? -1 : 1;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

function formatIPv4(value: bigint): string {
  const n = Number(value);
  return `${(n >>> 24) & 255}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`;
}
