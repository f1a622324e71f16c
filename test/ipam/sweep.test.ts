import { describe, expect, test } from 'vitest';
import type { IPAllocation } from '../../src/api/index.ts';
import {
  EMPTY_SWEEP_MEMORY,
  judgeSweep,
  type LiveAttachment,
  type NamespaceState,
  type SweepInput,
  type SweepJudgement,
} from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { allocationOf, attachmentOf, RELEASED } from './objects.ts';

const GRACE_MS = 120_000;
const netns = { path: '/run/netns/cni-1', inode: 42, bootID: 'boot' };
const ofThisBoot = attachmentOf('c1', { netns });
const ofEarlierBoot = attachmentOf('c1', { netns: { ...netns, bootID: 'earlier' } });
const addressOnly = attachmentOf('c1', { kind: 'AddressOnly', netns });

interface Row {
  readonly name: string;
  readonly allocation: IPAllocation;
  readonly links?: readonly LiveAttachment[];
  readonly namespace?: NamespaceState;
  readonly inFlight?: readonly string[];
  readonly expected: 'at once' | 'after two observations and the grace' | 'never';
}

describe('an allocation is released', () => {
  test.each<Row>([
    {
      name: 'whose link is alive',
      allocation: allocationOf('10.0.0.5'),
      links: [linkOf(['10.0.0.5'])],
      expected: 'never',
    },
    {
      name: 'without a link',
      allocation: allocationOf('10.0.0.5'),
      expected: 'after two observations and the grace',
    },
    {
      name: 'whose namespace is known to be gone, of this boot',
      allocation: allocationOf('10.0.0.5', { attachment: ofThisBoot }),
      namespace: 'dead',
      expected: 'after two observations and the grace',
    },
    {
      name: 'whose link has another address',
      allocation: allocationOf('10.0.0.5'),
      links: [linkOf(['10.0.0.6'])],
      expected: 'after two observations and the grace',
    },
    {
      name: 'whose link is half-made',
      allocation: allocationOf('10.0.0.5'),
      links: [linkOf(['10.0.0.5'], { complete: false })],
      expected: 'after two observations and the grace',
    },
    {
      name: 'whose link is that of another interface',
      allocation: allocationOf('10.0.0.5'),
      links: [linkOf(['10.0.0.5'], { ifName: 'net1' })],
      expected: 'after two observations and the grace',
    },
    {
      name: 'of an earlier boot',
      allocation: allocationOf('10.0.0.5', { attachment: ofEarlierBoot }),
      expected: 'at once',
    },
    {
      name: 'of an earlier boot, though a link of it is alive: then the record errs',
      allocation: allocationOf('10.0.0.5', { attachment: ofEarlierBoot }),
      links: [linkOf(['10.0.0.5'])],
      expected: 'never',
    },
    {
      name: 'address only, of an earlier boot',
      allocation: allocationOf('10.0.0.5', {
        attachment: attachmentOf('c1', { kind: 'AddressOnly', netns: { ...netns, bootID: 'earlier' } }),
      }),
      namespace: 'unknown',
      expected: 'at once',
    },
    {
      name: 'address only, namespace gone',
      allocation: allocationOf('10.0.0.5', { attachment: addressOnly }),
      namespace: 'dead',
      expected: 'after two observations and the grace',
    },
    {
      name: 'address only, namespace alive, no link of ours',
      allocation: allocationOf('10.0.0.5', { attachment: addressOnly }),
      namespace: 'alive',
      expected: 'never',
    },
    {
      name: 'address only, who knows',
      allocation: allocationOf('10.0.0.5', { attachment: addressOnly }),
      namespace: 'unknown',
      expected: 'never',
    },
    {
      name: 'address only, its namespace not recorded',
      allocation: allocationOf('10.0.0.5', { attachment: attachmentOf('c1', { kind: 'AddressOnly' }) }),
      namespace: 'dead',
      expected: 'never',
    },
    {
      name: 'of a held address',
      allocation: allocationOf('10.0.0.5', { holder: 'a printer' }),
      namespace: 'dead',
      expected: 'never',
    },
    { name: 'that rests', allocation: allocationOf('10.0.0.5', {}, RELEASED), expected: 'never' },
    {
      name: 'that rests, of an earlier boot',
      allocation: allocationOf('10.0.0.5', { attachment: ofEarlierBoot }, RELEASED),
      expected: 'never',
    },
    {
      name: 'with a request under way',
      allocation: allocationOf('10.0.0.5'),
      inFlight: ['c1/eth0'],
      expected: 'never',
    },
    {
      name: 'of an earlier boot with a request under way',
      allocation: allocationOf('10.0.0.5', { attachment: ofEarlierBoot }),
      inFlight: ['c1/eth0'],
      expected: 'never',
    },
  ])('$name: $expected', ({ allocation, links = [], namespace = 'unknown', inFlight = [], expected }) => {
    const seen = {
      allocations: [allocation],
      links,
      namespaceState: () => namespace,
      inFlight: new Set(inFlight),
    };
    const first = judge(seen);
    const beforeGrace = judge({ ...seen, memory: first.memory, nowMs: GRACE_MS - 1 });
    const afterGrace = judge({ ...seen, memory: beforeGrace.memory, nowMs: GRACE_MS });
    const released = [first, beforeGrace, afterGrace].map(({ release }) => release.length);
    expect(released).toEqual(
      { 'at once': [1, 1, 1], 'after two observations and the grace': [0, 0, 1], never: [0, 0, 0] }[expected],
    );
  });

  test('not by one observation, however late', () => {
    const memory = { ...EMPTY_SWEEP_MEMORY };
    expect(judge({ allocations: [allocationOf('10.0.0.5')], memory, nowMs: 10 * GRACE_MS }).release).toEqual(
      [],
    );
  });

  test('not by one observation without a grace either', () => {
    const allocations = [allocationOf('10.0.0.5')];
    const first = judge({ allocations, graceMs: 0 });
    expect(first.release).toEqual([]);
    expect(judge({ allocations, graceMs: 0, memory: first.memory }).release).toEqual(allocations);
  });

  test('not by observations with one of a living link between them: the grace begins anew', () => {
    const allocations = [allocationOf('10.0.0.5')];
    const first = judge({ allocations });
    const alive = judge({ allocations, links: [linkOf(['10.0.0.5'])], memory: first.memory, nowMs: 60_000 });
    const again = judge({ allocations, memory: alive.memory, nowMs: GRACE_MS });
    expect(again.release).toEqual([]);
    expect(judge({ allocations, memory: again.memory, nowMs: 2 * GRACE_MS }).release).toEqual(allocations);
  });

  test('not if its name has another owner meanwhile, whose grace is its own', () => {
    const first = judge({ allocations: [allocationOf('10.0.0.5')] });
    const other = allocationOf('10.0.0.5');
    const next = { ...other, metadata: { ...other.metadata, uid: 'next' } };
    expect(judge({ allocations: [next], memory: first.memory, nowMs: GRACE_MS }).release).toEqual([]);
  });

  test('each by itself: one dead among the living', () => {
    const allocations = ['10.0.0.5', '10.0.0.6', '10.0.0.7'].map((address, i) =>
      allocationOf(address, { attachment: attachmentOf(`c${i}`) }),
    );
    const links = [linkOf(['10.0.0.5'], { containerID: 'c0' }), linkOf(['10.0.0.7'], { containerID: 'c2' })];
    const first = judge({ allocations, links });
    const second = judge({ allocations, links, memory: first.memory, nowMs: GRACE_MS });
    expect(second.release).toEqual([allocations[1]]);
  });
});

describe('a link without an alias', () => {
  const links = [linkOf([], { complete: false, linkIndex: 7 })];
  test('is removed when it is older than the grace', () => {
    const first = judge({ links });
    expect(first.removeLinks).toEqual([]);
    const second = judge({ links, memory: first.memory, nowMs: GRACE_MS - 1 });
    expect(second.removeLinks).toEqual([]);
    expect(judge({ links, memory: second.memory, nowMs: GRACE_MS }).removeLinks).toEqual(links);
  });

  test('is never given an object', () => {
    expect(judge({ links: [linkOf(['10.0.0.5'], { complete: false })] })).toMatchObject({
      readopt: [],
      conflicts: [],
    });
  });

  test('that got its alias is left alone', () => {
    const first = judge({ links });
    const wired = [linkOf(['10.0.0.5'], { linkIndex: 7 })];
    expect(judge({ links: wired, memory: first.memory, nowMs: GRACE_MS }).removeLinks).toEqual([]);
  });
});

describe('a living attachment', () => {
  test('without an object gets one for each address, at the first observation', () => {
    const { readopt, conflicts } = judge({ links: [linkOf(['10.0.0.5', 'fd00::5'], { podUID: 'u1' })] });
    const base = {
      pool: 'p',
      nodeName: 'n1',
      attachment: attachmentOf('c1'),
      pod: { namespace: 'ns', name: 'web-0', uid: 'u1' },
    };
    expect(readopt).toEqual(
      ['10.0.0.5', 'fd00::5'].map((address) => ({ ...base, address: parseAddress(address) })),
    );
    expect(conflicts).toEqual([]);
  });

  test('of a pod that is not known gets one without a pod', () => {
    const { readopt } = judge({ links: [linkOf(['10.0.0.5'], { podUID: 'gone' })] });
    expect(readopt).toHaveLength(1);
    expect(readopt[0]).not.toHaveProperty('pod');
  });

  test.each([
    { name: 'another container', allocation: allocationOf('10.0.0.5', { attachment: attachmentOf('c9') }) },
    { name: 'a holder', allocation: allocationOf('10.0.0.5', { holder: 'a printer' }) },
    {
      name: 'another container, resting',
      allocation: allocationOf('10.0.0.5', { attachment: attachmentOf('c9') }, RELEASED),
    },
  ])('whose address is that of $name is a conflict, and no second claim', ({ allocation }) => {
    const links = [linkOf(['10.0.0.5'])];
    const judged = judge({ allocations: [allocation], links });
    expect(judged.conflicts).toEqual([
      { address: parseAddress('10.0.0.5'), attachment: links[0], allocation },
    ]);
    expect(judged.readopt).toEqual([]);
  });

  test('whose address lies in no pool is a conflict', () => {
    const links = [linkOf(['192.0.2.5'])];
    expect(judge({ links }).conflicts).toEqual([
      { address: parseAddress('192.0.2.5'), attachment: links[0] },
    ]);
  });

  test('whose own object rests is not given another: the name is locked still', () => {
    const judged = judge({
      allocations: [allocationOf('10.0.0.5', {}, RELEASED)],
      links: [linkOf(['10.0.0.5'])],
    });
    expect(judged).toMatchObject({ readopt: [], conflicts: [] });
  });

  test('with a request under way is not judged', () => {
    const judged = judge({ links: [linkOf(['10.0.0.5'])], inFlight: new Set(['c1/eth0']) });
    expect(judged).toMatchObject({ readopt: [], conflicts: [] });
  });
});

describe('an address under another plugin that has lost its object', () => {
  const lost = [
    allocationOf('10.0.0.5', { attachment: addressOnly, pod: { namespace: 'ns', name: 'a', uid: 'u' } }).spec,
  ];

  test.each(['alive', 'unknown'] as const)('is to have it again while its namespace is %s', (state) => {
    expect(judge({ lost, namespaceState: () => state })).toMatchObject({
      readopt: lost,
      conflicts: [],
      forget: [],
    });
  });

  test('is forgotten with its namespace, and with its boot', () => {
    expect(judge({ lost, namespaceState: () => 'dead' })).toMatchObject({ readopt: [], forget: lost });
    const rebooted = judge({ lost, namespaceState: () => 'alive', bootID: 'next' });
    expect(rebooted).toMatchObject({ readopt: [], forget: lost });
  });

  test('is forgotten when the object is back', () => {
    const allocations = [allocationOf('10.0.0.5', { attachment: addressOnly })];
    expect(judge({ lost, allocations })).toMatchObject({ readopt: [], conflicts: [], forget: lost });
  });

  test("is a conflict when the name is another's", () => {
    const allocation = allocationOf('10.0.0.5', { attachment: attachmentOf('c2') });
    const judged = judge({ lost, allocations: [allocation] });
    const attachment = { containerID: 'c1', ifName: 'eth0', network: 'weft', podUID: 'u' };
    expect(judged).toMatchObject({ readopt: [], forget: [] });
    expect(judged.conflicts).toEqual([{ address: parseAddress('10.0.0.5'), attachment, allocation }]);
  });

  test('is not judged with a request under way', () => {
    const judged = judge({ lost, namespaceState: () => 'dead', inFlight: new Set(['c1/eth0']) });
    expect(judged).toMatchObject({ readopt: [], conflicts: [], forget: [] });
  });
});

test('an empty list of allocations, with links alive, frees nothing', () => {
  const first = judge({ links: [linkOf(['10.0.0.5'])] });
  expect(judge({ links: [linkOf(['10.0.0.5'])], memory: first.memory, nowMs: GRACE_MS })).toMatchObject({
    release: [],
    removeLinks: [],
  });
});

function judge(seen: Partial<SweepInput>): SweepJudgement {
  return judgeSweep({
    allocations: [],
    links: [],
    bootID: 'boot',
    namespaceState: () => 'unknown',
    memory: EMPTY_SWEEP_MEMORY,
    nowMs: 0,
    graceMs: GRACE_MS,
    inFlight: new Set(),
    nodeName: 'n1',
    poolOf: (address) => (address.value >> 24n === 10n || address.family === 'ipv6' ? 'p' : undefined),
    podOf: (uid) => (uid === 'u1' ? { namespace: 'ns', name: 'web-0', uid } : undefined),
    ...seen,
  });
}

function linkOf(addresses: readonly string[], fields: Partial<LiveAttachment> = {}): LiveAttachment {
  return {
    containerID: 'c1',
    ifName: 'eth0',
    network: 'weft',
    addresses: addresses.map(parseAddress),
    linkIndex: 7,
    complete: true,
    ...fields,
  };
}
