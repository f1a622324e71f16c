import { createWiredAddresses } from '../../src/agent/wired-addresses.ts';
import { RESTLESS } from './restless.ts';
import { describe, expect, test } from 'vitest';
import type * as z from 'zod';
import { POOL_FINALIZER, type IPPool, type IPPoolSpec, type NodeSubnet } from '../../src/api/index.ts';
import { createNodeSubnets } from '../../src/agent/node-subnets.ts';
import { createRingCursor, SubnetUnavailableError, type Claimer } from '../../src/ipam/index.ts';
import {
  cidrHasAddress,
  formatAddress,
  formatCIDR,
  parseAddress,
  parseCIDR,
  type CIDR,
} from '../../src/net/index.ts';
import { createFakeStores, type FakeCall, type Fault } from '../contract/fake-stores.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';
import { subnetOf } from '../ipam/objects.ts';

const GIVE_BACK_MS = 600_000;
const QUARANTINE_MS = 300_000;

describe('the first subnet', () => {
  test('of each pool that serves, and of each family that the node has an address of, is claimed ahead', async () => {
    const { agent, run, pool, heldOf } = setUp();
    const both = pool('both', ['10.0.0.0/16', 'fd00::/64']);
    const one = pool('one', ['10.9.0.0/24']);
    await run(agent.maintain);
    expect(heldOf(both)).toHaveLength(2);
    expect(heldOf(one)).toHaveLength(1);
    expect(agent.drawable(both)).toHaveLength(2);
  });

  test('is not claimed from a pool that is being deleted', async () => {
    const { agent, run, pool, stores, heldOf } = setUp();
    const leaving = pool('leaving', ['10.0.0.0/16']);
    stores.deletePool('leaving');
    await run(agent.maintain);
    expect(heldOf(leaving)).toEqual([]);
  });

  test('is not claimed from the Services’ range, and the pool’s other CIDR is taken', async () => {
    const { agent, run, pool, heldOf, serviceCIDRs } = setUp();
    serviceCIDRs.push(parseCIDR('10.96.0.0/12'));
    const p = pool('p', ['10.100.0.0/24', '10.5.0.0/26']);
    await run(agent.maintain);
    expect(heldOf(p)).toEqual(['10.5.0.0/26']);
  });

  test('that cannot be had is told, with the pool and the reason; one more that cannot is not', async () => {
    const { agent, run, pool, without, serviceCIDRs } = setUp({ spareAddresses: 100 });
    serviceCIDRs.push(parseCIDR('10.1.0.0/26'));
    pool('small', ['10.0.0.0/26']);
    pool('none', ['10.1.0.0/26']);
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(without).toEqual([['none', expect.stringContaining('IPPool none')]]);
  });

  test('that cannot be had does not keep the other pools from theirs, and is reported', async () => {
    const { agent, run, pool, heldOf, logged } = setUp({
      fault: ({ verb, name }) => (verb === 'create' && name.startsWith('10.0.') ? 'fail' : 'none'),
    });
    pool('a', ['10.0.0.0/16']);
    const second = pool('b', ['10.1.0.0/24']);
    await run(agent.maintain);
    expect(heldOf(second)).toHaveLength(1);
    expect(logged).toEqual([{ level: 'warn', message: 'no subnet claimed' }]);
  });
});

describe('ahead of need', () => {
  const SMALL = { ipv4: 28 }; // 15 to hand out
  const pod: Claimer = {
    node: { name: 'n1', labels: {} },
    namespace: { name: 'shop', labels: { tenant: 'a' } },
  };
  const forTenantA = { namespaceSelector: { matchLabels: { tenant: 'a' } } };

  test('as many subnets as the pods bound to the node will draw from', async () => {
    const { agent, run, pool, heldOf, waiting } = setUp();
    const p = pool('p', ['10.0.0.0/24'], SMALL);
    waiting.push(...Array.from({ length: 31 }, () => pod));
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(3);
  });

  test('a tenant’s pool gives a node its first subnet when a pod of the tenant is bound to it', async () => {
    const { agent, run, pool, heldOf, waiting } = setUp();
    const p = pool('p', ['10.0.0.0/24'], SMALL, forTenantA);
    await run(agent.maintain);
    expect(heldOf(p)).toEqual([]);
    waiting.push(pod);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
  });

  test('a few addresses are kept free where the node holds a subnet', async () => {
    const { agent, run, pool, heldOf, allocations } = setUp({ spareAddresses: 8 });
    const p = pool('p', ['10.0.0.0/24'], SMALL);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
    const [first = ''] = heldOf(p);
    const address = (i: number) => first.replace(/[0-9]+\/28$/, (end) => String(Number.parseInt(end) + i));
    for (let i = 1; i <= 7; i++) allocations.add(address(i));
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
    allocations.add(address(8));
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
  });

  test('what is kept free is no surplus, and what exceeds it is', async () => {
    const { agent, run, pool, heldOf, clock, waiting } = setUp({ spareAddresses: 8 });
    const p = pool('p', ['10.0.0.0/24'], SMALL);
    waiting.push(...Array.from({ length: 20 }, () => pod));
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
    const idle = async () => {
      for (let i = 0; i < 3; i++) {
        await run(agent.maintain);
        await clock.advance(GIVE_BACK_MS + 1_000);
      }
    };
    await idle();
    expect(heldOf(p)).toHaveLength(2);
    waiting.splice(0);
    await idle();
    expect(heldOf(p)).toHaveLength(1);
  });

  test('a tenant’s pool gets its last subnet back, too', async () => {
    const { agent, run, pool, heldOf, clock, waiting } = setUp();
    const p = pool('p', ['10.0.0.0/24'], SMALL, forTenantA);
    waiting.push(pod);
    await run(agent.maintain);
    waiting.splice(0);
    for (let i = 0; i < 3; i++) {
      await run(agent.maintain);
      await clock.advance(GIVE_BACK_MS + 1_000);
    }
    expect(heldOf(p)).toEqual([]);
  });

  test('that none is free is told once, not at every look', async () => {
    const { agent, run, pool, logged, waiting } = setUp();
    pool('p', ['10.0.0.0/28'], SMALL);
    waiting.push(...Array.from({ length: 20 }, () => pod));
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(logged).toEqual([{ level: 'warn', message: 'no subnet claimed' }]);
  });
});

describe('a pool that selects nodes', () => {
  const inZoneA = { nodeSelector: { matchLabels: { zone: 'a' } } };

  test('gives others no subnet', async () => {
    const { agent, run, pool, heldOf, node } = setUp();
    node.labels = { zone: 'b' };
    const p = pool('p', ['10.0.0.0/24'], undefined, inZoneA);
    await run(agent.maintain);
    expect(heldOf(p)).toEqual([]);
  });

  test('is drained on a node that stops matching: nothing is drawn, and the subnet goes when it is empty', async () => {
    const { agent, run, pool, heldOf, node, allocations } = setUp();
    node.labels = { zone: 'a' };
    const p = pool('p', ['10.0.0.0/26'], undefined, inZoneA);
    await run(agent.maintain);
    expect(agent.drawable(p)).toHaveLength(1);
    allocations.add('10.0.0.1');
    node.labels = {};
    expect(agent.drawable(p)).toEqual([]);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
    allocations.clear();
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(heldOf(p)).toEqual([]);
  });
});

describe('a disabled pool', () => {
  test('is drained at once, and drawn from again when it is enabled', async () => {
    const { agent, run, pool, heldOf, allocations } = setUp();
    const p = pool('p', ['10.0.0.0/26']);
    await run(agent.maintain);
    allocations.add('10.0.0.1');
    const disabled = { ...p, spec: { ...p.spec, disabled: true } };
    expect(agent.drawable(disabled)).toEqual([]);
    expect(agent.drawable(p)).toHaveLength(1);
    expect(heldOf(p)).toHaveLength(1);
  });
});

describe('claimMore', () => {
  test('asked by many at once claims one', async () => {
    const { agent, run, pool, heldOf, stores } = setUp();
    const p = pool('p', ['10.0.0.0/16']);
    await run((signal) => Promise.all([1, 2, 3, 4, 5].map(() => agent.claimMore(p, 'ipv4', signal))));
    expect(heldOf(p)).toHaveLength(1);
    expect(stores.calls.filter(({ verb, kind }) => verb === 'create' && kind === 'NodeSubnet')).toHaveLength(
      1,
    );
  });

  test('answers when routes and filters stand, and nothing is drawn before', async () => {
    const { agent, pool, clock, inForce } = setUp({ inForceLater: true });
    const p = pool('p', ['10.0.0.0/16']);
    const claim = agent.claimMore(p, 'ipv4', new AbortController().signal);
    await clock.advance(1_000);
    expect(agent.drawable(p)).toEqual([]);
    inForce.resolve();
    await claim;
    expect(agent.drawable(p)).toHaveLength(1);
  });

  test('waits for the subnet that was just claimed, whose routes are on their way, and claims no other', async () => {
    const { agent, pool, clock, inForce, heldOf } = setUp({ inForceLater: true });
    const p = pool('p', ['10.0.0.0/26']);
    const { signal } = new AbortController();
    const maintaining = agent.maintain(signal);
    await clock.advance(1_000);
    const claiming = agent.claimMore(p, 'ipv4', signal);
    await clock.advance(1_000);
    inForce.resolve();
    await Promise.all([maintaining, claiming]);
    expect(agent.drawable(p)).toHaveLength(1);
    expect(heldOf(p)).toHaveLength(1);
  });

  test('says so where the pool has none left', async () => {
    const { agent, run, pool } = setUp();
    const p = pool('p', ['10.0.0.0/26']);
    await run((signal) => agent.claimMore(p, 'ipv4', signal));
    await expect(run((signal) => agent.claimMore(p, 'ipv4', signal))).rejects.toThrow(SubnetUnavailableError);
  });
});

describe('a claim that its deadline cut after the create', () => {
  test.each([
    ['is completed', false],
    ['is taken back where the pool is gone', true],
  ])('%s by the next look, without need for another subnet', async (_, isPoolGone) => {
    let isAway = false;
    const { agent, run, pool, stores, heldOf } = setUp({
      fault: ({ kind }) => (isAway && kind === 'IPPool' ? 'fail' : 'none'),
    });
    const p = pool('p', ['10.0.0.0/24']);
    await run(agent.maintain);
    isAway = true;
    await expect(run((signal) => agent.claimMore(p, 'ipv4', signal))).rejects.toThrow(SubnetUnavailableError);
    isAway = false;
    expect(heldOf(p)).toHaveLength(2);
    expect(agent.drawable(p)).toHaveLength(1);
    if (isPoolGone) stores.deletePool('p');
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(isPoolGone ? 1 : 2);
    if (!isPoolGone) expect(agent.drawable(p)).toHaveLength(2);
  });

  test('goes back after the quarantine where the Node was made anew before that', async () => {
    let isAway = false;
    const { agent, run, pool, stores, node, clock } = setUp({
      fault: ({ kind }) => (isAway && kind === 'IPPool' ? 'fail' : 'none'),
    });
    const p = pool('p', ['10.0.0.0/24']);
    await run(agent.maintain);
    const [first] = stores.stored.NodeSubnet.keys();
    isAway = true;
    await expect(run((signal) => agent.claimMore(p, 'ipv4', signal))).rejects.toThrow(SubnetUnavailableError);
    isAway = false;
    const [cut = ''] = [...stores.stored.NodeSubnet.keys()].filter((name) => name !== first);
    // Its route is not in the kernel: nobody has drawn from it.
    node.uid = 'uid-anew';
    await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(cut)).toBe(true);
    await clock.advance(QUARANTINE_MS);
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(cut)).toBe(false);
  });
});

describe('giving back', () => {
  test('a surplus subnet goes when it has been empty for the time, the last one never', async () => {
    const { agent, run, pool, heldOf, clock } = setUp();
    const p = pool('p', ['10.0.0.0/16']);
    await run((signal) => agent.claimMore(p, 'ipv4', signal));
    await run((signal) => agent.claimMore(p, 'ipv4', signal));
    await run(agent.maintain);
    await clock.advance(GIVE_BACK_MS - 1_000);
    await run(agent.maintain);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
    await clock.advance(1_000);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2); // one more look, for claims that had chosen it
    expect(agent.drawable(p)).toHaveLength(1);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
    await clock.advance(10 * GIVE_BACK_MS);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
    expect(agent.drawable(p)).toHaveLength(1);
  });

  test.each([
    ['an allocation', 'allocations'],
    ['a claim under way', 'inFlight'],
  ] as const)('%s in it keeps a subnet, and starts its time anew', async (_, where) => {
    const { agent, run, pool, heldOf, clock, ...known } = setUp();
    const p = pool('p', ['10.0.0.0/16']);
    await run((signal) => agent.claimMore(p, 'ipv4', signal));
    await run((signal) => agent.claimMore(p, 'ipv4', signal));
    const names = heldOf(p).map(
      (cidr) => `${cidr.split('.').slice(0, 3).join('.')}.${Number(/(\d+)\//.exec(cidr)?.[1]) + 5}`,
    );
    for (const name of names) known[where].add(name);
    await run(agent.maintain);
    await clock.advance(2 * GIVE_BACK_MS);
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
    known[where].clear();
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
    await clock.advance(GIVE_BACK_MS);
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
  });

  test.each([
    [
      'whose CIDR was taken out of the pool',
      (stores: Stores) => stores.applyPool('p', { cidrs: ['10.7.0.0/16'] }),
    ],
    ['of a pool that is being deleted', (stores: Stores) => stores.deletePool('p')],
  ])('a subnet %s goes as soon as it is empty, and is not drawn from', async (_, drain) => {
    const { agent, run, pool, stores, allocations } = setUp();
    pool('p', ['10.0.0.0/24']);
    await run(agent.maintain);
    const [first] = [...stores.stored.NodeSubnet.keys()];
    allocations.add(`10.0.0.${Number(/\.(\d+)-/.exec(first ?? '')?.[1]) + 9}`);
    drain(stores);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(first ?? '')).toBe(true);
    allocations.clear();
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(first ?? '')).toBe(false);
  });

  test('a subnet that leaves is the next one drawn from when there is need', async () => {
    const { agent, run, pool, heldOf, clock, stores } = setUp();
    const p = pool('p', ['10.0.0.0/16']);
    await twoOfWhichOneLeaves(agent, run, p, clock);
    const creates = () => stores.calls.filter(({ verb }) => verb === 'create').length;
    const before = creates();
    await run((signal) => agent.claimMore(p, 'ipv4', signal));
    expect(agent.drawable(p)).toHaveLength(2);
    expect(creates()).toBe(before);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
  });

  test.each<[string, Fault]>([
    ['whose deletion is under way', 'none'],
    ['whose deletion got no answer', 'lose'],
  ])('a subnet %s is not taken back: it may be another node’s by now', async (_, fault) => {
    const deletion = Promise.withResolvers<undefined>();
    const { agent, run, pool, heldOf, clock, lagBehindDeletions } = setUp({
      fault: async ({ verb }) => {
        if (verb !== 'delete') return 'none';
        if (fault === 'none') await deletion.promise;
        return fault;
      },
    });
    const p = pool('p', ['10.0.0.0/16']);
    await twoOfWhichOneLeaves(agent, run, p, clock);
    const [leaving] = heldOf(p).filter(
      (cidr) => !agent.drawable(p).some(({ spec }) => formatCIDR(spec.cidr) === cidr),
    );
    const catchUp = lagBehindDeletions();
    const { signal } = new AbortController();
    const maintaining = agent.maintain(signal);
    await allElse();
    const claiming = agent.claimMore(p, 'ipv4', signal);
    await allElse();
    expect(agent.drawable(p).map(({ spec }) => formatCIDR(spec.cidr))).not.toContain(leaving);
    deletion.resolve(undefined);
    await Promise.all([maintaining, claiming]);
    catchUp();
    expect(heldOf(p)).not.toContain(leaving);
    expect(agent.drawable(p)).toHaveLength(2);
  });

  test('a failing deletion is reported and tried again', async () => {
    let fails = true;
    const { agent, run, pool, heldOf, clock, logged, told } = setUp({
      fault: ({ verb }) => (verb === 'delete' && fails ? 'fail' : 'none'),
    });
    const p = pool('p', ['10.0.0.0/16']);
    await twoOfWhichOneLeaves(agent, run, p, clock);
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(2);
    expect(logged.map(({ message }) => message)).toContain('a subnet could not be given back');
    expect(told).toEqual(['claimed', 'claimed']);
    fails = false;
    await run(agent.maintain);
    expect(heldOf(p)).toHaveLength(1);
    expect(told).toEqual(['claimed', 'claimed', 'given back']);
  });
});

describe('a Node that has changed', () => {
  test('its new addresses are written into its subnets', async () => {
    const { agent, run, pool, stores, node } = setUp();
    pool('p', ['10.0.0.0/16']);
    await run(agent.maintain);
    node.addresses = [parseAddress('192.0.2.77')];
    await run(agent.maintain);
    const [subnet] = stores.stored.NodeSubnet.values();
    expect(subnet?.spec.nextHops).toEqual([parseAddress('192.0.2.77')]);
    expect(stores.calls.filter(({ verb }) => verb === 'update')).toHaveLength(1);
  });

  test('whose subnet has changed under the write is not said to be bound', async () => {
    const { agent, run, pool, stores, node, logged, lagBehindDeletions } = setUp();
    pool('p', ['10.0.0.0/16']);
    await run(agent.maintain);
    lagBehindDeletions();
    stores.deleteByHand('NodeSubnet', [...stores.stored.NodeSubnet.keys()][0] ?? '');
    node.addresses = [parseAddress('192.0.2.77')];
    await run(agent.maintain);
    expect(stores.calls.filter(({ verb }) => verb === 'update')).toHaveLength(1);
    expect(logged.map(({ message }) => message)).not.toContain(
      "bound to the Node's present UID and addresses",
    );
  });

  test('without any address at the moment keeps the old ones', async () => {
    const { agent, run, pool, stores, node } = setUp();
    pool('p', ['10.0.0.0/16']);
    await run(agent.maintain);
    node.addresses = [];
    await run(agent.maintain);
    const [subnet] = stores.stored.NodeSubnet.values();
    expect(subnet?.spec.nextHops).toHaveLength(2);
  });

  test('made anew under its name keeps the subnets whose marked routes are in this kernel', async () => {
    const { agent, run, pool, stores, node, markedRoutes } = setUp();
    const p = pool('p', ['10.0.0.0/16']);
    await run(agent.maintain);
    const [before] = stores.stored.NodeSubnet.keys();
    node.uid = 'uid-anew';
    markedRoutes.push('10.0.0.0/16');
    await run(agent.maintain);
    expect([...stores.stored.NodeSubnet.keys()]).toEqual([before]);
    expect(agent.drawable(p)).toHaveLength(1);
    expect(stores.stored.NodeSubnet.get(before ?? '')?.spec.nodeUID).toBe('uid-anew');
  });

  test('does not draw from an earlier machine’s, and gives them back after the quarantine when they are empty', async () => {
    const { agent, run, pool, stores, node, clock, allocations, heldOf } = setUp();
    const p = pool('p', ['10.0.0.0/16']);
    await run(agent.maintain);
    const [before = ''] = stores.stored.NodeSubnet.keys();
    node.uid = 'uid-anew';
    allocations.add(before.replace(/-26$/, ''));
    await run(agent.maintain);
    expect(agent.drawable(p).map(({ metadata }) => metadata.name)).not.toContain(before);
    await clock.advance(2 * QUARANTINE_MS);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(before)).toBe(true);
    allocations.clear();
    await run(agent.maintain);
    await clock.advance(QUARANTINE_MS - 1_000);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(before)).toBe(true);
    await clock.advance(1_000);
    for (let i = 0; i < 2; i++) await run(agent.maintain);
    expect(stores.stored.NodeSubnet.has(before)).toBe(false);
    expect(heldOf(p)).toHaveLength(1);
  });

  test.each([
    ['has a way of its own here', 'uid-anew', false],
    ['has a way of its own to the earlier machine', 'uid-n1', true],
  ])(
    'gives an earlier machine’s back while an address is in use in it that %s: %s',
    async (_, nodeUID, isKept) => {
      const { agent, run, pool, stores, node, clock, allocations } = setUp();
      const p = pool('p', ['10.0.0.0/16']);
      await run(agent.maintain);
      const [before = ''] = stores.stored.NodeSubnet.keys();
      node.uid = 'uid-anew';
      const sticky = before.replace(/(\d+)-26$/, (_, first) => String(Number(first) + 5));
      const nextHops = [parseAddress('192.0.2.1')];
      await stores.subnets.create(
        subnetOf(`${sticky}/32`, p, 'n1', { exclusive: true, nodeUID, nextHops }).spec,
      );
      allocations.add(sticky);
      await run(agent.maintain);
      await clock.advance(QUARANTINE_MS);
      for (let i = 0; i < 3; i++) await run(agent.maintain);
      expect(stores.stored.NodeSubnet.has(before)).toBe(isKept);
      expect(stores.stored.NodeSubnet.has(`${sticky}-32`)).toBe(true);
    },
  );
});

describe('subnets found at start', () => {
  test('are drawn from when they are confirmed, without another claim', async () => {
    const first = setUp();
    const p = first.pool('p', ['10.0.0.0/16']);
    await first.run(first.agent.maintain);
    const next = first.restart();
    expect(next.drawable(p)).toEqual([]);
    await first.run(next.recover);
    await first.run(next.maintain);
    expect(next.drawable(p)).toHaveLength(1);
    expect(first.heldOf(p)).toHaveLength(1);
  });

  test('one that overlaps an older one of another node is not drawn from until that has gone', async () => {
    const { next, first, p } = await overlapped('2020-01-01T00:00:00Z');
    await first.run(next.recover);
    await first.run(next.maintain);
    expect(next.drawable(p)).toEqual([]);
    expect(first.logged.some(({ message }) => message.includes('overlaps 10.0.0.0/25 of node n2'))).toBe(
      true,
    );
    first.stores.deleteByHand('NodeSubnet', '10.0.0.0-25');
    await first.run(next.maintain);
    expect(next.drawable(p)).toHaveLength(1);
  });

  test('one that overlaps an older one goes back after the quarantine when it is empty', async () => {
    const { next, first } = await overlapped('2020-01-01T00:00:00Z');
    await first.run(next.recover);
    first.allocations.add('10.0.0.200');
    for (let i = 0; i < 2; i++) {
      await first.run(next.maintain);
      await first.clock.advance(QUARANTINE_MS);
    }
    expect([...first.stores.stored.NodeSubnet.keys()]).toContain('10.0.0.0-24');
    first.allocations.clear();
    await first.run(next.maintain);
    await first.clock.advance(QUARANTINE_MS - 1_000);
    for (let i = 0; i < 2; i++) await first.run(next.maintain);
    expect([...first.stores.stored.NodeSubnet.keys()]).toContain('10.0.0.0-24');
    await first.clock.advance(1_000);
    for (let i = 0; i < 2; i++) await first.run(next.maintain);
    expect([...first.stores.stored.NodeSubnet.keys()]).toEqual(['10.0.0.0-25']);
  });

  test('one that was about to go back is drawn from when nothing overlaps it any more', async () => {
    const { next, first, p } = await overlapped('2020-01-01T00:00:00Z');
    await first.run(next.recover);
    await first.run(next.maintain);
    await first.clock.advance(QUARANTINE_MS);
    await first.run(next.maintain);
    first.stores.deleteByHand('NodeSubnet', '10.0.0.0-25');
    await first.run(next.maintain);
    expect(next.drawable(p)).toHaveLength(1);
  });

  test('one that overlaps a younger one of another node is drawn from', async () => {
    const { next, first, p } = await overlapped('2999-01-01T00:00:00Z');
    await first.run(next.recover);
    await first.run(next.maintain);
    expect(next.drawable(p)).toHaveLength(1);
  });
});

/** A node's next process, which finds the node's 10.0.0.0/24 and, created at that time, another's half of it. */
async function overlapped(creationTimestamp: string) {
  const first = setUp();
  const p = first.pool('p', ['10.0.0.0/24'], { ipv4: 24 });
  await first.run(first.agent.maintain);
  const spec = [...first.stores.stored.NodeSubnet.values()][0]?.spec;
  if (spec === undefined) throw new Error('no subnet was claimed');
  const cidr = parseCIDR('10.0.0.0/25');
  await first.stores.subnets.create({ ...spec, cidr, nodeName: 'n2', nodeUID: 'uid-n2' });
  first.stores.date('10.0.0.0-25', creationTimestamp);
  return { next: first.restart(), first, p };
}

describe('for other plugins', () => {
  const LAN = { use: 'Lan', gateway: { ipv4: '10.7.0.1' } } as const;

  test('nothing is claimed ahead: nobody knows who will ask', async () => {
    const { agent, run, pool, heldOf } = setUp({ spareAddresses: 8 });
    // 5 to hand out: fewer than are kept free for pods.
    const bridge = pool('bridge', ['10.9.0.0/24'], { ipv4: 29 }, { use: 'Bridge' });
    const lan = pool('lan', ['10.7.0.0/24'], undefined, LAN);
    await run(agent.maintain);
    expect([...heldOf(bridge), ...heldOf(lan)]).toEqual([]);
    await run((signal) => agent.claimMore(bridge, 'ipv4', signal));
    await run(agent.maintain);
    expect(heldOf(bridge)).toHaveLength(1);
  });

  test('a piece of a LAN has no next hops, and keeps it so', async () => {
    const { agent, run, pool, stores, node } = setUp();
    const lan = pool('lan', ['10.7.0.0/24'], { ipv4: 32 }, LAN);
    const bridge = pool('bridge', ['10.9.0.0/24'], undefined, { use: 'Bridge' });
    for (const one of [lan, bridge]) await run((signal) => agent.claimMore(one, 'ipv4', signal));
    const hops = () =>
      Object.fromEntries(
        [...stores.stored.NodeSubnet.values()].map(({ spec }) => [
          spec.pool,
          spec.nextHops.map(formatAddress),
        ]),
      );
    expect(hops()).toEqual({ lan: [], bridge: ['192.0.2.1', '2001:db8::1'] });
    node.addresses.splice(1);
    await run(agent.maintain);
    expect(hops()).toEqual({ lan: [], bridge: ['192.0.2.1'] });
  });

  test('an empty piece of a LAN is surplus, the last one too', async () => {
    const { agent, run, pool, heldOf, clock } = setUp({ spareAddresses: 8 });
    const lan = pool('lan', ['10.7.0.0/24'], { ipv4: 30 }, LAN);
    for (let i = 0; i < 2; i++) await run((signal) => agent.claimMore(lan, 'ipv4', signal));
    await run(agent.maintain);
    await clock.advance(GIVE_BACK_MS);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(heldOf(lan)).toEqual([]);
  });

  test('an empty one of a bridge is kept for as long as a link has its gateway', async () => {
    const { agent, run, pool, heldOf, clock, bridges } = setUp();
    const bridge = pool('bridge', ['10.9.0.0/26'], undefined, { use: 'Bridge' });
    await run((signal) => agent.claimMore(bridge, 'ipv4', signal));
    bridges.push('10.9.0.1');
    await run(agent.maintain);
    await clock.advance(2 * GIVE_BACK_MS);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(heldOf(bridge)).toHaveLength(1);
    bridges.pop();
    await run(agent.maintain);
    await clock.advance(GIVE_BACK_MS);
    for (let i = 0; i < 3; i++) await run(agent.maintain);
    expect(heldOf(bridge)).toEqual([]);
  });
});

type Stores = ReturnType<typeof createFakeStores>;
type Agent = ReturnType<typeof createNodeSubnets>;
type Run = <T>(work: (signal: AbortSignal) => Promise<T>) => Promise<T>;

/** Two subnets, both empty for the time: one is not drawn from any more and goes at the next call. */
async function twoOfWhichOneLeaves(
  agent: Agent,
  run: Run,
  pool: IPPool,
  clock: ReturnType<typeof createFakeClock>,
): Promise<void> {
  await run((signal) => agent.claimMore(pool, 'ipv4', signal));
  await run((signal) => agent.claimMore(pool, 'ipv4', signal));
  await run(agent.maintain);
  await clock.advance(GIVE_BACK_MS);
  await run(agent.maintain);
  expect(agent.drawable(pool)).toHaveLength(1);
}

describe('a subnet in which a bridge has its gateway', () => {
  const bridged = async () => {
    const world = setUp();
    const { agent, run, pool, bridges } = world;
    const bridge = pool('bridge', ['10.9.0.0/26'], undefined, { use: 'Bridge' });
    await run((signal) => agent.claimMore(bridge, 'ipv4', signal));
    bridges.push('10.9.0.1');
    await run(agent.maintain);
    const idle = async () => {
      for (let i = 0; i < 3; i++) {
        await run(agent.maintain);
        await world.clock.advance(GIVE_BACK_MS);
      }
    };
    return { ...world, idle };
  };
  const stored = ({ stores }: { stores: Stores }) => [...stores.stored.NodeSubnet.keys()];

  test.each([
    { why: 'its CIDR is drained', spec: { cidrs: ['10.9.1.0/26'] } },
    { why: 'its pool is disabled', spec: { disabled: true } },
    { why: 'its pool selects the node no more', spec: { nodeSelector: { matchLabels: { zone: 'b' } } } },
  ])('does not go although $why, is told once, and goes with the bridge', async ({ spec }) => {
    const world = await bridged();
    const { pool, idle, bridges, logged } = world;
    pool('bridge', ['10.9.0.0/26'], undefined, { use: 'Bridge', ...spec });
    await idle();
    expect(stored(world)).toEqual(['10.9.0.0-26']);
    expect(logged.filter(({ message }) => message.includes('an empty subnet stays'))).toHaveLength(1);
    bridges.pop();
    await idle();
    expect(stored(world)).toEqual([]);
  });

  test('does not go with its pool before the bridge has gone', async () => {
    const world = await bridged();
    world.stores.deletePool('bridge');
    await world.idle();
    expect(stored(world)).toEqual(['10.9.0.0-26']);
    world.bridges.pop();
    await world.idle();
    expect(stored(world)).toEqual([]);
  });

  test('does not go after the quarantine either, where the Node was made anew', async () => {
    const world = await bridged();
    world.node.uid = 'uid-anew';
    await world.idle();
    expect(stored(world)).toEqual(['10.9.0.0-26']);
    world.bridges.pop();
    await world.idle();
    expect(stored(world)).toEqual([]);
  });
});

describe('exclusive subnets of this node', () => {
  const exclusive = (p: IPPool, cidr: string, nodeUID = 'uid-n1') =>
    subnetOf(cidr, p, 'n1', { exclusive: true, nodeUID, nextHops: [parseAddress('192.0.2.1')] }).spec;

  test('are not drawn from, not given back as empty, and cover no other address', async () => {
    const { agent, run, pool, stores, clock } = setUp();
    const p = pool('p', ['10.0.0.0/24']);
    await stores.subnets.create(exclusive(p, '10.0.0.9/32'));
    await stores.subnets.create(exclusive(p, '10.0.0.10/32', 'uid-earlier'));
    for (let i = 0; i < 4; i++) {
      await run(agent.maintain);
      await clock.advance(GIVE_BACK_MS + 1_000);
    }
    expect([...stores.stored.NodeSubnet.keys()]).toEqual(
      expect.arrayContaining(['10.0.0.9-32', '10.0.0.10-32']),
    );
    const [drawn, ...others] = agent.drawable(p);
    expect(others).toEqual([]);
    expect(drawn?.spec.cidr.prefixLength).toBe(26);
    const inside = { family: 'ipv4', value: (drawn?.spec.cidr.first ?? 0n) + 1n } as const;
    expect(agent.covers(inside)).toBe(true);
    expect([agent.covers(inside, 'p'), agent.covers(inside, 'another')]).toEqual([true, false]);
    expect(agent.covers(parseAddress('10.0.1.9'))).toBe(false);
  });

  test('are bound to a Node made anew where the pod’s interface stands, and follow its addresses', async () => {
    const { agent, run, pool, stores, node, wired } = setUp();
    const p = pool('p', ['10.0.0.0/24']);
    await stores.subnets.create(exclusive(p, '10.0.0.9/32', 'uid-earlier'));
    await stores.subnets.create(exclusive(p, '10.0.0.10/32', 'uid-earlier'));
    wired.wired({ containerID: 'c', ifName: 'eth0' }, { ipv4: parseAddress('10.0.0.9') });
    await run(agent.maintain);
    expect(stores.stored.NodeSubnet.get('10.0.0.9-32')?.spec).toMatchObject({
      nodeUID: 'uid-n1',
      nextHops: node.addresses,
    });
    expect(stores.stored.NodeSubnet.get('10.0.0.10-32')?.spec.nodeUID).toBe('uid-earlier');
  });
});

function setUp({
  fault,
  inForceLater = false,
  spareAddresses = 0,
}: {
  fault?: (call: FakeCall) => Fault | Promise<Fault>;
  inForceLater?: boolean;
  spareAddresses?: number;
} = {}) {
  const stores = createFakeStores(fault === undefined ? {} : { fault });
  const clock = createFakeClock();
  const logged: { level: string; message: string }[] = [];
  const told: string[] = [];
  const without: [pool: string, reason: string][] = [];
  const log = (level: string) => (_: object, message: string) => {
    logged.push({ level, message });
  };
  const allocations = new Set<string>();
  const inFlight = new Set<string>();
  const waiting: Claimer[] = [];
  const markedRoutes: string[] = [];
  const bridges: string[] = [];
  const serviceCIDRs: CIDR[] = [];
  const inForce = Promise.withResolvers<void>();
  if (!inForceLater) inForce.resolve();
  const node = {
    name: 'n1',
    uid: 'uid-n1',
    labels: {} as Record<string, string>,
    addresses: [parseAddress('192.0.2.1'), parseAddress('2001:db8::1')],
  };
  const wired = createWiredAddresses(RESTLESS);
  let ghosts: NodeSubnet[] = [];
  const subnets = () => [...stores.stored.NodeSubnet.values()];
  const start = () =>
    createNodeSubnets({
      stores,
      pools: () => [...stores.stored.IPPool.values()],
      subnets: () => [
        ...subnets(),
        ...ghosts.filter(({ metadata }) => !stores.stored.NodeSubnet.has(metadata.name)),
      ],
      node: () => node,
      waitDelivered: () => Promise.resolve(),
      inForce: () => inForce.promise,
      allocations: {
        has: (name) => allocations.has(name),
        keys: () => allocations.keys(),
        get size() {
          return allocations.size;
        },
      },
      inFlight,
      serviceCIDRs: () => serviceCIDRs,
      onNone: (name, reason) => without.push([name, reason]),
      wired,
      linkWithAddressIn: (cidr) =>
        bridges.some((address) => cidrHasAddress(cidr, parseAddress(address))) ? 'br0' : undefined,
      hasMarkedRoute: (cidr) =>
        markedRoutes.some((marked) => formatCIDR(cidr).startsWith(marked.slice(0, 5))),
      settings: {
        subnetWaitMs: 5_000,
        giveBackMs: GIVE_BACK_MS,
        quarantineMs: QUARANTINE_MS,
        spareAddresses,
      },
      waiting: () => waiting,
      cursor: createRingCursor(),
      clock,
      random: () => 0.5,
      log: { info: log('info'), warn: log('warn'), error: log('error') },
      observer: {
        claimed: () => told.push('claimed'),
        taken: () => told.push('taken'),
        unavailable: () => told.push('unavailable'),
        givenBack: () => told.push('given back'),
      },
    });
  const run: Run = (work) => clock.until(work(new AbortController().signal));
  return {
    agent: start(),
    /** The same node's next process. */
    restart: start,
    run,
    stores,
    clock,
    node,
    allocations,
    inFlight,
    /** Who is bound to the node and has no address yet. */
    waiting,
    markedRoutes,
    wired,
    /** Addresses of links that other plugins made. */
    bridges,
    serviceCIDRs,
    inForce,
    logged,
    without,
    told,
    pool: (
      name: string,
      cidrs: string[],
      nodeSubnetPrefixLength?: { ipv4?: number },
      spec: Partial<z.input<typeof IPPoolSpec>> = {},
    ) =>
      stores.applyPool(
        name,
        { cidrs, ...(nodeSubnetPrefixLength === undefined ? {} : { nodeSubnetPrefixLength }), ...spec },
        { finalizers: [POOL_FINALIZER] },
      ),
    heldOf: (pool: IPPool) =>
      subnets()
        .filter(({ spec }) => spec.poolUID === pool.metadata.uid && spec.nodeUID === node.uid)
        .map(({ spec }) => formatCIDR(spec.cidr)),
    /** From now on the cache goes on showing what is there now; call the answer to end that. */
    lagBehindDeletions() {
      ghosts = subnets();
      return () => {
        ghosts = [];
      };
    },
  };
}
