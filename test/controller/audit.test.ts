import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createAudit, type Audit } from '../../src/controller/audit.ts';
import { indexedAllocation } from '../../src/controller/allocation-index.ts';
import type { Book, Finding, Invariant } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';
import { allocation, nodeSubnet, pool } from './objects.ts';

const EVERY_MS = 60_000;
const GRACE_MS = 120_000;
const QUARANTINE_MS = 300_000;

const pods = pool('pods', ['10.0.0.0/24'], { prefixLength: 28 });
const subnet = nodeSubnet(pods, '10.0.0.0/28', 'a');
const node = {
  name: 'a',
  uid: 'uid-of-a',
  labels: {},
  addresses: [parseAddress('192.0.2.1')],
  isReady: true,
};
/** Its status is left out: NoStatus is a finding, too. */
const withStray: Book = {
  pools: [pods],
  subnets: [subnet],
  nodes: [node],
  allocations: [indexedAllocation(allocation(pods, '10.0.0.200', 'a'))],
  serviceCIDRs: [],
  unreadable: [],
};

let clock: FakeClock;
let book: Book | undefined;
let audit: Audit;
let changed: string[];
let found: Finding[];
let counts: ReadonlyMap<Invariant, number> | undefined;
let stop: AbortController;
let running: Promise<void>;
let errors: string[];

beforeEach(() => {
  clock = createFakeClock();
  book = withStray;
  changed = [];
  found = [];
  counts = undefined;
  errors = [];
  stop = new AbortController();
  audit = createAudit({
    book: () => book,
    clock,
    everyMs: EVERY_MS,
    graceMs: GRACE_MS,
    quarantineMs: QUARANTINE_MS,
    onChange: (name) => changed.push(name),
    onFound: (finding) => found.push(finding),
    onFindings: (now) => (counts = now),
    log: { info: () => undefined, warn: () => undefined, error: (_facts, message) => errors.push(message) },
  });
  running = audit.run(stop.signal);
});

afterEach(async () => {
  stop.abort(new Error('the test has ended'));
  await running;
});

const reasons = () => audit.findingsOf('pods')?.map(({ reason }) => reason);

describe('the audit', () => {
  it('says nothing before it has looked for as long as the grace, then what it found, once', async () => {
    await clock.advance(EVERY_MS + GRACE_MS - 1);
    expect(reasons()).toBeUndefined();
    expect(counts).toBeUndefined();
    await clock.advance(EVERY_MS);
    expect(reasons()).toEqual(['OutsideSubnets', 'NoStatus']);
    expect(counts?.get(5)).toBe(1);
    expect(counts?.get(7)).toBe(0);
    await clock.advance(10 * EVERY_MS);
    expect(found.map(({ reason }) => reason)).toEqual(['OutsideSubnets', 'NoStatus']);
    expect(changed).toEqual(['pods']);
  });

  it('takes back what is no longer so', async () => {
    await clock.advance(EVERY_MS + GRACE_MS);
    changed = [];
    book = { ...withStray, allocations: [] };
    await clock.advance(EVERY_MS);
    expect(reasons()).toEqual(['NoStatus']);
    expect(counts?.get(5)).toBe(0);
    expect(changed).toEqual(['pods']);
  });

  it('tells every pool once that it has looked, also those without a finding', async () => {
    const { metadata, spec } = pool('quiet', ['10.1.0.0/24']);
    book = { ...withStray, pools: [pods, { metadata, spec, status: undefined }] };
    await clock.advance(EVERY_MS + GRACE_MS);
    expect(changed).toEqual(['pods', 'quiet']);
  });

  it('counts for every pool what belongs to none that is there, while it is so', async () => {
    const quiet = pool('quiet', ['10.1.0.0/24'], { prefixLength: 28 });
    const unreadable = [{ object: { kind: 'NodeSubnet', name: '10.0.0.0-4' }, problem: 'none' } as const];
    const gone = pool('gone', ['10.2.0.0/24']);
    const stray = indexedAllocation(allocation(gone, '10.2.0.1', 'b', { holder: 'printer' }));
    const subnets = [subnet, nodeSubnet(quiet, '10.1.0.0/28', 'a')];
    book = { ...withStray, pools: [pods, quiet], subnets, allocations: [stray], unreadable };
    await clock.advance(EVERY_MS + GRACE_MS);
    expect(reasons()).toEqual(['Unreadable', 'PoolGone', 'NoStatus']);
    expect(audit.findingsOf('quiet')?.map(({ reason }) => reason)).toEqual([
      'Unreadable',
      'PoolGone',
      'NoStatus',
    ]);
    changed = [];
    book = { ...book, unreadable: [] };
    await clock.advance(EVERY_MS);
    expect(changed).toEqual(['pods', 'quiet']);
    expect(reasons()).toEqual(['PoolGone', 'NoStatus']);
  });

  it('does not judge while its caches may be behind', async () => {
    await clock.advance(EVERY_MS);
    book = undefined;
    await clock.advance(10 * GRACE_MS);
    expect(reasons()).toBeUndefined();
    book = withStray;
    await clock.advance(EVERY_MS);
    expect(reasons()).toEqual(['OutsideSubnets', 'NoStatus']);
  });

  it('leaves what gone nodes hold to the clean-up, for two quarantines', async () => {
    book = { ...withStray, allocations: [indexedAllocation(allocation(pods, '10.0.0.5', 'gone'))] };
    await clock.advance(EVERY_MS + GRACE_MS + 2 * QUARANTINE_MS - EVERY_MS);
    expect(reasons()).toEqual(['NoStatus']);
    await clock.advance(EVERY_MS);
    expect(reasons()).toEqual(['NodeGone', 'NoStatus']);
  });

  it('goes on after a failure', async () => {
    book = new Proxy(withStray, {
      get() {
        throw new Error('a mistake of ours');
      },
    });
    await clock.advance(EVERY_MS);
    expect(errors).toEqual(['the audit failed: trying again']);
    book = withStray;
    await clock.advance(EVERY_MS + GRACE_MS);
    expect(reasons()).toEqual(['OutsideSubnets', 'NoStatus']);
  });
});
