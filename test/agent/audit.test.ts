import { afterEach, beforeEach, expect, test } from 'vitest';
import { auditNode } from '../../src/agent/audit.ts';
import { allocationName, type IPAllocation } from '../../src/api/index.ts';
import { SNAPSHOT_FORMAT, type Finding, type Invariant, type NodeSnapshot } from '../../src/ipam/index.ts';
import type { ConditionState } from '../../src/kube/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createFakeClock, type FakeClock } from '../ipam/fake-clock.ts';
import { allocationOf, attachmentOf } from '../ipam/objects.ts';

const GRACE_MS = 120_000;
const EVERY_MS = 60_000;

/** A sandbox of node n1 with one address, and its IPAllocation. */
const address = parseAddress('10.0.0.5');
const its = allocationOf('10.0.0.5', { nodeName: 'n1', attachment: attachmentOf('c1') });

let clock: FakeClock;
let snapshot: NodeSnapshot;
/** This node's, and all. */
let own: Map<string, IPAllocation>;
let stored: Map<string, IPAllocation>;
let isLiving: boolean;
let found: Finding[];
let looks: ReadonlyMap<Invariant, number>[];
let told: ConditionState[];
let errors: string[];
let failsToTell: boolean;
let stop: AbortController;
let running: Promise<void>;

beforeEach(() => {
  clock = createFakeClock();
  snapshot = {
    format: SNAPSHOT_FORMAT,
    nodeName: 'n1',
    nodeUID: 'uid-n1',
    bootID: 'boot',
    takenAt: '2026-01-01T00:00:00Z',
    sandboxes: [{ network: 'weft', containerID: 'c1', ifName: 'eth0', link: 'weft1', addresses: [address] }],
    inFlight: [],
    namespaces: [],
    strays: [],
    kernel: { missing: [], extra: [], diverting: [] },
  };
  own = new Map([[allocationName(address), its]]);
  stored = new Map(own);
  isLiving = true;
  [found, looks, told, errors, failsToTell] = [[], [], [], [], false];
  stop = new AbortController();
  running = auditNode(
    {
      snapshot: () => Promise.resolve(snapshot),
      allocations: {
        has: (name) => own.has(name),
        keys: () => own.keys(),
        get: (name) => own.get(name),
        values: () => own.values(),
        get size() {
          return own.size;
        },
        isLiving: () => isLiving,
      },
      store: { get: (name) => Promise.resolve(stored.get(name)) },
      graceMs: GRACE_MS,
      everyMs: EVERY_MS,
      clock,
      random: () => 0.5,
      onFound: (finding) => found.push(finding),
      onLook: (counts) => looks.push(counts),
      tell(condition) {
        if (failsToTell) return Promise.reject(new Error('no answer'));
        told.push(condition);
        return Promise.resolve();
      },
      log: {
        info: () => undefined,
        warn: () => undefined,
        error: (_, message) => errors.push(message),
      },
    },
    stop.signal,
  );
});

afterEach(async () => {
  stop.abort(new Error('the test has ended'));
  await running;
});

const lookFor = (ms: number) => clock.advance(ms);
const reasons = () => found.map(({ reason }) => reason);

test('says that all is well, but not before it could have seen the contrary for long enough', async () => {
  await lookFor(GRACE_MS);
  expect([told, looks]).toEqual([[], []]);
  await lookFor(2 * EVERY_MS);
  expect(told.at(-1)).toMatchObject({ status: 'True', reason: 'NothingFound' });
  expect(looks.at(-1)?.get(10)).toBe(0);
  expect(found).toEqual([]);
});

test('tells once of what has stood for the grace, counts it, and takes it back when it is mended', async () => {
  own.clear();
  stored.clear();
  await lookFor(GRACE_MS);
  expect(found).toEqual([]);
  await lookFor(4 * EVERY_MS);
  expect(reasons()).toEqual(['NoAllocation']);
  expect(looks.at(-1)?.get(2)).toBe(1);
  expect(told.at(-1)).toEqual({ status: 'False', reason: 'NoAllocation', message: found[0]?.message });
  own.set(allocationName(address), its);
  await lookFor(2 * EVERY_MS);
  expect(told.at(-1)?.status).toBe('True');
  expect(looks.at(-1)?.get(2)).toBe(0);
});

test('waits the grace with what comes later, too', async () => {
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  own.clear();
  stored.clear();
  await lookFor(GRACE_MS);
  expect(found).toEqual([]);
  await lookFor(2 * EVERY_MS);
  expect(reasons()).toEqual(['NoAllocation']);
});

test("asks whose an address is that is not this node's by the book", async () => {
  own.clear();
  stored.set(allocationName(address), allocationOf('10.0.0.5', { holder: 'somebody' }));
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(reasons()).toEqual(['AddressOfAnother']);
  expect(found[0]?.message).toContain('holder "somebody"');
});

test('asks whose an address is that a namespace has and nothing tells of', async () => {
  snapshot = { ...snapshot, strays: [{ address: parseAddress('10.0.0.9'), path: '/run/netns/b' }] };
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(reasons()).toEqual(['NoAllocation']);
  stored.set('10.0.0.9', allocationOf('10.0.0.9', { nodeName: 'another', holder: 'somebody' }));
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(reasons()).toEqual(['NoAllocation', 'AddressOfAnother']);
  expect(found[1]?.message).toMatch(
    /namespace \/run\/netns\/b .* 10\.0\.0\.9, which by the book belongs to .*somebody/,
  );
});

test.each([
  ['an IPAllocation without a sandbox', () => (snapshot = { ...snapshot, sandboxes: [] }), 'NoSandbox'],
  [
    'what the kernel lacks',
    () => (snapshot = { ...snapshot, kernel: { missing: ['table inet weft'], extra: [], diverting: [] } }),
    'KernelDiffers',
  ],
  [
    'what a pod has taken away',
    () =>
      (snapshot = {
        ...snapshot,
        sandboxes: snapshot.sandboxes.map((one) => ({ ...one, addressesInPod: [] })),
      }),
    'AddressMissingInPod',
  ],
])('finds %s', async (_, spoil, reason) => {
  spoil();
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(reasons()).toEqual([reason]);
});

test('leaves alone what does not stay, and what an ADD or DEL is about', async () => {
  for (let i = 0; i < 5; i++) {
    own.clear();
    stored.clear();
    await lookFor(1.2 * EVERY_MS);
    own.set(allocationName(address), its);
    await lookFor(1.2 * EVERY_MS);
  }
  own.clear();
  snapshot = { ...snapshot, inFlight: ['c1/eth0'] };
  await lookFor(GRACE_MS + 5 * EVERY_MS);
  expect(found).toEqual([]);
});

test('judges nothing while its watch does not live, and lets stand what it has said', async () => {
  own.clear();
  stored.clear();
  isLiving = false;
  await lookFor(GRACE_MS + 5 * EVERY_MS);
  expect([found, told]).toEqual([[], []]);
  isLiving = true;
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(told.at(-1)?.status).toBe('False');
  const lines = told.length;
  isLiving = false;
  own.set(allocationName(address), its);
  await lookFor(5 * EVERY_MS);
  expect(told).toHaveLength(lines);
});

test('goes on where its condition cannot be written', async () => {
  failsToTell = true;
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(errors.length).toBeGreaterThan(0);
  failsToTell = false;
  await lookFor(2 * EVERY_MS);
  expect(told.at(-1)?.status).toBe('True');
});

test('a condition names a few of many findings', async () => {
  snapshot = {
    ...snapshot,
    sandboxes: snapshot.sandboxes.map((one) => ({ ...one, addressesInPod: [] })),
    kernel: { missing: ['forwarding'], extra: [], diverting: [] },
  };
  for (let i = 10; i < 16; i++) {
    const one = allocationOf(`10.0.0.${i}`, { nodeName: 'n1', attachment: attachmentOf(`c${i}`) });
    own.set(one.metadata.name, one);
  }
  await lookFor(GRACE_MS + 3 * EVERY_MS);
  expect(found).toHaveLength(8);
  expect(told.at(-1)?.message).toMatch(/; and 5 more: kubectl weft check$/);
});
