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
  const ipv4 = canonicalIPv4(text);
  if (ipv4 !== undefined) return { family: 'ipv4', value: ipv4 };
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

/**
 * The value of a dotted quad in its one spelling; undefined: it is anything else, right or wrong. The library takes ten
 * times as long, and a list of all allocations has hundreds of thousands.
 */
function canonicalIPv4(text: string): bigint | undefined {
  let value = 0;
  let parts = 0;
  let part: number | undefined;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === DOT) {
      if (part === undefined || parts === 3) return undefined;
      value = value * 256 + part;
      parts++;
      part = undefined;
      continue;
    }
    const digit = char - ZERO;
    // After a zero no more digit: those would be octal to some.
    if (digit < 0 || digit > 9 || part === 0) return undefined;
    part = (part ?? 0) * 10 + digit;
    if (part > 255) return undefined;
  }
  return parts === 3 && part !== undefined ? BigInt(value * 256 + part) : undefined;
}

const DOT = 0x2e;
const ZERO = 0x30;

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
  return address.family === 'ipv4' ? formatIPv4(address.value) : formatIPv6(address.value);
}

/** The address in network byte order: 4 or 16 bytes. */
export function addressBytes({ family, value }: IPAddress): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BITS[family] / 8);
  const view = new DataView(bytes.buffer);
  if (family === 'ipv4') {
    view.setUint32(0, Number(value));
  } else {
    view.setBigUint64(0, value >> 64n);
    // Only the lower 64 bits are taken.
    view.setBigUint64(8, value);
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
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length === 4) return { family: 'ipv4', value: BigInt(view.getUint32(0)) };
  return { family: 'ipv6', value: (view.getBigUint64(0) << 64n) | view.getBigUint64(8) };
}

export function sameAddress(a: IPAddress, b: IPAddress): boolean {
  return a.family === b.family && a.value === b.value;
}

/** Orders IPv4 before IPv6, then by number: for sorting. */
export function compareAddresses(a: IPAddress, b: IPAddress): number {
  if (a.family !== b.family) return a.family === 'ipv4' ? -1 : 1;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

/**
 * RFC 5952, section 4: no leading zeros, lower case, `::` for the first of the longest runs of two or more zero groups.
 * By numbers, since a node among thousands prints tens of thousands of them in each comparison.
 */
function formatIPv6(value: bigint): string {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, value >> 64n);
  // Only the lower 64 bits are taken.
  view.setBigUint64(8, value);
  const group = (i: number) => view.getUint16(2 * i);
  let [start, length] = [8, 1];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && group(end) === 0) end++;
    if (end - i > length) [start, length] = [i, end - i];
    i = Math.max(i, end - 1);
  }
  let text = '';
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += '::';
      i += length - 1;
    } else {
      text += (text === '' || i === start + length ? '' : ':') + group(i).toString(16);
    }
  }
  return text;
}

function formatIPv4(value: bigint): string {
  const n = Number(value);
  return `${(n >>> 24) & 255}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`;
}
