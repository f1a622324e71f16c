import { beforeEach, describe, expect, it } from 'vitest';
import { indexedAllocation, type IndexedAllocation } from '../../src/controller/allocation-index.ts';
import { createGoneNodes, type FreedOfNode } from '../../src/controller/gone-nodes.ts';
import type { Reconcile } from '../../src/controller/queue.ts';
import type { NodeSubnet } from '../../src/api/index.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';
import { allocation, nodeSubnet, pool } from './objects.ts';

const QUARANTINE_MS = 300_000;
const signal = new AbortController().signal;
const pods = pool('pods', ['10.0.0.0/16']);

interface World {
  knownNodes: Set<string>;
  realNodes: Set<string>;
  subnets: Map<string, NodeSubnet>;
  allocations: Map<string, IndexedAllocation>;
  /** Shown by a consistent list, not by the cache. */
  unseen: IndexedAllocation[];
  changed: Set<string>;
  reuseDelayMs: number;
  /** Happens after the Node was looked for, and before the answer. */
  afterGet: () => void;
  calls: string[];
}

let world: World;
let clock: FakeClock;
let reconcile: Reconcile;
let told: FreedOfNode[];

beforeEach(() => {
  clock = createFakeClock();
  world = {
    knownNodes: new Set(),
    realNodes: new Set(),
    subnets: new Map(),
    allocations: new Map(),
    unseen: [],
    changed: new Set(),
    reuseDelayMs: 30_000,
    afterGet: () => undefined,
    calls: [],
  };
  told = [];
  reconcile = goneNodes();
});

function goneNodes(): Reconcile {
  const ofNode = (nodeName: string) =>
    [...world.allocations.values()].filter((one) => one.nodeName === nodeName);
  return createGoneNodes({
    clock,
    quarantineMs: QUARANTINE_MS,
    mayDelete: async () => undefined,
    onFreed: (freed) => told.push(freed),
    cluster: {
      nodeIsKnown: (nodeName) => world.knownNodes.has(nodeName),
      subnetsOfNode: (nodeName) =>
        [...world.subnets.values()].filter(({ spec }) => spec.nodeName === nodeName),
      allocationsOfNode: ofNode,
      reuseDelayMs: () => world.reuseDelayMs,
      async nodeExists(nodeName) {
        world.calls.push(`get node ${nodeName}`);
        const exists = world.realNodes.has(nodeName);
        world.afterGet();
        return exists;
      },
      listAllocationsOfNode: async (nodeName) => [...ofNode(nodeName), ...world.unseen],
      async deleteAllocation({ metadata: { name } }) {
        world.calls.push(`delete ${name}`);
        if (world.changed.has(name)) return 'changed';
        world.unseen = world.unseen.filter((one) => one.metadata.name !== name);
        return world.allocations.delete(name) ? 'done' : 'gone';
      },
      async emptyAllocation(seen) {
        const { name } = seen.metadata;
        world.calls.push(`empty ${name}`);
        world.allocations.set(name, { ...seen, nodeName: undefined, attached: false });
        return 'done';
      },
      async deleteSubnet({ metadata: { name, resourceVersion } }) {
        world.calls.push(`delete ${name}`);
        const found = world.subnets.get(name);
        if (found !== undefined && found.metadata.resourceVersion !== resourceVersion) return 'changed';
        return world.subnets.delete(name) ? 'done' : 'gone';
      },
    },
  });
}

function hold(nodeName: string, count: number): void {
  const subnet = nodeSubnet(pods, '10.0.1.0/24', nodeName);
  world.subnets.set(subnet.metadata.name, subnet);
  for (let index = 1; index <= count; index++) {
    const one = indexedAllocation(allocation(pods, `10.0.1.${index}`, nodeName));
    world.allocations.set(one.metadata.name, one);
  }
}

/** Reconciles until it is done, letting the time pass that it asks for. */
async function settle(nodeName: string): Promise<void> {
  for (let turn = 0; turn < 50; turn++) {
    const result = await reconcile(nodeName, signal);
    if (result.kind === 'done') return;
    await clock.advance(result.ms);
  }
  throw new Error('it does not come to an end');
}

function namesOf({ allocations, emptied, subnets }: FreedOfNode) {
  const named = (objects: readonly { readonly metadata: { readonly name: string } }[]) =>
    objects.map(({ metadata }) => metadata.name);
  return { allocations: named(allocations), emptied: named(emptied), subnets: named(subnets) };
}

const deletes = () => world.calls.filter((call) => call.startsWith('delete'));

describe('nodes that are gone', () => {
  it('frees the addresses first, then the subnet, after the quarantine', async () => {
    hold('a', 3);
    expect(await reconcile('a', signal)).toEqual({ kind: 'requeueAfter', ms: QUARANTINE_MS });
    await clock.advance(QUARANTINE_MS - 1);
    await reconcile('a', signal);
    expect(world.calls).toEqual([]);
    await clock.advance(1);
    await settle('a');
    expect(deletes()).toEqual([
      'delete 10.0.1.1',
      'delete 10.0.1.2',
      'delete 10.0.1.3',
      'delete 10.0.1.0-24',
    ]);
  });

  it('never touches what a node that exists holds', async () => {
    hold('a', 3);
    world.knownNodes.add('a');
    expect(await reconcile('a', signal)).toEqual({ kind: 'done' });
    await clock.advance(10 * QUARANTINE_MS);
    expect(await reconcile('a', signal)).toEqual({ kind: 'done' });
    expect(world.calls).toEqual([]);
  });

  it('believes the apiserver, not its cache, that the node is gone, and then counts anew', async () => {
    hold('a', 1);
    world.realNodes.add('a');
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    expect(await reconcile('a', signal)).toEqual({ kind: 'done' });
    expect(deletes()).toEqual([]);
    world.realNodes.clear();
    expect(await reconcile('a', signal)).toEqual({ kind: 'requeueAfter', ms: QUARANTINE_MS });
  });

  it('counts anew for a node that came back for a moment', async () => {
    hold('a', 1);
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS - 1);
    world.knownNodes.add('a');
    await reconcile('a', signal);
    world.knownNodes.clear();
    await clock.advance(1_000);
    expect(await reconcile('a', signal)).toEqual({ kind: 'requeueAfter', ms: QUARANTINE_MS });
  });

  it('counts anew in a new leader', async () => {
    hold('a', 1);
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    reconcile = goneNodes();
    expect(await reconcile('a', signal)).toEqual({ kind: 'requeueAfter', ms: QUARANTINE_MS });
  });

  it('asks for the Node once for each hundred deletes', async () => {
    hold('a', 250);
    await settle('a');
    expect(deletes()).toHaveLength(251);
    // Three batches, and one each for the look that finds nothing left and frees the subnet.
    expect(world.calls.filter((call) => call === 'get node a')).toHaveLength(4);
  });

  it('stops in the middle when the node comes back', async () => {
    hold('a', 250);
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    await reconcile('a', signal);
    world.realNodes.add('a');
    await reconcile('a', signal);
    expect(deletes()).toHaveLength(100);
  });

  it('keeps the subnet while an allocation is left that only the apiserver knows of', async () => {
    hold('a', 0);
    const late = indexedAllocation(allocation(pods, '10.0.1.9', 'a'));
    world.unseen.push(late);
    world.changed.add('10.0.1.9');
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    await reconcile('a', signal);
    expect(deletes()).toEqual(['delete 10.0.1.9']);
    world.changed.clear();
    await settle('a');
    expect(deletes()).toEqual(['delete 10.0.1.9', 'delete 10.0.1.9', 'delete 10.0.1.0-24']);
  });

  it('lets an address rest for longer than the quarantine where its pool says so', async () => {
    hold('a', 1);
    world.reuseDelayMs = 400_000;
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    expect(await reconcile('a', signal)).toEqual({ kind: 'requeueAfter', ms: 100_000 });
    expect(deletes()).toEqual([]);
    await clock.advance(100_000);
    await settle('a');
    expect(deletes()).toEqual(['delete 10.0.1.1', 'delete 10.0.1.0-24']);
  });

  it('lets an address rest from when it was released, where an agent outlived its Node', async () => {
    hold('a', 2);
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS - 10_000);
    const released = { releasedAt: '2026-01-01T00:00:00Z' };
    world.allocations.set('10.0.1.2', indexedAllocation(allocation(pods, '10.0.1.2', 'a', released)));
    await reconcile('a', signal);
    await clock.advance(10_000);
    await reconcile('a', signal);
    expect(deletes()).toEqual(['delete 10.0.1.1']);
    expect(await reconcile('a', signal)).toEqual({ kind: 'requeueAfter', ms: 20_000 });
    await clock.advance(20_000);
    await settle('a');
    expect(deletes()).toEqual(['delete 10.0.1.1', 'delete 10.0.1.2', 'delete 10.0.1.0-24']);
  });

  it('frees what a person has released, when it has rested: no agent would', async () => {
    const facts = { holder: 'printer', releasedAt: '2026-01-01T00:00:00Z' };
    world.allocations.set('10.0.1.7', indexedAllocation(allocation(pods, '10.0.1.7', 'a', facts)));
    world.reuseDelayMs = 400_000;
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    await reconcile('a', signal);
    expect(deletes()).toEqual([]);
    await clock.advance(100_000);
    await settle('a');
    expect(deletes()).toEqual(['delete 10.0.1.7']);
  });

  it('leaves an address that a person holds, and frees the subnet around it', async () => {
    hold('a', 0);
    const held = indexedAllocation(allocation(pods, '10.0.1.7', 'a', { holder: 'printer' }));
    world.allocations.set('10.0.1.7', held);
    await settle('a');
    expect(deletes()).toEqual(['delete 10.0.1.0-24']);
  });

  it('gives back the ways to single addresses first, then those addresses: sticky ones stay with their pod', async () => {
    hold('a', 1);
    const sticky = allocation(pods, '10.0.9.9', 'a');
    const kept = { ...sticky, spec: { ...sticky.spec, sticky: 'shop/db-0' } };
    world.allocations.set('10.0.9.9', indexedAllocation(kept));
    const way = nodeSubnet(pods, '10.0.9.9/32', 'a');
    world.subnets.set(way.metadata.name, { ...way, spec: { ...way.spec, exclusive: true } });
    await settle('a');
    expect(world.calls.filter((call) => !call.startsWith('get'))).toEqual([
      'delete 10.0.9.9-32',
      'delete 10.0.1.1',
      'empty 10.0.9.9',
      'delete 10.0.1.0-24',
    ]);
    expect(world.allocations.has('10.0.9.9')).toBe(true);
    expect(told.map(namesOf)).toEqual([
      { allocations: [], emptied: [], subnets: ['10.0.9.9-32'] },
      { allocations: ['10.0.1.1'], emptied: ['10.0.9.9'], subnets: [] },
      { allocations: [], emptied: [], subnets: ['10.0.1.0-24'] },
    ]);
  });

  it('leaves a subnet that is bound to a new Node of that name while it looks', async () => {
    hold('a', 0);
    await reconcile('a', signal);
    await clock.advance(QUARANTINE_MS);
    world.afterGet = () => {
      const [subnet] = world.subnets.values();
      if (subnet === undefined) throw new Error('the subnet has gone');
      const rebound = { ...subnet, metadata: { ...subnet.metadata, resourceVersion: 'rebound' } };
      world.subnets.set(subnet.metadata.name, rebound);
      world.knownNodes.add('a');
    };
    await reconcile('a', signal);
    expect(deletes()).toEqual(['delete 10.0.1.0-24']);
    expect(world.subnets.size).toBe(1);
  });
});
