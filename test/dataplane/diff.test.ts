import { describe, expect, it } from 'vitest';
import {
  diffAddresses,
  diffFdb,
  diffNeighbours,
  diffRoutes,
  divertingRoutes,
  NODE_ROUTE_PROTOCOL,
  type RouteFacts,
} from '../../src/dataplane/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

function route(dst: string, via: string | undefined, changes: Partial<RouteFacts> = {}): RouteFacts {
  return {
    dst: parseCIDR(dst),
    type: via === undefined ? 'unreachable' : 'unicast',
    via: via === undefined ? undefined : parseAddress(via),
    oif: via === undefined ? undefined : 2,
    metric: via === undefined ? 4096 : 0,
    protocol: NODE_ROUTE_PROTOCOL,
    ...changes,
  };
}

describe('routes of others that take packets for other nodes', () => {
  const to = (dst: string) => route(dst, '192.168.1.2', { metric: dst.includes(':') ? 1024 : 0 });
  const desired = [
    ...['10.64.0.64/26', '10.65.0.0/24', '10.64.7.7/32', 'fd64::40/122'].map(to),
    route('10.64.1.0/26', undefined),
  ];
  const elsewhere = (dst: string, metric = 1024) => route(dst, '192.168.1.9', { protocol: 4, metric });

  it.each([
    { dst: '10.64.0.64/27', diverts: true },
    { dst: '10.64.0.127/32', diverts: true },
    { dst: '10.65.0.96/27', diverts: true },
    { dst: 'fd64::60/123', diverts: true },
    // In its very place, around it, beside it, and inside of what is this node's own.
    { dst: '10.64.0.64/26', diverts: false },
    { dst: '10.64.0.0/24', diverts: false },
    { dst: '0.0.0.0/0', diverts: false },
    { dst: '10.64.0.128/27', diverts: false },
    { dst: '10.64.7.7/32', diverts: false },
    { dst: 'fd64::/123', diverts: false },
    { dst: '10.64.1.0/27', diverts: false },
  ])('$dst: $diverts', ({ dst, diverts }) => {
    const other = elsewhere(dst);
    expect(divertingRoutes(desired, [other])).toEqual(diverts ? [other] : []);
  });

  it('also in the very place of ours, where a lower metric wins', () => {
    const others = [elsewhere('fd64::40/122', 100), elsewhere('fd64::40/122', 2048)];
    expect(divertingRoutes(desired, others)).toEqual(others.slice(0, 1));
  });

  it('but not where they lead the same way', () => {
    const same = { ...elsewhere('10.64.0.64/27'), via: parseAddress('192.168.1.2') };
    expect(divertingRoutes(desired, [same])).toEqual([]);
    const end = route('10.64.0.64/27', undefined, { protocol: 4 });
    expect(divertingRoutes(desired, [{ ...same, oif: 3 }, end])).toHaveLength(2);
  });
});

describe.each([
  { family: 'ipv4', near: '10.64.0.64/26', far: '10.64.0.128/26', hop: '192.168.1.2', other: '192.168.1.3' },
  { family: 'ipv6', near: 'fd64::40/122', far: 'fd64::80/122', hop: 'fd01::2', other: 'fd01::3' },
])('routes of $family', ({ near, far, hop, other }) => {
  it('are left alone when they are as desired, whatever else the kernel says of them', () => {
    const listed = { ...route(near, hop), scope: 'universe', table: 254, onlink: false };
    expect(diffRoutes([route(near, hop)], [listed])).toEqual({ add: [], remove: [] });
  });

  it('are added where missing and removed where nothing asks for them', () => {
    expect(diffRoutes([route(near, hop)], [route(far, hop)])).toEqual({
      add: [route(near, hop)],
      remove: [route(far, hop)],
    });
  });

  it('of another are never removed, whatever they say', () => {
    for (const protocol of [2, 3, 4, 85, 186]) {
      expect(diffRoutes([], [route(near, hop, { protocol })])).toEqual({ add: [], remove: [] });
    }
  });

  it.each([
    ['next hop', { via: parseAddress(other) }],
    ['link', { oif: 7 }],
    ['source', { prefSrc: parseAddress(other) }],
    ['metric', { metric: 5 }],
    ['type', { type: 'blackhole' }],
  ])('are exchanged when the %s differs', (_, change) => {
    const wrong = route(near, hop, change);
    expect(diffRoutes([route(near, hop)], [wrong])).toEqual({ add: [route(near, hop)], remove: [wrong] });
  });

  it('that are unreachable stay while their removal is not decided', () => {
    const listed = [route(near, undefined), route(far, undefined)];
    expect(diffRoutes([], listed, [parseCIDR(near)]).remove).toEqual([route(far, undefined)]);
    expect(diffRoutes([], [route(near, hop)], [parseCIDR(near)]).remove).toEqual([route(near, hop)]);
  });
});

describe('addresses of our device', () => {
  const host = (text: string, prefixLength: number) => ({ address: parseAddress(text), prefixLength });

  it('are exactly the desired ones, each as a host prefix, besides the link-local one', () => {
    const wide = host('10.64.0.0', 26);
    const old = host('fd64::40', 128);
    expect(
      diffAddresses([parseAddress('10.64.0.0'), parseAddress('fd64::')], [wide, old, host('fe80::1', 64)]),
    ).toEqual({ add: [host('10.64.0.0', 32), host('fd64::', 128)], remove: [wide, old] });
  });

  it('of a subnet that is not decided stay', () => {
    expect(diffAddresses([], [host('10.64.0.0', 32)], [parseCIDR('10.64.0.0/26')]).remove).toEqual([]);
  });
});

describe('neighbours of our device', () => {
  const mac = '02:00:00:00:00:01';
  const entry = (text: string, changes = {}) => ({
    address: parseAddress(text),
    mac,
    permanent: true,
    ...changes,
  });

  it('are set where missing, learned only, or with another MAC', () => {
    const desired = ['10.64.1.0', '10.64.2.0', '10.64.3.0', '10.64.4.0'].map((text) => ({
      address: parseAddress(text),
      mac,
    }));
    const listed = [
      entry('10.64.1.0'),
      entry('10.64.2.0', { permanent: false }),
      entry('10.64.3.0', { mac: '02:00:00:00:00:02' }),
    ];
    expect(diffNeighbours(desired, listed)).toEqual({ add: desired.slice(1), remove: [] });
  });

  it('are removed where permanent and not desired', () => {
    const listed = [entry('10.64.1.0'), entry('fe80::1'), entry('10.64.9.9', { permanent: false })];
    expect(diffNeighbours([], listed).remove).toEqual(listed.slice(0, 2));
  });
});

describe('forwarding entries of our device', () => {
  const entry = (mac: string, destination: string) => ({ mac, destination: parseAddress(destination) });

  it('follow a node to its new address', () => {
    const moved = entry('02:00:00:00:00:01', '192.168.2.4');
    const old = entry('02:00:00:00:00:01', '192.168.2.3');
    const gone = entry('02:00:00:00:00:02', '192.168.2.5');
    expect(diffFdb([moved], [old, gone])).toEqual({ add: [moved], remove: [old, gone] });
    expect(diffFdb([moved], [moved])).toEqual({ add: [], remove: [] });
  });
});
