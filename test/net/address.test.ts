import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressBytes,
  addressFromBytes,
  compareAddresses,
  formatAddress,
  InvalidAddressError,
  parseAddress,
  parseAddressInAnySpelling,
  sameAddress,
  tryParseAddress,
} from '../../src/net/index.ts';
import { anyAddress } from './arbitraries.ts';

describe('parseAddress', () => {
  it.each([
    ['0.0.0.0', 'ipv4', 0n],
    ['10.244.1.7', 'ipv4', 0x0af40107n],
    ['255.255.255.255', 'ipv4', 0xffffffffn],
    ['::', 'ipv6', 0n],
    ['::1', 'ipv6', 1n],
    ['fd00::5', 'ipv6', (0xfd00n << 112n) | 5n],
    ['2001:db8:0:1:1:1:1:1', 'ipv6', 0x20010db8000000010001000100010001n],
  ] as const)('reads %s', (text, family, value) => {
    expect(parseAddress(text)).toEqual({ family, value });
  });

  it.each([
    ['010.0.0.1', 'a leading zero is octal to some'],
    ['10.1', 'a short form'],
    ['0x0a.0.0.1', 'hexadecimal'],
    ['167772161', 'one number'],
    ['10.0.0.256', 'a part above 255'],
    ['10.0.0.1 ', 'a space behind'],
    ['10.0.0.1/24', 'a prefix length'],
    ['FD00::5', 'upper case'],
    ['fd00:0:0:0:0:0:0:5', 'zeros that must be compressed'],
    ['fd00::0005', 'leading zeros in a group'],
    ['fd00::1:0:0:0:1', 'the shorter run of zeros compressed'],
    ['::ffff:10.0.0.1', 'IPv4-mapped'],
    ['::ffff:a00:1', 'IPv4-mapped in groups'],
    ['::10.0.0.1', 'IPv4 inside IPv6'],
    ['fe80::1%eth0', 'a zone'],
    ['', 'nothing'],
    ['node-1', 'a name'],
  ])('refuses %j: %s', (text) => {
    expect(() => parseAddress(text)).toThrow(InvalidAddressError);
    expect(tryParseAddress(text)).toBeUndefined();
  });

  it('says how to write what has another spelling', () => {
    expect(() => parseAddress('FD00:0::5')).toThrow('write it as fd00::5');
  });

  it('never reads two texts as one address, and gives each back as it was', () => {
    fc.assert(
      fc.property(anyAddress, (address) => {
        const text = formatAddress(address);
        expect(parseAddress(text)).toEqual(address);
        if (text !== text.toUpperCase()) expect(tryParseAddress(text.toUpperCase())).toBeUndefined();
      }),
    );
  });

  it('writes IPv6 as browsers do, whatever groups are zero', () => {
    const group = fc.constantFrom(0n, 0n, 0n, 0x1n, 0x10n, 0xabcdn);
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
        const value = groups.reduce<bigint>((sum, part) => (sum << 16n) | part, 0n);
        const long = groups.map((part) => part.toString(16)).join(':');
        expect(`[${formatAddress({ family: 'ipv6', value })}]`).toBe(new URL(`http://[${long}]`).hostname);
      }),
      { numRuns: 2_000 },
    );
  });

  it('reads nothing but canonical text out of any text', () => {
    const letters = fc.constantFrom(...'0123456789abcdefABCDEF:.%/x '.split(''));
    fc.assert(
      fc.property(fc.string({ unit: letters, maxLength: 45 }), (text) => {
        const address = tryParseAddress(text);
        if (address !== undefined) expect(formatAddress(address)).toBe(text);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('a dotted quad', () => {
  // Both read them: one in a hurry, the other by the library.
  it('is read alike by what reads one spelling and by what reads any', () => {
    const part = fc.constantFrom(
      '0',
      '1',
      '9',
      '10',
      '99',
      '100',
      '255',
      '256',
      '00',
      '01',
      '1000',
      '',
      '-1',
      ' 1',
      'a',
    );
    const anySpelling = (text: string) => {
      try {
        return parseAddressInAnySpelling(text);
      } catch {
        return undefined;
      }
    };
    fc.assert(
      fc.property(fc.array(part, { minLength: 3, maxLength: 5 }), (parts) => {
        const text = parts.join('.');
        expect(tryParseAddress(text)).toEqual(anySpelling(text));
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('bytes', () => {
  it('are the address in network order, for both families', () => {
    expect(addressBytes(parseAddress('10.0.1.2'))).toEqual(Uint8Array.of(10, 0, 1, 2));
    fc.assert(
      fc.property(anyAddress, (address) => {
        expect(addressFromBytes(addressBytes(address))).toEqual(address);
      }),
    );
  });

  it('of another length are refused', () => {
    expect(() => addressFromBytes(Uint8Array.of(1, 2, 3))).toThrow(InvalidAddressError);
  });
});

describe('order', () => {
  it('puts IPv4 first and then goes by number', () => {
    const sorted = ['fd00::5', '10.0.0.10', '10.0.0.9', '::1'].map(parseAddress).sort(compareAddresses);
    expect(sorted.map(formatAddress)).toEqual(['10.0.0.9', '10.0.0.10', '::1', 'fd00::5']);
  });

  it('does not take equal numbers of two families for one address', () => {
    expect(sameAddress(parseAddress('0.0.0.1'), parseAddress('::1'))).toBe(false);
    expect(compareAddresses(parseAddress('0.0.0.1'), parseAddress('::1'))).toBeLessThan(0);
  });
});
