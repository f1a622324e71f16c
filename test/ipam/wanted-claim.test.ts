import { describe, expect, test } from 'vitest';
import type { IPAllocation, IPAllocationSpec } from '../../src/api/index.ts';
import {
  AddressTakenError,
  ClaimDeadlineError,
  SUCCESSOR_WAIT_MS,
  type ClaimRequest,
} from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createClaimingProcess, type ProcessOptions } from './claims.ts';
import { allElse } from './fake-clock.ts';
import { attachmentOf, poolOf } from './objects.ts';

const NAME = '10.0.0.9';
const address = parseAddress(NAME);
const pod = { namespace: 'shop', name: 'db-0', uid: 'u1' };
const STICKY = 'shop/db-0';

describe('a named address', () => {
  test('is created by one write and without a read, and says that it was asked for', async () => {
    const { claim, calls } = setUp();
    const [allocation] = await claim('c1');
    expect(allocation?.metadata.name).toBe(NAME);
    expect(allocation?.spec).toMatchObject({ fixed: true, pod });
    expect(calls()).toEqual(['create 10.0.0.9']);
  });

  test.each([
    [{ pod: { namespace: 'shop', name: 'web-1' } }, 'belongs to pod shop/web-1 on node n2'],
    [{}, 'belongs to container theirs on node n2'],
    [{ attachment: undefined, holder: 'printer' }, 'is held by printer'],
    [{ attachment: undefined, holder: 'sticky', sticky: 'shop/db-1' }, 'is kept for pod shop/db-1'],
  ])('that is taken is refused at once, naming the holder: %j', async (spec, holder) => {
    const { claim, take, clock, stores } = setUp();
    await take(spec);
    const startedMs = clock.nowMs();
    const claiming = claim('c1');
    await expect(claiming).rejects.toThrow(AddressTakenError);
    await expect(claiming).rejects.toThrow(`10.0.0.9, which this pod is to have, ${holder}`);
    expect(clock.nowMs()).toBe(startedMs);
    expect([...stores.stored.IPAllocation.keys()]).toEqual([NAME]);
  });

  test('of an earlier sandbox of the pod is waited for', async () => {
    const { claim, take, clock, stores } = setUp();
    await take({ pod: { ...pod, uid: 'u0' } });
    const claiming = claim('c1');
    await clock.advance(SUCCESSOR_WAIT_MS - 500);
    stores.deleteByHand('IPAllocation', NAME);
    const [allocation] = await clock.until(claiming);
    expect(allocation?.spec.attachment?.containerID).toBe('c1');
  });

  test('of an earlier sandbox that does not let it go is refused after a while', async () => {
    const { claim, take, clock } = setUp();
    await take({ pod: { ...pod, uid: 'u0' } });
    const startedMs = clock.nowMs();
    await expect(clock.until(claim('c1'))).rejects.toThrow('belongs to pod shop/db-0 on node n2');
    const tookMs = clock.nowMs() - startedMs;
    expect(tookMs).toBeGreaterThanOrEqual(SUCCESSOR_WAIT_MS);
    expect(tookMs).toBeLessThan(SUCCESSOR_WAIT_MS + 1_000);
  });

  test('whose create was committed without an answer is found to be ours', async () => {
    let lost = 0;
    const { claim, clock, stores } = setUp({
      fault: ({ verb }) => (verb === 'create' && ++lost === 1 ? 'lose' : 'none'),
    });
    const [allocation] = await clock.until(claim('c1'));
    expect(allocation?.metadata.uid).toBe(stores.stored.IPAllocation.get(NAME)?.metadata.uid);
  });

  test('that an earlier ADD of this sandbox left is released first, and claimed anew', async () => {
    const { claim, clock, take, stores } = setUp();
    const earlier = await take({ attachment: attachmentOf('c1'), pod, nodeName: 'n1', fixed: true });
    const [allocation] = await clock.until(claim('c1'));
    expect(allocation?.metadata.uid).not.toBe(earlier.metadata.uid);
    expect(stores.stored.IPAllocation.size).toBe(1);
  });

  test('whose create commits after everybody gave up is undone', async () => {
    let late: (() => void) | undefined;
    let isAway = true;
    const { claim, clock, stores, process } = setUp({
      fault: ({ verb }) => (verb === 'create' ? 'late' : isAway ? 'fail' : 'none'),
      later: (act) => (late ??= act),
    });
    await expect(clock.until(claim('c1'))).rejects.toThrow(ClaimDeadlineError);
    late?.();
    expect(stores.stored.IPAllocation.size).toBe(1);
    expect(process.parts.inFlight.has(NAME)).toBe(true);
    isAway = false;
    await clock.until(process.releases.settled());
    expect(stores.stored.IPAllocation.size).toBe(0);
    expect(process.parts.inFlight.has(NAME)).toBe(false);
  });
});

describe('a kept address', () => {
  test('is bound to the sandbox by one update', async () => {
    const { claimKept, keep, calls, stores } = setUp();
    const kept = await keep();
    const [allocation] = await claimKept('c1', kept);
    expect(calls()).toEqual(['update 10.0.0.9']);
    expect(allocation?.metadata.uid).toBe(kept.metadata.uid);
    expect(allocation?.spec).toMatchObject({
      nodeName: 'n1',
      attachment: attachmentOf('c1'),
      pod,
      sticky: STICKY,
    });
    expect(allocation?.spec.holder).toBeUndefined();
    expect(stores.stored.IPAllocation.get(NAME)?.spec).toEqual(allocation?.spec);
  });

  test('whose update was committed without an answer is found to be ours', async () => {
    let lost = 0;
    const { claimKept, keep, clock } = setUp({
      fault: ({ verb }) => (verb === 'update' && ++lost === 2 ? 'lose' : 'none'),
    });
    const kept = await keep();
    const [allocation] = await clock.until(claimKept('c1', kept));
    expect(allocation?.spec.attachment?.containerID).toBe('c1');
    expect(lost).toBe(2);
  });

  test('that somebody else has bound meanwhile is waited for, and not taken', async () => {
    const { claimKept, keep, clock, stores } = setUp();
    const kept = await keep();
    await stores.allocations.bind(kept, { nodeName: 'n2', attachment: attachmentOf('theirs'), pod });
    await expect(clock.until(claimKept('c1', kept))).rejects.toThrow('belongs to pod shop/db-0 on node n2');
    expect(stores.stored.IPAllocation.get(NAME)?.spec.nodeName).toBe('n2');
  });

  test('that this very sandbox had in an earlier ADD is emptied first: a late release would empty the new one', async () => {
    const { claimKept, keep, clock, stores, verbs } = setUp();
    const kept = await keep();
    const earlier = await stores.allocations.bind(kept, {
      nodeName: 'n1',
      attachment: attachmentOf('c1'),
      pod,
    });
    if (earlier.kind !== 'done') throw new Error(earlier.kind);
    const [allocation] = await clock.until(claimKept('c1', earlier.object));
    expect(verbs().slice(-3)).toEqual(['update', 'get', 'update']);
    expect(allocation?.spec.attachment?.containerID).toBe('c1');
  });

  test('goes back to its keeper, not to everybody, when the other family fails', async () => {
    const { process, keep, stores, clock, base } = setUp();
    const kept = await keep();
    const other = parseAddress('fd00::9');
    await stores.allocations.create({ address: other, pool: 'p', holder: 'printer' });
    const claiming = process.claim('c1', {
      ...base,
      families: ['ipv4', 'ipv6'],
      sticky: STICKY,
      wanted: { ipv4: { address, kept }, ipv6: { address: other } },
    });
    await expect(clock.until(claiming)).rejects.toThrow('is held by printer');
    await process.releases.settled();
    expect(stores.stored.IPAllocation.get(NAME)?.spec).toMatchObject({ holder: 'sticky', sticky: STICKY });
  });
});

test('what is drawn for a pod that keeps its addresses is kept for it', async () => {
  const { process, base } = setUp();
  const [allocation] = await process.claim('c1', { ...base, sticky: STICKY });
  expect(allocation?.spec).toMatchObject({ sticky: STICKY });
  expect(allocation?.spec.fixed).toBeUndefined();
});

test('an address that another claim of the process is busy with is waited for', async () => {
  const { process, claim, clock } = setUp();
  process.parts.inFlight.add(NAME);
  const claiming = claim('c1');
  await clock.advance(1_000);
  process.parts.inFlight.delete(NAME);
  expect((await clock.until(claiming)).map(({ metadata }) => metadata.name)).toEqual([NAME]);
  await allElse();
  expect(process.parts.inFlight.has(NAME)).toBe(false);
});

function setUp(options: ProcessOptions = {}) {
  const process = createClaimingProcess({ pool: poolOf('p', { cidrs: ['10.0.0.0/16'] }), ...options });
  const { stores, clock } = process;
  const base: Partial<ClaimRequest> = { pod, families: ['ipv4'] };
  /** How many calls there were before those that count. */
  let keptAt = 0;
  const verbs = () => stores.calls.map(({ verb }) => verb);
  return {
    process,
    stores,
    clock,
    base,
    verbs,
    calls: () => stores.calls.slice(keptAt).map(({ verb, name }) => `${verb} ${name}`),
    claim: (containerID: string) => process.claim(containerID, { ...base, wanted: { ipv4: { address } } }),
    claimKept: (containerID: string, kept: IPAllocation) =>
      process.claim(containerID, { ...base, sticky: STICKY, wanted: { ipv4: { address, kept } } }),
    async take(spec: Partial<{ [K in keyof IPAllocationSpec]: IPAllocationSpec[K] | undefined }>) {
      const { attachment = attachmentOf('theirs'), ...rest } = spec;
      const held = rest.holder === undefined ? { attachment } : {};
      const whole = { address, pool: 'p', nodeName: 'n2', ...held, ...rest } as IPAllocationSpec;
      const outcome = await stores.allocations.create(whole);
      if (outcome.kind === 'taken') throw new Error('it is taken');
      return outcome.object;
    },
    /** The address, kept for the pod; what that took does not count. */
    async keep(): Promise<IPAllocation> {
      const spec = { address, pool: 'p', attachment: attachmentOf('before'), pod, sticky: STICKY };
      const outcome = await stores.allocations.create(spec);
      if (outcome.kind === 'taken') throw new Error('it is taken');
      await stores.allocations.empty(outcome.object);
      const kept = stores.stored.IPAllocation.get(NAME);
      if (kept === undefined) throw new Error('it is gone');
      keptAt = stores.calls.length;
      return kept;
    },
  };
}
