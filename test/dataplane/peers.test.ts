import { describe, expect, it } from 'vitest';
import { vxlanMAC, type Encapsulation } from '../../src/api/index.ts';
import { pathToPeer, type Uplinks } from '../../src/dataplane/index.ts';
import { formatAddress, parseAddress, type Family } from '../../src/net/index.ts';
import { subnet, uplink } from './objects.ts';

const here: Uplinks = {
  ipv4: uplink('192.168.1.1', ['192.168.1.0/24']),
  ipv6: uplink('fd01::1', ['fd01::/64']),
};

interface Situation {
  readonly situation: string;
  readonly cidr: string;
  readonly hops: readonly string[];
  readonly uplinks?: Uplinks;
  readonly underlay?: Family | undefined;
  readonly encapsulation?: Encapsulation;
  readonly path: string;
}

const situations: readonly Situation[] = [
  {
    situation: 'IPv4 on one link',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.2'],
    path: 'direct eth0 192.168.1.2',
  },
  {
    situation: 'IPv6 on one link',
    cidr: 'fd64::40/122',
    hops: ['192.168.1.2', 'fd01::2'],
    path: 'direct eth0 fd01::2',
  },
  {
    situation: 'IPv4 behind a router',
    cidr: '10.64.1.0/26',
    hops: ['192.168.2.2'],
    path: 'vxlan 192.168.2.2',
  },
  {
    situation: 'IPv6 behind a router',
    cidr: 'fd64::40/122',
    hops: ['192.168.2.2', 'fd02::2'],
    path: 'vxlan 192.168.2.2',
  },
  {
    situation: 'IPv6 where only IPv4 is common',
    cidr: 'fd64::40/122',
    hops: ['192.168.1.2'],
    path: 'vxlan 192.168.1.2',
  },
  {
    situation: 'the second of two addresses is on our link',
    cidr: '10.64.1.0/26',
    hops: ['172.16.0.2', '192.168.1.2'],
    path: 'direct eth0 192.168.1.2',
  },
  {
    situation: 'a /32 uplink has no neighbours, not even itself',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.2'],
    uplinks: { ipv4: uplink('192.168.1.1', ['192.168.1.2/32']) },
    path: 'vxlan 192.168.1.2',
  },
  {
    situation: 'IPv4 over an IPv6 underlay',
    cidr: '10.64.1.0/26',
    hops: ['fd02::2', '192.168.2.2'],
    underlay: 'ipv6',
    path: 'vxlan fd02::2',
  },
  {
    situation: 'the underlay is of a family that the peer lacks',
    cidr: '10.64.1.0/26',
    hops: ['fd02::2'],
    path: 'none: no route to 10.64.1.0/26: node "b" has no ipv4 address, which VXLAN here runs over',
  },
  {
    situation: 'an address that this node took over from one that is gone',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.1'],
    path: 'none: no route to 10.64.1.0/26: 192.168.1.1 of node "b" is this node\'s own address',
  },
  {
    situation: 'no link of ours is known',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.2'],
    uplinks: {},
    underlay: undefined,
    path: 'none: no route to 10.64.1.0/26: no InternalIP of this node is on one of its links',
  },
  {
    situation: 'Always, on one link',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.2'],
    encapsulation: 'Always',
    path: 'vxlan 192.168.1.2',
  },
  {
    situation: 'Always, IPv6 on one link',
    cidr: 'fd64::40/122',
    hops: ['192.168.1.2', 'fd01::2'],
    encapsulation: 'Always',
    path: 'vxlan 192.168.1.2',
  },
  {
    situation: 'Never, on one link',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.2'],
    encapsulation: 'Never',
    path: 'direct eth0 192.168.1.2',
  },
  {
    situation: 'Never, behind a router',
    cidr: '10.64.1.0/26',
    hops: ['192.168.2.2'],
    encapsulation: 'Never',
    path: 'fabric',
  },
  {
    situation: 'Never, IPv6 where only IPv4 is common',
    cidr: 'fd64::40/122',
    hops: ['192.168.1.2'],
    encapsulation: 'Never',
    path: 'fabric',
  },
  {
    situation: 'Never, no link of ours is known: the fabric knows',
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.2'],
    uplinks: {},
    underlay: undefined,
    encapsulation: 'Never',
    path: 'fabric',
  },
  {
    situation: "Never, and the peer claims this node's own address",
    cidr: '10.64.1.0/26',
    hops: ['192.168.1.1'],
    encapsulation: 'Never',
    path: 'none: no route to 10.64.1.0/26: 192.168.1.1 of node "b" is this node\'s own address',
  },
];

describe('the way to a subnet of another node', () => {
  it.each(situations)('$situation: $path', (row) => {
    const path = pathToPeer(subnet(row.cidr, 'b', row.hops), {
      encapsulation: row.encapsulation ?? 'CrossSubnet',
      uplinks: row.uplinks ?? here,
      underlay: 'underlay' in row ? row.underlay : 'ipv4',
      own: [parseAddress('192.168.1.1')],
    });
    if (path.kind === 'vxlan') expect(path.mac).toBe(vxlanMAC('uid-b'));
    const text = {
      direct: () => (path.kind === 'direct' ? `direct ${path.link} ${formatAddress(path.nextHop)}` : ''),
      vxlan: () => (path.kind === 'vxlan' ? `vxlan ${formatAddress(path.destination)}` : ''),
      fabric: () => 'fabric',
      none: () => (path.kind === 'none' ? `none: ${path.reason}` : ''),
    }[path.kind]();
    expect(text).toBe(row.path);
  });
});
