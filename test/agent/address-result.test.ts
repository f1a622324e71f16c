import { describe, expect, test } from 'vitest';
import { addressResult } from '../../src/agent/address-result.ts';
import { renderAdd, type CniVersion, type ResultRoute } from '../../src/cni/index.ts';
import type { IPPool } from '../../src/api/index.ts';
import { parseAddress, parseCIDR, type Family } from '../../src/net/index.ts';
import { poolOf } from '../ipam/objects.ts';

const bridge = poolOf('p', { use: 'Bridge', cidrs: ['10.9.0.0/16', '10.8.0.0/16', 'fd09::/64'] });
const lan = poolOf('p', {
  use: 'Lan',
  cidrs: ['192.168.7.0/24', 'fd07::/64'],
  gateway: { ipv4: '192.168.7.1', ipv6: 'fd07::1' },
});
const BOTH: readonly Family[] = ['ipv4', 'ipv6'];

interface Asked {
  readonly pool?: IPPool | undefined;
  readonly routedOtherwise?: readonly Family[];
  readonly routes?: readonly ResultRoute[];
  readonly version?: CniVersion;
}

const answer = (addresses: readonly string[], asked: Asked = {}) => {
  const { pool, routedOtherwise = [], routes, version = '1.0.0' } = { pool: bridge, ...asked };
  const result = addressResult({
    configuration: { plugin: 'bridge', pool: 'p', routes, dns: { domain: 'x' } },
    addresses: addresses.map(parseAddress),
    pool,
    routedOtherwise,
  });
  return JSON.parse(JSON.stringify(renderAdd(result, version))) as { routes: object[]; ips: object[] };
};

describe('the answer to another plugin', () => {
  test('has prefix, gateway and a default route of each family, and no interfaces', () => {
    expect(answer(['10.9.0.69', 'fd09::5'])).toEqual({
      cniVersion: '1.0.0',
      ips: [
        { address: '10.9.0.69/26', gateway: '10.9.0.65' },
        { address: 'fd09::5/122', gateway: 'fd09::1' },
      ],
      routes: [
        { dst: '0.0.0.0/0', gw: '10.9.0.65' },
        { dst: '::/0', gw: 'fd09::1' },
      ],
      dns: { domain: 'x' },
    });
  });

  test('has the families in one order, in whatever order the book has them', () => {
    expect(answer(['fd09::5', '10.9.0.69'])).toEqual(answer(['10.9.0.69', 'fd09::5']));
  });

  test('on a LAN: its prefix and its router', () => {
    expect(answer(['192.168.7.20', 'fd07::20'], { pool: lan }).ips).toEqual([
      { address: '192.168.7.20/24', gateway: '192.168.7.1' },
      { address: 'fd07::20/64', gateway: 'fd07::1' },
    ]);
  });

  test('in the versions before 0.3.0', () => {
    expect(answer(['10.9.0.69'], { version: '0.2.0' })).toEqual({
      cniVersion: '0.2.0',
      ip4: { ip: '10.9.0.69/26', gateway: '10.9.0.65', routes: [{ dst: '0.0.0.0/0', gw: '10.9.0.65' }] },
      dns: { domain: 'x' },
    });
  });

  test('in 0.3.1 and 0.4.0 each address tells its version', () => {
    expect(answer(['10.9.0.69'], { version: '0.4.0' }).ips).toEqual([
      { version: '4', address: '10.9.0.69/26', gateway: '10.9.0.65' },
    ]);
  });

  test('for a further interface of a sandbox has the routes to its pool, not a second default route', () => {
    expect(answer(['10.9.0.69', 'fd09::5'], { routedOtherwise: BOTH }).routes).toEqual([
      { dst: '10.9.0.0/16', gw: '10.9.0.65' },
      { dst: '10.8.0.0/16', gw: '10.9.0.65' },
      { dst: 'fd09::/64', gw: 'fd09::1' },
    ]);
    expect(answer(['192.168.7.20'], { pool: lan, routedOtherwise: BOTH }).routes).toEqual([]);
  });

  test('has a default route of the family that has none yet', () => {
    expect(answer(['192.168.7.20', 'fd07::20'], { pool: lan, routedOtherwise: ['ipv4'] }).routes).toEqual([
      { dst: '::/0', gw: 'fd07::1' },
    ]);
  });

  test.each<{ routes: readonly ResultRoute[]; written: object[] }>([
    { routes: [], written: [] },
    { routes: [{ destination: parseCIDR('172.16.0.0/12') }], written: [{ dst: '172.16.0.0/12' }] },
  ])('has the routes that the configuration names, and no other: $written', ({ routes, written }) => {
    expect(answer(['10.9.0.69'], { routes }).routes).toEqual(written);
  });

  test('where the pool has changed meanwhile there is none', () => {
    for (const pool of [undefined, poolOf('p', { cidrs: ['10.9.0.0/16'] })]) {
      expect(() => answer(['10.9.0.69'], { pool })).toThrow(
        'this node gets no ipv4 subnet of IPPool p: the pool has changed while 10.9.0.69 was drawn from it. Try again',
      );
    }
  });
});
