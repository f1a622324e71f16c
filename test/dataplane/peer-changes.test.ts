import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NodeSubnet } from '../../src/api/index.ts';
import {
  createPeerIndex,
  desiredNodeState,
  peerChanges,
  type DesiredInput,
  type NodeState,
} from '../../src/dataplane/index.ts';
import { formatAddress, formatCIDR, parseAddress } from '../../src/net/index.ts';
import { input, pool, subnet, uplink } from './objects.ts';

const own = subnet('10.64.0.0/26', 'a', ['192.168.1.1', 'fd01::1']);
const near = subnet('10.64.0.64/26', 'b', ['192.168.1.2', 'fd01::2']);
const far = subnet('10.64.0.128/26', 'c', ['192.168.2.3', 'fd02::3']);
const far6 = subnet('fd64::80/122', 'c', ['192.168.2.3', 'fd02::3']);

function changesOf(
  before: readonly NodeSubnet[],
  now: readonly NodeSubnet[],
  given: Partial<DesiredInput> = {},
) {
  const was = input({ ...given, subnets: before });
  return peerChanges(was, { ...was, subnets: now }, desiredNodeState(was));
}

describe('the changes that peers bring', () => {
  it('are the routes of a node that joins, and what the tunnel needs for it', () => {
    const changes = changesOf([own, near], [own, near, far, far6]);
    expect(changes?.routes.add.map(({ destination }) => formatCIDR(destination))).toEqual([
      '10.64.0.128/26',
      'fd64::80/122',
    ]);
    expect(changes?.neighbours.add).toHaveLength(2);
    expect(changes?.forwarding.add.map(({ destination }) => formatAddress(destination))).toEqual([
      '192.168.2.3',
    ]);
    expect(changes?.routes.remove).toEqual([]);
  });

  it('are none where no subnet has changed, whatever else there is', () => {
    const lost = subnet('10.99.0.0/26', 'c', ['192.168.2.3'], { pool: 'gone' });
    const was = input({ subnets: [own, lost] });
    const state = desiredNodeState(was);
    const none = { add: [], remove: [] };
    expect(peerChanges(was, { ...was, subnets: [own, lost] }, state)).toEqual({
      ...{ routes: none, neighbours: none, forwarding: none },
      state,
    });
  });

  it('keep what a node still needs that loses one of its subnets', () => {
    const other6 = subnet('fd64::c0/122', 'c', ['192.168.2.3', 'fd02::3']);
    const changes = changesOf([own, far, far6, other6], [own, far, far6]);
    expect(changes?.routes.remove.map(({ destination }) => formatCIDR(destination))).toEqual([
      'fd64::c0/122',
    ]);
    expect(changes?.neighbours).toEqual({ add: [], remove: [] });
    expect(changes?.forwarding).toEqual({ add: [], remove: [] });
  });

  it('are told one by one also where tenants are kept apart, by the CIDRs of their pools', () => {
    const pools = [
      pool('main', ['10.64.0.0/16', 'fd64::/64'], { isolation: { mode: 'Isolated', peers: [], dns: true } }),
    ];
    const changes = changesOf([own, near], [own, near, far], { pools });
    expect(changes?.routes.add).toHaveLength(1);
    expect(changes?.state.filter.isolation).toBeDefined();
  });

  it('exchange a route whose node has another address', () => {
    const moved = subnet('10.64.0.64/26', 'b', ['192.168.1.9', 'fd01::2']);
    const changes = changesOf([own, near, far], [own, moved, far]);
    expect(changes?.routes.add).toHaveLength(1);
    expect(changes?.routes.remove).toHaveLength(1);
    expect(changes?.state.routes).toHaveLength(3);
  });

  it.each<[string, NodeSubnet[], NodeSubnet[], Partial<DesiredInput>]>([
    ['this node', [near], [near, own], {}],
    [
      'a subnet inside one of another node',
      [own, near],
      [own, near, subnet('10.64.0.64/28', 'z', ['192.168.1.3'])],
      {},
    ],
    ['a next hop in common', [own, near], [own, near, subnet('10.64.1.0/26', 'z', ['192.168.1.2'])], {}],
    ['a subnet outside of the pools', [own], [own, subnet('10.99.0.0/26', 'z', ['192.168.1.3'])], {}],
    [
      'a pool that is not there',
      [own],
      [own, subnet('10.64.1.0/26', 'z', ['192.168.1.3'], { pool: 'gone' })],
      {},
    ],
  ])('are not told one by one: %s', (_, before, now, given) => {
    expect(changesOf(before, now, given)).toBeUndefined();
  });

  it('are not told one by one where pools, links or this node change, too', () => {
    const was = input({ subnets: [own] });
    const state = desiredNodeState(was);
    const subnets = [own, near];
    expect(peerChanges(was, { ...was, subnets }, state)).toBeDefined();
    const pools = [pool('main', ['10.64.0.0/15', 'fd64::/64'])];
    expect(peerChanges(was, { ...was, subnets, pools }, state)).toBeUndefined();
    const uplinks = { ipv4: uplink('192.168.1.1', ['192.168.1.0/24'], { mtu: 9000 }) };
    expect(peerChanges(was, { ...was, subnets, uplinks }, state)).toBeUndefined();
    const node = { ...was.node, addresses: [parseAddress('192.168.1.1')] };
    expect(peerChanges(was, { ...was, subnets, node }, state)).toBeUndefined();
  });

  it('lead to the state that working out everything leads to', { timeout: 60_000 }, () => {
    let told = 0;
    fc.assert(
      fc.property(
        world,
        world,
        fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }),
        fc.constantFrom(POOLS, TENANTS),
        (one, other, keeps, pools) => {
          const before = [own, ...one];
          // Most objects stay the same ones.
          const kept = one.filter((_, i) => keeps[i] !== false);
          const names = new Set(kept.map(({ metadata }) => metadata.name));
          const come = other.slice(0, 2).filter(({ metadata }) => !names.has(metadata.name));
          const now = [own, ...kept, ...come];
          // There and back, by an index that goes with it.
          const index = createPeerIndex();
          const steps = [before, now, before].map((subnets) => input({ pools, subnets }));
          for (const [i, to] of steps.entries()) {
            const from = steps[i - 1];
            if (from === undefined) continue;
            const changes = peerChanges(from, to, desiredNodeState(from), index);
            expect(peerChanges(from, to, desiredNodeState(from))).toEqual(changes);
            if (changes === undefined) continue;
            told++;
            expect(sorted(changes.state)).toEqual(sorted(desiredNodeState(to)));
          }
        },
      ),
      { numRuns: 3_000 },
    );
    expect(told).toBeGreaterThan(300);
  });
});

const POOLS = [
  pool('main', ['10.64.0.0/16', 'fd64::/64']),
  pool('always', ['10.65.0.0/16'], { encapsulation: 'Always' }),
  pool('never', ['10.66.0.0/16'], { encapsulation: 'Never' }),
];

const TENANTS = [
  pool('main', ['10.64.0.0/16', 'fd64::/64']),
  pool('always', ['10.65.0.0/16'], {
    encapsulation: 'Always',
    isolation: { mode: 'Isolated', peers: ['main'], dns: true },
  }),
  pool('never', ['10.66.0.0/16'], {
    encapsulation: 'Never',
    isolation: { mode: 'Isolated', peers: [], dns: true },
  }),
];

/** Subnets of a few nodes close to each other, so that some overlap, and share addresses and even UIDs. */
const anySubnet = fc
  .record({
    cidr: fc.constantFrom(
      ...Array.from(
        { length: 24 },
        (_, i) => `10.${64 + (i % 3)}.0.${64 + 64 * (i & 1)}/${i % 5 === 0 ? 28 : 26}`,
      ),
      ...Array.from({ length: 12 }, (_, i) => `10.${64 + (i % 3)}.${i}.0/26`),
      ...Array.from({ length: 12 }, (_, i) =>
        `fd64::${(i + 1) * 40}/122`.replace(
          /::(\d+)/,
          (_all, n: string) => `::${(Math.floor(Number(n) / 40) * 64).toString(16)}`,
        ),
      ),
    ),
    node: fc.constantFrom('b', 'c', 'd', 'e', 'f', 'g', 'h'),
    odd: fc.integer({ min: 0, max: 30 }),
    exclusive: fc.integer({ min: 0, max: 20 }),
  })
  .map(({ cidr, node, odd, exclusive }) => {
    const number = node.charCodeAt(0) - 95;
    const lan = number % 2 === 0 ? 1 : 2;
    const hop = odd === 0 ? '192.168.1.3' : odd === 1 ? '10.64.0.70' : `192.168.${lan}.${number}`;
    const pools = ['main', 'always', 'never'];
    return subnet(cidr, node, [hop, `fd0${lan}::${number}`], {
      pool: cidr.includes(':') ? 'main' : (pools[Number(cidr.slice(3, 5)) - 64] ?? ''),
      ...(odd === 2 ? { nodeUID: 'uid-b' } : {}),
      exclusive: exclusive === 0,
    });
  });

// The apiserver keeps names apart.
const world = fc.uniqueArray(anySubnet, { maxLength: 12, selector: ({ metadata }) => metadata.name });

/** As text, whatever the order of the lists. */
function sorted(state: NodeState): unknown {
  const texts = (items: readonly unknown[]) => items.map(text).sort();
  const { routes, neighbours, forwarding, ...rest } = state;
  return {
    routes: texts(routes),
    neighbours: texts(neighbours),
    forwarding: texts(forwarding),
    rest: text(rest),
  };
}

function text(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? String(part) : part));
}
