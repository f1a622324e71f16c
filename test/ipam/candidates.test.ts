import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { allocationName, type NodeSubnet } from '../../src/api/index.ts';
import { addressCandidates, createRingCursor, type NamesInUse } from '../../src/ipam/index.ts';
import { formatAddress, parseAddress } from '../../src/net/index.ts';
import { poolOf, subnetOf } from './objects.ts';

const pool = poolOf('p', { cidrs: ['10.0.0.0/24', 'fd00::/48'], nodeSubnetPrefixLength: { ipv4: 30 } });

describe('addressCandidates', () => {
  test('leaves a subnet that is not drawn from any more, also in the middle of it', () => {
    const subnets = [subnetOf('10.0.0.0/30', pool), subnetOf('10.0.0.4/30', pool)];
    const gone = new Set<string>();
    const stillDrawable = ({ metadata }: NodeSubnet) => !gone.has(metadata.name);
    const search = { pool, subnets, inUse: new Set<string>(), cursor: createRingCursor(), stillDrawable };
    const walk = addressCandidates(search);
    expect(walk.next().value?.name).toBe('10.0.0.1');
    gone.add('10.0.0.0-30');
    expect(walk.next().value?.name).toBe('10.0.0.5');
    gone.add('10.0.0.4-30');
    expect(walk.next().done).toBe(true);
  });

  test.each<{ name: string; subnets: string[]; inUse: string[]; last?: string; yields: string[] }>([
    { name: 'all but the first address', subnets: ['10.0.0.0/30'], inUse: [], yields: ['.1', '.2', '.3'] },
    { name: 'not what is in use', subnets: ['10.0.0.0/30'], inUse: ['10.0.0.2'], yields: ['.1', '.3'] },
    {
      name: 'on from the one handed out last',
      subnets: ['10.0.0.0/30'],
      inUse: [],
      last: '10.0.0.1',
      yields: ['.2', '.3', '.1'],
    },
    {
      name: 'from the last one round',
      subnets: ['10.0.0.0/30'],
      inUse: [],
      last: '10.0.0.3',
      yields: ['.1', '.2', '.3'],
    },
    {
      name: 'the one handed out last comes last',
      subnets: ['10.0.0.0/30'],
      inUse: [],
      last: '10.0.0.2',
      yields: ['.3', '.1', '.2'],
    },
    {
      name: 'a full subnet gives none',
      subnets: ['10.0.0.0/30'],
      inUse: ['10.0.0.1', '10.0.0.2', '10.0.0.3'],
      yields: [],
    },
    {
      name: 'the fullest subnet first',
      subnets: ['10.0.0.0/30', '10.0.0.4/30', '10.0.0.8/30'],
      inUse: ['10.0.0.9', '10.0.0.10', '10.0.0.5'],
      yields: ['.11', '.6', '.7', '.1', '.2', '.3'],
    },
    {
      name: 'a first address that someone holds does not count as fullness',
      subnets: ['10.0.0.0/30', '10.0.0.4/30'],
      inUse: ['10.0.0.1', '10.0.0.4', '10.0.0.5'],
      yields: ['.2', '.3', '.6', '.7'],
    },
    { name: 'no subnets', subnets: [], inUse: [], yields: [] },
  ])('$name', ({ subnets, inUse, last, yields }) => {
    const cursor = createRingCursor();
    const made = subnets.map((cidr) => subnetOf(cidr, pool));
    if (last !== undefined && made[0] !== undefined) cursor.handedOut(made[0], parseAddress(last));
    const candidates = [...addressCandidates({ pool, subnets: made, inUse: namesOf(inUse), cursor })];
    expect(candidates.map(({ address }) => formatAddress(address).replace('10.0.0', ''))).toEqual(yields);
    for (const { address, name } of candidates) expect(name).toBe(allocationName(address));
  });

  test('a subnet of 2^64 addresses is walked lazily', () => {
    const subnet = subnetOf('fd00::/64', pool);
    const walk = addressCandidates({ pool, subnets: [subnet], inUse: new Set(), cursor: createRingCursor() });
    const first = Array.from({ length: 3 }, () => walk.next().value?.address);
    expect(first.map((address) => address && formatAddress(address))).toEqual([
      'fd00::1',
      'fd00::2',
      'fd00::3',
    ]);
  });

  test('the last address of a /64 is followed by its second', () => {
    const subnet = subnetOf('fd00::/64', pool);
    const cursor = createRingCursor();
    cursor.handedOut(subnet, parseAddress('fd00::ffff:ffff:ffff:ffff'));
    const { value } = addressCandidates({ pool, subnets: [subnet], inUse: new Set(), cursor }).next();
    expect(value && formatAddress(value.address)).toBe('fd00::1');
  });

  test('names that come into use while it walks are left out', () => {
    const inUse = new Set<string>();
    const walk = addressCandidates({
      pool,
      subnets: [subnetOf('10.0.0.0/30', pool)],
      inUse,
      cursor: createRingCursor(),
    });
    walk.next();
    inUse.add('10.0.0.2');
    expect(walk.next().value?.name).toBe('10.0.0.3');
  });

  test.each([
    { reserved: ['10.0.0.2'], last: undefined, yields: ['.1', '.3'] },
    { reserved: ['10.0.0.0/31'], last: undefined, yields: ['.2', '.3'] },
    { reserved: ['10.0.0.2', '10.0.0.2/31'], last: '10.0.0.1', yields: ['.1'] },
    { reserved: ['10.0.0.2'], last: '10.0.0.2', yields: ['.3', '.1'] },
    { reserved: ['10.0.0.0/24'], last: undefined, yields: [] },
  ])('reserved: $reserved, handed out last: $last', ({ reserved, last, yields }) => {
    const its = poolOf('p', { ...pool.spec, cidrs: ['10.0.0.0/24'], reserved });
    const cursor = createRingCursor();
    const subnet = subnetOf('10.0.0.0/30', its);
    if (last !== undefined) cursor.handedOut(subnet, parseAddress(last));
    const found = addressCandidates({ pool: its, subnets: [subnet], inUse: new Set(), cursor });
    expect([...found].map(({ name }) => name.replace('10.0.0', ''))).toEqual(yields);
  });

  test('half a /64 that is reserved is stepped over, not through', () => {
    const its = poolOf('p', {
      cidrs: ['fd00::/32'],
      nodeSubnetPrefixLength: { ipv6: 64 },
      reserved: ['fd00::/65'],
    });
    const search = { pool: its, subnets: [subnetOf('fd00::/64', its)], inUse: new Set<string>() };
    const { value } = addressCandidates({ ...search, cursor: createRingCursor() }).next();
    expect(value && formatAddress(value.address)).toBe('fd00::8000:0:0:0');
  });

  const anySubnets = fc.uniqueArray(fc.nat(15), { minLength: 1, maxLength: 4 });
  const anyLast = fc.array(fc.nat(15), { maxLength: 4 });
  test('yields every free address exactly once, and never a host address', () => {
    fc.assert(
      fc.property(anySubnets, fc.array(fc.nat(255)), anyLast, (blocks, used, lasts) => {
        const subnets = blocks.map((block) => subnetOf(`10.0.0.${block * 16}/28`, pool));
        const inUse = namesOf(used.map((n) => `10.0.0.${n}`));
        const cursor = createRingCursor();
        lasts.forEach((offset, i) => {
          const block = blocks[i];
          if (block !== undefined && subnets[i] !== undefined)
            cursor.handedOut(subnets[i], parseAddress(`10.0.0.${block * 16 + offset}`));
        });
        const found = [...addressCandidates({ pool, subnets, inUse, cursor })].map(({ name }) => name);
        const expected = blocks
          .flatMap((block) => Array.from({ length: 15 }, (_, i) => `10.0.0.${block * 16 + i + 1}`))
          .filter((name) => !inUse.has(name));
        expect(found.toSorted()).toEqual(expected.toSorted());
      }),
    );
  });

  test('in order: no subnet is drawn from while a fuller one has something to give', () => {
    fc.assert(
      fc.property(anySubnets, fc.array(fc.nat(255)), (blocks, used) => {
        const subnets = blocks.map((block) => subnetOf(`10.0.0.${block * 16}/28`, pool));
        const inUse = namesOf(used.map((n) => `10.0.0.${n}`));
        const order = [...addressCandidates({ pool, subnets, inUse, cursor: createRingCursor() })].map(
          ({ subnet }) => freeIn(subnet, inUse),
        );
        expect(order).toEqual(order.toSorted((a, b) => a - b));
      }),
    );
  });
});

function namesOf(addresses: readonly string[]): NamesInUse {
  return new Set(addresses.map((address) => allocationName(parseAddress(address))));
}

function freeIn({ spec }: NodeSubnet, inUse: NamesInUse): number {
  const first = Number(spec.cidr.first & 255n);
  return Array.from({ length: 15 }, (_, i) => `10.0.0.${first + i + 1}`).filter((name) => !inUse.has(name))
    .length;
}
