import { describe, expect, it } from 'vitest';
import { vxlanMAC } from '../../src/api/index.ts';
import {
  desiredNodeState,
  linkLocalOfMAC,
  type NodeRoute,
  type NodeState,
} from '../../src/dataplane/index.ts';
import { formatAddress, formatCIDR } from '../../src/net/index.ts';
import { input, pool, subnet, uplink } from './objects.ts';

const own4 = subnet('10.64.0.0/26', 'a', ['192.168.1.1', 'fd01::1']);
const own6 = subnet('fd64::/122', 'a', ['192.168.1.1', 'fd01::1']);
const near = subnet('10.64.0.64/26', 'b', ['192.168.1.2', 'fd01::2']);
const near6 = subnet('fd64::40/122', 'b', ['192.168.1.2', 'fd01::2']);
const far = subnet('10.64.0.128/26', 'c', ['192.168.2.3', 'fd02::3']);
const far6 = subnet('fd64::80/122', 'c', ['192.168.2.3', 'fd02::3']);
const macC = vxlanMAC('uid-c');

function text(route: NodeRoute): string {
  const { target } = route;
  const source = route.preferredSource === undefined ? '' : ` src ${formatAddress(route.preferredSource)}`;
  const to = `${formatCIDR(route.destination)} metric ${route.metric}${source}`;
  if (target.kind === 'unreachable') return `unreachable ${to}`;
  return `${to} via ${formatAddress(target.gateway)} dev ${target.link}${target.onlink ? ' onlink' : ''}`;
}

function routes(state: NodeState): string[] {
  return state.routes.map(text);
}

describe('the state of a node with near and far peers', () => {
  const state = desiredNodeState(input({ subnets: [far6, far, near, near6, own4, own6] }));

  it('routes near ones directly, far ones through the tunnel, and holds its own subnets', () => {
    expect(routes(state)).toEqual([
      'unreachable 10.64.0.0/26 metric 4096',
      'unreachable fd64::/122 metric 4096',
      '10.64.0.64/26 metric 0 src 10.64.0.0 via 192.168.1.2 dev eth0',
      '10.64.0.128/26 metric 0 src 10.64.0.0 via 10.64.0.128 dev vxlan.weft onlink',
      'fd64::40/122 metric 1024 src fd64:: via fd01::2 dev eth0',
      `fd64::80/122 metric 1024 src fd64:: via ${formatAddress(linkLocalOfMAC(macC))} dev vxlan.weft onlink`,
    ]);
  });

  it('knows the far ones on the tunnel without asking', () => {
    expect(state.neighbours.map(({ address, mac }) => [formatAddress(address), mac])).toEqual([
      ['10.64.0.128', macC],
      [formatAddress(linkLocalOfMAC(macC)), macC],
    ]);
    expect(state.forwarding.map(({ mac, destination }) => [mac, formatAddress(destination)])).toEqual([
      [macC, '192.168.2.3'],
    ]);
  });

  it('forwards for all pools but LANs, and for what is drained of its own, each range once', () => {
    const pools = [
      pool('main', ['10.64.0.0/16', 'fd64::/64']),
      pool('within', ['10.64.8.0/24']),
      pool('bridges', ['10.65.0.0/16'], { use: 'Bridge' }),
      pool('lan', ['192.168.9.0/24'], { use: 'Lan' }),
    ];
    const drained = [
      subnet('10.99.0.0/26', 'a', ['192.168.1.1']),
      subnet('10.98.0.0/26', 'b', ['192.168.1.2']),
    ];
    const { forwarded } = desiredNodeState(input({ pools, subnets: [own4, near, ...drained] }));
    expect(forwarded.map(formatCIDR)).toEqual(['10.64.0.0/16', '10.65.0.0/16', '10.99.0.0/26', 'fd64::/64']);
  });

  it('puts the first address of its own subnets on the tunnel', () => {
    expect(state.addresses.map(({ link, address }) => `${formatAddress(address)} ${link}`)).toEqual([
      '10.64.0.0 vxlan.weft',
      'fd64:: vxlan.weft',
    ]);
  });

  it('has nothing to remark on', () => {
    expect(state.notes).toEqual([]);
  });
});

describe('the tunnel', () => {
  it.each([
    { underlay: 'IPv4', address: '192.168.1.1', mtu: 1450 },
    { underlay: 'IPv6', address: 'fd01::1', mtu: 1430 },
  ])('over $underlay leaves $mtu of 1500 bytes', ({ address, mtu }) => {
    const base = input();
    const addresses = [...base.node.addresses].sort((a) => (formatAddress(a) === address ? -1 : 1));
    const state = desiredNodeState({ ...base, node: { ...base.node, addresses } });
    expect(state.vxlan).toMatchObject({
      name: 'vxlan.weft',
      mac: vxlanMAC('uid-a'),
      vni: 4097,
      port: 4789,
      mtu,
    });
    expect(state.vxlan && formatAddress(state.vxlan.local)).toBe(address);
    expect(state.podMTU).toMatchObject({ encapsulated: mtu, plain: 1500 });
  });

  it("is as narrow for pods as the narrower of two families' uplinks", () => {
    const uplinks = { ...input().uplinks, ipv6: uplink('fd01::1', ['fd01::/64'], { mtu: 1400 }) };
    expect(desiredNodeState(input({ uplinks })).podMTU).toMatchObject({ encapsulated: 1400, plain: 1400 });
  });

  it('is there before any peer needs it, and not before there is a pool', () => {
    expect(desiredNodeState(input({ subnets: [own4] })).vxlan).toBeDefined();
    expect(desiredNodeState(input({ pools: [] })).vxlan).toBeUndefined();
  });
});

describe('families', () => {
  it('of the pools alone: an IPv4 pool says nothing of IPv6 to the kernel', () => {
    const state = desiredNodeState(
      input({ pools: [pool('main', ['10.64.0.0/16'])], subnets: [own4, near, far] }),
    );
    expect(state.families).toEqual(['ipv4']);
    expect(state.routes.every(({ destination }) => destination.family === 'ipv4')).toBe(true);
    expect(state.neighbours.every(({ address }) => address.family === 'ipv4')).toBe(true);
  });

  it('that the kernel lacks are left out, whatever the pools say', () => {
    const state = desiredNodeState(input({ kernelFamilies: ['ipv4'], subnets: [own4, own6, near, far6] }));
    expect(state.families).toEqual(['ipv4']);
    expect(state.addresses.every(({ address }) => address.family === 'ipv4')).toBe(true);
    expect(state.routes.every(({ destination }) => destination.family === 'ipv4')).toBe(true);
    expect(state.neighbours).toEqual([]);
  });

  it('of a drained CIDR stay while a subnet of it is held', () => {
    const state = desiredNodeState(input({ pools: [pool('main', ['10.64.0.0/16'])], subnets: [own6] }));
    expect(state.families).toEqual(['ipv4', 'ipv6']);
  });
});

describe("the source of a node's own packets", () => {
  it('is the first address of its oldest subnet, whatever the order of addresses', () => {
    const older = subnet('10.64.3.0/26', 'a', ['192.168.1.1'], { created: '2025-01-01T00:00:00Z' });
    const state = desiredNodeState(input({ subnets: [own4, older, near] }));
    expect(state.preferredSource.ipv4 && formatAddress(state.preferredSource.ipv4)).toBe('10.64.3.0');
    expect(state.addresses).toHaveLength(2);
  });

  it('is left open while the node holds no subnet of the family', () => {
    const state = desiredNodeState(input({ subnets: [own4, near6] }));
    expect(routes(state)).toContain('fd64::40/122 metric 1024 via fd01::2 dev eth0');
  });
});

describe('subnets of this node under an older UID', () => {
  const state = desiredNodeState(
    input({ subnets: [subnet('10.64.0.0/26', 'a', ['192.168.1.1'], { nodeUID: 'uid-before' })] }),
  );

  it('get no marked route, the proof by which the agent binds them, and lose none', () => {
    expect(state.routes).toEqual([]);
    expect(state.addresses).toEqual([]);
    expect(state.undecided.map(formatCIDR)).toEqual(['10.64.0.0/26']);
  });
});

describe('host prefixes', () => {
  it.each(['10.64.9.9/32', 'fd64::99/128'])(
    '%s of its own has no unreachable route and no own address',
    (cidr) => {
      const state = desiredNodeState(input({ subnets: [subnet(cidr, 'a', ['192.168.1.1'])] }));
      expect(state.routes).toEqual([]);
      expect(state.addresses).toEqual([]);
      expect(state.preferredSource).toEqual({});
    },
  );
});

describe('what cannot be expressed', () => {
  it('is said, and does not stop the rest', () => {
    const lost = subnet('10.64.7.0/26', 'd', ['fd09::1']);
    const state = desiredNodeState(input({ subnets: [lost, near] }));
    expect(state.notes).toEqual([
      'no route to 10.64.7.0/26: node "d" has no ipv4 address, which VXLAN here runs over',
    ]);
    expect(routes(state)).toEqual(['10.64.0.64/26 metric 0 via 192.168.1.2 dev eth0']);
  });

  it('includes an InternalIP that is on no link', () => {
    const state = desiredNodeState(input({ uplinks: {} }));
    expect(state.notes).toEqual([
      'InternalIP 192.168.1.1 of node "a" is on none of its links',
      'InternalIP fd01::1 of node "a" is on none of its links',
    ]);
    expect(state.vxlan).toBeUndefined();
    expect(state.podMTU).toMatchObject({ encapsulated: 1280, plain: 1280 });
  });
});
