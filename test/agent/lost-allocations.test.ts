import { expect, describe, test } from 'vitest';
import type { IPAllocation } from '../../src/api/index.ts';
import { createLostAllocations } from '../../src/agent/lost-allocations.ts';
import { allocationOf, attachmentOf, RELEASED } from '../ipam/objects.ts';

const NAME = '10.0.0.5';
const netns = { path: '/run/netns/cni-1', inode: 42, bootID: 'boot' };
const addressOnly = attachmentOf('c1', { kind: 'AddressOnly', netns });
const ours = allocationOf(NAME, { attachment: addressOnly });
const another = withUID(allocationOf(NAME, { attachment: attachmentOf('c2') }), 'another');
const again = withUID(ours, 'again');

describe('an object that vanishes', () => {
  test('leaves its address in use, and says what is to be made again', () => {
    const { lost } = setUp();
    lost.changed(ours, undefined);
    expect([lost.has(NAME), [...lost.keys()]]).toEqual([true, [NAME]]);
    expect(lost.addresses()).toEqual([ours.spec.address]);
    expect(lost.specs()).toEqual([ours.spec]);
    expect(lost.specs({ containerID: 'c2', ifName: 'eth0' })).toEqual([]);
    expect([lost.isLost(ours.spec), lost.isLost(another.spec)]).toEqual([true, false]);
  });

  test.each<[string, IPAllocation, IPAllocation | undefined]>([
    ['of an interface of weft', allocationOf(NAME, { attachment: attachmentOf('c1') }), undefined],
    ['that was held', allocationOf(NAME, { holder: 'printer' }), undefined],
    ['that rested', allocationOf(NAME, { attachment: addressOnly }, RELEASED), undefined],
    ['only to come back as another of the same attachment', ours, again],
    ['not at all, but changes', ours, { ...ours, status: RELEASED }],
  ])('%s is no loss', (_, before, after) => {
    const { lost } = setUp();
    lost.changed(before, after);
    expect(lost.has(NAME)).toBe(false);
  });

  test("by this agent's own doing is no loss, nor is one that cannot be read any more", () => {
    const { lost, own, there } = setUp();
    own.add(NAME);
    lost.changed(ours, undefined);
    own.clear();
    there.add(NAME);
    lost.changed(ours, undefined);
    expect(lost.has(NAME)).toBe(false);
  });

  test("is lost also where the name is another's at once, until its own is back or it is forgotten", () => {
    const { lost } = setUp();
    lost.changed(ours, another);
    expect(lost.specs()).toEqual([ours.spec]);
    lost.changed(another, undefined);
    expect(lost.specs()).toEqual([ours.spec]);
    lost.changed(undefined, again);
    expect(lost.has(NAME)).toBe(false);

    lost.changed(again, undefined);
    lost.forget(another.spec);
    expect(lost.has(NAME)).toBe(true);
    lost.forget(again.spec);
    expect(lost.has(NAME)).toBe(false);
  });
});

test('a release ends it after a rest, on its own network alone', () => {
  const { lost, clock } = setUp();
  const key = { containerID: 'c1', ifName: 'eth0' };
  lost.changed(ours, undefined);
  lost.released({ ...key, network: 'other' }, () => 0);
  expect(lost.specs()).toHaveLength(1);
  lost.released({ ...key, network: 'weft' }, () => 5_000);
  expect([lost.specs(), lost.isLost(ours.spec), lost.has(NAME)]).toEqual([[], false, true]);
  clock.nowMs = 4_999;
  lost.released({ ...key, network: 'weft' }, () => 5_000);
  expect(lost.has(NAME)).toBe(true);
  clock.nowMs = 5_000;
  expect(lost.has(NAME)).toBe(false);
});

function setUp() {
  const own = new Set<string>();
  const there = new Set<string>();
  const clock = { nowMs: 0 };
  const lost = createLostAllocations({
    isOwnDoing: ({ metadata }) => own.has(metadata.name),
    isThere: (name) => there.has(name),
    nowMs: () => clock.nowMs,
  });
  return { lost, own, there, clock };
}

function withUID(allocation: IPAllocation, uid: string): IPAllocation {
  return { ...allocation, metadata: { ...allocation.metadata, uid } };
}
