import { describe, expect, test } from 'vitest';
import type { IPAllocation } from '../../src/api/index.ts';
import { createLostSubnets } from '../../src/agent/lost-subnets.ts';
import { formatCIDR, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createFakeStores, type FakeCall, type Fault } from '../contract/fake-stores.ts';
import { allocationOf } from '../ipam/objects.ts';

describe('the marked route of a subnet without an object', () => {
  test('may go where no pod lives in it, and stays where one does', () => {
    const { lost, inUse } = setUp();
    inUse.push('10.0.0.70', 'fd00::9');
    expect(lost.routeMayGo(parseCIDR('10.0.0.0/26'))).toBe(true);
    expect(lost.routeMayGo(parseCIDR('10.0.0.64/26'))).toBe(false);
    expect(lost.routeMayGo(parseCIDR('fd00::/122'))).toBe(false);
  });

  test('may go where an exclusive subnet of this node leads to the one pod in it', async () => {
    const { lost, inUse, stores, marked, recreate } = setUp();
    marked.push('10.0.0.64/26');
    inUse.push('10.0.0.70');
    const exclusive = await stores.subnets.create({ ...subnetSpec('10.0.0.70/32', 'n1'), exclusive: true });
    expect(lost.routeMayGo(parseCIDR('10.0.0.64/26'))).toBe(true);
    expect(await recreate()).toEqual([]);
    if (exclusive.kind !== 'created') throw new Error('it is taken');
    stores.deleteByHand('NodeSubnet', exclusive.object.metadata.name);
    await stores.subnets.create({ ...subnetSpec('10.0.0.70/32', 'n2'), exclusive: true });
    expect(lost.routeMayGo(parseCIDR('10.0.0.64/26'))).toBe(false);
  });
});

describe('a lost subnet', () => {
  test.each(['10.0.0.64/26', 'fd00::40/122'])(
    '%s in which pods live is created again, for this node as it is now',
    async (cidr) => {
      const { lost, marked, inUse, stores, recreate } = setUp();
      marked.push('10.0.0.0/26', cidr);
      inUse.push('10.0.0.70', 'fd00::44');
      const created = await recreate();
      expect(created).toEqual([...stores.stored.NodeSubnet.keys()]);
      expect(stores.stored.NodeSubnet.get(created[0] ?? '')?.spec).toEqual({
        cidr: parseCIDR(cidr),
        pool: 'p',
        poolUID: stores.stored.IPPool.get('p')?.metadata.uid,
        nodeName: 'n1',
        nodeUID: 'uid-n1',
        nextHops: [parseAddress('192.0.2.1')],
      });
      expect(lost.routeMayGo(parseCIDR('10.0.0.0/26'))).toBe(true);
      expect(await recreate()).toEqual([]);
    },
  );

  test('of a drained CIDR belongs to the pool of the NodeSubnet around it', async () => {
    const { marked, inUse, stores, recreate } = setUp();
    stores.applyPool('older', { cidrs: ['10.8.0.0/24'] });
    await stores.subnets.create({ ...subnetSpec('10.9.0.0/24', 'n9'), pool: 'gone', poolUID: 'uid-gone' });
    marked.push('10.9.0.64/26');
    inUse.push('10.9.0.70');
    expect(await recreate()).toEqual(['10.9.0.64-26']);
    expect(stores.stored.NodeSubnet.get('10.9.0.64-26')?.spec).toMatchObject({
      pool: 'gone',
      poolUID: 'uid-gone',
    });
  });

  test('belongs to the pool whose CIDR holds it, whatever is exclusive in it', async () => {
    const { marked, inUse, stores, recreate } = setUp();
    const first = { ...subnetSpec('10.0.0.64/32', 'n2'), pool: 'gone', poolUID: 'uid-gone' };
    await stores.subnets.create({ ...first, exclusive: true });
    marked.push('10.0.0.64/26');
    inUse.push('10.0.0.70');
    expect(await recreate()).toEqual(['10.0.0.64-26']);
    expect(stores.stored.NodeSubnet.get('10.0.0.64-26')?.spec.pool).toBe('p');
  });

  test('belongs to the pool for which the addresses in it count, also where that lists it no more and another does', async () => {
    const { marked, book, stores, recreate } = setUp();
    stores.applyPool('drained', { cidrs: ['10.8.0.0/24'] });
    marked.push('10.0.0.64/26');
    book('10.0.0.70', 'drained');
    expect(await recreate()).toEqual(['10.0.0.64-26']);
    expect(stores.stored.NodeSubnet.get('10.0.0.64-26')?.spec).toMatchObject({
      pool: 'drained',
      poolUID: stores.stored.IPPool.get('drained')?.metadata.uid,
    });
  });

  test.each([
    ['rests', 'drained', { releasedAt: '2026-01-01T00:00:00Z' }],
    ['counts for a pool that is not there', 'gone', undefined],
  ])('is not told its pool by an address that %s', async (_, pool, status) => {
    const { marked, book, inUse, stores, recreate } = setUp();
    stores.applyPool('drained', { cidrs: ['10.8.0.0/24'] });
    marked.push('10.0.0.64/26');
    inUse.push('10.0.0.71');
    book('10.0.0.70', pool, status);
    await recreate();
    expect(stores.stored.NodeSubnet.get('10.0.0.64-26')?.spec.pool).toBe('p');
  });

  test('is not told its pool by the address that an exclusive subnet leads here', async () => {
    const { marked, book, inUse, stores, recreate } = setUp();
    stores.applyPool('other', { cidrs: ['10.8.0.0/24'] });
    await stores.subnets.create({ ...subnetSpec('10.0.0.70/32', 'n1'), pool: 'other', exclusive: true });
    marked.push('10.0.0.64/26');
    inUse.push('10.0.0.71');
    book('10.0.0.70', 'other');
    await recreate();
    expect(stores.stored.NodeSubnet.get('10.0.0.64-26')?.spec.pool).toBe('p');
  });

  test('that no pool has is reported, and nothing is created', async () => {
    const { marked, inUse, recreate, logged } = setUp();
    marked.push('10.9.0.64/26');
    inUse.push('10.9.0.70');
    expect(await recreate()).toEqual([]);
    expect(logged).toEqual([expect.stringContaining('no pool has its CIDR')]);
  });

  test('that cannot be created keeps no other from it, and is tried again', async () => {
    let isAway = true;
    const { marked, inUse, recreate, logged } = setUp({
      fault: ({ name }) => (isAway && name === '10.0.0.0-26' ? 'fail' : 'none'),
    });
    marked.push('10.0.0.0/26', '10.0.0.64/26');
    inUse.push('10.0.0.7', '10.0.0.70');
    // Whether one that failed has come to be is to be confirmed, too.
    expect(await recreate()).toEqual(['10.0.0.0-26', '10.0.0.64-26']);
    expect(logged).toContain('a lost subnet could not be created again yet');
    isAway = false;
    expect(await recreate()).toEqual(['10.0.0.0-26']);
  });

  test.each([
    ['as the cache shows', true],
    ['as only the create tells', false],
  ])('that is another node’s by now, %s, is told of and left alone', async (_, isShown) => {
    const { marked, inUse, stores, recreate, twoOwners, hideFromCache } = setUp();
    await stores.subnets.create(subnetSpec('10.0.0.64/26', 'n2'));
    if (!isShown) hideFromCache();
    marked.push('10.0.0.64/26');
    expect(await recreate()).toEqual([]);
    expect(twoOwners).toEqual([]); // nobody lives there
    inUse.push('10.0.0.70');
    expect(await recreate()).toEqual(isShown ? [] : ['10.0.0.64-26']);
    expect(twoOwners).toEqual(['10.0.0.64-26 of n2']);
    expect(stores.stored.NodeSubnet.get('10.0.0.64-26')?.spec.nodeName).toBe('n2');
  });

  test.each([true, false])(
    'that is under this node’s name is not lost (in the cache: %s)',
    async (isShown) => {
      const { marked, inUse, stores, recreate, twoOwners, hideFromCache } = setUp();
      await stores.subnets.create({ ...subnetSpec('10.0.0.64/26', 'n1'), nodeUID: 'an-older-one' });
      if (!isShown) hideFromCache();
      marked.push('10.0.0.64/26');
      inUse.push('10.0.0.70');
      expect(await recreate()).toEqual(isShown ? [] : ['10.0.0.64-26']);
      expect(twoOwners).toEqual([]);
    },
  );

  test('whose create was carried out and not answered is confirmed, and not created twice', async () => {
    const { marked, inUse, stores, recreate, recovered, logged, hideFromCache } = setUp({
      fault: ({ name }) => (logged.length === 0 && name === '10.0.0.64-26' ? 'lose' : 'none'),
    });
    hideFromCache();
    marked.push('10.0.0.64/26');
    inUse.push('10.0.0.70');
    expect(await recreate()).toEqual(['10.0.0.64-26']);
    const { uid } = stores.stored.NodeSubnet.get('10.0.0.64-26')?.metadata ?? {};
    expect(await recreate()).toEqual(['10.0.0.64-26']);
    expect(stores.stored.NodeSubnet.get('10.0.0.64-26')?.metadata.uid).toBe(uid);
    expect(logged).toEqual([
      'a lost subnet could not be created again yet',
      'a subnet with living pods was created again',
    ]);
    expect(recovered).toEqual(['10.0.0.64/26']);
  });
});

function subnetSpec(cidr: string, nodeName: string) {
  const nextHops = [parseAddress('192.0.2.9')];
  return { cidr: parseCIDR(cidr), pool: 'p', poolUID: 'u', nodeName, nodeUID: `uid-${nodeName}`, nextHops };
}

function setUp({ fault = () => 'none' }: { fault?: (call: FakeCall) => Fault } = {}) {
  const stores = createFakeStores({ fault });
  stores.applyPool('p', { cidrs: ['10.0.0.0/24', 'fd00::/120'] });
  const marked: string[] = [];
  const inUse: string[] = [];
  const allocations: IPAllocation[] = [];
  const recovered: string[] = [];
  const twoOwners: string[] = [];
  const logged: string[] = [];
  const log = (_: object, message: string) => void logged.push(message);
  let isHidden = false;
  const lost = createLostSubnets({
    store: stores.subnets,
    pools: () => [...stores.stored.IPPool.values()],
    subnets: () => (isHidden ? [] : [...stores.stored.NodeSubnet.values()]),
    node: () => ({ name: 'n1', uid: 'uid-n1', labels: {}, addresses: [parseAddress('192.0.2.1')] }),
    markedSubnets: () => marked.map(parseCIDR),
    addressesInUse: () => inUse.map(parseAddress),
    allocations: () => allocations,
    onRecovered: (cidr) => recovered.push(formatCIDR(cidr)),
    onTwoOwners: ({ metadata, spec }) => twoOwners.push(`${metadata.name} of ${spec.nodeName}`),
    log: { info: log, warn: log, error: log },
  });
  return {
    lost,
    marked,
    inUse,
    /** A pod of this node has the address, by the book as well; with a status it has had it. */
    book(address: string, pool: string, status?: IPAllocation['status']) {
      if (status === undefined) inUse.push(address);
      allocations.push(allocationOf(address, { pool }, status));
    },
    stores,
    recovered,
    twoOwners,
    logged,
    recreate: () => lost.recreate(new AbortController().signal),
    hideFromCache: () => (isHidden = true),
  };
}
