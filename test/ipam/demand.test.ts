import { describe, expect, test } from 'vitest';
import { allocationName } from '../../src/api/index.ts';
import { createRingCursor, runsLow, wantedFrom, type Claimer } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { poolOf, subnetOf } from './objects.ts';

const node = { name: 'n1', labels: {} };

test('each pod wants the first pool that admits it; those that nothing admits want none', () => {
  const blue = { matchLabels: { tenant: 'blue' } };
  const pools = [
    poolOf('all', { cidrs: ['10.1.0.0/16'] }),
    poolOf('blue', { cidrs: ['10.2.0.0/16'], namespaceSelector: blue, priority: 1 }),
  ];
  const claimer = (tenant: string, podPools?: string[]): Claimer => ({
    node,
    namespace: { name: tenant, labels: { tenant } },
    podPools,
  });
  const claimers = [claimer('blue'), claimer('blue'), claimer('red'), claimer('red', ['blue'])];
  expect(Object.fromEntries(wantedFrom(claimers, { pools, subnets: [] }))).toEqual({ blue: 2, all: 1 });
});

describe('runsLow', () => {
  const pool = poolOf('p', { cidrs: ['10.0.0.0/16'], nodeSubnetPrefixLength: { ipv4: 28 } });
  const names = (count: number) =>
    new Set(Array.from({ length: count }, (_, i) => allocationName(parseAddress(`10.0.0.${i + 1}`))));
  test.each([
    { subnets: 0, used: 0, wanted: 0, spare: 8, low: false },
    { subnets: 0, used: 0, wanted: 1, spare: 8, low: true },
    { subnets: 1, used: 0, wanted: 0, spare: 8, low: false },
    { subnets: 1, used: 7, wanted: 0, spare: 8, low: false },
    { subnets: 1, used: 8, wanted: 0, spare: 8, low: true },
    { subnets: 1, used: 0, wanted: 7, spare: 8, low: false },
    { subnets: 1, used: 0, wanted: 8, spare: 8, low: true },
    { subnets: 2, used: 15, wanted: 7, spare: 8, low: false },
    { subnets: 2, used: 15, wanted: 8, spare: 8, low: true },
    { subnets: 1, used: 15, wanted: 0, spare: 0, low: false },
  ])('$subnets subnets of 15, $used in use, $wanted wanted, $spare spare: $low', (row) => {
    const subnets = ['10.0.0.0/28', '10.0.0.16/28'].slice(0, row.subnets).map((cidr) => subnetOf(cidr, pool));
    const { wanted, spare } = row;
    const headroom = { pool, family: 'ipv4' as const, subnets, inUse: names(row.used), wanted, spare };
    expect(runsLow({ ...headroom, cursor: createRingCursor() })).toBe(row.low);
  });
});
