import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { POOL_FINALIZER, type IPPool, type NodeSubnet } from '../../src/api/index.ts';
import {
  claimNodeSubnets,
  confirmNodeSubnets,
  createSubnetClaimState,
  freeSubnet,
  SubnetUnavailableError,
  type SubnetClaimParts,
} from '../../src/ipam/index.ts';
import { cidrsOverlap, formatCIDR, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createFakeStores, type FakeCall, type FakeStores, type Fault } from '../contract/fake-stores.ts';
import { allElse, createFakeClock, type FakeClock } from './fake-clock.ts';
import { subnetOf } from './objects.ts';

const held = { finalizers: [POOL_FINALIZER] };

describe('a claim', () => {
  test('creates the subnet, GETs the pool once, and answers when the watch has delivered it', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const n1 = node('n1');
    const [subnet] = await clock.until(claimNodeSubnets(n1.parts, pool));
    expect(stores.calls.map(({ verb, kind }) => `${verb} ${kind}`)).toEqual([
      'create NodeSubnet',
      'get IPPool',
    ]);
    expect(subnet?.spec).toMatchObject({
      pool: 'p',
      poolUID: pool.metadata.uid,
      nodeName: 'n1',
      nodeUID: 'uid-n1',
      nextHops: [parseAddress('192.0.2.1'), parseAddress('2001:db8::1')],
    });
    expect(n1.parts.state).toEqual(createSubnetClaimState());
  });

  test('is not complete, and nothing is drawn, before the watch has delivered it', async () => {
    const { pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const n1 = node('n1', { isStalled: true });
    const gone = new AbortController();
    const claim = claimNodeSubnets(n1.parts, pool, { signal: gone.signal });
    await allElse();
    expect(n1.parts.state.unconfirmed.size).toBe(1);
    gone.abort(new Error('the runtime hung up'));
    await expect(claim).rejects.toThrow('the runtime hung up');
    expect(n1.parts.state.unconfirmed.size).toBe(1); // the claim goes on without the caller
  });

  test('takes one of each family that the pool lists and the node has an address of', async () => {
    const { clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24', 'fd00::/32'] });
    const both = await clock.until(claimNodeSubnets(node('n1').parts, pool));
    expect(both.map(({ spec }) => spec.cidr.family)).toEqual(['ipv4', 'ipv6']);
    const only4 = await clock.until(claimNodeSubnets(node('n2', { addresses: ['192.0.2.2'] }).parts, pool));
    expect(only4.map(({ spec }) => spec.cidr.family)).toEqual(['ipv4']);
  });

  test('of a pool whose families the node has no address of is refused', async () => {
    const { pool, node } = setUp({ cidrs: ['fd00::/32'] });
    const claim = claimNodeSubnets(node('n1', { addresses: ['192.0.2.1'] }).parts, pool);
    await expect(claim).rejects.toThrow(/no InternalIP of a family that the pool lists/);
  });

  test('shared by all who ask at the same moment', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const { parts, told } = node('n1');
    const claims = await clock.until(Promise.all([1, 2, 3].map(() => claimNodeSubnets(parts, pool))));
    expect(new Set(claims.flat().map(({ metadata }) => metadata.uid)).size).toBe(1);
    expect(told).toEqual(['claimed']);
    expect(stores.calls.map(({ verb }) => verb)).toEqual(['create', 'get']);
  });

  test('puts the finalizer on a pool that lacks it, before it is complete', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] }, {});
    await clock.until(claimNodeSubnets(node('n1').parts, pool));
    expect(stores.stored.IPPool.get('p')?.metadata.finalizers).toEqual([POOL_FINALIZER]);
  });
});

describe('a name that is taken', () => {
  test('by ourselves is ours', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/26'] });
    await stores.subnets.create(subnetOf('10.0.0.0/26', pool, 'n1').spec);
    const n1 = node('n1');
    n1.forget(); // the cache does not show it yet
    const [subnet] = await clock.until(claimNodeSubnets(n1.parts, pool));
    expect(subnet?.metadata.name).toBe('10.0.0.0-26');
    expect(stores.stored.NodeSubnet.size).toBe(1);
  });

  test.each([
    { name: 'another node', nodeName: 'n2', nodeUID: 'uid-n2' },
    { name: 'an earlier Node of our name', nodeName: 'n1', nodeUID: 'uid-earlier' },
  ])('by $name moves the claim on', async ({ nodeName, nodeUID }) => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/25'] });
    const n1 = node('n1');
    const first = freeSubnet({ pool, pools: [pool], subnets: [], family: 'ipv4', nodeUID: 'uid-n1' });
    if (first === undefined) throw new Error('the pool is empty');
    await stores.subnets.create({ ...subnetOf(formatCIDR(first), pool, nodeName).spec, nodeUID });
    n1.forget();
    const [subnet] = await clock.until(claimNodeSubnets(n1.parts, pool));
    expect(subnet && cidrsOverlap(subnet.spec.cidr, first)).toBe(false);
    expect(n1.told).toEqual(['taken', 'claimed']);
    expect(stores.calls.map(({ verb }) => verb)).toEqual(['create', 'create', 'get', 'create', 'get']);
  });
});

describe('an answer that is lost', () => {
  test.each<Fault>(['fail', 'lose', 'late'])(
    '%s: the same name again, and one object in the end',
    async (fault) => {
      const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] }, held, firstOfEachVerb(fault));
      const n1 = node('n1');
      const [subnet] = await clock.until(claimNodeSubnets(n1.parts, pool));
      expect([...stores.stored.NodeSubnet.values()]).toEqual([subnet]);
      expect(n1.parts.state).toEqual(createSubnetClaimState());
    },
  );

  test('for longer than the deadline: unavailable, and the next claim completes the one that was left behind', async () => {
    let isAway = true;
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] }, held, ({ kind }) =>
      isAway ? (kind === 'IPPool' ? 'fail' : 'none') : 'none',
    );
    const n1 = node('n1');
    const failure = await clock.until(claimNodeSubnets(n1.parts, pool).catch((error: unknown) => error));
    expect(failure).toBeInstanceOf(SubnetUnavailableError);
    expect(String(failure)).toMatch(
      /IPPool p: it took longer than 5000 ms; the last failure was: fail: get IPPool p/,
    );
    expect([...n1.parts.state.unconfirmed]).toEqual([...stores.stored.NodeSubnet.keys()]);
    isAway = false;
    const [subnet] = await clock.until(claimNodeSubnets(n1.parts, pool));
    expect([...stores.stored.NodeSubnet.values()]).toEqual([subnet]);
    expect(n1.parts.state.unconfirmed.size).toBe(0);
    expect(n1.told).toEqual(['unavailable', 'claimed']);
  });
});

describe('while claims are held', () => {
  const holdUntil = (clock: FakeClock, untilMs: number) => ({
    isHeld: () => Promise.resolve(clock.nowMs() < untilMs),
  });

  test('nothing is created; the claim goes on when the hold ends', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const hold = holdUntil(clock, clock.nowMs() + 3_000);
    const claim = claimNodeSubnets({ ...node('n1').parts, hold }, pool);
    await clock.advance(2_900);
    expect(stores.calls).toEqual([]);
    expect(await clock.until(claim)).toHaveLength(1);
  });

  test('for longer than the deadline: unavailable, and it says why', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const claim = claimNodeSubnets({ ...node('n1').parts, hold: holdUntil(clock, Infinity) }, pool);
    await expect(clock.until(claim)).rejects.toThrow(
      /IPPool p: claims of node subnets are held for a while, because etcd is back at an older state/,
    );
    expect(stores.calls).toEqual([]);
  });

  test('a subnet that was created right before is taken back', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const n1 = node('n1');
    const hold = { isHeld: () => Promise.resolve(stores.stored.NodeSubnet.size > 0) };
    await expect(clock.until(claimNodeSubnets({ ...n1.parts, hold }, pool))).rejects.toThrow(/are held/);
    expect(stores.calls.map(({ verb }) => verb)).toContain('create');
    expect(stores.stored.NodeSubnet.size).toBe(0);
    expect(n1.parts.state).toEqual(createSubnetClaimState());
  });

  test('a Lease that cannot be read is not taken for one without a hold', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const hold = { isHeld: () => Promise.reject(new Error('the apiserver is away')) };
    const claim = claimNodeSubnets({ ...node('n1').parts, hold }, pool);
    await expect(clock.until(claim)).rejects.toThrow('the last failure was: the apiserver is away');
    expect(stores.calls).toEqual([]);
  });
});

describe('the pool is not what the cache says', () => {
  test.each<{ name: string; change: (stores: FakeStores) => void; says: RegExp }>([
    {
      name: 'being deleted',
      change: (stores) => {
        stores.deletePool('p');
      },
      says: /is being deleted/,
    },
    {
      name: 'gone',
      change: (stores) => {
        stores.applyPool('p', { cidrs: ['10.0.0.0/24'] }, { finalizers: [] });
        stores.deletePool('p');
      },
      says: /has been deleted/,
    },
    {
      name: 'made anew',
      change: (stores) => {
        stores.applyPool('p', { cidrs: ['10.0.0.0/24'] }, { uid: 'another' });
      },
      says: /made anew/,
    },
    {
      name: 'drained of that CIDR',
      change: (stores) => {
        stores.applyPool('p', { cidrs: ['10.7.0.0/24'] });
      },
      says: /does not list 10\.0\.0\.\d+\/26 any more/,
    },
  ])('$name: refused, and the fresh subnet is deleted', async ({ change, says }) => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] });
    const n1 = node('n1', { pools: [pool] });
    change(stores);
    const claim = claimNodeSubnets(n1.parts, pool);
    await expect(clock.until(claim)).rejects.toThrow(says);
    expect(stores.stored.NodeSubnet.size).toBe(0);
    expect(n1.parts.state).toEqual(createSubnetClaimState());
  });

  test("a CIDR with a node's address in it gives no subnet", async () => {
    const { stores, clock, node, pool } = setUp({ cidrs: ['10.0.0.0/24'] });
    const inside = node('n1', { addresses: ['10.0.0.7'] });
    await expect(clock.until(claimNodeSubnets(inside.parts, pool))).rejects.toThrow(
      'its CIDRs hold 10.0.0.7, the address of a node',
    );
    // Neither for the others, once they know of it.
    await stores.subnets.create(
      subnetOf('10.9.0.0/26', pool, 'n1', { nextHops: [parseAddress('10.0.0.7')] }).spec,
    );
    await expect(clock.until(claimNodeSubnets(node('n2').parts, pool))).rejects.toThrow('10.0.0.7');
    expect([...stores.stored.NodeSubnet.keys()]).toEqual(['10.9.0.0-26']);
  });

  test('a CIDR that holds a node without a subnet gives none, since the controller says so', async () => {
    const { clock, node, pool } = setUp({ cidrs: ['10.0.0.0/24', '10.1.0.0/25'] });
    const around = { ...pool, status: { nodeAddresses: [parseAddress('10.0.0.7')] } };
    const claim = async (name: string) => {
      const [claimed] = await clock.until(claimNodeSubnets(node(name, { pools: [around] }).parts, around));
      return claimed === undefined ? undefined : formatCIDR(claimed.spec.cidr);
    };
    expect([await claim('n1'), await claim('n2')].sort()).toEqual(['10.1.0.0/26', '10.1.0.64/26']);
    await expect(claim('n3')).rejects.toThrow('its CIDRs hold 10.0.0.7, the address of a node');
  });

  test("a CIDR that overlaps the Services' or an older pool's gives no subnet", async () => {
    const { stores, clock, node, pool } = setUp({ cidrs: ['10.0.0.0/24'] });
    const { parts } = node('n1');
    const serviceCIDRs = () => [parseCIDR('10.0.0.0/16')];
    await expect(clock.until(claimNodeSubnets({ ...parts, serviceCIDRs }, pool))).rejects.toThrow(
      'its CIDRs overlap those of older IPPools or of the Services',
    );
    stores.applyPool('older', { cidrs: ['10.0.0.0/16'] }, { creationTimestamp: '2020-01-01T00:00:00Z' });
    await expect(clock.until(claimNodeSubnets(parts, pool))).rejects.toThrow(
      'overlap those of older IPPools',
    );
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('full: says what would help', async () => {
    const { clock, pool, node } = setUp({ cidrs: ['10.0.0.0/26'] });
    await clock.until(claimNodeSubnets(node('n1').parts, pool));
    await expect(clock.until(claimNodeSubnets(node('n2').parts, pool))).rejects.toThrow(
      'this node gets no ipv4 subnet of IPPool p: no /26 is free in its CIDRs: nodes hold 1; the next comes ' +
        'free when a node that holds more than it needs has had one empty for 600 s. Add a CIDR to the pool, or wait for that',
    );
  });

  test('full: says what the pool counts, of the family that is full', async () => {
    const { clock, pool, node } = setUp({ cidrs: ['10.0.0.0/26', 'fd00::/64'] });
    await clock.until(claimNodeSubnets(node('n1').parts, pool));
    const usage = { nodeSubnets: 1, freeSubnets: '0', allocated: 40, resting: 3, reserved: '9', free: '12' };
    const ipv6 = { ...usage, allocated: 0, capacity: '18446744073709551616' };
    const counted = { ...pool, status: { ipv4: { ...usage, capacity: '64' }, ipv6 } };
    await expect(clock.until(claimNodeSubnets(node('n2').parts, counted))).rejects.toThrow(
      "nodes hold 1; of the pool's 64 addresses 40 are in use, 3 rest after their release, 9 are reserved and 12 are " +
        'free in the subnets of other nodes, as its status says; the next comes free when a node that holds more than it ' +
        'needs has had one empty for 600 s. Add a CIDR',
    );
  });
});

describe('overlap', () => {
  test('with an older subnet that the watch delivers first: ours goes, and another is claimed', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/25'] });
    const n1 = node('n1', { isStalled: true });
    // Of a pool with other sizes, whose claim our cache has not seen.
    await stores.subnets.create(
      subnetOf('10.0.0.0/28', { metadata: { ...pool.metadata, uid: 'old' } }, 'n2').spec,
    );
    await stores.subnets.create(
      subnetOf('10.0.0.80/28', { metadata: { ...pool.metadata, uid: 'old' } }, 'n2').spec,
    );
    const claim = claimNodeSubnets(n1.parts, pool).catch((error: unknown) => error);
    await allElse();
    n1.deliver();
    expect(String(await clock.until(claim))).toMatch(/no \/26 is free/);
    expect(n1.told).toEqual(['taken', 'unavailable']);
    expect([...stores.stored.NodeSubnet.keys()]).toEqual(['10.0.0.0-28', '10.0.0.80-28']);
  });

  test('no two confirmed subnets ever overlap, whatever the sizes, the lag and the faults', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.infiniteStream(fc.constantFrom<Fault>('none', 'none', 'fail', 'lose', 'late')),
        fc.array(fc.constantFrom('wide', 'narrow'), { minLength: 2, maxLength: 6 }),
        async (scheduler, faults, wanted) => {
          let isStormy = true;
          const stores = createFakeStores({
            fault: scheduler.scheduleFunction(async ({ verb }: FakeCall): Promise<Fault> => {
              const fault = isStormy ? (faults.next().value as Fault) : 'none';
              return verb === 'get' && fault !== 'none' ? 'fail' : fault;
            }),
          });
          const clock = createFakeClock();
          // Two pools over one range with other sizes; each node knows only of the one that it draws from.
          const wide = stores.applyPool('wide', { cidrs: ['10.0.0.0/25'] }, held);
          const narrow = stores.applyPool(
            'narrow',
            { cidrs: ['10.0.0.0/25'], nodeSubnetPrefixLength: { ipv4: 28 } },
            held,
          );
          const confirmed: NodeSubnet[] = [];
          const claims = wanted.map(async (name, i) => {
            const pool = name === 'wide' ? wide : narrow;
            const node = createNode(stores, clock, `n${i}`, { pools: [pool], deliverBy: scheduler });
            confirmed.push(...(await claimNodeSubnets(node.parts, pool)));
          });
          const all = Promise.allSettled(claims);
          await drive(all, scheduler, clock);
          isStormy = false;
          for (const result of await all) {
            if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(SubnetUnavailableError);
          }
          for (const [i, a] of confirmed.entries()) {
            for (const b of confirmed.slice(i + 1))
              expect(cidrsOverlap(a.spec.cidr, b.spec.cidr)).toBe(false);
            expect(stores.stored.NodeSubnet.get(a.metadata.name)?.metadata.uid).toBe(a.metadata.uid);
          }
        },
      ),
      { numRuns: 100 },
    );
  }, 60_000);
});

describe('subnets found at start', () => {
  test('are drawn from once the pool is held and nothing overlaps', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/24'] }, {});
    await stores.subnets.create(subnetOf('10.0.0.0/26', pool, 'n1').spec);
    const n1 = node('n1');
    const { confirmed, refused } = await clock.until(
      confirmNodeSubnets(n1.parts, [...stores.stored.NodeSubnet.values()], new AbortController().signal),
    );
    expect(confirmed.map(({ metadata }) => metadata.name)).toEqual(['10.0.0.0-26']);
    expect(refused).toEqual([]);
    expect(stores.stored.IPPool.get('p')?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    expect(n1.parts.state.unconfirmed.size).toBe(0);
  });

  test.each([
    ['created earlier', '2025-12-31T23:59:59Z'],
    ['created in the same second', '2026-01-01T00:00:00Z'],
  ])(
    'are kept but not drawn from where one that is not younger overlaps (%s), and a later claim leaves them alone',
    async (_, other) => {
      const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/25'] });
      await stores.subnets.create(subnetOf('10.0.0.0/26', pool, 'n1').spec);
      await stores.subnets.create(subnetOf('10.0.0.16/28', pool, 'n2').spec);
      stores.date('10.0.0.0-26', '2026-01-01T00:00:00Z');
      stores.date('10.0.0.16-28', other);
      const n1 = node('n1');
      const mine = [...stores.stored.NodeSubnet.values()].filter(({ spec }) => spec.nodeName === 'n1');
      const signal = new AbortController().signal;
      const { refused } = await clock.until(confirmNodeSubnets(n1.parts, mine, signal));
      expect(refused).toMatchObject([{ reason: 'it overlaps 10.0.0.16/28 of node n2' }]);
      expect([...n1.parts.state.unconfirmed]).toEqual(['10.0.0.0-26']);
      await clock.until(claimNodeSubnets(n1.parts, pool));
      expect([...stores.stored.NodeSubnet.keys()]).toContain('10.0.0.0-26');
      expect([...n1.parts.state.unconfirmed]).toEqual(['10.0.0.0-26']);
    },
  );

  test('are drawn from where only a younger one overlaps: its owner sees ours at its own check', async () => {
    const { stores, clock, pool, node } = setUp({ cidrs: ['10.0.0.0/25'] });
    await stores.subnets.create(subnetOf('10.0.0.0/26', pool, 'n1').spec);
    await stores.subnets.create(subnetOf('10.0.0.16/28', pool, 'n2').spec);
    stores.date('10.0.0.0-26', '2026-01-01T00:00:00Z');
    stores.date('10.0.0.16-28', '2026-01-01T00:00:01Z');
    const n1 = node('n1');
    const mine = [...stores.stored.NodeSubnet.values()].filter(({ spec }) => spec.nodeName === 'n1');
    const confirmation = await clock.until(confirmNodeSubnets(n1.parts, mine, new AbortController().signal));
    expect(confirmation).toEqual({ confirmed: mine, refused: [] });
    expect(n1.parts.state.unconfirmed.size).toBe(0);
  });
});

interface NodeOptions {
  readonly addresses?: readonly string[];
  /** The watch delivers only when the test says so. */
  readonly isStalled?: boolean;
  /** The watch delivers when the scheduler says so, in order. */
  readonly deliverBy?: fc.Scheduler;
  /** What the node knows of pools. Default: all there are. */
  readonly pools?: readonly IPPool[];
}

interface TestNode {
  readonly parts: SubnetClaimParts;
  /** What the observer was told. */
  readonly told: string[];
  /** Delivers everything that the watch still owes. */
  deliver(): void;
  /** Empties the cache, as if the watch had delivered nothing yet. */
  forget(): void;
}

/** An agent's caches: NodeSubnets by a watch in revision order, with the own writes laid over. */
function createNode(stores: FakeStores, clock: FakeClock, name: string, options: NodeOptions = {}): TestNode {
  const { addresses = ['192.0.2.1', '2001:db8::1'], isStalled = false, deliverBy } = options;
  const cache = new Map(stores.stored.NodeSubnet);
  const delivered = new Set<string>();
  const owed: (() => void)[] = [];
  const told: string[] = [];
  let waiting: { readonly name: string; readonly resolve: () => void }[] = [];
  const deliver = () => {
    for (const change of owed.splice(0)) change();
  };
  stores.onChange((change) => {
    if (change.kind !== 'NodeSubnet') return;
    const { object, type } = change;
    owed.push(() => {
      if (type === 'DELETED') cache.delete(object.metadata.name);
      else cache.set(object.metadata.name, object);
      delivered.add(object.metadata.uid);
      for (const waiter of waiting.filter(({ name: its }) => its === object.metadata.name)) waiter.resolve();
      waiting = waiting.filter(({ name: its }) => its !== object.metadata.name);
    });
    if (deliverBy !== undefined) {
      // One at a time and in order, whenever the scheduler comes to it.
      void deliverBy.schedule(Promise.resolve()).then(() => owed.shift()?.());
    } else if (!isStalled) deliver();
  });
  return {
    told,
    deliver,
    forget: () => {
      cache.clear();
    },
    parts: {
      stores: { subnets: stores.subnets, pools: stores.pools },
      pools: () => options.pools ?? [...stores.stored.IPPool.values()],
      subnets: () => [...cache.values()],
      node: { name, uid: `uid-${name}`, labels: {}, addresses: addresses.map(parseAddress) },
      waitDelivered: (subnet) => {
        const uid = stores.stored.NodeSubnet.get(subnet)?.metadata.uid;
        if (uid === undefined || delivered.has(uid) || cache.has(subnet)) return Promise.resolve();
        if (!isStalled && deliverBy === undefined) return Promise.resolve();
        return new Promise((resolve) => waiting.push({ name: subnet, resolve }));
      },
      state: createSubnetClaimState(),
      clock,
      random: Math.random,
      giveBackMs: 600_000,
      deadlineMs: 5_000,
      observer: {
        claimed: () => told.push('claimed'),
        taken: () => told.push('taken'),
        unavailable: () => told.push('unavailable'),
      },
    },
  };
}

function setUp(
  spec: unknown,
  metadata: Partial<IPPool['metadata']> = held,
  fault: (call: FakeCall) => Fault = () => 'none',
): {
  stores: FakeStores;
  clock: FakeClock;
  pool: IPPool;
  node: (name: string, options?: NodeOptions) => TestNode;
} {
  const stores = createFakeStores({ fault });
  const clock = createFakeClock();
  const pool = stores.applyPool('p', spec, metadata);
  return { stores, clock, pool, node: (name, options) => createNode(stores, clock, name, options) };
}

function firstOfEachVerb(fault: Fault): (call: FakeCall) => Fault {
  const seen = new Set<string>();
  return ({ verb, kind }) => {
    if (seen.has(verb + kind)) return 'none';
    seen.add(verb + kind);
    return verb === 'get' ? 'fail' : fault;
  };
}

/** Lets the scheduler choose who goes next, and time pass when nobody can. */
async function drive(work: Promise<unknown>, scheduler: fc.Scheduler, clock: FakeClock): Promise<void> {
  let isSettled = false;
  const settle = () => {
    isSettled = true;
  };
  work.then(settle, settle);
  await allElse();
  while (!isSettled) {
    if (scheduler.count() > 0) await scheduler.waitOne();
    else await clock.advance(50);
    await allElse();
  }
}
