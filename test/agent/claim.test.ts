import { describe, expect, test } from 'vitest';
import {
  DEFAULT_REUSE_DELAY_SECONDS,
  POOL_FINALIZER,
  type Attachment,
  type IPPool,
  type NodeSubnet,
  type PodReference,
} from '../../src/api/index.ts';
import { createWiredAddresses } from '../../src/agent/wired-addresses.ts';
import { RESTLESS } from './restless.ts';
import { claimFor, type ClaimingParts, type ClaimOutcome } from '../../src/agent/claim.ts';
import {
  ClaimDeadlineError,
  PoolExhaustedError,
  SubnetUnavailableError,
  type Claimer,
} from '../../src/ipam/index.ts';
import { formatAddress, parseAddress, type Family } from '../../src/net/index.ts';
import type { Fault, FakeCall } from '../contract/fake-stores.ts';
import { createClaimingProcess } from '../ipam/claims.ts';
import { allElse } from '../ipam/fake-clock.ts';
import { attachmentOf, subnetOf } from '../ipam/objects.ts';

describe('the pools', () => {
  test('are tried by name, the next one only when the one before has nothing', async () => {
    const { pool, claim } = setUp();
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    const got: string[] = [];
    for (let i = 0; i < 6; i++) got.push(...(await claim(`c${i}`)));
    expect(got.map((address) => address.slice(0, 4))).toEqual([
      '10.1',
      '10.1',
      '10.1',
      '10.2',
      '10.2',
      '10.2',
    ]);
  });

  test('of which all are full: the first one’s reason is told', async () => {
    const { pool, claim } = setUp();
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    for (let i = 0; i < 6; i++) await claim(`c${i}`);
    await expect(claim('late')).rejects.toThrow(
      /^IPPool a has no free ipv4 address on this node: of 3 usable/,
    );
  });

  test('that the configuration names is the only one', async () => {
    const { pool, claim } = setUp();
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    for (let i = 0; i < 3; i++) expect((await claim(`c${i}`, 'b'))[0]).toMatch(/^10\.2\./);
    await expect(claim('late', 'b')).rejects.toThrow(/^IPPool b has no free/);
    await expect(claim('late', 'c')).rejects.toThrow('c: there is no such IPPool');
  });

  test('are not gone through when the apiserver fails: that says nothing about the others', async () => {
    const { pool, claim, calls } = setUp({ fault: ({ verb }) => (verb === 'create' ? 'fail' : 'none') });
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    await expect(claim('c')).rejects.toThrow(ClaimDeadlineError);
    expect(new Set(calls.filter(({ verb }) => verb === 'create').map(({ name }) => name)).size).toBe(1);
  });
});

describe('an Isolated pool', () => {
  const isolated = { isolation: { mode: 'Isolated' } };

  test('that is full gives no place to another: neither to a lower one, nor to the higher one that was full', async () => {
    const { pool, claim, told, outcomes, calls } = setUp();
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30'], {}, isolated);
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    for (let i = 0; i < 3; i++) await claim(`c${i}`);
    const before = calls.length;
    await expect(claim('late')).rejects.toThrow(
      /^IPPool a has no free .*No other pool is tried, since IPPool a is Isolated$/,
    );
    expect(told).toEqual(['IsolatedPoolFullError']);
    expect(outcomes.at(-1)).toBe('exhausted');
    expect(calls).toHaveLength(before);
  });

  test('that gets no subnet gives no place to another, either', async () => {
    const { pool, claim } = setUp();
    pool('a', ['10.1.0.0/24'], [], {}, isolated);
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    await expect(claim('c')).rejects.toThrow(/none is free.*IPPool a is Isolated$/);
  });

  test('is itself the next pool of one that is full and is not isolated', async () => {
    const { pool, claim, told } = setUp();
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30'], {}, isolated);
    for (let i = 0; i < 3; i++) await claim(`c${i}`);
    expect((await claim('c3'))[0]).toMatch(/^10\.2\./);
    expect(told).toEqual(['overflowed to b']);
    for (let i = 4; i < 6; i++) await claim(`c${i}`);
    // Where it is the last one, its own reason is enough.
    await expect(claim('late')).rejects.toThrow(PoolExhaustedError);
  });
});

test('the next pool is not for those whose first one could not be asked: whether it is full nobody knows', async () => {
  const { pool, claim, told } = setUp({ claimMoreFails: true });
  pool('a', ['10.1.0.0/24'], []);
  pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
  await expect(claim('c')).rejects.toThrow(
    'this node gets no ipv4 subnet of IPPool a: the apiserver is away',
  );
  expect(told).toEqual([]);
});

test('the address of a node is passed over, also on a LAN that has no other one left', async () => {
  const { pool, claim, nodeAddresses, calls } = setUp();
  const gateway = { ipv4: '10.2.0.14' };
  pool('lan', ['10.2.0.0/28'], ['10.2.0.8/30'], { ipv4: ['10.2.0.4/30'] }, { use: 'Lan', gateway });
  for (const address of ['10.2.0.9', '10.2.0.11']) nodeAddresses.add(address);
  const claimOne = (container: string) => claim(container, 'lan', undefined, { kind: 'AddressOnly' });
  expect([await claimOne('c1'), await claimOne('c2')].flat()).toEqual(['10.2.0.8', '10.2.0.10']);
  expect((await claimOne('c3'))[0]).toBe('10.2.0.4');
  expect(calls.map(({ name }) => name)).not.toContain('10.2.0.9');
});

describe('what people are told', () => {
  test('that an address came from the next pool, since the first was full', async () => {
    const { pool, claim, told } = setUp();
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    pool('b', ['10.2.0.0/30'], ['10.2.0.0/30']);
    for (let i = 0; i < 3; i++) await claim(`c${i}`);
    expect(told).toEqual([]);
    await claim('c3');
    expect(told).toEqual(['overflowed to b']);
  });

  test('that all are full, and that none admits the pod', async () => {
    const { pool, claim, told } = setUp();
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    for (let i = 0; i < 3; i++) await claim(`c${i}`);
    await expect(claim('late')).rejects.toThrow();
    await expect(claim('late', 'x')).rejects.toThrow();
    expect(told).toEqual(['PoolExhaustedError', 'NoPoolError']);
  });

  test('nothing of an apiserver that fails: no pool has to do with that', async () => {
    const { pool, claim, told } = setUp({ fault: ({ verb }) => (verb === 'create' ? 'fail' : 'none') });
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    await expect(claim('c')).rejects.toThrow(ClaimDeadlineError);
    expect(told).toEqual([]);
  });
});

describe('a node whose subnets are full', () => {
  test('gets one more of the family that is full, and the claim goes on', async () => {
    const { pool, claim, more } = setUp();
    pool('a', ['10.1.0.0/24', 'fd00::/120'], ['10.1.0.0/30', 'fd00::/126'], {
      ipv4: ['10.1.0.4/30'],
      ipv6: [],
    });
    for (let i = 0; i < 2; i++) await claim(`c${i}`);
    await claim('c2');
    expect(more).toEqual([]);
    await expect(claim('c3')).rejects.toThrow(/no free ipv6 address/);
    expect(more).toEqual(['a ipv4', 'a ipv6']);
  });

  test('that has no subnet yet and gets none is told why, not that it is full', async () => {
    const { pool, claim } = setUp();
    pool('a', ['10.1.0.0/24'], []);
    await expect(claim('c')).rejects.toThrow(SubnetUnavailableError);
    await expect(claim('c')).rejects.toThrow('none is free');
  });

  test('goes on for as long as it gets more, but not without an end', async () => {
    const { pool, claim, more, clock } = setUp({ claimMoreTakesMs: 2_000, claimMoreIsOfNoUse: true });
    pool('a', ['10.1.0.0/24'], []);
    const startedMs = clock.nowMs();
    await expect(claim('c')).rejects.toThrow(/holds no ipv4 subnet of it to draw from/);
    expect(more.length).toBeGreaterThan(1);
    expect(clock.nowMs() - startedMs).toBeLessThan(10_000);
  });
});

test('a claim under way does not go on into a subnet that has been given back', async () => {
  const others = ['10.1.0.1', '10.1.0.2', '10.1.0.3'];
  let isWalking = false;
  const { pool, claim, calls, held, stores } = setUp({
    isBlind: true,
    fault: ({ verb, name }) => {
      // The walk is at the end of the first subnet: the second one goes.
      if (isWalking && verb === 'create' && name === '10.1.0.3') held.get('a')?.splice(1);
      return 'none';
    },
  });
  pool('a', ['10.1.0.0/24'], ['10.1.0.0/30', '10.1.0.4/30']);
  for (const address of others) {
    const spec = { pool: 'a', nodeName: 'n2', attachment: attachmentOf(address) };
    await stores.allocations.create({ ...spec, address: parseAddress(address) });
  }
  isWalking = true;
  await expect(claim('c')).rejects.toThrow(PoolExhaustedError);
  const tried = calls.filter(({ verb }) => verb === 'create').map(({ name }) => name);
  expect(tried).toEqual([...others, ...others]);
});

describe('how a claim ended is told', () => {
  test('claimed, or exhausted where all pools are full', async () => {
    const { pool, claim, outcomes } = setUp();
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    for (let i = 0; i < 3; i++) await claim(`c${i}`);
    await expect(claim('late')).rejects.toThrow(PoolExhaustedError);
    expect(outcomes).toEqual(['claimed', 'claimed', 'claimed', 'exhausted']);
  });

  test('refused where no pool serves', async () => {
    const { claim, outcomes } = setUp();
    await expect(claim('c')).rejects.toThrow('there is no IPPool');
    expect(outcomes).toEqual(['refused']);
  });

  test('timeout where the apiserver does not answer', async () => {
    const { pool, claim, outcomes } = setUp({ fault: ({ verb }) => (verb === 'create' ? 'fail' : 'none') });
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    await expect(claim('c')).rejects.toThrow(ClaimDeadlineError);
    expect(outcomes).toEqual(['timeout']);
  });

  test('abandoned where nobody wants the addresses any more', async () => {
    const gone = new AbortController();
    const { pool, claim, outcomes } = setUp({
      fault: ({ verb }) => {
        if (verb === 'create') gone.abort(new Error('the runtime hung up'));
        return 'none';
      },
    });
    pool('a', ['10.1.0.0/30'], ['10.1.0.0/30']);
    await expect(claim('c', undefined, gone.signal)).rejects.toThrow('the runtime hung up');
    expect(outcomes).toEqual(['abandoned']);
  });
});

test('a bridge draws from what it has: full is full, and the way out is another', async () => {
  const { pool, claim, more } = setUp();
  pool('b', ['10.2.0.0/24'], ['10.2.0.0/30'], { ipv4: ['10.2.0.4/30'] }, { use: 'Bridge' });
  const bridge = { kind: 'AddressOnly', mayGrow: false } as const;
  expect(await claim('c1', 'b', undefined, bridge)).toEqual(['10.2.0.2']);
  await expect(claim('c2', 'b', undefined, bridge)).rejects.toThrow(
    'this node gets no ipv4 subnet of IPPool b: a bridge has room for one of each family, and its 10.2.0.0/30 is full: ' +
      'of 1 usable addresses 1 are in use and 0 rest after their release. Use a pool with larger pieces',
  );
  expect(more).toEqual([]);
  expect(await claim('c2', 'b', undefined, { kind: 'AddressOnly' })).toEqual(['10.2.0.6']);
});

test('a bridge that is full says what its pool reserves there', async () => {
  const { pool, claim } = setUp();
  const spec = { use: 'Bridge', reserved: ['10.2.0.4/31'] };
  pool('b', ['10.2.0.0/24'], ['10.2.0.0/29'], {}, spec);
  const bridge = { kind: 'AddressOnly', mayGrow: false } as const;
  for (const container of ['c1', 'c2', 'c3']) await claim(container, 'b', undefined, bridge);
  await expect(claim('c4', 'b', undefined, bridge)).rejects.toThrow(
    'of 3 usable addresses 3 are in use and 0 rest after their release; 2 more are reserved. Use a pool',
  );
});

test('another plugin draws for a pod from a pool that admits its namespace, and from no other', async () => {
  const node = { name: 'n1', labels: {} };
  for (const tenant of ['a', 'b']) {
    const { pool, claim, told } = setUp({
      claimer: { node, namespace: { name: 'shop', labels: { tenant } } },
    });
    const selector = { namespaceSelector: { matchLabels: { tenant: 'a' } } };
    pool('b', ['10.2.0.0/24'], ['10.2.0.0/30'], {}, { use: 'Bridge', ...selector });
    const claiming = claim('c1', 'b', undefined, { kind: 'AddressOnly' });
    if (tenant === 'a') expect(await claiming).toEqual(['10.2.0.2']);
    else await expect(claiming).rejects.toThrow('tenant=a does not match namespace shop');
    expect(told).toEqual(tenant === 'a' ? [] : ['NoPoolError']);
  }
});

test.each(['lost', 'strays'] as const)(
  'an address under another plugin that is among the %s is in use all the same',
  async (which) => {
    const { pool, claim, ...unbooked } = setUp();
    pool('b', ['10.2.0.0/24'], ['10.2.0.0/30'], {}, { use: 'Bridge' });
    unbooked[which].add('10.2.0.2');
    const bridge = { kind: 'AddressOnly', mayGrow: false } as const;
    await expect(claim('c2', 'b', undefined, bridge)).rejects.toThrow('is full');
  },
);

test('a bridge gets its first subnet', async () => {
  const { pool, claim } = setUp();
  pool('b', ['10.2.0.0/24'], [], { ipv4: ['10.2.0.4/30'] }, { use: 'Bridge' });
  expect(await claim('c1', 'b', undefined, { kind: 'AddressOnly', mayGrow: false })).toEqual(['10.2.0.6']);
});

test('a node without an address of the pool’s families says so', async () => {
  const { pool, claim } = setUp({ families: [] });
  pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
  await expect(claim('c')).rejects.toThrow('the node has no address of its families');
});

describe('a pod with wishes', () => {
  const pod = { namespace: 'shop', name: 'db-0', uid: 'u' };
  const named = (ipv4: string) => ({ wishes: { addresses: { ipv4: parseAddress(ipv4) } } });
  const node = { name: 'n1', labels: {} };
  const fixed = { fixedAddresses: true };

  test('gets the address that it names, outside the node’s subnets, and is led to', async () => {
    const { pool, claimFor, secured } = setUp({ claimer: { node, ...named('10.1.0.9') } });
    pool('a', ['10.1.0.0/24'], ['10.1.0.128/30'], {}, fixed);
    expect(await claimFor('c', pod)).toEqual(['10.1.0.9']);
    expect(secured).toEqual(['10.1.0.9']);
  });

  test('is refused, and told, where it cannot have it', async () => {
    const { pool, claimFor, told, stores } = setUp({ claimer: { node, ...named('10.1.0.9') } });
    pool('a', ['10.1.0.0/24'], ['10.1.0.0/28']);
    await expect(claimFor('c', pod)).rejects.toThrow('IPPool a does not allow it');
    expect(told).toEqual(['FixedAddressError']);
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  test('of a family that the node has not is refused', async () => {
    const { pool, claimFor } = setUp({ claimer: { node, ...named('10.1.0.9') }, families: ['ipv6'] });
    pool('a', ['10.1.0.0/24', 'fd00::/64'], [], {}, fixed);
    await expect(claimFor('c', pod)).rejects.toThrow('node n1 has no ipv4 address');
  });

  test('gives back what it claimed if it cannot be led to', async () => {
    const { pool, claimFor, stores, releases } = setUp({
      claimer: { node, ...named('10.1.0.9') },
      onSecure: () => Promise.reject(new SubnetUnavailableError('a', 'ipv4', 'it is going')),
    });
    pool('a', ['10.1.0.0/24'], [], {}, fixed);
    await expect(claimFor('c', pod)).rejects.toThrow('it is going');
    await releases.settled();
    expect(stores.stored.IPAllocation.size).toBe(0);
  });

  describe('to keep its addresses', () => {
    const claimer = { node, wishes: { sticky: 'shop/db-0' } };

    test('draws at first like any other, with one list, and is not led to', async () => {
      const { pool, claimFor, calls, stores, secured } = setUp({ claimer });
      pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
      expect(await claimFor('c', pod)).toEqual(['10.1.0.1']);
      expect(calls.map(({ verb }) => verb)).toEqual(['list', 'create']);
      expect(stores.stored.IPAllocation.get('10.1.0.1')?.spec.sticky).toBe('shop/db-0');
      expect(secured).toEqual([]);
    });

    test('has the same again, and draws what is missing from the same pool', async () => {
      const { pool, claimFor, keep, secured } = setUp({ claimer });
      pool('a', ['10.0.0.0/24', 'fd01::/64'], ['10.0.0.0/30', 'fd01::/126']);
      pool('b', ['10.1.0.0/24', 'fd00::/64'], ['10.1.0.0/30', 'fd00::/126']);
      await keep('10.1.0.9', 'b');
      expect(await claimFor('c', pod)).toEqual(['10.1.0.9', 'fd00::1']);
      expect(secured).toEqual(['10.1.0.9']);
    });

    test('gets another one where that is being drained, and the old one is freed when it has rested', async () => {
      const { pool, claimFor, clock, keep, told, stores, releases } = setUp({ claimer });
      pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
      await keep('10.9.0.9', 'a');
      expect(await claimFor('c', pod)).toEqual(['10.1.0.1']);
      expect(told).toEqual([expect.stringContaining('10.9.0.9, which was kept for it, is not given')]);
      await clock.advance(DEFAULT_REUSE_DELAY_SECONDS * 1_000 - 1_000);
      expect([...stores.stored.IPAllocation.keys()].sort()).toEqual(['10.1.0.1', '10.9.0.9']);
      await clock.advance(1_000);
      await releases.settled();
      expect([...stores.stored.IPAllocation.keys()]).toEqual(['10.1.0.1']);
    });

    test('keeps what the node has no use for, of the other family', async () => {
      const { pool, claimFor, keep, told, stores } = setUp({ claimer, families: ['ipv4'] });
      pool('a', ['10.1.0.0/24', 'fd00::/64'], ['10.1.0.0/30']);
      await keep('10.1.0.9', 'a');
      await keep('fd00::9', 'a');
      expect(await claimFor('c', pod)).toEqual(['10.1.0.9']);
      await allElse();
      expect(told).toEqual([]);
      expect(stores.stored.IPAllocation.size).toBe(2);
    });

    test('lists again as long as nobody answers: else it would get another address', async () => {
      let lists = 0;
      const { pool, claimFor, keep } = setUp({
        claimer,
        fault: ({ verb }) => (verb === 'list' && ++lists < 3 ? 'fail' : 'none'),
      });
      pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
      await keep('10.1.0.9', 'a');
      expect(await claimFor('c', pod)).toEqual(['10.1.0.9']);
    });

    test('that are not granted is told so, and draws', async () => {
      const { pool, claimFor, told } = setUp({ claimer: { node, wishes: { notSticky: 'no StatefulSet' } } });
      pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
      expect(await claimFor('c', pod)).toEqual(['10.1.0.1']);
      expect(told).toEqual(['no StatefulSet']);
    });
  });
});

describe('while the leader holds claims, because etcd is back at an older state', () => {
  const node = { name: 'n1', labels: {} };
  const named = { node, wishes: { addresses: { ipv4: parseAddress('10.1.0.9') } } };
  const sticky = { node, wishes: { sticky: 'shop/db-0' } };
  const pod = { namespace: 'shop', name: 'db-0', uid: 'u' };
  const apply = ({ pool }: ReturnType<typeof setUp>) =>
    pool('a', ['10.1.0.0/24'], ['10.1.0.0/30'], {}, { fixedAddresses: true });

  test.each([
    ['names', named],
    ['has kept', sticky],
  ])('an address that a pod %s is not claimed, and told so', async (_, claimer) => {
    const its = setUp({ claimer, held: () => true });
    apply(its);
    if (claimer === sticky) await its.keep('10.1.0.9', 'a');
    await expect(its.claimFor('c', pod)).rejects.toThrow('10.1.0.9, which this pod is to have, is not given');
    expect(its.stores.stored.IPAllocation.get('10.1.0.9')?.spec.attachment).toBeUndefined();
    expect([its.told, its.outcomes]).toEqual([['AddressHeldError'], ['refused']]);
  });

  test('it is claimed when that is over, and a look that fails is no answer', async () => {
    let looks = 0;
    const its = setUp({
      claimer: named,
      held: () => {
        if (++looks === 2) throw new Error('no answer');
        return looks < 4;
      },
    });
    apply(its);
    expect(await its.claimFor('c', pod)).toEqual(['10.1.0.9']);
    expect(looks).toBe(5);
  });

  test('what was claimed as the hold began is given back', async () => {
    let looks = 0;
    const its = setUp({ claimer: named, held: () => ++looks > 1 });
    apply(its);
    await expect(its.claimFor('c', pod)).rejects.toThrow('is not given to anybody for a while');
    await its.releases.settled();
    expect([...its.stores.stored.IPAllocation.keys()]).toEqual([]);
    expect(its.secured).toEqual([]);
  });

  test('what is drawn is claimed all the same, and nobody asks', async () => {
    const its = setUp({
      held: () => {
        throw new Error('asked');
      },
    });
    apply(its);
    expect(await its.claim('c')).toHaveLength(1);
  });
});

test('an address to which another node has the way is not drawn', async () => {
  const { pool, claim, exclusive } = setUp();
  const a = pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
  exclusive.set('10.1.0.1', subnetOf('10.1.0.1/32', a, 'n2', { exclusive: true }));
  expect(await claim('c1')).toEqual(['10.1.0.2']);
});

describe('a recovery from an etcd that went back', () => {
  test('keeps claims from beginning', async () => {
    const recovering = Promise.withResolvers<boolean>();
    const { pool, claim, calls } = setUp({ recovery: () => recovering.promise });
    pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
    // It waits for something else than time.
    await expect(claim('c')).rejects.toThrow('nobody sleeps');
    expect(calls).toEqual([]);
    recovering.resolve(true);
    await expect(claim('d')).resolves.toHaveLength(1);
  });

  test('that came by the claim’s own create: what is still this node’s is used', async () => {
    const { pool, claim, stores } = setUp({ recovery: () => Promise.resolve(true) });
    pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
    const [address] = await claim('c');
    expect([...stores.stored.IPAllocation.keys()]).toEqual([address]);
  });

  test('that came by the claim’s own create: what is another node’s by now is given back, and claimed elsewhere', async () => {
    let asked = 0;
    const { pool, claim, held, stores, clock } = setUp({
      recovery: () => {
        // Before the claim, and after it: by then the node has another subnet.
        if (++asked !== 2) return Promise.resolve(false);
        const [subnets, other] = [held.get('a') ?? [], held.get('b') ?? []];
        held.set('a', other);
        expect(subnets).toHaveLength(1);
        return Promise.resolve(true);
      },
    });
    pool('a', ['10.1.0.0/24'], ['10.1.0.0/30']);
    pool('b', ['10.1.0.0/24'], ['10.1.0.4/30']);
    const [address] = await claim('c', 'a');
    expect(address).toMatch(/^10\.1\.0\.[567]$/);
    await clock.advance(1_000);
    expect([...stores.stored.IPAllocation.keys()]).toEqual([address]);
  });
});

describe('a recovery meanwhile, and an address that a pod names', () => {
  const claimer = {
    node: { name: 'n1', labels: {} },
    wishes: { addresses: { ipv4: parseAddress('10.1.0.9') } },
  };
  const pod = { namespace: 'shop', name: 'web', uid: 'u' };

  test('in no subnet of the node is used where its object is still there', async () => {
    let asked = 0;
    const { pool, claimFor, calls } = setUp({ claimer, recovery: () => Promise.resolve(++asked === 2) });
    pool('a', ['10.1.0.0/24'], ['10.1.0.128/30'], {}, { fixedAddresses: true });
    expect(await claimFor('c', pod)).toEqual(['10.1.0.9']);
    expect(calls.map(({ verb }) => verb)).toEqual(['create']);
  });

  test('whose object etcd has lost is claimed again', async () => {
    let asked = 0;
    const { pool, claimFor, stores } = setUp({
      claimer,
      recovery: () => {
        if (++asked !== 2) return Promise.resolve(false);
        stores.deleteByHand('IPAllocation', '10.1.0.9');
        return Promise.resolve(true);
      },
    });
    pool('a', ['10.1.0.0/24'], ['10.1.0.128/30'], {}, { fixedAddresses: true });
    expect(await claimFor('c', pod)).toEqual(['10.1.0.9']);
    expect([...stores.stored.IPAllocation.keys()]).toEqual(['10.1.0.9']);
  });
});

function setUp({
  fault,
  families,
  claimMoreTakesMs = 0,
  claimMoreIsOfNoUse = false,
  claimMoreFails = false,
  isBlind = false,
  claimer = { node: { name: 'n1', labels: {} } },
  onSecure = () => Promise.resolve(),
  recovery = () => Promise.resolve(false),
  held: isHeld = () => false,
}: {
  fault?: (call: FakeCall) => Fault;
  families?: Family[];
  claimMoreTakesMs?: number;
  claimMoreIsOfNoUse?: boolean;
  claimMoreFails?: boolean;
  isBlind?: boolean;
  claimer?: Claimer;
  onSecure?: () => Promise<void>;
  /** Asked before and after a claim: whether a recovery was under way. */
  recovery?: () => Promise<boolean>;
  /** Whether the leader holds claims. */
  held?: () => boolean;
} = {}) {
  const process = createClaimingProcess({ isBlind, ...(fault === undefined ? {} : { fault }) });
  const { clock, cache, stores } = process;
  const pools: IPPool[] = [];
  const held = new Map<string, NodeSubnet[]>();
  const spare = new Map<string, Partial<Record<Family, string[]>>>();
  const more: string[] = [];
  const told: string[] = [];
  const wired = createWiredAddresses(RESTLESS);
  const lost = new Set<string>();
  const strays = new Set<string>();
  const nodeAddresses = new Set<string>();
  const outcomes: ClaimOutcome[] = [];
  const exclusive = new Map<string, NodeSubnet>();
  const secured: string[] = [];
  const parts: ClaimingParts = {
    wired,
    lost,
    strays,
    nodeName: 'n1',
    findClaimer: () => Promise.resolve(claimer),
    announce: {
      refused: (_, error) => told.push(error.name),
      overflowed: (_, { metadata }) => told.push(`overflowed to ${metadata.name}`),
      notGranted: (_, message) => told.push(message),
    },
    isNodeAddress: (address) => nodeAddresses.has(formatAddress(address)),
    exclusiveSubnets: {
      of: (address) => exclusive.get(formatAddress(address)),
      async secure({ spec }) {
        secured.push(formatAddress(spec.address));
        await onSecure();
      },
    },
    hold: { isHeld: () => Promise.resolve().then(isHeld) },
    listSticky: stores.allocations.listSticky,
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    pools: () => pools,
    subnets: () => [...held.values()].flat(),
    allocations: cache,
    subnetSource: {
      drawable: (pool) => held.get(pool.metadata.name) ?? [],
      families: (pool) => families ?? [...new Set(pool.spec.cidrs.map(({ family }) => family))],
      async claimMore(pool, family, signal) {
        const { name } = pool.metadata;
        more.push(`${name} ${family}`);
        await clock.sleep(claimMoreTakesMs, signal);
        if (claimMoreIsOfNoUse) return;
        if (claimMoreFails)
          throw new SubnetUnavailableError(name, family, 'the apiserver is away', { failed: true });
        const cidr = spare.get(name)?.[family]?.shift();
        if (cidr === undefined) throw new SubnetUnavailableError(name, family, 'none is free');
        held.get(name)?.push(subnetOf(cidr, pool));
      },
    },
    claims: process.parts,
    recovery: { settled: () => recovery() },
    settings: { addDeadlineMs: 45_000, subnetWaitMs: 5_000, graceMs: 120_000 },
    onClaimEnded: (outcome) => outcomes.push(outcome),
  };
  return {
    clock,
    calls: stores.calls,
    stores,
    /** The node's subnets by pool. */
    held,
    /** What the pod's people are told. */
    told,
    more,
    outcomes,
    exclusive,
    /** The addresses of nodes. */
    nodeAddresses,
    /** Names of addresses without their objects. */
    lost,
    strays,
    /** What was led to this node. */
    secured,
    releases: process.releases,
    /** Leaves an address that is kept for db-0. */
    async keep(address: string, poolName: string) {
      const holder = { holder: 'sticky', sticky: 'shop/db-0' };
      await stores.allocations.create({ address: parseAddress(address), pool: poolName, ...holder });
    },
    pool(
      name: string,
      cidrs: string[],
      own: string[],
      extra: Partial<Record<Family, string[]>> = {},
      spec: object = {},
    ): IPPool {
      const pool = stores.applyPool(name, { cidrs, ...spec }, { finalizers: [POOL_FINALIZER] });
      pools.push(pool);
      held.set(
        name,
        own.map((cidr) => subnetOf(cidr, pool)),
      );
      spare.set(name, extra);
      return pool;
    },
    async claimFor(containerID: string, pod: PodReference): Promise<string[]> {
      const { signal } = new AbortController();
      const claimant = { attachment: attachmentOf(containerID), pod, pool: undefined };
      const claimed = await clock.until(claimFor(parts, claimant, signal));
      return claimed.map(({ spec }) => formatAddress(spec.address));
    },
    async claim(
      containerID: string,
      pool?: string,
      signal = new AbortController().signal,
      { kind = 'Interface', mayGrow = true }: Partial<Pick<Attachment, 'kind'> & { mayGrow: boolean }> = {},
    ): Promise<string[]> {
      const claimant = { attachment: attachmentOf(containerID, { kind }), pod: undefined, pool, mayGrow };
      const claimed = await clock.until(claimFor(parts, claimant, signal));
      return claimed.map(({ spec }) => formatAddress(spec.address));
    },
  };
}
