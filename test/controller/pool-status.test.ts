import { describe, expect, it } from 'vitest';
import { STICKY_HOLDER, type Condition, type IPPool } from '../../src/api/index.ts';
import { isUrgent, poolStatus, sameStatus, type PoolFacts } from '../../src/controller/pool-status.ts';
import type { Finding } from '../../src/ipam/index.ts';
import { formatAddress, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { allocation, nodeSubnet, pool } from './objects.ts';

const now = new Date('2026-02-03T04:05:06Z');

function facts(of: IPPool, more: Partial<PoolFacts> = {}): PoolFacts {
  return {
    pool: of,
    pools: [of],
    subnets: [],
    allocations: [],
    nodeAddresses: [parseAddress('192.0.2.1')],
    serviceCIDRs: [],
    nearlyExhausted: 0.9,
    ...more,
  };
}

function condition(of: PoolFacts, type: Condition['type']): Condition | undefined {
  return poolStatus(of, now).conditions?.find((one) => one.type === type);
}

const holding = (of: PoolFacts) =>
  (poolStatus(of, now).conditions ?? []).filter(({ status }) => status === 'True').map(({ type }) => type);

/** A /28 of one node in a pool of nothing else: 15 usable addresses. */
function small(used: number): PoolFacts {
  const tiny = pool('tiny', ['10.9.0.0/28'], { prefixLength: 28 });
  const subnet = nodeSubnet(tiny, '10.9.0.0/28', 'a');
  const allocations = Array.from({ length: used }, (_, index) =>
    allocation(tiny, `10.9.0.${index + 1}`, 'a'),
  );
  return facts(tiny, { subnets: [subnet], allocations });
}

describe("a pool's conditions", () => {
  it('is Ready, and nothing else, when new', () => {
    const fresh = facts(pool('pods', ['10.0.0.0/16', 'fd00::/32']));
    expect(holding(fresh)).toEqual(['Ready']);
    expect(poolStatus(fresh, now)).toMatchObject({
      observedGeneration: 1,
      ipv4: { capacity: '65536', allocated: 0, nodeSubnets: 0 },
      ipv6: { capacity: String(2n ** 96n), allocated: 0 },
    });
  });

  it.each([
    { used: 12, expected: ['Ready', 'NearlyExhausted'] },
    { used: 14, expected: ['Ready', 'NearlyExhausted'] },
    { used: 15, expected: ['Ready', 'Exhausted', 'NearlyExhausted'] },
  ])('of 15 addresses with $used in use: $expected', ({ used, expected }) => {
    expect(holding(small(used))).toEqual(expected);
  });

  it('is not nearly exhausted with room in addresses and subnets', () => {
    const pods = pool('pods', ['10.9.0.0/24'], { prefixLength: 28 });
    const subnets = [nodeSubnet(pods, '10.9.0.0/28', 'a')];
    expect(holding(facts(pods, { subnets }))).toEqual(['Ready']);
  });

  it.each([
    { used: 0, nearly: 'False' },
    { used: 17, nearly: 'False' },
    { used: 18, nearly: 'True' },
    { used: 20, nearly: 'True' },
  ])('of a LAN with 20 addresses that are not reserved, $used in use: nearly exhausted: $nearly', (given) => {
    const plain = pool('lan', ['192.168.7.0/24'], { prefixLength: 28 });
    // 192.168.7.32 to .51 are left, in two of the 16 pieces.
    const reserved = ['0/27', '52/30', '56/29', '64/26', '128/25'];
    const lan = {
      ...plain,
      spec: {
        ...plain.spec,
        use: 'Lan' as const,
        reserved: reserved.map((end) => parseCIDR(`192.168.7.${end}`)),
      },
    };
    const addresses = Array.from({ length: given.used }, (_, index) => `192.168.7.${32 + index}`);
    const subnets = given.used > 0 ? [nodeSubnet(lan, '192.168.7.32/28', 'a')] : [];
    const allocations = addresses.map((address) => allocation(lan, address, 'a'));
    const found = condition(facts(lan, { subnets, allocations }), 'NearlyExhausted');
    expect(found?.status).toBe(given.nearly);
  });

  it.each<{ what: string; more: Partial<IPPool['spec']>; metadata?: Partial<IPPool['metadata']> }>([
    { what: 'disabled', more: { disabled: true } },
    { what: 'deleted', more: {}, metadata: { deletionTimestamp: '2026-02-01T00:00:00Z' } },
  ])('is not nearly exhausted when $what, with subnets and without', ({ more, metadata }) => {
    const pods = pool('pods', ['10.0.0.0/26'], metadata === undefined ? {} : { metadata });
    const off = { ...pods, spec: { ...pods.spec, ...more } };
    const subnets = [nodeSubnet(pods, '10.0.0.0/26', 'a')];
    for (const of of [facts(off), facts(off, { subnets })]) {
      expect(condition(of, 'NearlyExhausted')).toMatchObject({ status: 'False', reason: 'NotDrawn' });
    }
  });

  it('is not nearly exhausted in a family of which it gives nothing', () => {
    const dual = pool('dual', ['10.0.0.0/16', 'fd00::/48']);
    const subnets = [nodeSubnet(dual, 'fd01::/122', 'a')];
    const serviceCIDRs = [parseCIDR('fd00::/108')];
    // Of IPv6 there is a removed CIDR's subnet, which drains, and a CIDR that overlaps the Services'.
    expect(condition(facts(dual, { subnets, serviceCIDRs }), 'NearlyExhausted')).toMatchObject({
      status: 'False',
      reason: 'EnoughLeft',
    });
  });

  it('shows the younger of two overlapping pools as such, with the name of the older', () => {
    const older = pool('older', ['10.0.0.0/16']);
    const younger = pool('younger', ['10.0.128.0/17', '10.1.0.0/16'], {
      metadata: { creationTimestamp: '2026-01-02T00:00:00Z' },
    });
    const pools = [older, younger];
    expect(holding(facts(older, { pools }))).toEqual(['Ready']);
    const found = condition(facts(younger, { pools }), 'Overlapping');
    expect(found).toMatchObject({ status: 'True', reason: 'OlderPool' });
    expect(found?.message).toContain('10.0.128.0/17 overlaps IPPool older');
    expect(condition(facts(younger, { pools }), 'Ready')?.status).toBe('True');
  });

  it.each([
    {
      what: 'Services',
      more: { serviceCIDRs: [parseCIDR('10.0.96.0/20')] },
      reason: 'ServiceRange',
      text: "overlaps the Services' 10.0.96.0/20",
    },
    {
      what: 'nodes',
      more: { nodeAddresses: [parseAddress('10.0.3.4')] },
      reason: 'NodeAddresses',
      text: '10.0.0.0/16 holds addresses of nodes',
    },
  ])('tells of a range that $what use', ({ more, reason, text }) => {
    const found = condition(facts(pool('pods', ['10.0.0.0/16']), more), 'Overlapping');
    expect(found).toMatchObject({ status: 'True', reason });
    expect(found?.message).toContain(text);
  });

  it.each([
    { what: 'the Services', more: { serviceCIDRs: [parseCIDR('10.0.96.0/20')] } },
    { what: 'a node', more: { nodeAddresses: [parseAddress('10.0.3.4')] } },
  ])('is not Ready, and counts nothing as free, where all of it overlaps $what', ({ more }) => {
    const pods = pool('pods', ['10.0.0.0/16']);
    expect(holding(facts(pods, more))).not.toContain('Ready');
    expect(condition(facts(pods, more), 'Ready')).toMatchObject({ reason: 'Overlapping' });
    expect(condition(facts(pods, more), 'NearlyExhausted')).toMatchObject({
      status: 'False',
      reason: 'NotDrawn',
    });
    expect(poolStatus(facts(pods, more), now).ipv4).toMatchObject({ free: '0', freeSubnets: '0' });
    const subnets = [nodeSubnet(pods, '10.0.1.0/26', 'a')];
    expect(holding(facts(pods, { ...more, subnets }))).toContain('Ready');
  });

  it.each([
    { of: 'pods', more: {}, inside: ['10.0.3.4', 'fd00::9'] },
    // A LAN is around its nodes: each of them is left out.
    {
      of: 'a LAN',
      more: { gateway: { ipv4: '10.0.0.1', ipv6: 'fd00::1' } },
      inside: ['10.0.3.4', '10.0.3.5', 'fd00::9'],
    },
  ])('of $of names the addresses of nodes inside, for the agents', ({ more, inside }) => {
    const nodes = ['10.0.3.5', '192.0.2.1', '10.0.3.4', 'fd00::9'].map(parseAddress);
    const around = pool('around', ['10.0.0.0/16', 'fd00::/64'], more);
    const status = poolStatus(facts(around, { nodeAddresses: nodes }), now);
    expect(status.nodeAddresses?.map(formatAddress)).toEqual(inside);
    // In whatever order the nodes are listed; and whether they have changed must be known at once.
    const again = poolStatus(facts(around, { nodeAddresses: nodes.toReversed() }), now);
    expect(sameStatus(again, status)).toBe(true);
    const fewer = poolStatus(facts(around, { nodeAddresses: nodes.slice(0, 3) }), now);
    expect(sameStatus(fewer, status)).toBe(false);
    expect(isUrgent(fewer, status)).toBe(true);
  });

  it('is Exhausted when a node is full and the rest of it overlaps the Services', () => {
    const wide = pool('wide', ['10.9.0.0/28', '10.8.0.0/16'], { prefixLength: 28 });
    const subnets = [nodeSubnet(wide, '10.9.0.0/28', 'a')];
    const allocations = Array.from({ length: 15 }, (_, index) =>
      allocation(wide, `10.9.0.${index + 1}`, 'a'),
    );
    const full = facts(wide, { subnets, allocations });
    expect(holding(full)).not.toContain('Exhausted');
    expect(holding({ ...full, serviceCIDRs: [parseCIDR('10.8.0.0/20')] })).toContain('Exhausted');
  });

  it.each([
    { what: 'all is free', used: 0, cidrs: ['10.9.0.0/24'], says: 'every node can get addresses' },
    {
      what: 'all pieces are held',
      used: 3,
      cidrs: ['10.9.0.0/28'],
      says: 'addresses are left, but not for all; no ipv4 subnet is free: a node that holds none gets no address',
    },
    {
      what: 'a bridge is full',
      used: 13,
      cidrs: ['10.9.0.0/24'],
      use: 'Bridge' as const,
      says: 'addresses are left, but not for all; full: a; a bridge gets no second subnet, ptp does',
    },
  ])('is not Exhausted, and says for whom nothing is left, where $what', ({ used, cidrs, use, says }) => {
    const plain = pool('tiny', cidrs, { prefixLength: 28 });
    const tiny = { ...plain, spec: { ...plain.spec, use: use ?? plain.spec.use } };
    const subnets = used === 0 ? [] : [nodeSubnet(tiny, '10.9.0.0/28', 'a')];
    const head = use === 'Bridge' ? 2 : 1;
    const allocations = Array.from({ length: used }, (_, index) =>
      allocation(tiny, `10.9.0.${index + head}`, 'a'),
    );
    const found = condition(facts(tiny, { subnets, allocations }), 'Exhausted');
    expect(found).toMatchObject({ status: 'False', message: says });
  });

  it('is not Exhausted where nothing is drawn, and does not say that every node can get addresses', () => {
    const pods = pool('pods', ['10.0.0.0/16']);
    const disabled = { ...pods, spec: { ...pods.spec, disabled: true } };
    expect(condition(facts(disabled), 'Exhausted')).toMatchObject({ status: 'False', reason: 'NotDrawn' });
  });

  it('says that the ranges of Services are unknown where they are', () => {
    const found = condition(facts(pool('pods', ['10.0.0.0/16']), { serviceCIDRs: undefined }), 'Overlapping');
    expect(found).toMatchObject({ status: 'False' });
    expect(found?.message).toContain('unknown');
  });

  it('drains what a CIDR taken out of the list still holds, and names at most ten', () => {
    const pods = pool('pods', ['10.1.0.0/16']);
    const subnets = Array.from({ length: 12 }, (_, index) =>
      nodeSubnet(pods, `10.0.${index}.0/26`, `n${index}`),
    );
    const found = condition(facts(pods, { subnets }), 'Draining');
    expect(found).toMatchObject({ status: 'True', reason: 'RangeRemoved' });
    expect(found?.message).toContain('12 node subnets');
    expect(found?.message).toContain('10.0.0.0/26 of n0');
    expect(found?.message).toContain('and 2 more');
  });

  it('says how much is left in what is drained, and names first who holds an address without a pod', () => {
    const pods = pool('pods', ['10.1.0.0/16']);
    const subnets = [nodeSubnet(pods, '10.0.0.0/26', 'a'), nodeSubnet(pods, '10.0.1.0/26', 'b')];
    const allocations = [
      allocation(pods, '10.0.0.1', 'a'),
      allocation(pods, '10.0.1.1', 'b'),
      allocation(pods, '10.0.1.2', 'b'),
      {
        ...allocation(pods, '10.0.1.9', 'b'),
        spec: { address: parseAddress('10.0.1.9'), pool: 'pods', holder: 'printer' },
      },
      allocation(pods, '10.1.0.1', 'a'),
    ];
    expect(condition(facts(pods, { subnets, allocations }), 'Draining')?.message).toBe(
      'nothing new is drawn from 2 node subnets, which go when their pods are gone: 4 addresses are left; held ' +
        'without a pod: 10.0.1.9 (printer); 10.0.1.0/26 of b (3), 10.0.0.0/26 of a (1)',
    );
  });

  it('goes on with the drain for who is in no node subnet: held ones without a node, and kept ones', () => {
    const pods = pool('pods', ['10.1.0.0/16']);
    const outside = [
      allocation(pods, '10.0.0.9', 'a', { holder: 'printer' }),
      allocation(pods, '10.0.3.7', 'a', { holder: STICKY_HOLDER }),
    ];
    const allocations = [...outside, allocation(pods, '10.1.0.9', 'a', { holder: 'scanner' })];
    const found = condition(facts(pods, { allocations }), 'Draining');
    expect(found).toMatchObject({ status: 'True', reason: 'RangeRemoved' });
    expect(found?.message).toBe(
      'nothing new is drawn from what it no longer gives: 2 addresses are left; held without a pod: 10.0.0.9 ' +
        '(printer), 10.0.3.7 (sticky)',
    );
    expect(condition(facts(pods, { allocations: [] }), 'Draining')?.status).toBe('False');
    const subnets = [nodeSubnet(pods, '10.0.4.0/26', 'b')];
    expect(condition(facts(pods, { allocations, subnets }), 'Draining')?.message).toBe(
      'nothing new is drawn from 1 node subnets, which go when their pods are gone: 2 addresses are left; held ' +
        'without a pod: 10.0.0.9 (printer), 10.0.3.7 (sticky); 10.0.4.0/26 of b (0)',
    );
  });

  it('counts all of a disabled pool as left, wherever it lies, and nothing of other pools', () => {
    const pods = pool('pods', ['10.0.0.0/16']);
    const other = pool('other', ['10.9.0.0/16']);
    const disabled = { ...pods, spec: { ...pods.spec, disabled: true } };
    const allocations = [
      allocation(pods, '10.0.0.9', 'a', { holder: 'printer' }),
      allocation(other, '10.9.0.9', 'a', { holder: 'scanner' }),
    ];
    const found = condition(facts(disabled, { pools: [disabled, other], allocations }), 'Draining');
    expect(found).toMatchObject({ status: 'True', reason: 'Disabled' });
    expect(found?.message).toMatch(/1 addresses are left; held without a pod: 10\.0\.0\.9 \(printer\)$/);
    expect(condition(facts(disabled), 'Draining')).toMatchObject({ status: 'False', reason: 'NothingLeft' });
  });

  it('names first whom nobody ends by restarting workloads, and then pods that no node subnet has', () => {
    const pods = pool('pods', ['10.1.0.0/16']);
    const allocations = [
      allocation(pods, '10.0.0.7', 'a'),
      allocation(pods, '10.0.0.9', 'a', { holder: 'printer' }),
    ];
    expect(condition(facts(pods, { allocations }), 'Draining')?.message).toMatch(
      /held without a pod: 10\.0\.0\.9 \(printer\); in no node subnet: 10\.0\.0\.7$/,
    );
  });

  it('says of a drained piece of a bridge that it waits for the bridge, too', () => {
    const pods = pool('linked', ['10.1.0.0/16']);
    const bridge = { ...pods, spec: { ...pods.spec, use: 'Bridge' as const } };
    const subnets = [nodeSubnet(bridge, '10.0.0.0/26', 'a')];
    expect(condition(facts(bridge, { subnets }), 'Draining')?.message).toContain(
      "which go when their pods, and the nodes' links with their gateways, are gone: 0 addresses are left",
    );
  });

  it('drains a disabled pool, which is not Ready', () => {
    const pods = pool('pods', ['10.0.0.0/16']);
    const disabled = { ...pods, spec: { ...pods.spec, disabled: true } };
    const off = facts(disabled, { subnets: [nodeSubnet(pods, '10.0.1.0/26', 'a')] });
    expect(condition(off, 'Draining')).toMatchObject({ status: 'True', reason: 'Disabled' });
    expect(condition(off, 'Ready')).toMatchObject({ status: 'False', reason: 'Disabled' });
    expect(poolStatus(off, now).ipv4).toMatchObject({ free: '0', freeSubnets: '0' });
  });

  it('drains what nodes hold that the pool selects no more', () => {
    const pods = pool('pods', ['10.0.0.0/16']);
    const selective = { ...pods, spec: { ...pods.spec, nodeSelector: { matchLabels: { zone: 'a' } } } };
    const subnets = [nodeSubnet(pods, '10.0.1.0/26', 'a'), nodeSubnet(pods, '10.0.2.0/26', 'b')];
    const found = condition(
      facts(selective, { subnets, labelsOf: (nodeName) => ({ zone: nodeName }) }),
      'Draining',
    );
    expect(found).toMatchObject({ status: 'True', reason: 'NodesNotSelected' });
    expect(found?.message).toContain('10.0.2.0/26 of b');
    expect(found?.message).not.toContain('10.0.1.0/26');
  });

  it('says of a deleted pool whom it waits for', () => {
    const pods = pool('pods', ['10.0.0.0/16'], { metadata: { deletionTimestamp: '2026-02-01T00:00:00Z' } });
    const waiting = facts(pods, { subnets: [nodeSubnet(pods, '10.0.1.0/26', 'a')] });
    expect(condition(waiting, 'Ready')).toMatchObject({ status: 'False', reason: 'Deleting' });
    expect(condition(waiting, 'Ready')?.message).toContain('10.0.1.0/26 of a');
    expect(holding(waiting)).toContain('Draining');
  });
});

describe('peers', () => {
  const isolated = (name: string, ...peers: string[]) =>
    pool(name, ['10.0.0.0/16'], { isolation: { mode: 'Isolated', peers } });
  const lan = pool('lan', ['192.168.7.0/24']);
  const others = [
    isolated('mutual', 'a'),
    isolated('aloof', 'b'),
    pool('open', ['10.5.0.0/16']),
    { ...lan, spec: { ...lan.spec, use: 'Lan' as const } },
  ];

  it.each<{ peers: string[]; reason: string; says: string[] }>([
    { peers: [], reason: 'PeersMatch', says: [] },
    { peers: ['mutual'], reason: 'PeersMatch', says: [] },
    { peers: ['open'], reason: 'PeersMatch', says: [] },
    { peers: ['a'], reason: 'PeersMatch', says: [] },
    { peers: ['mutual', 'gone'], reason: 'NoSuchPool', says: ['gone: there is no such IPPool'] },
    { peers: ['aloof'], reason: 'NotNamedBack', says: ['aloof: it is Isolated and does not name a'] },
    { peers: ['lan'], reason: 'NotFiltered', says: ['lan: its use is Lan'] },
    { peers: ['gone', 'aloof'], reason: 'NoSuchPool', says: ['gone: there is', 'aloof: it is Isolated'] },
  ])('$peers of an isolated pool: $reason', ({ peers, reason, says }) => {
    const a = isolated('a', ...peers);
    const found = condition(facts(a, { pools: [a, ...others] }), 'PeersUnmatched');
    expect(found).toMatchObject({ status: says.length > 0 ? 'True' : 'False', reason });
    for (const text of says) expect(found?.message).toContain(text);
  });

  it('of a pool that is not isolated have no effect, and are no mistake', () => {
    const a = pool('a', ['10.0.0.0/16'], { isolation: { mode: 'None', peers: ['gone', 'aloof'] } });
    expect(condition(facts(a, { pools: [a, ...others] }), 'PeersUnmatched')).toMatchObject({
      status: 'False',
      reason: 'NotIsolated',
    });
  });

  it('are not all named where there are many', () => {
    const a = isolated('a', ...Array.from({ length: 14 }, (_, index) => `gone-${index}`));
    expect(condition(facts(a), 'PeersUnmatched')?.message).toMatch(/gone-9: [^;]*; and 4 more$/);
  });
});

describe('what is written', () => {
  it('keeps the time of a condition that stands, and dates one that turned', () => {
    const before = poolStatus(small(1), new Date('2026-01-01T00:00:00Z'));
    const full = small(15);
    const after = poolStatus({ ...full, pool: { ...full.pool, status: before } }, now);
    const times = (after.conditions ?? []).map(({ type, lastTransitionTime }) => [type, lastTransitionTime]);
    expect(times).toContainEqual(['Ready', '2026-01-01T00:00:00Z']);
    expect(times).toContainEqual(['Exhausted', '2026-02-03T04:05:06Z']);
  });

  it('is nothing where nothing changed, in whatever order the apiserver answered the fields', () => {
    const status = poolStatus(small(3), now);
    const reordered = JSON.parse(JSON.stringify(status), (_key, value: unknown) =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.fromEntries(Object.entries(value).reverse())
        : value,
    ) as typeof status;
    expect(sameStatus(reordered, status)).toBe(true);
    expect(sameStatus(poolStatus(small(4), now), status)).toBe(false);
  });

  it('is urgent when a condition turned, not when a number did', () => {
    expect(isUrgent(poolStatus(small(3), now), poolStatus(small(4), now))).toBe(false);
    expect(isUrgent(poolStatus(small(14), now), poolStatus(small(15), now))).toBe(true);
    expect(isUrgent(undefined, poolStatus(small(3), now))).toBe(true);
  });
});

describe('Consistent', () => {
  const of = pool('pods', ['10.0.0.0/16']);
  const found = (severity: Finding['severity'], name: string): Finding => ({
    invariant: 5,
    severity,
    reason: severity === 'critical' ? 'OutsideSubnets' : 'SubnetOfAnotherPool',
    object: { kind: 'IPAllocation', name },
    pool: 'pods',
    message: `something is wrong with ${name}`,
  });

  it('is not spoken of before the audit has looked', () => {
    expect(condition(facts(of), 'Consistent')).toBeUndefined();
  });

  it('holds where it found nothing', () => {
    expect(condition(facts(of, { findings: [] }), 'Consistent')).toMatchObject({
      status: 'True',
      reason: 'NothingFound',
    });
  });

  it('gives the worst finding as the reason, and no more of them than can be read', () => {
    const findings = [
      ...Array.from({ length: 20 }, (_, i) => found('warning', `10.0.0.${i}`)),
      found('critical', '10.0.1.1'),
    ];
    const shown = condition(facts(of, { findings }), 'Consistent');
    expect(shown).toMatchObject({ status: 'False', reason: 'OutsideSubnets' });
    expect(shown?.message).toMatch(
      /^something is wrong with 10\.0\.1\.1; .*; and 11 more: kubectl weft check$/,
    );
  });

  it('stands as a new leader finds it, until that has looked itself', () => {
    const before = poolStatus(facts(of, { findings: [found('critical', '10.0.1.1')] }), now);
    const later = new Date(now.getTime() + 3_600_000);
    const known = { ...of, status: before };
    const still = poolStatus(facts(known), later).conditions?.find(({ type }) => type === 'Consistent');
    expect(still).toEqual(before.conditions?.find(({ type }) => type === 'Consistent'));
    expect(
      poolStatus(facts(known, { findings: [] }), later).conditions?.find(({ type }) => type === 'Consistent')
        ?.status,
    ).toBe('True');
  });
});
