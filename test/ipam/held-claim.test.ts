import { beforeEach, describe, expect, it } from 'vitest';
import type { IPAllocation } from '../../src/api/index.ts';
import {
  claimHeldAddresses,
  ClaimDeadlineError,
  heldCandidates,
  NothingFreeError,
  OutcomeUnknownError,
  SubnetGivenBackError,
  type AllocationStore,
  type HeldClaimRequest,
} from '../../src/ipam/index.ts';
import { FAMILIES, formatAddress, parseAddress } from '../../src/net/index.ts';
import { createFakeStores, InjectedError, type Fault, type FakeCall } from '../contract/fake-stores.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';
import { poolOf, subnetOf } from './objects.ts';

const pool = poolOf('p', {
  cidrs: ['10.0.0.0/30', 'fd00::/126'],
  nodeSubnetPrefixLength: { ipv4: 30, ipv6: 126 },
});

let clock: FakeClock;
beforeEach(() => {
  clock = createFakeClock();
});

describe('claimHeldAddresses', () => {
  it('creates one object of each family, for the holder, on no node, with one write each', async () => {
    const { stores, request } = requester();
    expect(await request('me')).toEqual(['10.0.0.1', 'fd00::1']);
    expect(stores.stored.IPAllocation.get('10.0.0.1')?.spec).toEqual({
      address: parseAddress('10.0.0.1'),
      pool: 'p',
      holder: 'me',
    });
    expect(stores.calls.map(({ verb }) => verb)).toEqual(['create', 'create']);
  });

  it('moves on where somebody else was first, and has one winner for the last address', async () => {
    const { stores, request } = requester();
    const results = await Promise.allSettled(['a', 'b', 'c', 'd'].map((holder) => request(holder)));
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    expect(won).toHaveLength(3);
    expect(new Set(won.flat()).size).toBe(6);
    const [lost] = results.flatMap((result) =>
      result.status === 'rejected' ? [result.reason as unknown] : [],
    );
    expect(lost).toBeInstanceOf(NothingFreeError);
    expect(stores.stored.IPAllocation.size).toBe(6);
  });

  it('leaves nothing behind where the second family has no address', async () => {
    const { stores, request } = requester();
    for (const address of ['fd00::1', 'fd00::2', 'fd00::3']) {
      await stores.allocations.create({ address: parseAddress(address), pool: 'p', holder: 'x' });
    }
    await expect(clock.until(request('me'))).rejects.toThrow(
      'IPPool p has no free ipv6 address: each is in use, rests or is reserved',
    );
    expect([...stores.stored.IPAllocation.keys()].some((name) => name.startsWith('10.'))).toBe(false);
  });

  it('knows its own object after an answer that was lost', async () => {
    const { stores, request } = requester({ create: ['lose'] });
    expect(await clock.until(request('me'))).toEqual(['10.0.0.1', 'fd00::1']);
    expect(stores.stored.IPAllocation.size).toBe(2);
  });

  it('does not take for its own what another request of the same person created meanwhile', async () => {
    const { stores, request } = requester({ create: ['fail'] });
    const first = request('me');
    await stores.allocations.create({ address: parseAddress('10.0.0.1'), pool: 'p', holder: 'me' });
    expect(await clock.until(first)).toEqual(['10.0.0.2', 'fd00::1']);
  });

  it('gives up at its deadline, and takes back what a create under way may have left', async () => {
    const { stores, request } = requester({ create: ['none', 'late', ...endless('fail')] });
    const work = request('me');
    await expect(clock.until(work)).rejects.toThrow(ClaimDeadlineError);
    expect([...stores.stored.IPAllocation.keys()]).toEqual([]);
  });

  it('says which addresses may stay where the apiserver is gone for good', async () => {
    const { request } = requester({ create: ['none', ...endless('fail')], get: endless('fail') });
    const failure = await clock.until(request('me').catch((error: unknown) => error));
    expect(failure).toBeInstanceOf(OutcomeUnknownError);
    expect((failure as OutcomeUnknownError).addresses.map(formatAddress)).toEqual(['10.0.0.1', 'fd00::1']);
    expect((failure as OutcomeUnknownError).message).toContain('10.0.0.1, fd00::1 may have been claimed');
  });

  it('does not repeat what is refused', async () => {
    const { sent, request } = requester({ create: endless('fail') }, { isRefusal: () => true });
    await expect(clock.until(request('me'))).rejects.toThrow(InjectedError);
    expect(sent).toEqual({ create: 1, get: 0, list: 0, update: 0, delete: 0 });
  });

  it('ends with the caller’s reason, and takes back what it has', async () => {
    const stop = new AbortController();
    const { stores, request } = requester({ create: ['none', ...endless('fail')] });
    const work = request('me', { signal: stop.signal });
    await clock.advance(1_000);
    stop.abort(new Error('Ctrl-C'));
    await expect(clock.until(work)).rejects.toThrow('Ctrl-C');
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  it('does not believe at once that a create which was cut has done nothing', async () => {
    const stop = new AbortController();
    const { stores, request } = requester({ create: ['late'] });
    const work = request('me', { signal: stop.signal });
    await clock.advance(10);
    stop.abort(new Error('Ctrl-C'));
    await expect(clock.until(work)).rejects.toThrow('Ctrl-C');
    await clock.advance(5_000);
    expect(stores.calls.map(({ verb }) => verb)).toEqual(expect.arrayContaining(['create', 'delete']));
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  it('gives the address back where its node gave the subnet back meanwhile', async () => {
    const { stores, request } = requester();
    const subnet = subnetOf('10.0.0.0/30', pool, 'n1');
    const onNode: Partial<HeldClaimRequest> = {
      nodeName: 'n1',
      searches: [
        {
          family: 'ipv4',
          candidates: [{ address: parseAddress('10.0.0.2'), name: '10.0.0.2', subnet }].values(),
        },
      ],
    };
    const lookedAt: string[] = [];
    await expect(
      clock.until(
        request('me', {
          ...onNode,
          isStillThere: async ({ metadata }) => {
            lookedAt.push(`${metadata.name} after ${stores.stored.IPAllocation.size} create`);
            return false;
          },
        }),
      ),
    ).rejects.toThrow(SubnetGivenBackError);
    expect(lookedAt).toEqual(['10.0.0.0-30 after 1 create']);
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  it('names the node in the object', async () => {
    const { stores, request } = requester();
    const subnet = subnetOf('10.0.0.0/30', pool, 'n1');
    const candidates = [{ address: parseAddress('10.0.0.2'), name: '10.0.0.2', subnet }].values();
    await request('me', { nodeName: 'n1', searches: [{ family: 'ipv4', candidates }] });
    expect(stores.stored.IPAllocation.get('10.0.0.2')?.spec.nodeName).toBe('n1');
  });
});

/** What happens to the calls of each verb, in order; afterwards nothing. */
type Faults = Partial<Record<FakeCall['verb'], readonly Fault[]>>;

const endless = (fault: Fault): Fault[] => Array.from({ length: 1_000 }, () => fault);

/** A process that requests; others use the stores without its faults beside it. */
function requester(faults: Faults = {}, { isRefusal = () => false }: { isRefusal?: () => boolean } = {}) {
  const stores = createFakeStores();
  const calls = { create: 0, get: 0, list: 0, update: 0, delete: 0 };
  const own = new Set<string>();
  const through = async <T>(verb: FakeCall['verb'], act: () => Promise<T>): Promise<T> => {
    const fault = faults[verb]?.[calls[verb]++] ?? 'none';
    if (fault === 'none') return act();
    if (fault === 'lose') await act();
    if (fault === 'late') void clock.sleep(1_000).then(act);
    throw new InjectedError(`${fault}: ${verb}`);
  };
  const { allocations } = stores;
  const store: AllocationStore = {
    ...allocations,
    create: async (spec, signal) => {
      signal?.throwIfAborted();
      return through('create', async () => {
        const outcome = await allocations.create(spec);
        if (outcome.kind === 'created') own.add(outcome.object.metadata.uid);
        return outcome;
      });
    },
    get: (name, signal) => through('get', () => allocations.get(name, signal)),
    delete: (seen, signal) => through('delete', () => allocations.delete(seen, signal)),
  };
  const request = async (holder: string, options: Partial<HeldClaimRequest> = {}): Promise<string[]> => {
    const claimed = await claimHeldAddresses(
      {
        store,
        clock,
        random: () => 0.5,
        isOurs: ({ metadata }: IPAllocation) => own.has(metadata.uid),
        isRefusal,
      },
      {
        pool,
        holder,
        searches: FAMILIES.map((family) => ({
          family,
          candidates: heldCandidates({ pool, pools: [pool], subnets: [], family, inUse: [] }),
        })),
        isStillThere: async () => true,
        deadlineMs: 30_000,
        signal: new AbortController().signal,
        ...options,
      },
    );
    return claimed.map(({ spec }) => formatAddress(spec.address));
  };
  return { stores, request, sent: calls };
}
