import { describe, expect, test } from 'vitest';
import { FixedAddressError, isStillGiven, poolOfNamed } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { allocationOf, poolOf } from './objects.ts';

const open = poolOf('open', {
  cidrs: ['10.0.0.0/16', 'fd00::/64'],
  fixedAddresses: true,
  reserved: ['10.0.9.0/24'],
});
const strict = poolOf('strict', { cidrs: ['10.1.0.0/16'] });
const alsoThere = poolOf('also', { cidrs: ['10.1.0.0/24'], fixedAddresses: true });
const foreign = poolOf('foreign', { cidrs: ['10.2.0.0/16'], fixedAddresses: true });
const four = parseAddress('10.0.0.9');
const six = parseAddress('fd00::9');

describe('the pool of the addresses that a pod names', () => {
  test('is the one that has them all', () => {
    expect(poolOfNamed({ ipv4: four, ipv6: six }, [strict, open], [])).toBe(open);
  });

  test('is the first that allows it', () => {
    expect(poolOfNamed({ ipv4: parseAddress('10.1.0.9') }, [strict, alsoThere], [])).toBe(alsoThere);
  });

  test.each([
    ['203.0.113.9', 'it lies in no IPPool. Name an address of a pool'],
    ['10.2.0.9', 'it lies in IPPool foreign, from which this pod may not draw here and now'],
    ['10.1.0.9', 'IPPool strict does not allow it. Its owner can, by spec.fixedAddresses: true'],
    ['10.0.9.9', 'IPPool open reserves it (spec.reserved). Name another one'],
    ['10.0.0.64', "it is the first of a /26 of IPPool open, which is a node's own. Name another one"],
    ['fd00::40', "it is the first of a /122 of IPPool open, which is a node's own. Name another one"],
  ])('%s is refused: %s', (text, reason) => {
    const address = parseAddress(text);
    const asking = () => poolOfNamed({ [address.family]: address }, [open, strict], [open, strict, foreign]);
    expect(asking).toThrow(FixedAddressError);
    expect(asking).toThrow(
      `the pod asks for ${text} by its annotation ipam.weft.dev/addresses, and gets no other: ${reason}`,
    );
  });

  test('is no pool where each has one of them', () => {
    const sixes = poolOf('sixes', { cidrs: ['fd01::/64'], fixedAddresses: true });
    const named = { ipv4: four, ipv6: parseAddress('fd01::9') };
    expect(() => poolOfNamed(named, [open, sixes], [open, sixes])).toThrow(
      'no IPPool has all of 10.0.0.9, fd01::9',
    );
  });
});

describe('an address that is kept', () => {
  const kept = (address: string) =>
    allocationOf(address, { pool: 'open', holder: 'sticky', sticky: 'd/p-0' });

  test('is given as long as a pool that serves the pod has it and does not reserve it', () => {
    expect(isStillGiven(kept('10.0.0.9'), [strict, open])).toBe(true);
    expect(isStillGiven(kept('10.0.0.9'), [strict])).toBe(false);
    expect(isStillGiven(kept('10.0.9.9'), [open])).toBe(false);
    expect(isStillGiven(kept('10.5.0.9'), [open])).toBe(false);
  });
});
