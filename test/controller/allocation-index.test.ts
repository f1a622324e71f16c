import { describe, expect, it } from 'vitest';
import { createAllocationIndex, indexedAllocation } from '../../src/controller/allocation-index.ts';
import { allocation, pool } from './objects.ts';

const pods = pool('pods', ['10.0.0.0/16']);
const named = (allocations: readonly { metadata: { name: string } }[]) =>
  allocations.map(({ metadata }) => metadata.name);

describe('the index of allocations', () => {
  it('follows each name through its pools and nodes, and forgets what is empty', () => {
    const index = createAllocationIndex();
    const onA = indexedAllocation(allocation(pods, '10.0.0.1', 'a'));
    const onB = indexedAllocation(allocation(pods, '10.0.0.1', 'b'));
    index.change(undefined, onA);
    index.change(undefined, indexedAllocation(allocation(pods, '10.0.0.2', 'b')));
    expect(named(index.ofNode('a'))).toEqual(['10.0.0.1']);
    expect(named(index.ofPool('pods')).sort()).toEqual(['10.0.0.1', '10.0.0.2']);
    index.change(onA, onB);
    expect(index.nodeNames()).toEqual(['b']);
    expect(named(index.ofNode('b')).sort()).toEqual(['10.0.0.1', '10.0.0.2']);
    index.change(onB, undefined);
    expect(named(index.ofPool('pods'))).toEqual(['10.0.0.2']);
    expect(index.poolNames()).toEqual(['pods']);
  });

  it('knows what is kept for the pods of a StatefulSet, as long as no sandbox has it', () => {
    const index = createAllocationIndex();
    const bound = allocation(pods, '10.0.0.1', 'a');
    const sticky = 'shop/db-0';
    const before = indexedAllocation({ ...bound, spec: { ...bound.spec, sticky } });
    const held = allocation(pods, '10.0.0.1', 'a', { holder: 'sticky' });
    const after = indexedAllocation({ ...held, spec: { ...held.spec, sticky } });
    index.change(undefined, before);
    expect(index.statefulSets()).toEqual([]);
    index.change(before, after);
    expect(index.statefulSets()).toEqual(['shop/db']);
    expect(named(index.keptFor('shop/db'))).toEqual(['10.0.0.1']);
    index.change(after, before);
    expect(index.keptFor('shop/db')).toEqual([]);
  });

  it('knows what is held without a node', () => {
    const index = createAllocationIndex();
    const { spec, ...printer } = allocation(pods, '10.0.0.1', 'a', { holder: 'printer' });
    const { nodeName: _, ...anywhere } = spec;
    const held = indexedAllocation({ ...printer, spec: anywhere });
    const onNode = indexedAllocation({ ...printer, spec });
    index.change(undefined, held);
    expect(named(index.withoutNode())).toEqual(['10.0.0.1']);
    index.change(held, onNode);
    expect(index.withoutNode()).toEqual([]);
  });

  it('knows what rests, and what a person holds', () => {
    const resting = allocation(pods, '10.0.0.1', 'a', { releasedAt: '2026-01-01T00:00:00Z' });
    expect(indexedAllocation(resting)).toMatchObject({
      attached: true,
      status: { releasedAt: '2026-01-01T00:00:00Z' },
    });
    expect(indexedAllocation(allocation(pods, '10.0.0.2', 'a', { holder: 'printer' })).attached).toBe(false);
  });
});
