import { describe, expect, test } from 'vitest';
import {
  countFreeSubnets,
  createSubnetClaimState,
  claimExclusiveSubnet,
  claimNodeSubnets,
  drawableSubnets,
  freeSubnet,
  poolOfAddress,
  poolUsage,
  whyNotServing,
} from '../../src/ipam/index.ts';
import { formatCIDR, parseAddress } from '../../src/net/index.ts';
import { createFakeStores } from '../contract/fake-stores.ts';
import { createFakeClock } from './fake-clock.ts';
import { allocationOf, poolOf, subnetOf } from './objects.ts';

/** What an exclusive subnet, the one address of a pod, does not take away from others. */

const pool = poolOf('p', { cidrs: ['10.0.0.0/25'] });
const exclusive = (cidr: string, nodeName = 'n2') => subnetOf(cidr, pool, nodeName, { exclusive: true });
const scattered = [exclusive('10.0.0.9/32'), exclusive('10.0.0.70/32')];

test('a node without an address makes none: nobody would route it', async () => {
  const stores = createFakeStores();
  const clock = createFakeClock();
  const its = stores.applyPool('p', { cidrs: ['10.0.0.0/26'] });
  const node = { name: 'n1', uid: 'uid-n1', labels: {}, addresses: [] };
  const parts = { stores, node, clock, random: () => 0.5 };
  const { signal } = new AbortController();
  await expect(claimExclusiveSubnet(parts, allocationOf('10.0.0.9'), its, signal)).rejects.toThrow(
    'the Node has no address',
  );
  expect(stores.stored.NodeSubnet.size).toBe(0);
});

describe('one address in every place of a pool', () => {
  test('leaves all places free', () => {
    const search = { pool, pools: [pool], subnets: scattered, family: 'ipv4' as const };
    expect(countFreeSubnets(search)).toBe(2n);
    expect(freeSubnet({ ...search, nodeUID: 'uid-n1' })).toBeDefined();
  });

  test('does not keep a node from claiming the subnet around it', async () => {
    const stores = createFakeStores();
    const clock = createFakeClock();
    const its = stores.applyPool('p', { cidrs: ['10.0.0.0/26'] });
    await stores.subnets.create(subnetOf('10.0.0.9/32', its, 'n2', { exclusive: true }).spec);
    const claimed = await clock.until(
      claimNodeSubnets(
        {
          stores,
          pools: () => [its],
          subnets: () => [...stores.stored.NodeSubnet.values()],
          node: { name: 'n1', uid: 'u', labels: {}, addresses: [parseAddress('192.0.2.1')] },
          waitDelivered: () => Promise.resolve(),
          state: createSubnetClaimState(),
          clock,
          random: Math.random,
          giveBackMs: 600_000,
          deadlineMs: 5_000,
        },
        its,
      ),
    );
    expect(claimed.map(({ spec }) => formatCIDR(spec.cidr))).toEqual(['10.0.0.0/26']);
  });

  test('is drawn from by nobody, also not by its own node', () => {
    const subnets = [exclusive('10.0.0.9/32', 'n1')];
    const drawing = { pool, subnets, nodeName: 'n1', nodeUID: 'uid-n1', nodeLabels: {} };
    expect(drawableSubnets(drawing)).toEqual([]);
  });

  test('counts once: as the address that it is', () => {
    const own = subnetOf('10.0.0.0/26', pool, 'n1');
    const allocations = [
      allocationOf('10.0.0.9', { nodeName: 'n2' }),
      allocationOf('10.0.0.70', { nodeName: 'n2' }),
    ];
    const usage = poolUsage({ pool, pools: [pool], subnets: [own, ...scattered], allocations }).ipv4;
    expect(usage).toEqual(poolUsage({ pool, pools: [pool], subnets: [own], allocations }).ipv4);
    expect(usage).toMatchObject({
      capacity: '128',
      allocated: 2,
      nodeSubnets: 1,
      freeSubnets: '1',
      free: '124',
    });
  });

  test('does not make a pool serve whose ranges are an older one’s', () => {
    const older = poolOf('older', { cidrs: ['10.0.0.0/16'] }, { creationTimestamp: '2020-01-01T00:00:00Z' });
    const view = { pools: [older, pool], subnets: scattered };
    expect(whyNotServing(pool, view)).toContain('overlaps one of an older IPPool');
  });

  test('decides how its address is treated', () => {
    const subnets = [subnetOf('10.0.0.0/26', pool, 'n1'), ...scattered];
    expect(poolOfAddress(parseAddress('10.0.0.9'), [pool], subnets)?.subnet).toBe(scattered[0]);
  });
});
