import { describe, expect, test } from 'vitest';
import type { IPAllocation, IPAllocationSpec } from '../../src/api/index.ts';
import { createReleaseQueue, UNKNOWN_SETTLES_MS, type ReleaseQueue } from '../../src/ipam/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import { createFakeStores, type FakeOptions, type FakeStores } from '../contract/fake-stores.ts';
import { allElse, createFakeClock, type FakeClock } from './fake-clock.ts';
import { attachmentOf } from './objects.ts';

const NAME = '10.0.0.5';
const around = [parseCIDR('10.0.0.0/24')];
const mine = attachmentOf('c1');

describe('a time of day that steps while an address rests (F31)', () => {
  test.each([3_600_000, -3_600_000])('by %i ms neither frees it early nor keeps it longer', async (step) => {
    const { queue, allocation, clock, stores } = await setUp();
    await queue.release(allocation, { reuseDelayMs: 30_000 });
    clock.stepTimeOfDay(step);
    await clock.advance(29_999);
    expect(stores.stored.IPAllocation.size).toBe(1);
    await clock.advance(1);
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  test.each([3_600_000, -3_600_000])(
    'by %i ms before it was marked: the next agent waits as long',
    async (step) => {
      const { queue, allocation, clock, stores } = await setUp();
      clock.stepTimeOfDay(step);
      await queue.release(allocation, { reuseDelayMs: 30_000 });
      queue.stop();
      clock.stepTimeOfDay(-step);
      const next = createReleaseQueue({
        store: stores.allocations,
        clock,
        random: Math.random,
        inFlight: new Set(),
        reuseDelayMs: () => 30_000,
      });
      next.observeResting(stores.stored.IPAllocation.values());
      await clock.advance(29_999);
      expect(stores.stored.IPAllocation.size).toBe(1);
      await clock.advance(1);
      expect(stores.stored.IPAllocation.size).toBe(0);
    },
  );
});

describe('the release of an address that is the pod’s own', () => {
  const stored = ({ stores }: SetUp) => stores.stored.IPAllocation.get(NAME)?.spec;

  test('fixed: it comes free without a rest', async () => {
    const { queue, allocation, stores, verbs, withdrawn } = await setUp({ fixed: true });
    await queue.release(allocation, { reuseDelayMs: 30_000 });
    expect(stores.stored.IPAllocation.size).toBe(0);
    expect(verbs()).toEqual(['delete']);
    expect(withdrawn).toEqual([`${NAME} with its sandbox`]);
  });

  test('sticky: it is taken from the sandbox and kept for the pod', async () => {
    const world = await setUp({ sticky: 'shop/db-0' });
    await world.queue.release(world.allocation, { reuseDelayMs: 30_000 });
    expect(stored(world)).toMatchObject({ holder: 'sticky', sticky: 'shop/db-0' });
    expect(stored(world)?.attachment).toBeUndefined();
    expect(stored(world)?.nodeName).toBeUndefined();
    expect(world.withdrawn).toEqual([`${NAME} with its sandbox`]);
  });

  test('sticky, of a claim that came to nothing: it is deleted', async () => {
    const { queue, allocation, stores } = await setUp({ sticky: 'shop/db-0' });
    await queue.release(allocation, { reuseDelayMs: 0, neverUsed: true });
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  test('sticky, said late and again, does not touch the next sandbox', async () => {
    let calls = 0;
    const world = await setUp({ sticky: 'shop/db-0', fault: () => (++calls === 1 ? 'lose' : 'none') });
    const { queue, allocation, stores, clock } = world;
    const release = queue.release(allocation, { reuseDelayMs: 0 });
    await allElse();
    const kept = stores.stored.IPAllocation.get(NAME);
    if (kept?.spec.holder === undefined) throw new Error('it has not been emptied');
    const pod = { namespace: 'shop', name: 'db-0' };
    await stores.allocations.bind(kept, { nodeName: 'n2', attachment: attachmentOf('next'), pod });
    await clock.until(release);
    await queue.release(allocation, { reuseDelayMs: 0 });
    expect(stored(world)?.attachment?.containerID).toBe('next');
  });

  test('does not begin before the way to it is gone', async () => {
    let isAway = true;
    const world = await setUp({
      sticky: 'shop/db-0',
      withdraw: () => (isAway ? Promise.reject(new Error('away')) : Promise.resolve()),
    });
    const release = world.queue.release(world.allocation, { reuseDelayMs: 0 });
    await world.clock.advance(60_000);
    expect(stored(world)?.holder).toBeUndefined();
    isAway = false;
    await world.clock.until(release);
    expect(stored(world)?.holder).toBe('sticky');
  });

  test('is undone by emptying it, also where the update commits late', async () => {
    const world = await setUp({ sticky: 'shop/db-0' });
    const { queue, stores, clock, allocation, inFlight } = world;
    await queue.release(allocation, { reuseDelayMs: 0 });
    const kept = stores.stored.IPAllocation.get(NAME);
    if (kept === undefined) throw new Error('it is gone');
    const next = attachmentOf('next');
    const undo = queue.undo(NAME, next);
    await clock.advance(UNKNOWN_SETTLES_MS - 1);
    const pod = { namespace: 'shop', name: 'db-0' };
    await stores.allocations.bind(kept, { nodeName: 'n1', attachment: next, pod });
    await clock.until(undo);
    expect(stored(world)?.holder).toBe('sticky');
    expect(inFlight.has(NAME)).toBe(false);
  });
});

describe('release', () => {
  test('marks at once, deletes after the delay, and not before', async () => {
    const { queue, clock, stores, allocation, released, told } = await setUp();
    expect(await queue.release(allocation, { reuseDelayMs: 30_000 })).toBe('released');
    expect(released()).toBe(true);
    expect(told).toEqual(['marked', 'soon']);
    expect(queue.pending()).toEqual({ releasing: 0, resting: 1, undoing: 0 });
    await clock.advance(29_999);
    expect(stores.stored.IPAllocation.has(NAME)).toBe(true);
    expect(queue.nextFreeInMs('p', around)).toBe(1);
    expect(queue.nextFreeInMs('other', around)).toBeUndefined();
    expect(queue.nextFreeInMs('p', [parseCIDR('10.0.1.0/24'), parseCIDR('fd00::/64')])).toBeUndefined();
    await clock.advance(1);
    await queue.settled();
    expect(stores.stored.IPAllocation.has(NAME)).toBe(false);
    expect(queue.pending()).toEqual({ releasing: 0, resting: 0, undoing: 0 });
    expect(queue.nextFreeInMs('p', around)).toBeUndefined();
    expect(told).toEqual(['marked', 'soon', 'now', 'deleted']);
  });

  test('with delay 0 deletes at once, by one write', async () => {
    const { queue, stores, allocation, verbs, told } = await setUp();
    await queue.release(allocation, { reuseDelayMs: 0 });
    expect(stores.stored.IPAllocation.size).toBe(0);
    expect(told).toEqual(['now', 'deleted']);
    expect(verbs()).toEqual(['delete']);
  });

  test.each<{
    what: string;
    spec: Partial<IPAllocationSpec>;
    delayMs: number;
    neverUsed?: boolean;
    told: string[];
  }>([
    {
      what: 'that rests: at once, and again before it may be another’s',
      spec: {},
      delayMs: 30_000,
      told: ['marked', 'soon', 'now', 'deleted'],
    },
    { what: 'without a rest: before it may be another’s', spec: {}, delayMs: 0, told: ['now', 'deleted'] },
    { what: 'that a pod asked for', spec: { fixed: true }, delayMs: 30_000, told: ['now', 'deleted'] },
    { what: 'that is kept for its pod', spec: { sticky: 'shop/db-0' }, delayMs: 30_000, told: ['now'] },
    { what: 'that was never used: not at all', spec: {}, delayMs: 0, neverUsed: true, told: ['deleted'] },
  ])('ends the connections of an address $what', async ({ spec, delayMs, neverUsed, told }) => {
    const world = await setUp(spec);
    await world.queue.release(world.allocation, {
      reuseDelayMs: delayMs,
      ...(neverUsed === undefined ? {} : { neverUsed }),
    });
    await world.clock.advance(delayMs);
    await world.queue.settled();
    expect(world.told).toEqual(told);
  });

  test('waits for the end of connections before the address may be another’s', async () => {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const { queue, clock, stores, allocation } = await setUp({ endConnections: () => ended });
    await queue.release(allocation, { reuseDelayMs: 1_000 });
    await clock.advance(60_000);
    expect(stores.stored.IPAllocation.has(NAME)).toBe(true);
    resolve();
    await queue.settled();
    expect(stores.stored.IPAllocation.has(NAME)).toBe(false);
  });

  test('asked for twice is done once', async () => {
    const { queue, clock, allocation, verbs } = await setUp();
    await Promise.all([1, 2].map(() => queue.release(allocation, { reuseDelayMs: 1_000 })));
    expect(await queue.release(allocation, { reuseDelayMs: 1_000 })).toBe('released');
    expect(verbs()).toEqual(['update']);
    await clock.advance(1_000);
    await queue.settled();
    expect(verbs()).toEqual(['update', 'get', 'delete']);
  });

  test('is repeated for as long as the apiserver is away', async () => {
    let isAway = true;
    const { queue, clock, allocation, released, retried } = await setUp({
      fault: () => (isAway ? 'fail' : 'none'),
    });
    const release = queue.release(allocation, { reuseDelayMs: 30_000 });
    await clock.advance(3_600_000);
    expect(queue.pending().releasing).toBe(1);
    expect(queue.isReleasing(allocation)).toBe(true);
    expect(retried.length).toBeGreaterThan(100);
    isAway = false;
    expect(await clock.until(release)).toBe('released');
    expect(queue.isReleasing(allocation)).toBe(false);
    expect(released()).toBe(true);
  });

  test('whose answer was lost is found to be done: 409, then GET, then nothing more to write', async () => {
    let calls = 0;
    const { queue, clock, allocation, released, verbs } = await setUp({
      fault: () => (++calls === 1 ? 'lose' : 'none'),
    });
    await clock.until(queue.release(allocation, { reuseDelayMs: 30_000 }));
    expect(released()).toBe(true);
    expect(verbs()).toEqual(['update', 'update', 'get']);
  });

  test('of an object at a newer version is repeated with that', async () => {
    const { queue, stores, allocation, released } = await setUp();
    const stale: IPAllocation = { ...allocation, metadata: { ...allocation.metadata, resourceVersion: '1' } };
    await queue.release(stale, { reuseDelayMs: 30_000 });
    expect(released()).toBe(true);
    expect(stores.stored.IPAllocation.size).toBe(1);
  });

  test.each([{ reuseDelayMs: 30_000 }, { reuseDelayMs: 0 }])(
    'never touches the next owner of the name: delay $reuseDelayMs',
    async ({ reuseDelayMs }) => {
      const { queue, stores, allocation } = await setUp();
      const next = await succeed(stores, allocation);
      await queue.release(allocation, { reuseDelayMs });
      await queue.settled();
      expect(stores.stored.IPAllocation.get(NAME)).toEqual(next);
    },
  );

  test('leaves the next owner alone that came while it rested', async () => {
    const { queue, clock, stores, allocation } = await setUp();
    await queue.release(allocation, { reuseDelayMs: 30_000 });
    const next = await succeed(stores, allocation);
    await clock.advance(60_000);
    await queue.settled();
    expect(stores.stored.IPAllocation.get(NAME)).toEqual(next);
  });

  test('of what is gone already is done', async () => {
    const { queue, stores, allocation, told } = await setUp();
    stores.deleteByHand('IPAllocation', NAME);
    expect(await queue.release(allocation, { reuseDelayMs: 30_000 })).toBe('released');
    expect(told).toEqual([]);
    expect(queue.pending()).toEqual({ releasing: 0, resting: 0, undoing: 0 });
  });

  test('a deletion after the rest is repeated until it is answered', async () => {
    let isAway = false;
    const { queue, clock, stores, allocation } = await setUp({ fault: () => (isAway ? 'lose' : 'none') });
    await queue.release(allocation, { reuseDelayMs: 30_000 });
    isAway = true;
    await clock.advance(60_000);
    expect(queue.pending().resting).toBe(1);
    isAway = false;
    await clock.until(queue.settled());
    expect(stores.stored.IPAllocation.size).toBe(0);
    expect(queue.pending().resting).toBe(0);
  });
});

describe('undo', () => {
  test('deletes what names the attachment', async () => {
    const { queue, clock, stores } = await setUp();
    expect(await clock.until(queue.undo(NAME, mine))).toBe('released');
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  test.each([
    { name: 'another container', attachment: attachmentOf('c2') },
    { name: 'another interface', attachment: attachmentOf('c1', { ifName: 'net1' }) },
    { name: 'another network', attachment: attachmentOf('c1', { network: 'lan' }) },
  ])('leaves alone what is of $name', async ({ attachment }) => {
    const { queue, clock, stores } = await setUp();
    await clock.until(queue.undo(NAME, attachment));
    expect(stores.stored.IPAllocation.size).toBe(1);
  });

  test('keeps the name in flight until the answer is definite', async () => {
    let isAway = true;
    const { queue, clock, inFlight } = await setUp({ fault: () => (isAway ? 'fail' : 'none') });
    const undo = queue.undo(NAME, mine);
    await clock.advance(60_000);
    expect(inFlight.has(NAME)).toBe(true);
    expect(queue.pending().undoing).toBe(1);
    isAway = false;
    await clock.until(undo);
    expect(inFlight.has(NAME)).toBe(false);
  });

  test('does not believe the first "not found": the create may still be on its way', async () => {
    const { queue, clock, stores, allocation } = await setUp();
    stores.deleteByHand('IPAllocation', NAME);
    const undo = queue.undo(NAME, mine);
    await clock.advance(UNKNOWN_SETTLES_MS - 1);
    expect(queue.pending().undoing).toBe(1);
    await stores.allocations.create(allocation.spec);
    await clock.until(undo);
    expect(stores.stored.IPAllocation.size).toBe(0);
  });
});

describe('after a restart', () => {
  test('what rests is deleted when the delay has passed since this process saw it', async () => {
    const { queue, clock, stores, allocation } = await setUp();
    await stores.allocations.markReleased(allocation, new Date(0)); // long ago by any wall clock
    await clock.advance(1_000_000);
    const seen = [...stores.stored.IPAllocation.values()];
    queue.observeResting(seen);
    await clock.advance(29_000);
    queue.observeResting(seen); // seen again: the delay does not begin anew
    expect(queue.nextFreeInMs('p', around)).toBe(1_000);
    expect(stores.stored.IPAllocation.size).toBe(1);
    await clock.advance(1_000);
    await queue.settled();
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  test('what does not rest is left alone', async () => {
    const { queue, clock, stores, allocation } = await setUp();
    queue.observeResting([allocation]);
    expect(queue.pending().resting).toBe(0);
    await clock.advance(100_000);
    expect(stores.stored.IPAllocation.size).toBe(1);
  });

  test('what is not marked any more when its time comes is left alone', async () => {
    const { queue, clock, stores, allocation } = await setUp();
    queue.observeResting([{ ...allocation, status: { releasedAt: '2026-01-01T00:00:00Z' } }]);
    await clock.advance(100_000);
    await queue.settled();
    expect(stores.stored.IPAllocation.size).toBe(1);
  });
});

describe('stop', () => {
  test('ends everything that is under way', async () => {
    const { queue, clock, allocation, stores } = await setUp({ fault: () => 'fail' });
    const release = queue.release(allocation, { reuseDelayMs: 30_000 });
    const undo = queue.undo('10.0.0.9', mine);
    await clock.advance(1_000);
    queue.stop();
    expect(await Promise.all([release, undo])).toEqual(['stopped', 'stopped']);
    await queue.settled();
    const calls = stores.calls.length;
    await clock.advance(1_000_000);
    expect(stores.calls).toHaveLength(calls);
  });

  test('leaves what rests to the next process', async () => {
    const { queue, clock, allocation, stores } = await setUp();
    await queue.release(allocation, { reuseDelayMs: 30_000 });
    queue.stop();
    await clock.advance(1_000_000);
    expect(stores.stored.IPAllocation.size).toBe(1);
  });
});

interface SetUp {
  readonly queue: ReleaseQueue;
  readonly clock: FakeClock;
  readonly stores: FakeStores;
  readonly inFlight: Set<string>;
  readonly retried: string[];
  /** What the observer was told. */
  readonly told: string[];
  /** The one that is stored, as the claim answered it. */
  readonly allocation: IPAllocation;
  /** Of what the subnet was asked to go, and who had the address then. */
  readonly withdrawn: string[];
  released(): boolean;
  /** What was asked of the apiserver after the set-up. */
  verbs(): string[];
}

/** A queue, and one allocation of c1 in the store; the faults begin after that. */
async function setUp({
  fault = () => 'none',
  withdraw = () => Promise.resolve(),
  endConnections = () => Promise.resolve(),
  ...more
}: FakeOptions &
  Partial<IPAllocationSpec> & {
    withdraw?: () => Promise<void>;
    endConnections?: () => Promise<void>;
  } = {}): Promise<SetUp> {
  let isReady = false;
  const stores = createFakeStores({ fault: (call) => (isReady ? fault(call) : 'none') });
  const clock = createFakeClock();
  const inFlight = new Set<string>();
  const retried: string[] = [];
  const told: string[] = [];
  const withdrawn: string[] = [];
  const queue = createReleaseQueue({
    store: stores.allocations,
    clock,
    random: Math.random,
    inFlight,
    reuseDelayMs: () => 30_000,
    withdrawSubnet: async ({ metadata: { name } }) => {
      await withdraw();
      withdrawn.push(`${name} with ${stores.stored.IPAllocation.get(name)?.spec.holder ?? 'its sandbox'}`);
    },
    endConnections: async (_, when) => {
      told.push(when);
      await endConnections();
    },
    onRetry: (name) => retried.push(name),
    observer: { marked: () => told.push('marked'), deleted: () => told.push('deleted') },
  });
  const spec = { address: parseAddress(NAME), pool: 'p', nodeName: 'n1', attachment: mine, ...more };
  const created = await stores.allocations.create(spec);
  if (created.kind !== 'created') throw new Error('the store is new');
  const before = stores.calls.length;
  isReady = true;
  return {
    queue,
    clock,
    stores,
    inFlight,
    retried,
    told,
    withdrawn,
    allocation: created.object,
    released: () => stores.stored.IPAllocation.get(NAME)?.status?.releasedAt !== undefined,
    verbs: () => stores.calls.slice(before).map(({ verb }) => verb),
  };
}

/** The object goes, and the name gets its next owner: with the same attachment even, but another uid. */
async function succeed(stores: FakeStores, allocation: IPAllocation): Promise<IPAllocation> {
  stores.deleteByHand('IPAllocation', allocation.metadata.name);
  const created = await stores.allocations.create(allocation.spec);
  if (created.kind !== 'created') throw new Error('it was deleted');
  await allElse();
  return created.object;
}
