import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { IPAllocation, IPPool, NodeSubnet } from '../../src/api/index.ts';
import {
  addressCandidates,
  countInside,
  createRingCursor,
  freeSubnet,
  fullNodes,
  freeSubnetRanges,
  NOTHING_FOREIGN,
  placeOf,
  poolUsage,
  usableFamilies,
  usableRanges,
  type Foreign,
} from '../../src/ipam/index.ts';
import {
  cidrHasAddress,
  formatAddress,
  formatCIDR,
  parseAddress,
  rangeOfCIDR,
  rangesHave,
} from '../../src/net/index.ts';
import { allocationOf, poolOf, RELEASED, subnetOf } from './objects.ts';

const POOLS = {
  Pods: poolOf('p', { cidrs: ['10.0.0.0/24', 'fd00::/32'] }),
  Bridge: poolOf('p', { use: 'Bridge', cidrs: ['10.0.0.0/24', 'fd00::/32'] }),
  Lan: poolOf('p', {
    use: 'Lan',
    cidrs: ['10.0.0.0/24', 'fd00::/32'],
    gateway: { ipv4: '10.0.0.66', ipv6: 'fd00::42' },
  }),
};

type Use = keyof typeof POOLS;

describe('never handed out', () => {
  test.each<{ use: Use; cidr: string; kept: string[] }>([
    { use: 'Pods', cidr: '10.0.0.64/26', kept: ['10.0.0.64'] },
    { use: 'Pods', cidr: 'fd00::40/122', kept: ['fd00::40'] },
    { use: 'Bridge', cidr: '10.0.0.64/26', kept: ['10.0.0.64', '10.0.0.65', '10.0.0.127'] },
    { use: 'Bridge', cidr: 'fd00::40/122', kept: ['fd00::40', 'fd00::41'] },
    { use: 'Lan', cidr: '10.0.0.0/26', kept: ['10.0.0.0'] },
    { use: 'Lan', cidr: '10.0.0.64/26', kept: ['10.0.0.66'] },
    { use: 'Lan', cidr: '10.0.0.128/26', kept: [] },
    { use: 'Lan', cidr: '10.0.0.192/26', kept: ['10.0.0.255'] },
    { use: 'Lan', cidr: 'fd00::/122', kept: ['fd00::'] },
    { use: 'Lan', cidr: 'fd00::40/122', kept: ['fd00::42'] },
    { use: 'Lan', cidr: 'fd00:0:ffff:ffff:ffff:ffff:ffff:ffc0/122', kept: [] },
  ])('of $cidr of a pool of use $use: $kept', ({ use, cidr, kept }) => {
    const subnet = subnetOf(cidr, POOLS[use]);
    const { family, first } = subnet.spec.cidr;
    const ranges = usableRanges(subnet, POOLS[use]);
    const all = Array.from({ length: 64 }, (_, i) => first + BigInt(i));
    const left = all.filter((value) => !rangesHave(ranges, value));
    expect(left.map((value) => formatAddress({ family, value }))).toEqual(kept);
  });

  test('of a LAN of two addresses: the router alone, since it has no network and no broadcast address', () => {
    const lan = poolOf('p', {
      use: 'Lan',
      cidrs: ['10.0.0.0/31'],
      gateway: { ipv4: '10.0.0.0' },
      nodeSubnetPrefixLength: { ipv4: 32 },
    });
    expect(usableRanges(subnetOf('10.0.0.1/32', lan), lan)).toHaveLength(1);
    expect(usableRanges(subnetOf('10.0.0.0/32', lan), lan)).toEqual([]);
  });
});

test.each<{ use: Use; address: string; place: string | undefined }>([
  { use: 'Pods', address: '10.0.0.70', place: undefined },
  { use: 'Bridge', address: '10.0.0.70', place: '/26 via 10.0.0.65' },
  { use: 'Bridge', address: 'fd00::47', place: '/122 via fd00::41' },
  { use: 'Lan', address: '10.0.0.70', place: '/24 via 10.0.0.66' },
  { use: 'Lan', address: 'fd00::47', place: '/32 via fd00::42' },
  { use: 'Lan', address: '10.0.1.70', place: undefined },
])('the place of $address of a pool of use $use in its network is $place', ({ use, address, place }) => {
  const found = placeOf(parseAddress(address), POOLS[use]);
  expect(found && `/${found.prefixLength} via ${formatAddress(found.gateway)}`).toBe(place);
});

test('what lies inside the edges of subnets is counted, not enumerated', () => {
  const edges = { head: 1n, tail: 2n };
  fc.assert(
    fc.property(fc.nat(70), fc.nat(70), (first, length) => {
      const values = Array.from({ length }, (_, i) => first + i);
      const range = { first: BigInt(first), last: BigInt(first + length - 1) };
      const inside = values.filter((value) => value % 8 >= 1 && value % 8 < 6).length;
      expect(countInside(length === 0 ? [] : [range], 8n, edges)).toBe(BigInt(inside));
    }),
  );
  expect(countInside([{ first: 0n, last: (1n << 100n) - 1n }], 4n, edges)).toBe(1n << 98n);
});

describe('a LAN', () => {
  test('gives no piece of which nothing would be handed out, nor one that holds a node’s own address', () => {
    const lan = poolOf('lan', {
      use: 'Lan',
      cidrs: ['192.168.7.0/28'],
      gateway: { ipv4: '192.168.7.1' },
      nodeSubnetPrefixLength: { ipv4: 32 },
      reserved: ['192.168.7.8/29'],
    });
    const foreign = { nodes: [parseAddress('192.168.7.3')], services: [] };
    const subnets = claimAll(lan, [lan], [], foreign);
    // Not .0 (network), .1 (router), .3 (a node's), .8 to .15 (reserved, with the broadcast address).
    expect(subnets.map(({ spec }) => formatCIDR(spec.cidr)).sort()).toEqual(
      ['2', '4', '5', '6', '7'].map((host) => `192.168.7.${host}/32`),
    );
  });

  test('counts the address of a node in a piece that is held as one that nobody gets', () => {
    const lan = poolOf('lan', {
      use: 'Lan',
      cidrs: ['192.168.7.0/28'],
      gateway: { ipv4: '192.168.7.1' },
      nodeSubnetPrefixLength: { ipv4: 29 },
    });
    const foreign = { nodes: [parseAddress('192.168.7.10'), parseAddress('192.0.2.1')], services: [] };
    const input = { pool: lan, pools: [lan], subnets: [subnetOf('192.168.7.8/29', lan)], foreign };
    // Of .8 to .15 not .10 (a node's) and .15 (broadcast); of .0 to .7 not .0 and .1.
    expect(poolUsage({ ...input, allocations: [] }).ipv4).toMatchObject({ free: '12', reserved: '4' });
    const taken = ['8', '9', '11', '12', '13', '14'].map((last) =>
      allocationOf(`192.168.7.${last}`, { pool: 'lan' }),
    );
    expect(fullNodes('ipv4', { ...input, allocations: taken })).toEqual(['n1']);
    expect(poolUsage({ ...input, allocations: taken }).ipv4).toMatchObject({ free: '6', reserved: '4' });
  });

  test('is there in all its families for every node, since nodes do not route it', () => {
    expect(usableFamilies(POOLS.Lan, [parseAddress('192.0.2.1')])).toEqual(['ipv4', 'ipv6']);
    expect(usableFamilies(POOLS.Bridge, [parseAddress('192.0.2.1')])).toEqual(['ipv4']);
  });
});

describe.each<Use>(['Pods', 'Bridge', 'Lan'])('a pool of use %s', (use) => {
  test('is counted as it would be address by address, and used + resting + free + reserved = capacity', () => {
    fc.assert(
      fc.property(anyWorld(use), ({ pool, subnets, allocations }) => {
        const { ipv4: counted } = poolUsage({ pool, pools: [pool], subnets, allocations });
        if (counted === undefined) throw new Error('the pool lists IPv4');
        expect(counted).toMatchObject(countOneByOne(pool, subnets, allocations));
        const { capacity, allocated, resting, free, reserved } = counted;
        expect(BigInt(allocated) + BigInt(resting) + BigInt(free) + BigInt(reserved)).toBe(BigInt(capacity));
      }),
      { numRuns: 500 },
    );
  });

  test('hands out what it counts as free, each address once', { timeout: 60_000 }, () => {
    fc.assert(
      fc.property(anyWorld(use), ({ pool, subnets, allocations }) => {
        const inUse = new Set(allocations.map(({ metadata }) => metadata.name));
        const all = claimAll(pool, [pool], subnets);
        for (const claimed of all.slice(subnets.length)) {
          expect(usableRanges(claimed, pool), formatCIDR(claimed.spec.cidr)).not.toEqual([]);
        }
        const given = [...addressCandidates({ pool, subnets: all, inUse, cursor: createRingCursor() })];
        expect(new Set(given.map(({ name }) => name)).size).toBe(given.length);
        const { ipv4 } = poolUsage({ pool, pools: [pool], subnets, allocations });
        expect(ipv4?.free).toBe(String(given.length));
        expect(poolUsage({ pool, pools: [pool], subnets: all, allocations }).ipv4?.free).toBe(ipv4?.free);
      }),
      { numRuns: 300 },
    );
  });
});

/** The subnets, and all that a node could still claim. */
function claimAll(
  pool: IPPool,
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
  foreign: Foreign = NOTHING_FOREIGN,
): NodeSubnet[] {
  const all = [...subnets];
  for (;;) {
    const found = freeSubnet({ pool, pools, subnets: all, family: 'ipv4', foreign, nodeUID: 'u' });
    if (found === undefined) return all;
    all.push(subnetOf(formatCIDR(found), pool));
  }
}

/** Small worlds in 10.0.0.0/27. */
function anyWorld(use: Use) {
  return fc
    .record({
      length: use === 'Lan' ? fc.constantFrom(29, 30, 31, 32) : fc.constantFrom(29, 30),
      gateway: fc.nat(31),
      reserved: fc.array(fc.tuple(fc.nat(31), fc.constantFrom(30, 31, 32)), { maxLength: 6 }),
      held: fc.uniqueArray(fc.nat(31), { maxLength: 6 }),
      used: fc.uniqueArray(fc.tuple(fc.nat(31), fc.boolean()), {
        selector: ([offset]) => offset,
        maxLength: 20,
      }),
    })
    .map(({ length, gateway, reserved, held, used }) => {
      const pool = poolOf('p', {
        use,
        cidrs: ['10.0.0.0/27'],
        nodeSubnetPrefixLength: { ipv4: length },
        reserved: reserved.map(([offset, bits]) => aligned(offset, bits)),
        ...(use === 'Lan' ? { gateway: { ipv4: `10.0.0.${gateway}` } } : {}),
      });
      const cidrs = new Set(held.map((offset) => aligned(offset, length)));
      return {
        pool,
        subnets: [...cidrs].map((cidr) => subnetOf(cidr, pool)),
        allocations: used.map(([offset, rests]) =>
          allocationOf(`10.0.0.${offset}`, {}, rests ? RELEASED : undefined),
        ),
      };
    });
}

function aligned(offset: number, prefixLength: number): string {
  const size = 1 << (32 - prefixLength);
  return `10.0.0.${offset - (offset % size)}/${prefixLength}`;
}

/** The same by looking at each of the 32 addresses. */
function countOneByOne(pool: IPPool, subnets: NodeSubnet[], allocations: IPAllocation[]) {
  const claimable = freeSubnetRanges({ pool, pools: [pool], subnets, family: 'ipv4' });
  const count = { allocated: 0, resting: 0, free: 0, reserved: 0 };
  for (let offset = 0; offset < 32; offset++) {
    const address = parseAddress(`10.0.0.${offset}`);
    const allocation = allocations.find(({ spec }) => spec.address.value === address.value);
    const inPiece =
      subnets.some(({ spec }) => cidrHasAddress(spec.cidr, address)) || rangesHave(claimable, address.value);
    if (allocation !== undefined) count[allocation.status === undefined ? 'allocated' : 'resting']++;
    else if (inPiece && isHandedOut(offset, pool)) count.free++;
    else count.reserved++;
  }
  const { free, reserved, ...numbers } = count;
  return { ...numbers, capacity: '32', free: String(free), reserved: String(reserved) };
}

function isHandedOut(offset: number, { spec }: IPPool): boolean {
  const value = (10n << 24n) + BigInt(offset);
  if ((spec.reserved ?? []).some((cidr) => rangesHave([rangeOfCIDR(cidr)], value))) return false;
  const size = 1 << (32 - spec.nodeSubnetPrefixLength.ipv4);
  const place = offset % size;
  switch (spec.use) {
    case 'Pods':
      return place !== 0;
    case 'Bridge':
      return place > 1 && place < size - 1;
    case 'Lan':
      return offset !== 0 && offset !== 31 && value !== spec.gateway?.ipv4?.value;
  }
}
