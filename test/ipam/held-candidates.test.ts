import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NodeSubnet } from '../../src/api/index.ts';
import { heldCandidates, type HeldSearch } from '../../src/ipam/index.ts';
import { cidrHasAddress, formatAddress, parseAddress } from '../../src/net/index.ts';
import { poolOf, subnetOf } from './objects.ts';
import { SPREAD } from './spaces.ts';

const pool = poolOf('p', { cidrs: ['10.0.0.0/27'], nodeSubnetPrefixLength: { ipv4: 29 } });

describe('heldCandidates', () => {
  it('begins with the lowest address outside of all node subnets, and leaves out what would be a node’s own', () => {
    const search = { subnets: [subnetOf('10.0.0.0/29', pool)] };
    expect(textsOf(search, 9)).toEqual([
      ...['10.0.0.9', '10.0.0.10', '10.0.0.11', '10.0.0.12', '10.0.0.13', '10.0.0.14', '10.0.0.15'],
      ...['10.0.0.17', '10.0.0.18'],
    ]);
  });

  it('goes on inside the node subnets, the emptiest first', () => {
    const subnets = ['10.0.0.0/29', '10.0.0.8/29', '10.0.0.16/29', '10.0.0.24/29'].map((cidr, i) =>
      subnetOf(cidr, pool, `n${i}`),
    );
    const inUse = ['10.0.0.1', '10.0.0.9', '10.0.0.10', '10.0.0.25'];
    const found = [...heldCandidates(searchOf({ subnets, inUse: inUse.map(parseAddress) }))];
    expect(found.map(({ subnet }) => subnet?.spec.nodeName)).toEqual(
      [...'2222222', ...'000000', ...'333333', ...'11111'].map((n) => `n${n}`),
    );
    expect(found[0]?.name).toBe('10.0.0.17');
    expect(found.map(({ name }) => name)).not.toContain('10.0.0.25');
  });

  it('takes nothing that is reserved, drained, another pool’s subnet, or an older pool’s CIDR', () => {
    const reserving = poolOf('p', {
      cidrs: ['10.0.0.0/28', '10.1.0.0/29'],
      nodeSubnetPrefixLength: { ipv4: 29 },
      reserved: ['10.0.0.8/30', '10.0.0.13'],
    });
    const older = poolOf('older', { cidrs: ['10.1.0.0/16'] }, { creationTimestamp: '2025-01-01T00:00:00Z' });
    const foreignSubnet = subnetOf('10.0.0.0/29', older);
    const drained = subnetOf('10.9.0.0/29', reserving);
    const found = textsOf({
      pool: reserving,
      pools: [reserving, older],
      subnets: [foreignSubnet, drained],
    });
    expect(found).toEqual(['10.0.0.12', '10.0.0.14', '10.0.0.15']);
  });

  it('leaves a CIDR alone that holds the address of a node', () => {
    const two = poolOf('p', { cidrs: ['10.0.0.0/29', '10.2.0.0/29'], nodeSubnetPrefixLength: { ipv4: 29 } });
    expect(
      textsOf({ pool: two, pools: [two], foreign: { nodes: [parseAddress('10.0.0.3')], services: [] } }, 1),
    ).toEqual(['10.2.0.1']);
  });

  it('finds none in a disabled pool', () => {
    const disabled = poolOf('p', { cidrs: ['10.0.0.0/27'], disabled: true });
    expect(
      textsOf({ pool: disabled, pools: [disabled], subnets: [subnetOf('10.0.0.0/29', disabled)] }),
    ).toEqual([]);
  });

  it.each([
    [48, 'nothing in use', [], 'fd00::2'],
    [48, 'the first half reserved', ['fd00::/49'], 'fd00:0:0:8000::1'],
    [32, 'nothing in use', [], 'fd00::2'],
    [32, 'the first half reserved', ['fd00::/33'], 'fd00:0:8000::1'],
  ])('finds an address of a /%i without enumerating it: %s', (length, _name, reserved, found) => {
    const wide = poolOf('p', { cidrs: [`fd00::/${length}`], reserved });
    const search = { pool: wide, pools: [wide], family: 'ipv6' as const, inUse: [parseAddress('fd00::1')] };
    expect(textsOf(search, 1)).toEqual([found]);
  });

  it.each(SPREAD)('finds every address that can be had, once, $family', (space) => {
    const place = fc.integer({ min: 0, max: 11 });
    const value = fc.integer({ min: 0, max: 95 });
    fc.assert(
      fc.property(
        fc.uniqueArray(place),
        fc.uniqueArray(value),
        fc.uniqueArray(value),
        (places, used, reserved) => {
          const of = poolOf('p', {
            cidrs: [0, 32, 64].map((first) => space.cidr(first, 5)),
            nodeSubnetPrefixLength: { [space.family]: space.prefixLength(3) },
            reserved: reserved.map((n) => space.text(n)),
          });
          const subnets = places.map((n) => subnetOf(space.cidr(n * 8, 3), of, `n${n}`));
          const inUse = used.map((n) => space.address(n));
          const { family } = space;
          const found = [...heldCandidates(searchOf({ pool: of, pools: [of], subnets, family, inUse }))];
          const expected = Array.from({ length: 96 }, (_, n) => n).filter(
            (n) => n % 8 !== 0 && !used.includes(n) && !reserved.includes(n),
          );
          const numbers = found.map(({ address }) => space.number(address));
          expect([...numbers].sort((a, b) => a - b)).toEqual(expected);
          const inside = found.map(({ address }) => isInSome(subnets, address));
          expect(inside).toEqual([...inside].sort());
          expect(found.map(({ subnet }) => subnet !== undefined)).toEqual(inside);
        },
      ),
    );
  });
});

function searchOf(search: Partial<HeldSearch>): HeldSearch {
  return { pool, pools: [pool], subnets: [], family: 'ipv4', inUse: [], ...search };
}

function textsOf(search: Partial<HeldSearch>, count = Infinity): string[] {
  const found: string[] = [];
  for (const { address } of heldCandidates(searchOf(search))) {
    if (found.length >= count) break;
    found.push(formatAddress(address));
  }
  return found;
}

function isInSome(subnets: readonly NodeSubnet[], address: Parameters<typeof cidrHasAddress>[1]): boolean {
  return subnets.some(({ spec }) => cidrHasAddress(spec.cidr, address));
}
