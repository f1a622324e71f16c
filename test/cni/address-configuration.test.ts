import { describe, expect, test } from 'vitest';
import { cniErrorObject, isAddressCall, parseRequest, type CniRequest } from '../../src/cni/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

const BRIDGE = {
  cniVersion: '1.0.0',
  name: 'bridged',
  type: 'bridge',
  bridge: 'br0',
  isGateway: true,
  ipam: { type: 'weft-ipam', pool: 'bridged' },
};

const call = (verb: string, changes: object = {}): CniRequest =>
  parseRequest({
    env: {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: 'c0ffee',
      CNI_IFNAME: 'net1',
      CNI_NETNS: '/var/run/netns/pod',
    },
    stdin: JSON.stringify({ ...BRIDGE, ...changes }),
  });

/** As the runtime is told it. */
function refusalOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return cniErrorObject(error, '1.1.0').msg;
  }
  throw new Error('it was not refused');
}

const withIPAM = (changes: object) => ({ ipam: { ...BRIDGE.ipam, ...changes } });

describe('a call asks for addresses alone', () => {
  test.each<{ name: string; configuration: object; asks: boolean }>([
    { name: 'where another plugin names weft-ipam', configuration: BRIDGE, asks: true },
    {
      name: 'but not as weft itself',
      configuration: { type: 'weft', ipam: { type: 'weft-ipam' } },
      asks: false,
    },
    { name: 'but not for another', configuration: { ...BRIDGE, ipam: { type: 'host-local' } }, asks: false },
    { name: 'but not without ipam', configuration: { type: 'weft' }, asks: false },
    { name: 'but not by a name alone', configuration: { type: 'bridge', ipam: 'weft-ipam' }, asks: false },
  ])('$name', ({ configuration, asks }) => {
    expect(isAddressCall(configuration)).toBe(asks);
  });

  test.each(['ADD', 'DEL'])('%s says so, and whose attachment it is', (verb) => {
    expect(call(verb)).toMatchObject({
      verb,
      asks: 'AddressOnly',
      attachment: { network: 'bridged', containerID: 'c0ffee', ifName: 'net1' },
      netns: '/run/netns/pod',
    });
  });

  test('and CHECK, with the result of the other plugin', () => {
    const prevResult = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'br0' }, { name: 'net1', sandbox: '/var/run/netns/pod' }],
      ips: [{ address: '10.9.0.5/26', gateway: '10.9.0.1', interface: 1 }],
    };
    expect(call('CHECK', { prevResult })).toMatchObject({
      asks: 'AddressOnly',
      previous: { ips: [{ address: parseAddress('10.9.0.5'), prefixLength: 26 }] },
    });
    expect(() => call('CHECK')).toThrow('CHECK needs the prevResult');
  });

  test('as weft itself it is refused: there is no interface without its addresses', () => {
    expect(() => call('ADD', { type: 'weft' })).toThrow(/^unsupported field .*: (bridge|isGateway|ipam)/);
  });
});

describe('of its configuration', () => {
  test('the pool, the routes and the DNS are weft’s; all else is the other plugin’s', () => {
    const routes = [{ dst: '0.0.0.0/0' }, { dst: 'fd00::/8', gw: 'fd09::1' }];
    expect(call('ADD', { ...withIPAM({ routes }), dns: { domain: 'x' }, mtu: 'huge' })).toMatchObject({
      configuration: {
        plugin: 'bridge',
        pool: 'bridged',
        routes: [
          { destination: parseCIDR('0.0.0.0/0') },
          { destination: parseCIDR('fd00::/8'), gateway: parseAddress('fd09::1') },
        ],
        dns: { domain: 'x' },
      },
    });
  });

  test('a prevResult is no reason to refuse: the other plugin may come later in its list', () => {
    expect(call('ADD', { prevResult: { ips: [] } })).toMatchObject({ asks: 'AddressOnly' });
  });

  test.each<{ name: string; changes: object; message: RegExp }>([
    {
      name: 'no pool',
      changes: { ipam: { type: 'weft-ipam' } },
      message: /^invalid network configuration: ipam.pool is nothing: .*the name of the IPPool/,
    },
    {
      name: 'a pool that is none',
      changes: withIPAM({ pool: 'Blue Pool' }),
      message: /^invalid network configuration: ipam.pool is "Blue Pool": must be the name of an IPPool$/,
    },
    {
      name: 'a key that weft does not know',
      changes: withIPAM({ subnet: '10.0.0.0/8' }),
      message: /^unsupported field in the network configuration: ipam.subnet: "10.0.0.0\/8"$/,
    },
    {
      name: 'a route to no CIDR',
      changes: withIPAM({ routes: [{ dst: '10.0.0.1/8' }] }),
      message: /ipam.routes.0.dst is "10.0.0.1\/8": .*write 10.0.0.0\/8/,
    },
    {
      name: 'a route by no address',
      changes: withIPAM({ routes: [{ dst: '10.0.0.0/8', gw: '10.0.0.01' }] }),
      message: /ipam.routes.0.gw is "10.0.0.01": .*leading zeros/,
    },
    {
      name: 'a route by the other family',
      changes: withIPAM({ routes: [{ dst: '10.0.0.0/8', gw: 'fd00::1' }] }),
      message: /ipam.routes.0 is .*: gw must be of the family of dst$/,
    },
    {
      name: 'a key of a route that weft does not know',
      changes: withIPAM({ routes: [{ dst: '10.0.0.0/8', table: 7 }] }),
      message: /^unsupported field in the network configuration: ipam.routes.0.table: 7$/,
    },
    {
      name: 'an address asked for by the runtime',
      changes: { runtimeConfig: { ips: ['10.9.0.5/26'] } },
      message: /^unsupported field in the network configuration: runtimeConfig.ips: \["10.9.0.5\/26"\]$/,
    },
    {
      name: 'an address asked for by arguments',
      changes: { args: { cni: { ips: ['10.9.0.5'] } } },
      message: /^unsupported field in the network configuration: args.cni.ips: \["10.9.0.5"\]$/,
    },
  ])('$name is refused', ({ changes, message }) => {
    expect(refusalOf(() => call('ADD', changes))).toMatch(message);
  });

  test('nothing is checked by DEL: somebody may have edited it since', () => {
    expect(call('DEL', withIPAM({ pool: 7 }))).toMatchObject({ verb: 'DEL', asks: 'AddressOnly' });
  });
});
