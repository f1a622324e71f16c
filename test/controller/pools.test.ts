import { beforeEach, describe, expect, it } from 'vitest';
import { POOL_FINALIZER, type IPPool, type IPPoolStatus, type NodeSubnet } from '../../src/api/index.ts';
import { createPools } from '../../src/controller/pools.ts';
import { indexedAllocation, type IndexedAllocation } from '../../src/controller/allocation-index.ts';
import type { Reconcile } from '../../src/controller/queue.ts';
import type { WriteOutcome } from '../../src/ipam/index.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';
import { allocation, nodeSubnet, pool } from './objects.ts';

const signal = new AbortController().signal;

let clock: FakeClock;
let current: IPPool | undefined;
let subnets: NodeSubnet[];
/** What only a consistent list shows. */
let unseen: NodeSubnet[];
let allocations: IndexedAllocation[];
let writes: string[];
let statuses: IPPoolStatus[];
let announced: string[];
/** What the observer was told: the free IPv4 addresses of the pool, or that it is gone. */
let told: string[];
let nextOutcome: WriteOutcome;
let reconcile: Reconcile;

beforeEach(() => {
  clock = createFakeClock();
  current = pool('pods', ['10.0.0.0/24'], { prefixLength: 28 });
  subnets = [];
  unseen = [];
  allocations = [];
  writes = [];
  statuses = [];
  announced = [];
  told = [];
  nextOutcome = 'done';
  reconcile = createPools({
    clock,
    statusMs: 30_000,
    deletionMs: 60_000,
    observer: {
      computed: (name, status) => told.push(`${name} ${status.ipv4?.free ?? '-'}`),
      gone: (name) => told.push(`${name} gone`),
    },
    cluster: {
      pool: () => current,
      subnets: () => subnets,
      factsOf: (of) => ({
        pools: [of],
        subnets,
        allocations,
        nodeAddresses: [],
        serviceCIDRs: [],
        nearlyExhausted: 0.9,
      }),
      listSubnets: async () => [...subnets, ...unseen],
      async addFinalizer(seen) {
        writes.push('add finalizer');
        if (nextOutcome === 'done') setFinalizers(seen, [...seen.metadata.finalizers, POOL_FINALIZER]);
        return nextOutcome;
      },
      async removeFinalizer() {
        writes.push('remove finalizer');
        if (nextOutcome === 'done') current = undefined;
        return nextOutcome;
      },
      async writeStatus(seen, status) {
        writes.push('status');
        if (nextOutcome === 'done') {
          current = { ...seen, status };
          statuses.push(status);
        }
        return nextOutcome;
      },
      announce: (_pool, condition) => announced.push(`${condition.type}=${condition.status}`),
    },
  });
});

function setFinalizers(seen: IPPool, finalizers: string[]): void {
  current = { ...seen, metadata: { ...seen.metadata, finalizers } };
}

function deletePool(): IPPool {
  if (current === undefined) throw new Error('there is no pool');
  current = { ...current, metadata: { ...current.metadata, deletionTimestamp: '2026-02-01T00:00:00Z' } };
  return current;
}

describe('a pool', () => {
  it('gets the finalizer before anything else', async () => {
    if (current !== undefined) setFinalizers(current, ['someone/else']);
    expect(await reconcile('pods', signal)).toEqual({ kind: 'requeueAfter', ms: 1_000 });
    expect(writes).toEqual(['add finalizer']);
    expect(current?.metadata.finalizers).toEqual(['someone/else', POOL_FINALIZER]);
    await reconcile('pods', signal);
    expect(writes).toEqual(['add finalizer', 'status']);
  });

  it('is left alone where nothing has changed', async () => {
    await reconcile('pods', signal);
    expect(await reconcile('pods', signal)).toEqual({ kind: 'done' });
    expect(writes).toEqual(['status']);
  });

  it('gets new numbers at most every 30 s', async () => {
    const pods = current ?? pool('unused', []);
    await reconcile('pods', signal);
    subnets.push(nodeSubnet(pods, '10.0.0.0/28', 'a'));
    await clock.advance(10_000);
    expect(await reconcile('pods', signal)).toEqual({ kind: 'requeueAfter', ms: 20_000 });
    await clock.advance(20_000);
    expect(await reconcile('pods', signal)).toEqual({ kind: 'done' });
    expect(statuses.at(-1)?.ipv4?.nodeSubnets).toBe(1);
    expect(writes).toEqual(['status', 'status']);
  });

  it('shows a condition that turned at once, and tells of it once', async () => {
    const pods = current ?? pool('unused', []);
    await reconcile('pods', signal);
    expect(announced).toEqual([]);
    subnets.push(nodeSubnet(pods, '10.1.0.0/28', 'a'));
    expect(await reconcile('pods', signal)).toEqual({ kind: 'done' });
    expect(statuses).toHaveLength(2);
    await reconcile('pods', signal);
    expect(announced).toEqual(['Draining=True']);
    subnets.splice(0);
    await reconcile('pods', signal);
    await reconcile('pods', signal);
    expect(announced).toEqual(['Draining=True', 'Draining=False']);
  });

  it('looks again when its status met another version', async () => {
    nextOutcome = 'changed';
    expect(await reconcile('pods', signal)).toEqual({ kind: 'requeueAfter', ms: 1_000 });
    expect(announced).toEqual([]);
  });

  it('is forgotten when it is not there', async () => {
    current = undefined;
    expect(await reconcile('pods', signal)).toEqual({ kind: 'done' });
    expect(writes).toEqual([]);
    expect(told).toEqual(['pods gone']);
  });

  it('is told to the observer each time that it is counted, also where nothing is written', async () => {
    const pods = current ?? pool('unused', []);
    await reconcile('pods', signal);
    allocations.push(indexedAllocation(allocation(pods, '10.0.0.1', 'a')));
    await reconcile('pods', signal);
    expect(told).toEqual(['pods 240', 'pods 239']);
    expect(writes).toEqual(['status']);
  });
});

describe('a deleted pool', () => {
  it('is held for 60 s even when nothing of it is left, and then let go', async () => {
    deletePool();
    const first = await reconcile('pods', signal);
    expect(first).toEqual({ kind: 'requeueAfter', ms: 60_000 });
    await clock.advance(59_999);
    await reconcile('pods', signal);
    expect(writes).not.toContain('remove finalizer');
    await clock.advance(1);
    expect(await reconcile('pods', signal)).toEqual({ kind: 'done' });
    expect(writes.at(-1)).toBe('remove finalizer');
  });

  it('waits for its subnets, also for one that only a consistent list shows, and not for those of another UID', async () => {
    const pods = deletePool();
    const earlier = pool('pods', ['10.0.0.0/24']);
    subnets.push(nodeSubnet(earlier, '10.0.0.64/26', 'z'), nodeSubnet(pods, '10.0.0.0/28', 'a'));
    await reconcile('pods', signal);
    expect(statuses.at(-1)?.conditions?.find(({ type }) => type === 'Ready')?.message).toContain(
      '10.0.0.0/28 of a',
    );
    await clock.advance(120_000);
    await reconcile('pods', signal);
    expect(writes).not.toContain('remove finalizer');
    unseen = subnets.splice(1);
    await reconcile('pods', signal);
    expect(writes).not.toContain('remove finalizer');
    unseen = [];
    await reconcile('pods', signal);
    expect(writes.at(-1)).toBe('remove finalizer');
  });

  it('is held as long again where another of its name was made and deleted unseen', async () => {
    await reconcile('pods', signal);
    const first = deletePool();
    await reconcile('pods', signal);
    await clock.advance(60_000);
    current = { ...first, metadata: { ...first.metadata, uid: 'another' } };
    expect(await reconcile('pods', signal)).toEqual({ kind: 'requeueAfter', ms: 60_000 });
    expect(writes).not.toContain('remove finalizer');
    await clock.advance(60_000);
    await reconcile('pods', signal);
    expect(writes).toContain('remove finalizer');
  });

  it('is none of our business where the finalizer is not ours', async () => {
    if (current !== undefined) setFinalizers(current, ['someone/else']);
    deletePool();
    expect(await reconcile('pods', signal)).toEqual({ kind: 'done' });
    expect(writes).toEqual([]);
  });
});
