import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { IPPool, NodeSubnet } from '../../src/api/index.ts';
import {
  countFreeSubnets,
  drawableSubnets,
  freeSubnet,
  freeSubnetRanges,
  isDrained,
  ownSubnets,
  usableFamilies,
  usableRanges,
} from '../../src/ipam/index.ts';
import {
  cidrContains,
  cidrsOverlap,
  countAddresses,
  formatAddress,
  formatCIDR,
  parseAddress,
  parseCIDR,
  type Family,
} from '../../src/net/index.ts';
import { poolOf, subnetOf } from './objects.ts';

const pool = poolOf('p', { cidrs: ['10.0.0.0/24', 'fd00::/48'] });

test('own subnets carry the name and the present UID of the node', () => {
  const mine = subnetOf('10.0.0.0/26', pool);
  const ofEarlierNode = subnetOf('10.0.0.64/26', pool, 'n1', { nodeUID: 'uid-earlier' });
  const ofOther = subnetOf('10.0.0.128/26', pool, 'n2');
  expect(ownSubnets([mine, ofEarlierNode, ofOther], 'n1', 'uid-n1')).toEqual([mine]);
});

test('the first address is the host, all others can be handed out', () => {
  const subnet = subnetOf('10.0.0.64/26', pool);
  expect(countAddresses(usableRanges(subnet, pool))).toBe(63n);
  expect(countAddresses(usableRanges(subnetOf('fd00::40/122', pool), pool))).toBe(63n);
});

describe('what the pool reserves', () => {
  test.each([
    { reserved: ['10.0.0.70'], usable: ['10.0.0.65-10.0.0.69', '10.0.0.71-10.0.0.127'] },
    { reserved: ['10.0.0.64/28', '10.0.0.72/29'], usable: ['10.0.0.80-10.0.0.127'] },
    { reserved: ['10.0.0.0/24'], usable: [] },
    { reserved: ['10.9.0.0/24', 'fd00::/64'], usable: ['10.0.0.65-10.0.0.127'] },
  ])('$reserved is not handed out', ({ reserved, usable }) => {
    const its = poolOf('p', { ...pool.spec, cidrs: ['10.0.0.0/24'], reserved });
    const text = (value: bigint) => formatAddress({ family: 'ipv4', value });
    const ranges = usableRanges(subnetOf('10.0.0.64/26', its), its);
    expect(ranges.map(({ first, last }) => `${text(first)}-${text(last)}`)).toEqual(usable);
  });

  test('makes no subnet of which nothing could be handed out', () => {
    const reserved = ['10.0.0.0/26', '10.0.0.65', '10.0.0.66/31', '10.0.0.192/27'];
    const its = poolOf('p', {
      cidrs: ['10.0.0.0/24'],
      nodeSubnetPrefixLength: { ipv4: 26 },
      reserved: [
        ...reserved,
        '10.0.0.129',
        '10.0.0.130/31',
        '10.0.0.132/30',
        '10.0.0.136/29',
        '10.0.0.144/28',
        '10.0.0.160/27',
      ],
    });
    const search = { pool: its, pools: [its], subnets: [], family: 'ipv4' as const };
    // The first is reserved whole, the third but for the address that is the node's own.
    expect(countFreeSubnets(search)).toBe(2n);
    const found = ['a', 'b', 'c', 'd', 'e', 'f'].map((nodeUID) => freeSubnet({ ...search, nodeUID }));
    expect([...new Set(found.map((cidr) => cidr && formatCIDR(cidr)))].sort()).toEqual([
      '10.0.0.192/26',
      '10.0.0.64/26',
    ]);
  });

  test('may be half of a /32 of IPv6', () => {
    const its = poolOf('p', { cidrs: ['fd00::/32'], reserved: ['fd00::/33'] });
    const search = { pool: its, pools: [its], subnets: [], family: 'ipv6' as const };
    expect(countFreeSubnets(search)).toBe(1n << 89n);
    const found = freeSubnet({ ...search, nodeUID: 'u' });
    expect(found !== undefined && cidrContains(parseCIDR('fd00:0:8000::/33'), found)).toBe(true);
  });
});

describe('drained', () => {
  const subnet = subnetOf('10.0.0.64/26', pool);
  test.each<{ name: string; pool: IPPool | undefined; drained: boolean }>([
    { name: 'its pool lists the CIDR around it', pool, drained: false },
    {
      name: 'its CIDR was taken out of the list',
      pool: poolOf('p', { cidrs: ['10.1.0.0/24'] }),
      drained: true,
    },
    { name: 'its pool is gone', pool: undefined, drained: true },
    {
      name: 'its pool was made anew',
      pool: poolOf('p', { cidrs: ['10.0.0.0/24'] }, { uid: 'new' }),
      drained: true,
    },
    {
      name: 'its pool is disabled',
      pool: { ...pool, spec: { ...pool.spec, disabled: true } },
      drained: true,
    },
    {
      name: 'its pool selects other nodes',
      pool: { ...pool, spec: { ...pool.spec, nodeSelector: { matchLabels: { zone: 'b' } } } },
      drained: true,
    },
    {
      name: 'its pool selects this node',
      pool: { ...pool, spec: { ...pool.spec, nodeSelector: { matchLabels: { zone: 'a' } } } },
      drained: false,
    },
  ])('$name: $drained', ({ pool: now, drained }) => {
    expect(isDrained(subnet, now, { zone: 'a' })).toBe(drained);
    const drawable = { subnets: [subnet], nodeName: 'n1', nodeUID: 'uid-n1', nodeLabels: { zone: 'a' } };
    if (now !== undefined)
      expect(drawableSubnets({ pool: now, ...drawable })).toEqual(drained ? [] : [subnet]);
  });

  test('nothing is drawn from an unconfirmed subnet', () => {
    const unconfirmed = new Set([subnet.metadata.name]);
    const node = { nodeName: 'n1', nodeUID: 'uid-n1', nodeLabels: {} };
    const drawing = { pool, subnets: [subnet], ...node, unconfirmed };
    expect(drawableSubnets(drawing)).toEqual([]);
  });
});

test.each<{ addresses: string[]; families: Family[] }>([
  { addresses: ['192.0.2.1'], families: ['ipv4'] },
  { addresses: ['2001:db8::1', '192.0.2.1'], families: ['ipv4', 'ipv6'] },
  { addresses: [], families: [] },
])('a node with $addresses uses $families of a dual-stack pool', ({ addresses, families }) => {
  expect(usableFamilies(pool, addresses.map(parseAddress))).toEqual(families);
});

describe('freeSubnet', () => {
  const free = (subnets: NodeSubnet[], of: IPPool = pool, family: Family = 'ipv4', nodeUID = 'u') =>
    freeSubnet({ pool: of, pools: [of], subnets, family, nodeUID });

  test('takes the only gap, wherever the search starts', () => {
    const taken = ['10.0.0.0/26', '10.0.0.64/26', '10.0.0.192/26'].map((cidr) => subnetOf(cidr, pool));
    for (const nodeUID of ['a', 'b', 'c', 'd', 'e', 'f']) {
      const found = free(taken, pool, 'ipv4', nodeUID);
      expect(found && formatCIDR(found)).toBe('10.0.0.128/26');
    }
  });

  test('finds none where all are taken, and counts 0', () => {
    const taken = [subnetOf('10.0.0.0/24', pool)];
    expect(free(taken)).toBeUndefined();
    expect(countFreeSubnets({ pool, pools: [pool], subnets: taken, family: 'ipv4' })).toBe(0n);
  });

  test('nodes start at different places', () => {
    const found = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].map((nodeUID) => free([], pool, 'ipv6', nodeUID));
    expect(new Set(found.map((cidr) => cidr && formatCIDR(cidr))).size).toBe(8);
    expect(free([], pool, 'ipv6', 'a')).toEqual(free([], pool, 'ipv6', 'a'));
  });

  test('a gap in which no whole subnet lies is none', () => {
    // Subnets of another size, as a pool of that range once had.
    const taken = ['10.0.0.0/28', '10.0.0.112/28', '10.0.0.128/25'].map((cidr) => subnetOf(cidr, pool));
    expect(free(taken)).toBeUndefined();
  });

  test('a CIDR that an older pool overlaps gives none', () => {
    const older = poolOf('a', { cidrs: ['10.0.0.0/16'] });
    expect(
      freeSubnet({ pool, pools: [pool, older], subnets: [], family: 'ipv4', nodeUID: 'u' }),
    ).toBeUndefined();
  });

  test('what was found taken is left out', () => {
    const search = { pool, pools: [pool], subnets: [], family: 'ipv4' as const, nodeUID: 'u' };
    const first = freeSubnet(search);
    if (first === undefined) throw new Error('there is one');
    const second = freeSubnet({ ...search, taken: [first] });
    expect(second && cidrsOverlap(first, second)).toBe(false);
  });

  test('2^74 of them are counted, not enumerated', () => {
    expect(countFreeSubnets({ pool, pools: [pool], subnets: [], family: 'ipv6' })).toBe(2n ** 74n);
    expect(
      countFreeSubnets({ pool, pools: [pool], subnets: [subnetOf('fd00::/122', pool)], family: 'ipv6' }),
    ).toBe(2n ** 74n - 1n);
  });

  const world = fc.record({
    nodeUID: fc.uuid(),
    ipv4: fc.constantFrom(24, 26, 28, 30),
    ipv6: fc.constantFrom(64, 120, 122, 126),
    // Of any size and owner: what other pools or earlier times left there.
    taken4: fc.array(fc.tuple(fc.nat(255), fc.integer({ min: 22, max: 30 })), { maxLength: 12 }),
    taken6: fc.array(fc.tuple(fc.nat(65_000), fc.integer({ min: 50, max: 126 })), { maxLength: 12 }),
  });

  test('never overlaps what is there, lies in the pool, and is found as long as the count says so', () => {
    fc.assert(
      fc.property(world, ({ nodeUID, ipv4, ipv6, taken4, taken6 }) => {
        const here = poolOf('p', {
          cidrs: ['10.0.0.0/22', '10.0.8.0/24', 'fd00::/48', 'fd00:0:1::/64'],
          nodeSubnetPrefixLength: { ipv4, ipv6 },
        });
        const subnets = [
          ...taken4.map(([block, length]) =>
            subnetOf(aligned(`10.0.${block % 12}.${block}`, length), here, 'x'),
          ),
          ...taken6.map(([group, length]) =>
            subnetOf(
              aligned(group % 2 === 0 ? `fd00::${hex(group)}` : `fd00:0:1::${hex(group)}`, length),
              here,
              'x',
            ),
          ),
        ];
        for (const family of ['ipv4', 'ipv6'] as const) {
          const count = countFreeSubnets({ pool: here, pools: [here], subnets, family });
          const found = free(subnets, here, family, nodeUID);
          expect(found !== undefined).toBe(count > 0n);
          expect(countAddresses(freeSubnetRanges({ pool: here, pools: [here], subnets, family }))).toBe(
            count << BigInt((family === 'ipv4' ? 32 : 128) - here.spec.nodeSubnetPrefixLength[family]),
          );
          if (found === undefined) continue;
          expect(parseCIDR(formatCIDR(found))).toEqual(found); // aligned
          expect(found.prefixLength).toBe(here.spec.nodeSubnetPrefixLength[family]);
          expect(here.spec.cidrs.some((cidr) => cidrContains(cidr, found))).toBe(true);
          expect(subnets.some(({ spec }) => cidrsOverlap(spec.cidr, found))).toBe(false);
        }
      }),
    );
  });

  test('claiming one after the other uses every subnet once', () => {
    fc.assert(
      fc.property(fc.array(fc.uuid(), { minLength: 8, maxLength: 8 }), (uids) => {
        const here = poolOf('p', {
          cidrs: ['10.0.0.0/28', '10.0.1.0/28'],
          nodeSubnetPrefixLength: { ipv4: 30 },
        });
        const subnets: NodeSubnet[] = [];
        for (const uid of uids) {
          const found = free(subnets, here, 'ipv4', uid);
          if (found === undefined) throw new Error(`none after ${subnets.length}`);
          subnets.push(subnetOf(formatCIDR(found), here, uid));
        }
        expect(new Set(subnets.map(({ metadata }) => metadata.name)).size).toBe(8);
        expect(free(subnets, here, 'ipv4', 'one more')).toBeUndefined();
      }),
    );
  });
});

const hex = (group: number) => (group + 1).toString(16);

/** The CIDR of that length around the address. */
function aligned(address: string, length: number): string {
  const { family, value } = parseAddress(address);
  const bits = BigInt((family === 'ipv4' ? 32 : 128) - length);
  return formatCIDR({ family, first: (value >> bits) << bits, prefixLength: length });
}
