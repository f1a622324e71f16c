import { describe, expect, test } from 'vitest';
import type { IPPool } from '../../src/api/index.ts';
import { FixedAddressError, isStillGiven, poolOfNamed, type PoolChoice } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { allocationOf, poolOf } from './objects.ts';

const open = poolOf('open', {
  cidrs: ['10.0.0.0/16', 'fd00::/64'],
  fixedAddresses: true,
  reserved: ['10.0.9.0/24'],
});
const strict = poolOf('strict', { cidrs: ['10.1.0.0/16'] });
const alsoThere = poolOf('also', { cidrs: ['10.1.0.0/24'], fixedAddresses: true });
const foreign = poolOf('foreign', {
  cidrs: ['10.2.0.0/16'],
  fixedAddresses: true,
  namespaceSelector: { matchLabels: { team: 'blue' } },
});
const choiceOf = (...pools: IPPool[]): PoolChoice => ({
  pools,
  subnets: [],
  claimer: { node: { name: 'n1', labels: {} }, namespace: { name: 'shop', labels: {} } },
});
const four = parseAddress('10.0.0.9');
const six = parseAddress('fd00::9');

describe('the pool of the addresses that a pod names', () => {
  test('is the one that has them all', () => {
    expect(poolOfNamed({ ipv4: four, ipv6: six }, [strict, open], choiceOf())).toBe(open);
  });

  test('is the first that allows it', () => {
    expect(poolOfNamed({ ipv4: parseAddress('10.1.0.9') }, [strict, alsoThere], choiceOf())).toBe(alsoThere);
  });

  test.each([
    ['203.0.113.9', 'it lies in no IPPool. Name an address of a pool'],
    [
      '10.2.0.9',
      'it lies in IPPool foreign, from which this pod may not draw here and now: its namespaceSelector team=blue does not match namespace shop. Name an address of open or strict',
    ],
    ['10.1.0.9', 'IPPool strict does not allow it. Its owner can, by spec.fixedAddresses: true'],
    ['10.0.9.9', 'IPPool open reserves it (spec.reserved). Name another one'],
    ['10.0.0.64', "it is the first of a /26 of IPPool open, which is a node's own. Name another one"],
    ['fd00::40', "it is the first of a /122 of IPPool open, which is a node's own. Name another one"],
  ])('%s is refused: %s', (text, reason) => {
    const address = parseAddress(text);
    const asking = () =>
      poolOfNamed({ [address.family]: address }, [open, strict], choiceOf(open, strict, foreign));
    expect(asking).toThrow(FixedAddressError);
    expect(asking).toThrow(
      `the pod asks for ${text} by its annotation ipam.weft.dev/addresses, and gets no other: ${reason}`,
    );
  });

  test.each<{ what: string; spec?: object; choice?: object; claimer?: object; reason: string }>([
    { what: 'disabled', spec: { disabled: true }, reason: 'it is disabled' },
    {
      what: 'not for this node',
      spec: { nodeSelector: { matchLabels: { rack: '2' } } },
      reason: 'its nodeSelector rack=2 does not match node n1',
    },
    {
      what: "outside of the namespace's bound",
      claimer: { namespace: { name: 'shop', labels: {}, pools: ['open'] } },
      reason: "the namespace's annotation ipam.weft.dev/pools allows open only",
    },
    {
      what: 'not among those that the pod names',
      claimer: { podPools: ['open', 'strict'] },
      reason: "the pod's annotation ipam.weft.dev/pools names open, strict only",
    },
    {
      what: 'not the one that the configuration names',
      choice: { requestedPool: 'open' },
      reason: 'the network configuration names open only',
    },
    {
      what: 'for other interfaces',
      spec: { use: 'Bridge', fixedAddresses: false },
      reason: 'its use is Bridge: only weft-ipam draws',
    },
    { what: 'not for its allowed sources', reason: 'it does not suit what else the pod asks for' },
  ])('$what: the reason is told', ({ spec, choice, claimer, reason }) => {
    const other = poolOf('other', { cidrs: ['10.4.0.0/16'], fixedAddresses: true, ...spec });
    const base = choiceOf(open, other);
    const given = { ...base, ...choice, claimer: { ...base.claimer, ...claimer } };
    expect(() => poolOfNamed({ ipv4: parseAddress('10.4.0.9') }, [open], given)).toThrow(
      `it lies in IPPool other, from which this pod may not draw here and now: ${reason}`,
    );
  });

  test('is no pool where each has one of them', () => {
    const sixes = poolOf('sixes', { cidrs: ['fd01::/64'], fixedAddresses: true });
    const named = { ipv4: four, ipv6: parseAddress('fd01::9') };
    expect(() => poolOfNamed(named, [open, sixes], choiceOf(open, sixes))).toThrow(
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
