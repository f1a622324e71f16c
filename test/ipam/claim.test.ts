import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { IPAllocation } from '../../src/api/index.ts';
import { ClaimDeadlineError, PoolExhaustedError } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createFakeStores, type FakeCall, type Fault } from '../contract/fake-stores.ts';
import { createClaimingProcess } from './claims.ts';
import { allElse, createFakeClock } from './fake-clock.ts';
import { attachmentOf, poolOf } from './objects.ts';

const dualStack = poolOf('p', { cidrs: ['10.0.0.0/16', 'fd00::/48'] });
const both = ['10.0.0.0/30', 'fd00::/126'];

describe('when nothing goes wrong', () => {
  test('a claim is one write per address and no read', async () => {
    const process = createClaimingProcess({ pool: dualStack, subnets: both });
    const claimed = await process.claim('c1');
    expect(claimed.map(({ metadata }) => metadata.name)).toEqual([
      '10.0.0.1',
      'fd00-0000-0000-0000-0000-0000-0000-0001',
    ]);
    expect(process.stores.calls.map(({ verb }) => verb)).toEqual(['create', 'create']);
    expect(process.told).toEqual(['created', 'created']);
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('both families are on their way before either has answered', async () => {
    const answers: (() => void)[] = [];
    const process = createClaimingProcess({
      pool: dualStack,
      subnets: both,
      fault: () =>
        new Promise((resolve) =>
          answers.push(() => {
            resolve('none');
          }),
        ),
    });
    const claim = process.claim('c1');
    await allElse();
    expect(process.stores.calls).toHaveLength(2);
    for (const answer of answers) answer();
    expect(await claim).toHaveLength(2);
  });

  test('the object says who has the address', async () => {
    const pod = { namespace: 'ns', name: 'web-0', uid: 'u1' };
    const process = createClaimingProcess();
    const [claimed] = await process.claim('c1', { pod });
    expect(claimed?.spec).toEqual({
      address: parseAddress('10.0.0.1'),
      pool: 'p',
      nodeName: 'n1',
      attachment: attachmentOf('c1'),
      pod,
    });
  });

  test('a container that comes again gets the next address, not its last', async () => {
    const process = createClaimingProcess();
    const [first] = await process.claim('c1');
    if (first === undefined) throw new Error('claimed');
    await process.releases.release(first, { reuseDelayMs: 0 });
    const [second] = await process.claim('c2');
    expect(second?.metadata.name).toBe('10.0.0.2');
  });

  test('addresses that another source calls used are not tried', async () => {
    const process = createClaimingProcess();
    const [claimed] = await process.claim('c1', { alsoInUse: new Set(['10.0.0.1', '10.0.0.2']) });
    expect(claimed?.metadata.name).toBe('10.0.0.3');
    expect(process.stores.calls).toHaveLength(1);
  });
});

describe('a name that is taken', () => {
  test('moves the claim on, and is remembered until the cache shows it', async () => {
    const stores = createFakeStores();
    const process = createClaimingProcess({ stores, isBlind: true });
    const stranger = { address: parseAddress('10.0.0.1'), pool: 'p', holder: 'a printer' };
    await stores.allocations.create(stranger);
    const [first] = await process.claim('c1');
    expect(first?.metadata.name).toBe('10.0.0.2');
    expect(process.told).toEqual(['taken', 'created']);
    expect(process.parts.taken.has('10.0.0.1')).toBe(true);
    // Another claim that stands before it does not run into it again.
    for (const name of ['10.0.0.0', '10.0.0.63']) process.parts.taken.remember(name);
    expect(stores.calls.filter(({ name }) => name === '10.0.0.1')).toHaveLength(2);
    const [held] = stores.stored.IPAllocation.values();
    if (held === undefined) throw new Error('created above');
    process.cache.set(held.metadata.name, held);
    await process.claim('c2');
    expect(process.parts.taken.has('10.0.0.1')).toBe(false);
  });

  test('is tried again after a while, since no cache tells when another node lets it go', async () => {
    const process = createClaimingProcess({ isBlind: true, subnets: ['10.0.0.0/30'] });
    await process.stores.allocations.create({ address: parseAddress('10.0.0.1'), pool: 'p', holder: 'x' });
    await process.claim('c1');
    await process.claim('c2');
    await expect(process.claim('c3')).rejects.toThrow(PoolExhaustedError);
    process.stores.deleteByHand('IPAllocation', '10.0.0.1');
    await expect(process.claim('c3')).rejects.toThrow(PoolExhaustedError);
    await process.clock.advance(60_000);
    expect((await process.claim('c3'))[0]?.metadata.name).toBe('10.0.0.1');
  });

  test('by an older object of the same attachment is not ours: this claim did not send it', async () => {
    const process = createClaimingProcess({ isBlind: true });
    await process.stores.allocations.create({
      address: parseAddress('10.0.0.1'),
      pool: 'p',
      nodeName: 'n1',
      attachment: attachmentOf('c1'),
    });
    expect((await process.claim('c1'))[0]?.metadata.name).toBe('10.0.0.2');
  });
});

describe('the answer of a create is lost', () => {
  test('the same name is tried again, and found to be ours: one object, no second address', async () => {
    const process = createClaimingProcess({ fault: once('lose') });
    const [claimed] = await process.clock.until(process.claim('c1'));
    expect(claimed?.metadata.name).toBe('10.0.0.1');
    expect(process.stores.calls.map(({ verb, name }) => `${verb} ${name}`)).toEqual([
      'create 10.0.0.1',
      'create 10.0.0.1',
      'get 10.0.0.1',
    ]);
    expect([...process.stores.stored.IPAllocation.values()]).toEqual([claimed]);
    expect(process.told).toEqual(['retried', 'created']);
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('and somebody else has the name: the next one', async () => {
    const stores = createFakeStores({ fault: once('fail') });
    const process = createClaimingProcess({ stores, isBlind: true });
    const claim = process.claim('c1');
    await allElse();
    await stores.allocations.create({ address: parseAddress('10.0.0.1'), pool: 'p', holder: 'x' });
    expect((await process.clock.until(claim))[0]?.metadata.name).toBe('10.0.0.2');
  });

  test('and our own object is being released already: the next one', async () => {
    const stores = createFakeStores({ fault: once('lose') });
    const process = createClaimingProcess({ stores, isBlind: true });
    const claim = process.claim('c1');
    await allElse();
    const ours = stores.stored.IPAllocation.get('10.0.0.1');
    if (ours === undefined) throw new Error('it was committed');
    await stores.allocations.markReleased(ours, new Date());
    expect((await process.clock.until(claim))[0]?.metadata.name).toBe('10.0.0.2');
  });

  test('and the object has gone meanwhile: the same name again', async () => {
    const lost = once('lose');
    const stores = createFakeStores({
      fault: (call) => {
        // Between our second create and the GET somebody deletes it.
        if (call.verb === 'get') stores.deleteByHand('IPAllocation', call.name);
        return lost(call);
      },
    });
    const process = createClaimingProcess({ stores, isBlind: true });
    const claim = process.claim('c1');
    expect((await process.clock.until(claim))[0]?.metadata.name).toBe('10.0.0.1');
    expect(stores.stored.IPAllocation.size).toBe(1);
  });
});

describe('giving up', () => {
  test('at the deadline: the same name all the time, then the failure that was last, and the name is undone', async () => {
    let isAway = true;
    const process = createClaimingProcess({ fault: () => (isAway ? 'lose' : 'none') });
    const claim = process.claim('c1');
    const failure = await process.clock.until(claim.catch((error: unknown) => error));
    expect(failure).toBeInstanceOf(ClaimDeadlineError);
    expect(String(failure)).toMatch(/within 45000 ms: the last failure was: lose: \w+ IPAllocation 10.0.0.1/);
    expect(new Set(process.stores.calls.map(({ name }) => name))).toEqual(new Set(['10.0.0.1']));
    expect(new Set(process.told)).toEqual(new Set(['retried']));
    // It was committed, so it must go; until that is certain no other claim tries the name.
    expect(process.stores.stored.IPAllocation.size).toBe(1);
    expect([...process.parts.inFlight]).toEqual(['10.0.0.1']);
    isAway = false;
    await process.clock.until(process.releases.settled());
    expect(process.stores.stored.IPAllocation.size).toBe(0);
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('because the caller has gone, during the create', async () => {
    const gone = new AbortController();
    const process = createClaimingProcess({
      fault: ({ verb }) => {
        if (verb === 'create') gone.abort(new Error('the runtime hung up'));
        return 'none';
      },
    });
    await expect(process.claim('c1', { signal: gone.signal })).rejects.toThrow('the runtime hung up');
    await process.clock.until(process.releases.settled());
    expect(process.stores.stored.IPAllocation.size).toBe(0);
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('because the caller has gone just when the create was answered', async () => {
    const gone = new AbortController();
    const process = createClaimingProcess();
    process.stores.onChange(({ type }) => {
      if (type === 'ADDED') gone.abort(new Error('the runtime hung up'));
    });
    await expect(process.claim('c1', { signal: gone.signal })).rejects.toThrow('the runtime hung up');
    await process.clock.until(process.releases.settled());
    expect(process.stores.stored.IPAllocation.size).toBe(0);
  });

  test('before anything was sent nothing is undone', async () => {
    const process = createClaimingProcess();
    const signal = AbortSignal.abort(new Error('too late'));
    await expect(process.claim('c1', { signal })).rejects.toThrow('too late');
    expect(process.stores.calls).toEqual([]);
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('a create that commits after all, later, is still undone', async () => {
    const clock = createFakeClock();
    let isAway = true;
    const process = createClaimingProcess({
      clock,
      fault: () => (isAway ? 'late' : 'none'),
      later: (act) => void clock.sleep(1_000).then(act),
    });
    const failure = process.claim('c1', { deadlineMs: 100 }).catch((error: unknown) => error);
    await clock.advance(100);
    expect(await failure).toBeInstanceOf(ClaimDeadlineError);
    isAway = false;
    await clock.advance(5_000);
    expect(process.stores.calls.some(({ verb }) => verb === 'delete')).toBe(true);
    expect(process.stores.stored.IPAllocation.size).toBe(0);
  });
});

describe('two families', () => {
  test('if one is exhausted nothing is written', async () => {
    const process = createClaimingProcess({ pool: dualStack, subnets: ['10.0.0.0/30'] });
    await expect(process.claim('c1')).rejects.toMatchObject({ name: 'PoolExhaustedError', family: 'ipv6' });
    expect(process.stores.calls).toEqual([]);
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('if one turns out to be exhausted the other is deleted, without a rest', async () => {
    const process = createClaimingProcess({ pool: dualStack, subnets: both, isBlind: true });
    for (const address of ['fd00::1', 'fd00::2', 'fd00::3']) {
      await process.stores.allocations.create({ address: parseAddress(address), pool: 'p', holder: 'x' });
    }
    await expect(process.claim('c1')).rejects.toThrow(/no free ipv6 address/);
    await process.clock.until(process.releases.settled());
    expect([...process.stores.stored.IPAllocation.keys()].filter((name) => name.startsWith('10.'))).toEqual(
      [],
    );
    expect(process.releases.pending()).toEqual({ releasing: 0, resting: 0, undoing: 0 });
    expect(process.parts.inFlight.size).toBe(0);
  });

  test('only those that are asked for are claimed', async () => {
    const process = createClaimingProcess({ pool: dualStack, subnets: both });
    const claimed = await process.claim('c1', { families: ['ipv6'] });
    expect(claimed.map(({ spec }) => spec.address.family)).toEqual(['ipv6']);
  });
});

describe('exhaustion', () => {
  test('says what was searched, what is used, what rests and when that ends', async () => {
    const process = createClaimingProcess({ subnets: ['10.0.0.0/30'] });
    const [first] = await process.claim('c1');
    await process.claim('c2');
    await process.claim('c3');
    if (first === undefined) throw new Error('claimed');
    await process.releases.release(first, { reuseDelayMs: 30_000 });
    await process.clock.advance(10_000);
    const failure = await process.claim('c4').catch((error: unknown) => error);
    expect(failure).toMatchObject({
      pool: 'p',
      family: 'ipv4',
      usable: 3n,
      inUse: 2,
      resting: 1,
      nextFreeInMs: 20_000,
    });
    expect(String(failure)).toBe(
      'PoolExhaustedError: IPPool p has no free ipv4 address on this node: of 3 usable in 10.0.0.0/30, 2 are in use ' +
        'and 1 rest after their release, the next comes free in 20 s. Add a CIDR to the pool, or wait for pods to go',
    );
    await process.clock.advance(20_000);
    expect((await process.claim('c4'))[0]?.metadata.name).toBe('10.0.0.1');
  });

  test('says when the next of that family and of those subnets comes free, not of others', async () => {
    const process = createClaimingProcess({ pool: dualStack, subnets: ['10.0.0.0/30', 'fd00::/122'] });
    const claimed = [];
    for (const container of ['c1', 'c2', 'c3']) claimed.push(await process.claim(container));
    const [sooner, later] = [claimed[0]?.[1], claimed[1]?.[0]];
    if (sooner === undefined || later === undefined) throw new Error('claimed');
    // An IPv6 address comes free first, and helps nobody who lacks an IPv4 one.
    await process.releases.release(sooner, { reuseDelayMs: 5_000 });
    await process.releases.release(later, { reuseDelayMs: 30_000 });
    await expect(process.claim('c4')).rejects.toThrow(
      '1 rest after their release, the next comes free in 30 s',
    );
  });

  test('without a subnet says that there is none', async () => {
    const process = createClaimingProcess({ subnets: [] });
    await expect(process.claim('c1')).rejects.toThrow(/the node holds no ipv4 subnet of it/);
  });
});

test('a name that another claim is busy with is not tried, though the ring comes round to it', async () => {
  const answer = Promise.withResolvers<Fault>();
  const process = createClaimingProcess({
    subnets: ['10.0.0.0/30'],
    fault: ({ name }) => (name === '10.0.0.1' ? answer.promise : 'none'),
  });
  const slow = process.claim('c1');
  await process.claim('c2');
  await process.claim('c3');
  await expect(process.claim('c4')).rejects.toThrow(PoolExhaustedError);
  expect(process.stores.calls).toHaveLength(3);
  answer.resolve('none');
  expect((await slow)[0]?.metadata.name).toBe('10.0.0.1');
});

describe('100 parallel claims into exactly that many addresses', () => {
  const pool = poolOf('p', { cidrs: ['10.0.0.0/16'], nodeSubnetPrefixLength: { ipv4: 25 } });
  // 127 usable in a /25: what is not for these claims others hold.
  const others = Array.from({ length: 27 }, (_, i) => `10.0.0.${i * 4 + 1}`);

  test.each([{ isBlind: false }, { isBlind: true }])(
    'all get one, all differ, the next is told that the pool is exhausted, and one release makes room: blind $isBlind',
    async ({ isBlind }) => {
      const process = createClaimingProcess({ pool, subnets: ['10.0.0.0/25'], isBlind });
      for (const address of others) {
        await process.stores.allocations.create({ address: parseAddress(address), pool: 'p', holder: 'x' });
      }
      const claimed = await Promise.all(Array.from({ length: 100 }, (_, i) => process.claim(`c${i}`)));
      const names = claimed.flat().map(({ metadata }) => metadata.name);
      expect(new Set(names).size).toBe(100);
      expect(process.stores.stored.IPAllocation.size).toBe(127);
      await expect(process.claim('one more')).rejects.toThrow(PoolExhaustedError);

      const one = claimed[42]?.[0];
      if (one === undefined) throw new Error('claimed');
      await process.releases.release(one, { reuseDelayMs: 30_000 });
      await expect(process.claim('one more')).rejects.toThrow(PoolExhaustedError);
      await process.clock.advance(100_000);
      const [freed] = await process.claim('one more');
      expect(freed?.metadata.name).toBe(one.metadata.name);
      expect(freed?.metadata.uid).not.toBe(one.metadata.uid);
    },
  );

  test('no two of them try the same name: each is created once', async () => {
    const process = createClaimingProcess({ pool, subnets: ['10.0.0.0/25'], isBlind: true });
    await Promise.all(Array.from({ length: 100 }, (_, i) => process.claim(`c${i}`)));
    const tried = process.stores.calls.map(({ name }) => name);
    expect(new Set(tried).size).toBe(tried.length);
  });
});

describe('under faults and any interleaving', () => {
  const anyFault = fc.constantFrom<Fault>('none', 'none', 'none', 'fail', 'lose', 'late');

  test('no address has two owners, every success is stored, and what failed leaves nothing behind', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.infiniteStream(anyFault),
        fc.integer({ min: 1, max: 9 }),
        fc.boolean(),
        fc.array(fc.nat(15), { maxLength: 4 }),
        async (scheduler, faults, count, isBlind, held) => {
          let isStormy = false;
          const clock = createFakeClock();
          const stores = createFakeStores({
            fault: scheduler.scheduleFunction(async (call: FakeCall): Promise<Fault> => {
              // Losing the answer of a GET is a failed GET: only writes are lost or late.
              const fault = isStormy ? (faults.next().value as Fault) : 'none';
              return call.verb === 'get' && fault !== 'none' ? 'fail' : fault;
            }),
          });
          for (const offset of held) {
            const address = parseAddress(`10.0.0.${offset}`);
            const create = stores.allocations.create({ address, pool: 'p', holder: 'x' });
            await scheduler.waitFor(create);
          }
          isStormy = true;
          const before = [...stores.stored.IPAllocation.keys()];
          // Two processes on one subnet: an agent, and the one before it that has not died yet.
          const processes = [0, 1].map(() =>
            createClaimingProcess({ stores, clock, isBlind, subnets: ['10.0.0.0/28'] }),
          );
          const claims = Array.from({ length: count }, async (_, i) => {
            const process = processes[i % 2];
            if (process === undefined) throw new Error('two processes');
            return process.claim(`c${i}`, { deadlineMs: 2_000 });
          });
          const results = await drive(Promise.allSettled(claims), scheduler, clock);
          isStormy = false;
          await drive(Promise.all(processes.map(({ releases }) => releases.settled())), scheduler, clock);
          await clock.advance(5_000);

          const claimed: IPAllocation[] = [];
          for (const result of results) {
            if (result.status === 'fulfilled') claimed.push(...result.value);
            else
              expect(['ClaimDeadlineError', 'PoolExhaustedError']).toContain((result.reason as Error).name);
          }
          const names = claimed.map(({ metadata }) => metadata.name);
          expect(new Set(names).size).toBe(names.length);
          for (const allocation of claimed) {
            const stored = stores.stored.IPAllocation.get(allocation.metadata.name);
            expect(stored?.metadata.uid).toBe(allocation.metadata.uid);
            expect(stored?.spec.attachment).toEqual(allocation.spec.attachment);
          }
          expect([...stores.stored.IPAllocation.keys()].toSorted()).toEqual([...before, ...names].toSorted());
          for (const { parts } of processes) expect(parts.inFlight.size).toBe(0);
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);
});

/** Lets the scheduler choose who goes next, and time pass when nobody can. */
async function drive<T>(
  work: Promise<T>,
  scheduler: fc.Scheduler,
  clock: { advance(ms: number): Promise<void> },
): Promise<T> {
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
  return work;
}

function once(fault: Fault): (call: FakeCall) => Fault {
  let isFirst = true;
  return () => {
    if (!isFirst) return 'none';
    isFirst = false;
    return fault;
  };
}
