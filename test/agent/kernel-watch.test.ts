import { describe, expect, it } from 'vitest';
import { touchedBy } from '../../src/agent/kernel-watch.ts';
import {
  FIXED_MTU_LINK_GROUP as FIXED,
  type FdbEntry,
  type KernelEvent,
  type Link,
  type Neighbour,
} from '../../src/kernel/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

const ALIAS = 'w1 weft abc eth0 10.64.0.5 - -';

function link(name: string, changes: Partial<Link> = {}): Link {
  return {
    index: 7,
    name,
    kind: 'veth',
    mac: 'ee:ee:ee:ee:ee:ee',
    mtu: 1500,
    up: true,
    loopback: false,
    operState: 'up',
    alias: undefined,
    group: 0,
    peerIndex: undefined,
    peerNamespaceId: undefined,
    altNames: [],
    master: undefined,
    vxlan: undefined,
    ...changes,
  };
}

const route = { dst: parseCIDR('10.64.0.64/26'), type: 'unicast', metric: 0 } as const;
const address = { linkIndex: 2, prefixLength: 32, scope: 'global', nodad: false, tentative: false } as const;

const NEIGHBOUR: Neighbour = {
  linkIndex: 7,
  address: parseAddress('192.168.1.2'),
  mac: undefined,
  permanent: false,
};
const DESIRED: FdbEntry = {
  linkIndex: 7,
  mac: '02:00:00:00:00:01',
  destination: parseAddress('192.168.1.2'),
};

const table: readonly { event: string; told: KernelEvent; touched: ReturnType<typeof touchedBy> }[] = [
  {
    event: 'our device goes',
    told: { kind: 'link', removed: true, link: link('vxlan.weft') },
    touched: 'links',
  },
  {
    event: 'an uplink changes',
    told: { kind: 'link', removed: false, link: link('eth0') },
    touched: 'links',
  },
  {
    event: "another's link goes",
    told: { kind: 'link', removed: true, link: link('veth1') },
    touched: undefined,
  },
  {
    event: "a pod's link is being made",
    told: { kind: 'link', removed: false, link: link('weftabc', { up: false }) },
    touched: undefined,
  },
  {
    event: "a pod's link is complete and up",
    told: { kind: 'link', removed: false, link: link('weftabc', { alias: ALIAS }) },
    touched: undefined,
  },
  {
    event: "a pod's link was set down",
    told: { kind: 'link', removed: false, link: link('weftabc', { alias: ALIAS, up: false }) },
    touched: 'links',
  },
  {
    event: "a pod's link got another MTU",
    told: { kind: 'link', removed: false, link: link('weftabc', { alias: ALIAS, mtu: 1400 }) },
    touched: 'links',
  },
  {
    event: "a pod's link, whose configuration names an MTU, has that",
    told: { kind: 'link', removed: false, link: link('weftabc', { alias: ALIAS, mtu: 1400, group: FIXED }) },
    touched: undefined,
  },
  {
    event: "a pod's link got another MAC",
    told: { kind: 'link', removed: false, link: link('weftabc', { alias: ALIAS, mac: '02:00:00:00:00:09' }) },
    touched: 'links',
  },
  {
    event: 'a link is dying',
    told: { kind: 'link', removed: false, link: link('xweft7', { up: false, alias: 'dying' }) },
    touched: undefined,
  },
  {
    event: 'an address goes',
    told: { kind: 'address', removed: true, address: { ...address, address: parseAddress('10.64.0.0') } },
    touched: 'links',
  },
  {
    event: 'a link gives itself its link-local address',
    told: { kind: 'address', removed: false, address: { ...address, address: parseAddress('fe80::1') } },
    touched: undefined,
  },
  {
    event: 'a route of node state',
    told: { kind: 'route', removed: true, route: { ...route, protocol: 84 } },
    touched: 'links',
  },
  {
    event: 'a route of a pod',
    told: { kind: 'route', removed: true, route: { ...route, protocol: 85 } },
    touched: 'links',
  },
  {
    event: "another's route",
    told: { kind: 'route', removed: true, route: { ...route, protocol: 4 } },
    touched: undefined,
  },
  {
    event: 'a neighbour goes that this node asks for',
    told: { kind: 'neighbour', removed: true, neighbour: { ...NEIGHBOUR, address: parseAddress('fe80::2') } },
    touched: 'links',
  },
  {
    event: "a neighbour goes that nothing asks for, as the kernel's own do",
    told: { kind: 'neighbour', removed: true, neighbour: NEIGHBOUR },
    touched: undefined,
  },
  {
    event: 'a neighbour is set',
    told: { kind: 'neighbour', removed: false, neighbour: { ...NEIGHBOUR, permanent: true } },
    touched: 'links',
  },
  {
    event: 'a neighbour is learned',
    told: { kind: 'neighbour', removed: false, neighbour: NEIGHBOUR },
    touched: undefined,
  },
  {
    event: 'an FDB entry goes that this node asks for',
    told: { kind: 'fdb', removed: true, entry: DESIRED },
    touched: 'links',
  },
  {
    event: 'an FDB entry comes that this node asks for: its own doing',
    told: { kind: 'fdb', removed: false, entry: DESIRED },
    touched: undefined,
  },
  {
    event: "an FDB entry of another's device comes",
    told: { kind: 'fdb', removed: false, entry: { ...DESIRED, linkIndex: 8 } },
    touched: undefined,
  },
  {
    event: 'an FDB entry goes that nothing asks for any more',
    told: { kind: 'fdb', removed: true, entry: { ...DESIRED, mac: '02:00:00:00:00:02' } },
    touched: undefined,
  },
  {
    event: 'an FDB entry comes that nothing asks for',
    told: { kind: 'fdb', removed: false, entry: { ...DESIRED, mac: '02:00:00:00:00:02' } },
    touched: 'links',
  },
  { event: 'nft rules', told: { kind: 'nft' }, touched: 'filters' },
  { event: 'lost events', told: { kind: 'overrun' }, touched: 'all' },
];

describe('what an event may have touched', () => {
  it.each(table)('$event: $touched', ({ told, touched }) => {
    const asked = {
      isTunnel: (linkIndex: number) => linkIndex === DESIRED.linkIndex,
      hasForwarding: ({ mac }: FdbEntry) => mac === DESIRED.mac,
      podMTU: () => 1500,
      hasNeighbour: ({ address: { family } }: Neighbour) => family === 'ipv6',
    };
    expect(touchedBy(told, asked)).toBe(touched);
  });
});
