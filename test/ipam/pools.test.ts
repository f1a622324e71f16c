import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  choosePools,
  isGeneral,
  NoPoolError,
  poolDestinations,
  poolFamilies,
  poolOfAddress,
  serves,
  servingCIDRs,
  type Claimer,
} from '../../src/ipam/index.ts';
import { cidrContains, formatCIDR, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { poolOf, subnetOf } from './objects.ts';

/** Not of Kubernetes: it draws from the pools that admit every namespace. */
const claimer: Claimer = { node: { name: 'n1', labels: { zone: 'a' } } };
const older = { creationTimestamp: '2026-01-01T00:00:00Z' };
const younger = { creationTimestamp: '2026-01-02T00:00:00Z' };
const deleting = { deletionTimestamp: '2026-01-03T00:00:00Z', finalizers: ['x/y'] };

describe('the use of a pool', () => {
  const pools = [
    poolOf('bridge', { use: 'Bridge', cidrs: ['10.1.0.0/16'] }),
    poolOf('lan', { use: 'Lan', cidrs: ['10.2.0.0/16'], gateway: { ipv4: '10.2.0.1' } }),
    poolOf('pods', { cidrs: ['10.3.0.0/16'] }),
  ];
  const choose = (asks: 'Interface' | 'AddressOnly', requestedPool?: string) => () =>
    choosePools({
      pools,
      subnets: [],
      claimer,
      asks,
      ...(requestedPool === undefined ? {} : { requestedPool }),
    }).map(({ metadata }) => metadata.name);

  test('Pods is for weft’s own interfaces, and they draw from no other', () => {
    expect(choose('Interface')()).toEqual(['pods']);
    expect(choose('Interface', 'bridge')).toThrow(/bridge: its use is Bridge: only weft-ipam draws from it/);
    expect(choose('Interface', 'lan')).toThrow(/lan: its use is Lan: only weft-ipam draws from it/);
  });

  test('Bridge and Lan are for other plugins’', () => {
    expect(choose('AddressOnly', 'bridge')()).toEqual(['bridge']);
    expect(choose('AddressOnly', 'lan')()).toEqual(['lan']);
    expect(choose('AddressOnly', 'pods')).toThrow(
      /pods: its use is Pods: weft-ipam draws from pools of use Bridge or Lan/,
    );
  });

  test('decides what every node has a subnet of before anybody asks', () => {
    const view = { pools, subnets: [] };
    expect(
      pools.filter((pool) => isGeneral(pool, view, claimer.node)).map(({ metadata }) => metadata.name),
    ).toEqual(['pods']);
  });

  test('Lan lies outside of the pools: it is no destination of theirs', () => {
    const [, lan] = pools;
    if (lan === undefined) throw new Error('there is one');
    const pieces = [subnetOf('10.2.0.0/26', lan, 'n1', { nextHops: [] })];
    expect(poolDestinations(pools, pieces).map(formatCIDR)).toEqual(['10.1.0.0/16', '10.3.0.0/16']);
  });

  test('Lan holds the addresses of nodes, too, and serves all the same', () => {
    const foreign = { nodes: [parseAddress('10.1.0.9')], services: [parseCIDR('10.2.0.9/32')] };
    expect(pools.map((pool) => servingCIDRs(pool, pools, foreign).length)).toEqual([0, 1, 1]);
  });
});

describe('choosePools', () => {
  test('goes by name, without those that are being deleted', () => {
    const pools = [
      poolOf('c', { cidrs: ['10.3.0.0/16'] }),
      poolOf('a', { cidrs: ['10.1.0.0/16'] }),
      poolOf('b', { cidrs: ['10.2.0.0/16'] }, deleting),
    ];
    expect(choosePools({ pools, subnets: [], claimer }).map(({ metadata }) => metadata.name)).toEqual([
      'a',
      'c',
    ]);
  });

  test('a requested pool is the only candidate', () => {
    const pools = [poolOf('a', { cidrs: ['10.1.0.0/16'] }), poolOf('b', { cidrs: ['10.2.0.0/16'] })];
    const chosen = choosePools({ pools, subnets: [], claimer, requestedPool: 'b' });
    expect(chosen.map(({ metadata }) => metadata.name)).toEqual(['b']);
  });

  const gone = poolOf('gone', { cidrs: ['10.1.0.0/16'] }, deleting);
  test.each([
    {
      name: 'no pool at all',
      pools: [],
      requestedPool: undefined,
      says: /no IPPool in the cluster.*Create one/,
    },
    {
      name: 'only one that is being deleted',
      pools: [gone],
      requestedPool: undefined,
      says: /gone: it is being deleted/,
    },
    {
      name: 'a requested one that is not there',
      pools: [gone],
      requestedPool: 'x',
      says: /IPPool x .*no such IPPool/,
    },
    {
      name: 'a requested one that is being deleted',
      pools: [gone],
      requestedPool: 'gone',
      says: /gone: it is being deleted/,
    },
  ])('says why there is none: $name', ({ pools, requestedPool, says }) => {
    const choose = () =>
      choosePools({ pools, subnets: [], claimer, ...(requestedPool === undefined ? {} : { requestedPool }) });
    expect(choose).toThrow(NoPoolError);
    expect(choose).toThrow(says);
  });
});

describe('who may draw', () => {
  const ofTenant = (tenant: string) => ({ namespaceSelector: { matchLabels: { tenant } } });
  const pools = [
    poolOf('blue', { cidrs: ['10.1.0.0/16'], ...ofTenant('blue') }),
    poolOf('blue-fast', { cidrs: ['10.2.0.0/16'], ...ofTenant('blue'), priority: 5 }),
    poolOf('green', { cidrs: ['10.3.0.0/16'], ...ofTenant('green'), priority: 9 }),
    poolOf('open', { cidrs: ['10.4.0.0/16'], namespaceSelector: {} }),
    poolOf('off', { cidrs: ['10.5.0.0/16'], disabled: true, priority: 10 }),
    poolOf('zone-b', {
      cidrs: ['10.6.0.0/16'],
      nodeSelector: { matchLabels: { zone: 'b' } },
      priority: 10,
    }),
  ];
  const shop = (over: { pools?: string[]; podPools?: string[] } = {}): Claimer => ({
    ...claimer,
    namespace: { name: 'shop', labels: { tenant: 'blue' }, pools: over.pools },
    podPools: over.podPools,
  });
  const choose = (who: Claimer, requestedPool?: string) =>
    choosePools({
      pools,
      subnets: [],
      claimer: who,
      ...(requestedPool === undefined ? {} : { requestedPool }),
    }).map(({ metadata }) => metadata.name);

  test.each<{ name: string; who: Claimer; requested?: string; gets: string[] }>([
    { name: 'by priority, then by name', who: shop(), gets: ['blue-fast', 'blue', 'open'] },
    { name: 'no tenant’s pool without a namespace', who: claimer, gets: ['open'] },
    {
      name: 'the pools of the namespace alone',
      who: shop({ pools: ['open', 'blue'] }),
      gets: ['blue', 'open'],
    },
    {
      name: 'of those the pod’s',
      who: shop({ pools: ['open', 'blue'], podPools: ['open'] }),
      gets: ['open'],
    },
    { name: 'the pod’s where the namespace names none', who: shop({ podPools: ['open'] }), gets: ['open'] },
    {
      name: 'a named one that this node cannot draw from is passed over',
      who: shop({ pools: ['zone-b', 'off', 'blue'] }),
      gets: ['blue'],
    },
    {
      name: 'the configuration’s, whatever the annotations say',
      who: shop({ pools: ['open'], podPools: ['open'] }),
      requested: 'blue',
      gets: ['blue'],
    },
  ])('$name', ({ who, requested, gets }) => {
    expect(choose(who, requested)).toEqual(gets);
  });

  test.each<{ name: string; who: Claimer; requested?: string; says: string }>([
    {
      name: 'another tenant’s pool in the pod’s annotation',
      who: shop({ podPools: ['blue', 'green'] }),
      says:
        'no IPPool can be drawn from by namespace shop on node n1: green: its namespaceSelector tenant=green does ' +
        'not match namespace shop',
    },
    {
      name: 'another tenant’s pool in the namespace’s annotation',
      who: shop({ pools: ['green', 'blue'] }),
      says: 'green: its namespaceSelector tenant=green does not match namespace shop',
    },
    {
      name: 'another tenant’s pool in the configuration',
      who: shop(),
      requested: 'green',
      says: 'IPPool green cannot be drawn from by namespace shop on node n1: green: its namespaceSelector',
    },
    {
      name: 'a pod that leaves the bound of its namespace',
      who: shop({ pools: ['blue'], podPools: ['open'] }),
      says: "open: the namespace's annotation ipam.weft.dev/pools allows blue only",
    },
    {
      name: 'a named pool that is not there',
      who: shop({ podPools: ['x'] }),
      says: 'x: there is no such IPPool',
    },
    {
      name: 'no named one that this node can draw from',
      who: shop({ podPools: ['zone-b', 'off'] }),
      says: 'off: it is disabled; zone-b: its nodeSelector zone=b does not match node n1',
    },
    {
      name: 'a tenant’s pool for whom Kubernetes is not',
      who: claimer,
      requested: 'blue',
      says: 'its namespaceSelector tenant=blue admits pods of Kubernetes only',
    },
  ])('refuses $name', ({ who, requested, says }) => {
    expect(() => choose(who, requested)).toThrow(NoPoolError);
    expect(() => choose(who, requested)).toThrow(says);
  });

  test('whatever annotations say, a namespace draws from no pool that does not admit it', () => {
    const anyPools = fc.option(fc.subarray(pools.map(({ metadata }) => metadata.name)), { nil: undefined });
    const anyTenant = fc.constantFrom('blue', 'green', 'none');
    fc.assert(
      fc.property(anyTenant, anyPools, anyPools, anyPools, (tenant, bound, podPools, requested) => {
        const who = { ...claimer, namespace: { name: 'ns', labels: { tenant }, pools: bound }, podPools };
        const admitted = ['open', ...(tenant === 'none' ? [] : [tenant, `${tenant}-fast`])];
        try {
          for (const name of choose(who, requested?.[0])) expect(admitted).toContain(name);
        } catch (error) {
          if (!(error instanceof NoPoolError)) throw error;
        }
      }),
    );
  });

  test('of many pools that refuse ten are named', () => {
    const many = Array.from({ length: 30 }, (_, i) =>
      poolOf(`t${i}`, { cidrs: [`10.${i}.0.0/16`], ...ofTenant(`t${i}`) }),
    );
    expect(() => choosePools({ pools: many, subnets: [], claimer: shop() })).toThrow(/; and 20 more$/);
  });

  test('general is a pool for every namespace that selects the node and serves', () => {
    const general = pools.filter((pool) => isGeneral(pool, { pools, subnets: [] }, claimer.node));
    expect(general.map(({ metadata }) => metadata.name)).toEqual(['open']);
  });
});

describe('a disabled pool', () => {
  const disabled = poolOf('p', { cidrs: ['10.0.0.0/16'], disabled: true }, older);
  test('gives nothing new, and keeps its range from younger pools', () => {
    const late = poolOf('late', { cidrs: ['10.0.7.0/24'] }, younger);
    expect(servingCIDRs(disabled, [disabled, late])).toEqual([]);
    expect(servingCIDRs(late, [disabled, late])).toEqual([]);
    expect(serves(disabled, { pools: [disabled], subnets: [subnetOf('10.0.1.0/26', disabled)] })).toBe(false);
  });
});

describe('overlap', () => {
  const wide = poolOf('wide', { cidrs: ['10.0.0.0/16', 'fd00:1::/48'] }, older);
  const narrow = poolOf('narrow', { cidrs: ['10.0.7.0/24', '10.9.0.0/24'] }, younger);

  test('is judged per CIDR: that of the younger pool gives no new subnets', () => {
    expect(servingCIDRs(narrow, [wide, narrow]).map(formatCIDR)).toEqual(['10.9.0.0/24']);
    expect(servingCIDRs(wide, [narrow, wide]).map(formatCIDR)).toEqual(['10.0.0.0/16', 'fd00:1::/48']);
  });

  test('of two made in the same second the name decides', () => {
    const [a, b] = ['a', 'b'].map((name) => poolOf(name, { cidrs: ['10.0.0.0/16'] }));
    if (a === undefined || b === undefined) throw new Error('two pools');
    expect(servingCIDRs(a, [b, a])).toHaveLength(1);
    expect(servingCIDRs(b, [b, a])).toHaveLength(0);
  });

  test('what was claimed before keeps serving', () => {
    const late = poolOf('late', { cidrs: ['10.0.7.0/24'] }, younger);
    expect(serves(late, { pools: [wide, late], subnets: [] })).toBe(false);
    expect(serves(late, { pools: [wide, late], subnets: [subnetOf('10.0.7.0/26', late)] })).toBe(true);
    expect(() => choosePools({ pools: [wide, late], subnets: [], claimer, requestedPool: 'late' })).toThrow(
      /each of its CIDRs overlaps one of an older IPPool/,
    );
  });

  test('of any two overlapping CIDRs of two pools exactly one serves, whatever the order of the list', () => {
    const created = fc.constantFrom(
      '2026-01-01T00:00:00Z',
      '2026-01-02T00:00:00Z',
      '2026-01-01T01:00:00+01:00',
      // Made while the apiserver's time of day was wrong by years (F31).
      '2099-01-01T00:00:00Z',
      '1970-01-01T00:00:00Z',
    );
    fc.assert(
      fc.property(created, created, fc.boolean(), (one, two, isSwapped) => {
        const a = poolOf('a', { cidrs: ['10.0.0.0/16'] }, { creationTimestamp: one });
        const b = poolOf('b', { cidrs: ['10.0.7.0/24'] }, { creationTimestamp: two });
        const pools = isSwapped ? [b, a] : [a, b];
        expect(servingCIDRs(a, pools).length + servingCIDRs(b, pools).length).toBe(1);
      }),
    );
  });
});

test.each([
  { cidrs: ['10.0.0.0/16'], families: ['ipv4'] },
  { cidrs: ['fd00::/32'], families: ['ipv6'] },
  { cidrs: ['fd00::/32', '10.0.0.0/16', '10.1.0.0/16'], families: ['ipv4', 'ipv6'] },
])('the families of $cidrs are $families', ({ cidrs, families }) => {
  expect(poolFamilies(poolOf('p', { cidrs }))).toEqual(families);
});

describe('poolDestinations', () => {
  test('are the CIDRs and the subnets outside of them, none inside another', () => {
    const p = poolOf('p', { cidrs: ['10.1.0.0/16', 'fd00::/32'] });
    const subnets = [subnetOf('10.1.2.0/26', p), subnetOf('10.7.0.0/26', p), subnetOf('10.7.0.64/26', p)];
    expect(poolDestinations([p], subnets).map(formatCIDR)).toEqual([
      '10.1.0.0/16',
      '10.7.0.0/26',
      '10.7.0.64/26',
      'fd00::/32',
    ]);
  });

  test('cover the same addresses as all of them together, and do not nest', () => {
    const anyCIDR = fc
      .tuple(fc.integer({ min: 0, max: 15 }), fc.integer({ min: 24, max: 30 }))
      .map(([block, length]) => `10.0.${block}.0/${length}`);
    fc.assert(
      fc.property(fc.array(anyCIDR, { minLength: 1 }), (cidrs) => {
        const pools = cidrs.map((cidr, i) =>
          poolOf(`p${i}`, { cidrs: [cidr], nodeSubnetPrefixLength: { ipv4: 30 } }),
        );
        const found = poolDestinations(pools, []);
        for (const cidr of cidrs) {
          expect(found.filter((one) => cidrContains(one, parseCIDR(cidr)))).toHaveLength(1);
        }
        for (const one of found) expect(cidrs).toContain(formatCIDR(one));
      }),
    );
  });
});

describe('poolOfAddress', () => {
  const a = poolOf('a', { cidrs: ['10.0.0.0/16'] }, older);
  const b = poolOf('b', { cidrs: ['10.0.7.0/24'] }, younger);
  const ofA = subnetOf('10.0.7.0/26', a);
  const ofMissing = subnetOf('10.9.0.0/26', { metadata: { ...a.metadata, name: 'missing' } });

  test.each([
    {
      name: 'the subnet decides, though another pool lists a longer CIDR',
      address: '10.0.7.5',
      poolName: 'a',
      subnet: ofA,
    },
    { name: 'without a subnet the longest CIDR', address: '10.0.7.200', poolName: 'b', subnet: undefined },
    { name: 'one CIDR alone', address: '10.0.8.1', poolName: 'a', subnet: undefined },
    { name: 'a subnet whose pool is gone', address: '10.9.0.9', poolName: 'missing', subnet: ofMissing },
  ])('$name', ({ address, poolName, subnet }) => {
    const found = poolOfAddress(parseAddress(address), [b, a], [ofA, ofMissing]);
    expect(found?.poolName).toBe(poolName);
    expect(found?.subnet).toBe(subnet);
    expect(found?.pool?.metadata.name).toBe(poolName === 'missing' ? undefined : poolName);
  });

  test('is undefined for an address of no pool', () => {
    expect(poolOfAddress(parseAddress('192.0.2.1'), [a, b], [ofA])).toBeUndefined();
  });

  test('of equal CIDRs the older pool is meant', () => {
    const twin = poolOf('0', { cidrs: ['10.0.0.0/16'] }, younger);
    expect(poolOfAddress(parseAddress('10.0.1.1'), [twin, a], [])?.poolName).toBe('a');
  });
});
