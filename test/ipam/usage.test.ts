import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allocationName, type IPAllocation, type IPPool, type NodeSubnet } from '../../src/api/index.ts';
import {
  countingFor,
  exhaustedFamilies,
  freeSubnetRanges,
  fullNodes,
  isDrained,
  isExhausted,
  poolUsage,
} from '../../src/ipam/index.ts';
import { rangeOfCIDR } from '../../src/net/index.ts';
import { allocationOf, poolOf, RELEASED, subnetOf } from './objects.ts';
import { DENSE, type Space } from './spaces.ts';

const pool = poolOf('p', { cidrs: ['10.0.0.0/28'], nodeSubnetPrefixLength: { ipv4: 30 } });
const usage = (
  subnets: NodeSubnet[] = [],
  allocations: IPAllocation[] = [],
  pools: IPPool[] = [pool],
  of: IPPool = pool,
) => poolUsage({ pool: of, pools, subnets, allocations, labelsOf });
/** Nodes n0, n3, … are in zone a, the others in zone b. */
const labelsOf = (nodeName: string) => ({ zone: Number(nodeName.slice(1)) % 3 === 0 ? 'a' : 'b' });

test('whose allocations count for a pool: its own, and those of every pool that may have some in its ranges', () => {
  const others = {
    beside: poolOf('beside', { cidrs: ['10.1.0.0/28'] }),
    overlapping: poolOf('overlapping', { cidrs: ['10.0.0.0/24'] }),
    // Its range is the other's by now; a pod still lives in it.
    moved: poolOf('moved', { cidrs: ['10.2.0.0/28'] }),
  };
  const kept = subnetOf('10.0.0.9/32', others.moved, 'n1', { exclusive: true });
  const elsewhere = subnetOf('10.1.0.0/30', others.beside);
  const counts = countingFor(pool, [pool, ...Object.values(others)], [kept, elsewhere]);
  const names = ['p', ...Object.keys(others), 'gone'];
  expect(names.filter(counts)).toEqual(['p', 'overlapping', 'moved', 'gone']);
});

describe('poolUsage', () => {
  test('of an untouched pool: the first address of each subnet is reserved', () => {
    expect(usage()).toEqual({
      ipv4: {
        capacity: '16',
        allocated: 0,
        resting: 0,
        reserved: '4',
        free: '12',
        nodeSubnets: 0,
        freeSubnets: '4',
      },
    });
  });

  test('of a pool in use', () => {
    const subnets = [subnetOf('10.0.0.0/30', pool), subnetOf('10.0.0.4/30', pool, 'n2')];
    const allocations = [
      allocationOf('10.0.0.1'),
      allocationOf('10.0.0.2', {}, RELEASED),
      allocationOf('10.0.0.5', { holder: 'a printer' }),
    ];
    expect(usage(subnets, allocations)).toEqual({
      ipv4: {
        capacity: '16',
        allocated: 2,
        resting: 1,
        reserved: '4',
        free: '9',
        nodeSubnets: 2,
        freeSubnets: '2',
      },
    });
  });

  test.each([
    // The first, one in the middle, and the last subnet of the pool.
    { length: 48, at: 'fd00::' },
    { length: 32, at: 'fd00::' },
    { length: 32, at: 'fd00:0:8000::' },
    { length: 32, at: 'fd00:0:ffff:ffff:ffff:ffff:ffff:ff' },
  ])('counts a /$length of IPv6 exactly, with a subnet at $at', ({ length, at }) => {
    const big = poolOf('p', { cidrs: [`fd00::/${length}`] });
    const [subnet, address] = at.endsWith('::') ? [at, `${at}1`] : [`${at}c0`, `${at}c1`];
    const { ipv6, ipv4 } = usage([subnetOf(`${subnet}/122`, big)], [allocationOf(address)], [big], big);
    const all = 1n << BigInt(128 - length);
    const pieces = all / 64n;
    expect(ipv4).toBeUndefined();
    expect(ipv6).toEqual({
      capacity: String(all),
      allocated: 1,
      resting: 0,
      reserved: String(pieces),
      free: String(all - pieces - 1n),
      nodeSubnets: 1,
      freeSubnets: String(pieces - 1n),
    });
  });

  test('what is drained counts as used while it is, and gives nothing', () => {
    const drained = subnetOf('10.9.0.0/30', pool);
    expect(usage([drained], [allocationOf('10.9.0.1')])).toEqual({
      ipv4: {
        capacity: '20',
        allocated: 1,
        resting: 0,
        reserved: '7',
        free: '12',
        nodeSubnets: 1,
        freeSubnets: '4',
      },
    });
  });

  test('a family that the pool lists no more is counted until it is empty', () => {
    const { ipv6 } = usage([subnetOf('fd00::/126', pool)], [allocationOf('fd00::1')]);
    expect(ipv6).toMatchObject({
      capacity: '4',
      allocated: 1,
      free: '0',
      reserved: '3',
      nodeSubnets: 1,
      freeSubnets: '0',
    });
  });

  test('what an older pool overlaps is not free, but for the subnets claimed before', () => {
    const older = poolOf('a', { cidrs: ['10.0.0.0/24'] });
    expect(usage([], [], [pool, older]).ipv4).toMatchObject({ free: '0', reserved: '16', freeSubnets: '0' });
    expect(usage([subnetOf('10.0.0.0/30', pool)], [], [pool, older]).ipv4).toMatchObject({
      free: '3',
      reserved: '13',
    });
  });

  test("another pool's subnet or allocation in the range is not free, and not this pool's", () => {
    const other = poolOf('z', { cidrs: ['10.0.0.0/29'] });
    expect(usage([subnetOf('10.0.0.0/30', other)], [], [pool, other]).ipv4).toMatchObject({
      allocated: 0,
      free: '9',
      nodeSubnets: 0,
      freeSubnets: '3',
    });
    expect(usage([], [allocationOf('10.0.0.1', { pool: 'z' })]).ipv4).toMatchObject({
      allocated: 0,
      free: '11',
    });
  });

  test.each(DENSE)(
    'equals a count address by address, and nothing is lost: used + resting + free + reserved = capacity, $family',
    (space) => {
      fc.assert(
        fc.property(anyWorldOf(space), (world) => {
          const counted = usage(world.subnets, world.allocations, world.pools, world.of)[space.family];
          if (counted === undefined) throw new Error(`the pool lists no ${space.family}`);
          expect(counted).toMatchObject(countOneByOne(space, world));
          expect(
            BigInt(counted.allocated) +
              BigInt(counted.resting) +
              BigInt(counted.free) +
              BigInt(counted.reserved),
          ).toBe(BigInt(counted.capacity));
          for (const number of [counted.free, counted.reserved])
            expect(BigInt(number)).toBeGreaterThanOrEqual(0n);
        }),
      );
    },
  );
});

describe('exhausted', () => {
  const small = poolOf('p', { cidrs: ['10.0.0.0/29'], nodeSubnetPrefixLength: { ipv4: 30 } });
  const subnets = [subnetOf('10.0.0.0/30', small), subnetOf('10.0.0.4/30', small, 'n2')];
  const fillsFirst = ['10.0.0.1', '10.0.0.2', '10.0.0.3'].map((address) => allocationOf(address));

  test.each<{
    name: string;
    subnets: NodeSubnet[];
    allocations: IPAllocation[];
    reserved?: string[];
    exhausted: boolean;
  }>([
    { name: 'no subnet is free and a node is full', subnets, allocations: fillsFirst, exhausted: true },
    { name: 'a subnet is free', subnets: subnets.slice(0, 1), allocations: fillsFirst, exhausted: false },
    { name: 'no node is full', subnets, allocations: fillsFirst.slice(1), exhausted: false },
    {
      name: 'the full node has another subnet',
      subnets: [...subnets.slice(0, 1), subnetOf('10.0.0.4/30', small)],
      allocations: fillsFirst,
      exhausted: false,
    },
    {
      name: 'resting addresses fill it',
      subnets,
      allocations: fillsFirst.map((allocation) => ({ ...allocation, status: RELEASED })),
      exhausted: true,
    },
    {
      name: 'a held first address fills nothing',
      subnets,
      allocations: [...fillsFirst.slice(1), allocationOf('10.0.0.0', { holder: 'x' })],
      exhausted: false,
    },
    { name: 'nothing was ever claimed', subnets: [], allocations: [], exhausted: false },
    {
      name: 'what is not in use is reserved',
      reserved: ['10.0.0.3'],
      subnets,
      allocations: fillsFirst.slice(0, 2),
      exhausted: true,
    },
    {
      name: 'what is reserved is in use, and another is not',
      reserved: ['10.0.0.3'],
      subnets,
      allocations: fillsFirst.slice(1),
      exhausted: false,
    },
  ])('$name: $exhausted', ({ subnets: held, allocations, reserved, exhausted }) => {
    const of = poolOf('p', { ...small.spec, cidrs: ['10.0.0.0/29'], reserved });
    const input = { pool: of, pools: [of], subnets: held, allocations };
    expect(isExhausted(input)).toBe(exhausted);
    expect(exhaustedFamilies(input)).toEqual(exhausted ? ['ipv4'] : []);
    if (exhausted) expect(fullNodes('ipv4', input)).toEqual(['n1']);
  });

  test('each family by itself', () => {
    const dual = poolOf('p', {
      cidrs: ['10.0.0.0/29', 'fd00::/126'],
      nodeSubnetPrefixLength: { ipv4: 30, ipv6: 126 },
    });
    const held = [subnetOf('10.0.0.0/30', dual), subnetOf('fd00::/126', dual)];
    const allocations = ['fd00::1', 'fd00::2', 'fd00::3'].map((address) => allocationOf(address));
    expect(exhaustedFamilies({ pool: dual, pools: [dual], subnets: held, allocations })).toEqual(['ipv6']);
  });
});

interface SmallWorld {
  readonly of: IPPool;
  readonly pools: IPPool[];
  readonly subnets: NodeSubnet[];
  readonly allocations: IPAllocation[];
}

/** Small worlds of 64 addresses: this pool, perhaps an older one over part of it, subnets and allocations. */
const anyWorldOf = (space: Space): fc.Arbitrary<SmallWorld> =>
  fc
    .record({
      cidrs: fc.constantFrom<[first: number, hostBits: number][]>(
        [[0, 5]],
        [
          [0, 4],
          [32, 4],
        ],
        [[16, 4]],
      ),
      hasOlder: fc.boolean(),
      reserved: fc.constantFrom<[first: number, hostBits: number][]>(
        [],
        [[5, 0]],
        [
          [4, 2],
          [6, 0],
        ],
        [
          [9, 0],
          [10, 1],
        ],
        [[0, 4]],
      ),
      disabled: fc.boolean(),
      inZoneA: fc.boolean(),
      mine: fc.uniqueArray(fc.nat(15), { maxLength: 8 }),
      others: fc.uniqueArray(fc.nat(7), { maxLength: 2 }),
      used: fc.uniqueArray(fc.tuple(fc.nat(63), fc.constantFrom('p', 'z'), fc.boolean()), {
        selector: ([offset]) => offset,
        maxLength: 40,
      }),
    })
    .map(({ cidrs, hasOlder, reserved, disabled, inZoneA, mine, others, used }) => {
      const sizes = (hostBits: number) => ({
        nodeSubnetPrefixLength: { [space.family]: space.prefixLength(hostBits) },
      });
      const of = poolOf('p', {
        cidrs: cidrs.map((one) => space.cidr(...one)),
        ...sizes(2),
        reserved: reserved.map((one) => space.cidr(...one)),
        disabled,
        ...(inZoneA ? { nodeSelector: { matchLabels: { zone: 'a' } } } : {}),
      });
      const older = poolOf('a', { cidrs: [space.cidr(0, 4)], ...sizes(2) });
      const stranger = poolOf('z', { cidrs: [space.cidr(0, 6)], ...sizes(3) });
      const ofOthers = others.map((block) => subnetOf(space.cidr(block * 8, 3), stranger, 'n9'));
      const own = mine
        .filter((block) => !others.includes(block >> 1)) // NodeSubnets are disjoint
        .map((block) => subnetOf(space.cidr(block * 4, 2), of, `n${block % 3}`));
      const allocations = used.map(([offset, pool, isResting]) =>
        allocationOf(space.text(offset), { pool }, isResting ? RELEASED : undefined),
      );
      // `z` is younger and so takes nothing from `p`.
      return {
        of,
        pools: hasOlder ? [of, older, stranger] : [of, stranger],
        subnets: [...own, ...ofOthers],
        allocations,
      };
    });

/** The same by looking at each of the 64 addresses. */
function countOneByOne(space: Space, { of, pools, subnets, allocations }: SmallWorld) {
  const own = subnets.filter(({ spec }) => spec.poolUID === of.metadata.uid);
  const claimable = freeSubnetRanges({ pool: of, pools, subnets, family: space.family });
  const setAside = (of.spec.reserved ?? []).map(rangeOfCIDR);
  const count = { capacity: 0, allocated: 0, resting: 0, free: 0, reserved: 0 };
  for (let offset = 0; offset < 64; offset++) {
    const { value } = space.address(offset);
    const has = ({ first, last }: { first: bigint; last: bigint }) => value >= first && value <= last;
    const name = allocationName(space.address(offset));
    const allocation = allocations.find(({ metadata }) => metadata.name === name);
    const isMine = allocation?.spec.pool === 'p';
    const inSubnet = own.find(({ spec }) => has(rangeOfCIDR(spec.cidr)));
    if (!of.spec.cidrs.map(rangeOfCIDR).some(has) && inSubnet === undefined && !isMine) continue;
    count.capacity++;
    if (isMine && allocation.status === undefined) count.allocated++;
    else if (isMine) count.resting++;
    else if (
      allocation === undefined &&
      offset % 4 !== 0 &&
      !setAside.some(has) &&
      (inSubnet === undefined
        ? claimable.some(has)
        : !isDrained(inSubnet, of, labelsOf(inSubnet.spec.nodeName)))
    )
      count.free++;
    else count.reserved++;
  }
  const { capacity, free, reserved, ...numbers } = count;
  return { ...numbers, capacity: String(capacity), free: String(free), reserved: String(reserved) };
}
