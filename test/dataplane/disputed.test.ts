import { describe, expect, it } from 'vitest';
import { desiredNodeState } from '../../src/dataplane/index.ts';
import { formatCIDR } from '../../src/net/index.ts';
import { input, pool, subnet } from './objects.ts';

const EARLY = { created: '2026-01-01T00:00:00Z' };
const LATE = { created: '2026-01-02T00:00:00Z' };

function routed(subnets: ReturnType<typeof subnet>[]) {
  const state = desiredNodeState(input({ subnets }));
  return {
    to: state.routes
      .filter(({ target }) => target.kind !== 'unreachable')
      .map(({ destination }) => formatCIDR(destination)),
    notes: state.notes,
  };
}

describe('of two subnets of different nodes that overlap', () => {
  it.each([
    { what: 'inside', victim: '10.64.0.64/26', thief: '10.64.0.70/32' },
    { what: 'around', victim: '10.64.0.64/26', thief: '10.64.0.0/24' },
  ])('the younger one is not routed where it lies $what the other', ({ victim, thief }) => {
    const older = subnet(victim, 'b', ['192.168.1.2'], EARLY);
    const younger = subnet(thief, 'c', ['192.168.1.3'], LATE);
    const { to, notes } = routed([younger, older]);
    expect(to).toEqual([victim]);
    expect(notes).toEqual([
      `no route to ${thief} of node "c": it overlaps ${victim} of node "b", which is older`,
    ]);
  });

  it('the younger one is not routed where the other is our own', () => {
    const own = subnet('10.64.0.0/26', 'a', ['192.168.1.1'], EARLY);
    expect(routed([own, subnet('10.64.0.9/32', 'c', ['192.168.1.3'], LATE)]).to).toEqual([]);
  });

  it('both are routed where one node holds both', () => {
    const both = [
      subnet('10.64.0.64/26', 'b', ['192.168.1.2'], EARLY),
      subnet('10.64.0.64/28', 'b', ['192.168.1.2'], LATE),
    ];
    expect(routed(both).to).toEqual(['10.64.0.64/26', '10.64.0.64/28']);
  });
});

describe('an exclusive subnet in a bridge’s', () => {
  const pools = [pool('main', ['10.64.0.0/16'], { use: 'Bridge' })];
  const around = subnet('10.64.0.64/26', 'b', ['192.168.1.2'], EARLY);
  const to = (cidr: string) => {
    const thief = subnet(cidr, 'c', ['192.168.1.3'], { ...LATE, exclusive: true });
    return desiredNodeState(input({ pools, subnets: [around, thief] }))
      .routes.map(({ destination }) => formatCIDR(destination))
      .filter((destination) => destination === cidr);
  };

  it('is not routed where it is the gateway, which is the node’s own address', () => {
    expect(to('10.64.0.65/32')).toEqual([]);
    expect(to('10.64.0.66/32')).toEqual(['10.64.0.66/32']);
  });
});

describe('an exclusive subnet', () => {
  const b = subnet('10.64.0.64/26', 'b', ['192.168.1.2'], EARLY);
  const exclusive = (cidr: string, nodeName: string) =>
    subnet(cidr, nodeName, ['192.168.1.3'], { ...LATE, exclusive: true });

  it('is routed to its node inside another’s subnet, which is routed too', () => {
    expect(routed([b, exclusive('10.64.0.70/32', 'c')])).toEqual({
      to: ['10.64.0.64/26', '10.64.0.70/32'],
      notes: [],
    });
  });

  it('is routed to its node out of this node’s own subnet', () => {
    const own = subnet('10.64.0.0/26', 'a', ['192.168.1.1'], EARLY);
    expect(routed([own, exclusive('10.64.0.9/32', 'c')]).to).toEqual(['10.64.0.9/32']);
  });

  it('of this node has no route: the pod’s own leads there', () => {
    const state = desiredNodeState(input({ subnets: [b, exclusive('10.64.0.70/32', 'a')] }));
    expect(state.routes.map(({ destination }) => formatCIDR(destination))).toEqual(['10.64.0.64/26']);
    expect(state.addresses).toEqual([]);
  });

  it('does not take the address that a node has in its own subnet', () => {
    const { to, notes } = routed([b, exclusive('10.64.0.64/32', 'c')]);
    expect(to).toEqual(['10.64.0.64/26']);
    expect(notes).toEqual([
      'no route to 10.64.0.64/32 of node "c": it is the address of node "b" in 10.64.0.64/26',
    ]);
  });

  it('does not take the address of a node', () => {
    expect(routed([b, exclusive('192.168.1.2/32', 'c')]).to).toEqual(['10.64.0.64/26']);
  });
});

describe('a subnet that holds the address of a node', () => {
  const b = subnet('10.64.0.64/26', 'b', ['192.168.1.2'], EARLY);

  it.each([
    { whose: 'another node', cidr: '192.168.1.2/32', created: LATE },
    {
      whose: 'another node that came later',
      cidr: '192.168.1.2/32',
      created: { created: '2025-01-01T00:00:00Z' },
    },
    { whose: 'this node', cidr: '192.168.1.0/31', created: EARLY },
  ])('of $whose is not routed', ({ cidr, created }) => {
    const { to, notes } = routed([b, subnet(cidr, 'c', ['192.168.1.3'], created)]);
    expect(to).toEqual(['10.64.0.64/26']);
    expect(notes).toEqual([expect.stringContaining(`no route to ${cidr} of node "c": it holds 192.168.1.`)]);
  });

  it('stays routed where a younger subnet merely says so of its own node', () => {
    const liar = subnet('10.64.0.128/26', 'c', ['10.64.0.70'], LATE);
    expect(routed([b, liar]).to).toContain('10.64.0.64/26');
  });
});
