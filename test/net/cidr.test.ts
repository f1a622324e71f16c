import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ADDRESS_BITS,
  cidrContains,
  cidrHasAddress,
  cidrOf,
  cidrsOverlap,
  cidrSize,
  compareCIDRs,
  firstAddress,
  formatAddress,
  formatCIDR,
  hostCIDR,
  InvalidCIDRError,
  lastValue,
  parseAddress,
  parseCIDR,
  sameCIDR,
} from '../../src/net/index.ts';
import { anyAddress, anyCIDR } from './arbitraries.ts';

describe('parseCIDR', () => {
  it.each([
    ['10.244.0.0/16', 'ipv4', 0x0af40000n, 16],
    ['0.0.0.0/0', 'ipv4', 0n, 0],
    ['10.0.0.1/32', 'ipv4', 0x0a000001n, 32],
    ['fd00::/64', 'ipv6', 0xfd00n << 112n, 64],
    ['fd00::5/128', 'ipv6', (0xfd00n << 112n) | 5n, 128],
  ] as const)('reads %s', (text, family, first, prefixLength) => {
    expect(parseCIDR(text)).toEqual({ family, first, prefixLength });
  });

  it.each([
    ['10.0.0.0/33', 'at most 32'],
    ['fd00::/129', 'at most 128'],
    ['10.0.0.1/24', 'write 10.0.0.0/24'],
    ['fd00::5/64', 'write fd00::/64'],
    ['010.0.0.0/8', 'leading zeros'],
    ['::ffff:10.0.0.0/104', 'IPv4-mapped'],
    ['FD00::/64', 'write it as fd00::'],
    ['10.0.0.0/08', 'expected address/prefix length'],
    ['10.0.0.0/+8', 'expected address/prefix length'],
    ['10.0.0.0/', 'expected address/prefix length'],
    ['10.0.0.0', 'expected address/prefix length'],
    ['10.0.0.0/8/8', 'expected address/prefix length'],
  ])('refuses %s and says why', (text, reason) => {
    expect(() => parseCIDR(text)).toThrow(InvalidCIDRError);
    expect(() => parseCIDR(text)).toThrow(reason);
  });

  it('gives each CIDR back as it was written', () => {
    fc.assert(
      fc.property(anyCIDR, (cidr) => {
        expect(parseCIDR(formatCIDR(cidr))).toEqual(cidr);
      }),
    );
  });
});

describe('arithmetic', () => {
  it.each([
    ['10.0.0.0/24', 256n, '10.0.0.255'],
    ['10.0.0.7/32', 1n, '10.0.0.7'],
    ['fd00::/122', 64n, 'fd00::3f'],
    ['fd00::/48', 1n << 80n, 'fd00::ffff:ffff:ffff:ffff:ffff'],
    ['fd00::/32', 1n << 96n, 'fd00:0:ffff:ffff:ffff:ffff:ffff:ffff'],
  ])('%s holds %d addresses, the last is %s', (text, size, last) => {
    const cidr = parseCIDR(text);
    expect(cidrSize(cidr)).toBe(size);
    expect(formatAddress({ family: cidr.family, value: lastValue(cidr) })).toBe(last);
  });

  it('holds exactly its addresses', () => {
    fc.assert(
      fc.property(anyAddress, fc.nat({ max: 128 }), (address, bits) => {
        const cidr = cidrOf(address, Math.min(bits, ADDRESS_BITS[address.family]));
        expect(cidrHasAddress(cidr, address)).toBe(true);
        expect(cidrHasAddress(cidr, { family: cidr.family, value: lastValue(cidr) + 1n })).toBe(false);
        expect(cidrHasAddress(cidr, { family: cidr.family, value: cidr.first - 1n })).toBe(false);
        expect(cidrContains(cidr, hostCIDR(address))).toBe(true);
      }),
    );
  });

  it.each([
    ['10.0.0.0/8', '10.1.0.0/16', true, true],
    ['10.1.0.0/16', '10.0.0.0/8', false, true],
    ['10.0.0.0/24', '10.0.1.0/24', false, false],
    ['10.0.0.0/24', '10.0.0.0/24', true, true],
    ['0.0.0.0/0', '::/64', false, false],
  ])('%s and %s: contains %s, overlap %s', (a, b, contains, overlap) => {
    expect(cidrContains(parseCIDR(a), parseCIDR(b))).toBe(contains);
    expect(cidrsOverlap(parseCIDR(a), parseCIDR(b))).toBe(overlap);
    expect(cidrsOverlap(parseCIDR(b), parseCIDR(a))).toBe(overlap);
  });

  it('two CIDRs are apart or one contains the other', () => {
    fc.assert(
      fc.property(anyCIDR, anyCIDR, (a, b) => {
        const apart = a.family !== b.family || lastValue(a) < b.first || lastValue(b) < a.first;
        expect(cidrsOverlap(a, b)).toBe(!apart);
      }),
    );
  });

  it('sorts IPv4 first, by first address, the wider first', () => {
    const sorted = ['fd00::/64', '10.0.1.0/24', '10.0.0.0/24', '10.0.0.0/8']
      .map(parseCIDR)
      .sort(compareCIDRs);
    expect(sorted.map(formatCIDR)).toEqual(['10.0.0.0/8', '10.0.0.0/24', '10.0.1.0/24', 'fd00::/64']);
    expect(sameCIDR(parseCIDR('10.0.0.0/8'), parseCIDR('10.0.0.0/24'))).toBe(false);
  });

  it('starts at the address of its text', () => {
    expect(firstAddress(parseCIDR('fd00::40/122'))).toEqual(parseAddress('fd00::40'));
  });
});
