import { describe, expect, test } from 'vitest';
import {
  ADDRESSES_ANNOTATION,
  ALLOWED_SOURCES_ANNOTATION,
  InvalidAnnotationError,
  parseAddresses,
  parseAllowedSources,
  parsePoolNames,
  parseSticky,
  POOLS_ANNOTATION,
  STICKY_ANNOTATION,
} from '../../src/ipam/index.ts';
import { formatCIDR, parseAddress } from '../../src/net/index.ts';

describe('parsePoolNames', () => {
  test.each([
    { text: 'blue', names: ['blue'] },
    { text: 'blue, green', names: ['blue', 'green'] },
    { text: ' a.b-c ,blue,blue', names: ['a.b-c', 'blue'] },
  ])('$text: $names', ({ text, names }) => {
    expect(parsePoolNames({ [POOLS_ANNOTATION]: text }, 'Pod a/b')).toEqual(names);
  });

  test('no annotation is no list', () => {
    expect(parsePoolNames({ other: 'blue' }, 'Pod a/b')).toBeUndefined();
  });

  test.each(['', ',', 'blue,', '["blue"]', 'Blue', '-x', 'a b', '../x', 'x'.repeat(64), '10.0.0.0/8'])(
    'refuses %j, and says where it stands',
    (text) => {
      const parse = () => parsePoolNames({ [POOLS_ANNOTATION]: text }, 'Namespace shop');
      expect(parse).toThrow(InvalidAnnotationError);
      expect(parse).toThrow(
        /^Namespace shop has the annotation ipam\.weft\.dev\/pools: .* no name of an IPPool/,
      );
    },
  );

  test('shows no more of a long value than helps', () => {
    const parse = () => parsePoolNames({ [POOLS_ANNOTATION]: `${'x,'.repeat(5_000)}Y` }, 'Pod a/b');
    expect(parse).toThrow(/^.{1,400}$/);
  });
});

describe('parseAddresses', () => {
  const ipv4 = parseAddress('10.0.0.9');
  const ipv6 = parseAddress('fd00::9');

  test.each([
    { text: '10.0.0.9', addresses: { ipv4 } },
    { text: 'fd00::9', addresses: { ipv6 } },
    { text: 'fd00::9, 10.0.0.9', addresses: { ipv4, ipv6 } },
  ])('$text', ({ text, addresses }) => {
    expect(parseAddresses({ [ADDRESSES_ANNOTATION]: text }, 'Pod a/b')).toEqual(addresses);
  });

  test('no annotation is no wish', () => {
    expect(parseAddresses({}, 'Pod a/b')).toBeUndefined();
  });

  test.each([
    ['', 'is not an IP address'],
    ['10.0.0.9,', 'is not an IP address'],
    ['["10.0.0.9"]', 'is not an IP address'],
    ['10.0.0.9/32', 'is not an IP address'],
    ['10.00.0.9', 'without leading zeros'],
    ['FD00::9', 'write it as fd00::9'],
    ['::ffff:10.0.0.9', 'IPv4-mapped IPv6 is not allowed'],
    ['10.0.0.9,10.0.0.10', 'it names two of ipv4'],
  ])('refuses %j: %s', (text, reason) => {
    const parse = () => parseAddresses({ [ADDRESSES_ANNOTATION]: text }, 'Pod a/b');
    expect(parse).toThrow(InvalidAnnotationError);
    expect(parse).toThrow(reason);
    expect(parse).toThrow(
      /^Pod a\/b has the annotation ipam\.weft\.dev\/addresses: .* such as "10\.244\.0\.10,/,
    );
  });

  test('shows no more of a long value than helps', () => {
    const parse = () => parseAddresses({ [ADDRESSES_ANNOTATION]: 'x'.repeat(5_000) }, 'Pod a/b');
    expect(parse).toThrow(/^.{1,400}$/);
  });
});

describe('parseSticky', () => {
  test.each([
    [undefined, false],
    ['false', false],
    ['true', true],
  ])('%s: %s', (text, expected) => {
    const annotations: Record<string, string> = text === undefined ? {} : { [STICKY_ANNOTATION]: text };
    expect(parseSticky(annotations, 'Pod a/b')).toBe(expected);
  });

  test.each(['', 'yes', 'True', '1'])('refuses %j', (text) => {
    expect(() => parseSticky({ [STICKY_ANNOTATION]: text }, 'Pod a/b')).toThrow('expected "true" or "false"');
  });
});

describe('parseAllowedSources', () => {
  const parse = (text: string) => parseAllowedSources({ [ALLOWED_SOURCES_ANNOTATION]: text }, 'Pod a/b');

  test('reads CIDRs, and no annotation is none', () => {
    expect(parse('192.168.0.0/16, fd99::/48')?.map(formatCIDR)).toEqual(['192.168.0.0/16', 'fd99::/48']);
    expect(parseAllowedSources({}, 'Pod a/b')).toBeUndefined();
  });

  test.each([
    '',
    'true',
    '10.0.0.1',
    '10.0.0.1/8',
    '10.0.0.0/8,',
    'fd99::/129',
    `${'10.0.0.0/8,'.repeat(32)}10.0.0.0/8`,
  ])('refuses %j', (text) => {
    expect(() => parse(text)).toThrow(InvalidAnnotationError);
    expect(() => parse(text)).toThrow(/^Pod a\/b has the annotation ipam\.weft\.dev\/allowed-sources: /);
  });
});
