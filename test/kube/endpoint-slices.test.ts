import { describe, expect, test } from 'vitest';
import { parseEndpointSlice } from '../../src/kube/index.ts';
import { formatAddress } from '../../src/net/index.ts';

function read(slice: object): string[] {
  const object = { metadata: { name: 'kube-dns-x' }, ...slice };
  return parseEndpointSlice(object).map(
    ({ address, protocol, port, portName }) => `${formatAddress(address)} ${protocol} ${port} ${portName}`,
  );
}

describe('an EndpointSlice', () => {
  test('is each of its addresses at each of its ports, ready or not', () => {
    const endpoints = [
      { addresses: ['10.0.0.5'], conditions: { ready: true }, nodeName: 'n1' },
      { addresses: ['10.0.0.6'], conditions: { ready: false, terminating: true } },
    ];
    const ports = [
      { name: 'dns', port: 53, protocol: 'UDP' },
      { name: 'metrics', port: 9153 },
    ];
    expect(read({ addressType: 'IPv4', endpoints, ports })).toEqual([
      '10.0.0.5 UDP 53 dns',
      '10.0.0.6 UDP 53 dns',
      '10.0.0.5 TCP 9153 metrics',
      '10.0.0.6 TCP 9153 metrics',
    ]);
  });

  test('of IPv6 is read in any spelling', () => {
    const endpoints = [{ addresses: ['FD00:0::5'] }];
    expect(read({ addressType: 'IPv6', endpoints, ports: [{ port: 53, protocol: 'UDP' }] })).toEqual([
      'fd00::5 UDP 53 ',
    ]);
  });

  test('without endpoints, without ports, or of names, says nothing', () => {
    const endpoints = [{ addresses: ['10.0.0.5'] }];
    expect(read({ addressType: 'IPv4', endpoints: null, ports: [{ port: 53 }] })).toEqual([]);
    expect(read({ addressType: 'IPv4', endpoints, ports: null })).toEqual([]);
    expect(read({ addressType: 'IPv4', endpoints, ports: [{ name: 'any' }] })).toEqual([]);
    const named = [{ addresses: ['dns.example.com'] }];
    expect(read({ addressType: 'FQDN', endpoints: named, ports: [{ port: 53 }] })).toEqual([]);
  });

  test('that is none is refused', () => {
    expect(() => read({})).toThrow();
    expect(() =>
      read({ addressType: 'IPv4', endpoints: [{ addresses: ['10.0.0'] }], ports: [{ port: 53 }] }),
    ).toThrow();
  });
});
