import { describe, expect, test } from 'vitest';
import { formatMetricsAddress, parseMetricsAddress } from '../../src/metrics/index.ts';

describe('taken', () => {
  test.each([
    ['127.0.0.1:9144', '127.0.0.1:9144'],
    ['0.0.0.0:1', '0.0.0.0:1'],
    ['[::1]:65535', '[::1]:65535'],
    ['[::]:9144', '[::]:9144'],
    ['[fd00::5]:9144', '[fd00::5]:9144'],
    // What a manifest writes around an address that it does not know.
    ['[192.0.2.7]:9144', '192.0.2.7:9144'],
  ])('%s', (text, canonical) => {
    const address = parseMetricsAddress(text);
    expect(address === undefined ? undefined : formatMetricsAddress(address)).toBe(canonical);
  });

  test('nothing, for no metrics', () => {
    expect(parseMetricsAddress('')).toBeUndefined();
  });
});

describe('refused, with what is expected', () => {
  test.each([
    '9144',
    ':9144',
    '127.0.0.1',
    '127.0.0.1:',
    '127.0.0.1:0',
    '127.0.0.1:65536',
    '127.0.0.1:9144 ',
    '127.0.0.01:9144',
    'localhost:9144',
    '::1:9144',
    '[::1]9144',
    '[::1]:9144/metrics',
    '[fe80::1%eth0]:9144',
    'http://127.0.0.1:9144',
  ])('%s', (text) => {
    expect(() => parseMetricsAddress(text)).toThrow(
      `--metrics-address=${text}: expected an IP address of this machine and a port, such as 127.0.0.1:9144`,
    );
  });
});
