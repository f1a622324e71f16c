import { describe, expect, it } from 'vitest';
import { desiredNodeState } from '../../src/dataplane/index.ts';
import { formatAddress, formatCIDR, parseAddress, rangesHave } from '../../src/net/index.ts';
import { input, pool, subnet } from './objects.ts';

const HOPS = { a: ['192.168.1.1', 'fd01::1'], b: ['192.168.1.2', 'fd01::2'], c: ['192.168.2.3', 'fd02::3'] };
const bridge = pool('bridged', ['10.65.0.0/16', 'fd65::/64'], { use: 'Bridge' });
const lan = pool('lan', ['192.168.7.0/24', 'fd07::/64'], { use: 'Lan' });
const main = pool('main', ['10.64.0.0/16', 'fd64::/64']);

describe('a subnet of a bridge', () => {
  const near = subnet('10.65.0.64/26', 'b', HOPS.b, { pool: 'bridged' });
  const far = subnet('10.65.0.128/26', 'c', HOPS.c, { pool: 'bridged' });
  const own = subnet('10.65.0.0/26', 'a', HOPS.a, { pool: 'bridged' });
  const state = desiredNodeState(input({ pools: [main, bridge], subnets: [own, near, far] }));

  it('is routed to its node like any other', () => {
    const links = state.routes.map(({ destination, target }) => [
      formatCIDR(destination),
      target.kind === 'gateway' ? target.link : target.kind,
    ]);
    expect(links).toEqual([
      ['10.65.0.0/26', 'unreachable'],
      ['10.65.0.64/26', 'eth0'],
      ['10.65.0.128/26', 'vxlan.weft'],
    ]);
  });

  it('leaves its addresses to the bridge: none is put on a link, and none is the source of the node', () => {
    expect(state.addresses).toEqual([]);
    expect(state.preferredSource).toEqual({});
    const pods = subnet('10.64.0.0/26', 'a', HOPS.a);
    const both = desiredNodeState(input({ pools: [main, bridge], subnets: [own, pods] }));
    expect(both.addresses.map(({ address }) => formatAddress(address))).toEqual(['10.64.0.0']);
    expect(both.preferredSource.ipv4).toEqual(parseAddress('10.64.0.0'));
  });

  it('lets its gateway, the second address, speak for its node', () => {
    const { nodes } = state.filter;
    for (const address of ['10.65.0.1', '10.65.0.65', '10.65.0.129']) {
      expect(rangesHave(nodes.ipv4, parseAddress(address).value)).toBe(true);
    }
    expect(rangesHave(nodes.ipv4, parseAddress('10.65.0.64').value)).toBe(false);
  });

  it('is masqueraded as its pool says', () => {
    const has = (natOutgoing: boolean) => {
      const pools = [main, pool('bridged', ['10.65.0.0/16'], { use: 'Bridge', natOutgoing })];
      const { filter } = desiredNodeState(input({ pools, subnets: [own, near] }));
      return rangesHave(filter.natSources.ipv4, parseAddress('10.65.0.9').value);
    };
    expect([has(true), has(false)]).toEqual([true, false]);
  });

  it('is among what filters of the host are told, since its links have any name', () => {
    expect(state.forwarded.map(formatCIDR)).toContain('10.65.0.0/16');
  });

  it('is a source that no packet from elsewhere may have', () => {
    const has = (text: string) => rangesHave(state.filter.bridged.ipv4, parseAddress(text).value);
    expect([has('10.65.0.9'), has('10.65.0.70')]).toEqual([true, false]);
  });

  it('counts as one of pods where its pool is not there', () => {
    const { addresses } = desiredNodeState(input({ pools: [main], subnets: [own] }));
    expect(addresses.map(({ address }) => formatAddress(address))).toEqual(['10.65.0.0']);
  });
});

describe('a subnet of a LAN', () => {
  const pods = subnet('10.64.0.0/26', 'a', HOPS.a);
  const without = desiredNodeState(input({ pools: [main], subnets: [pods] }));

  it.each([
    { name: 'of another node', lans: [subnet('192.168.7.16/28', 'b', [], { pool: 'lan' })] },
    { name: 'of this node', lans: [subnet('192.168.7.16/28', 'a', [], { pool: 'lan' })] },
    { name: 'of one address', lans: [subnet('fd07::9/128', 'b', [], { pool: 'lan' })] },
    {
      name: 'to which somebody wrote next hops',
      lans: [subnet('192.168.7.16/28', 'b', HOPS.b, { pool: 'lan' })],
    },
    {
      name: 'that holds the address of a node',
      lans: [subnet('192.168.7.16/28', 'c', [], { pool: 'lan' })],
    },
  ])('$name changes nothing in the kernel', ({ lans }) => {
    const state = desiredNodeState(input({ pools: [main, lan], subnets: [pods, ...lans] }));
    expect(state).toEqual(without);
  });

  it('is not routed either when its pool has left the cache before it', () => {
    const lans = [subnet('192.168.7.16/28', 'b', [], { pool: 'lan' })];
    expect(desiredNodeState(input({ pools: [main], subnets: [pods, ...lans] }))).toEqual(without);
  });

  it('alone is no reason to have a tunnel, or to forward', () => {
    const lans = [subnet('192.168.7.16/28', 'a', [], { pool: 'lan' })];
    const state = desiredNodeState(input({ pools: [lan], subnets: lans }));
    expect(state.vxlan).toBeUndefined();
    expect(state.families).toEqual([]);
    expect(state.routes).toEqual([]);
  });
});
