import { describe, expect, test } from 'vitest';
import { POOL_FINALIZER, type NodeSubnet } from '../../src/api/index.ts';
import {
  createExclusiveSubnets,
  createIsHeldHere,
  subnetsForKernel,
} from '../../src/agent/exclusive-subnets.ts';
import { createWiredAddresses } from '../../src/agent/wired-addresses.ts';
import { RESTLESS } from './restless.ts';
import { formatCIDR, parseAddress } from '../../src/net/index.ts';
import { createFakeStores, type FakeCall, type Fault } from '../contract/fake-stores.ts';
import { createFakeClock } from '../ipam/fake-clock.ts';
import { allocationOf, attachmentOf, subnetOf } from '../ipam/objects.ts';

const ADDRESS = '10.0.0.9';
const NAME = '10.0.0.9-32';

describe('securing an address', () => {
  test('outside the node’s subnets makes one for it, with the finalizer on the pool, and waits for the kernel', async () => {
    const { care, run, stores, inForce } = setUp();
    await run(care.secure(allocation()));
    expect(stores.stored.NodeSubnet.get(NAME)?.spec).toMatchObject({
      exclusive: true,
      nodeName: 'n1',
      nodeUID: 'uid-n1',
      nextHops: [parseAddress('192.0.2.1')],
    });
    expect(stores.stored.IPPool.get('p')?.metadata.finalizers).toEqual([POOL_FINALIZER]);
    expect(inForce()).toBe(1);
  });

  test('inside them makes none, and waits for the kernel', async () => {
    const { care, run, stores, inForce } = setUp({ isCovered: true });
    await run(care.secure(allocation()));
    expect(stores.stored.NodeSubnet.size).toBe(0);
    expect(inForce()).toBe(1);
  });

  test('inside one of another pool makes one of its own, which its release finds also where the cache does not show it', async () => {
    const { care, run, stores } = setUp({ isCovered: 'by another pool', isBlind: true });
    await run(care.secure(allocation({ fixed: true })));
    expect(stores.stored.NodeSubnet.get(NAME)?.spec).toMatchObject({ pool: 'p', exclusive: true });
    await run(care.withdraw(allocation({ fixed: true })));
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test.each([true, false])(
    'removes what another node left as the way to it: inside %s',
    async (isCovered) => {
      const { care, run, stores, leave } = setUp({ isCovered });
      await leave('n2');
      await run(care.secure(allocation()));
      expect(stores.stored.NodeSubnet.get(NAME)?.spec.nodeName).toBe(isCovered ? undefined : 'n1');
    },
  );

  test('said again is done already, also when the answer was lost', async () => {
    let creates = 0;
    const { care, run, stores } = setUp({
      fault: ({ kind, verb }) =>
        kind === 'NodeSubnet' && verb === 'create' && ++creates === 1 ? 'lose' : 'none',
    });
    await run(care.secure(allocation()));
    const made = stores.stored.NodeSubnet.get(NAME);
    await run(care.secure(allocation()));
    expect(stores.stored.NodeSubnet.get(NAME)).toEqual(made);
  });

  test('of a pool that is going fails and leaves nothing', async () => {
    const { care, run, stores } = setUp();
    stores.deletePool('p');
    await expect(run(care.secure(allocation()))).rejects.toThrow('the pool has been deleted');
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('that is a whole subnet of another node fails, and leaves that', async () => {
    const { care, run, leave } = setUp();
    await leave('n2', {});
    await expect(run(care.secure(allocation()))).rejects.toThrow(
      'a subnet of another node is that one address',
    );
  });
});

describe('withdrawing', () => {
  test('removes this node’s subnet of the address, and no other’s', async () => {
    const { care, run, stores, leave } = setUp();
    await run(care.secure(allocation()));
    await run(care.withdraw(allocation()));
    expect(stores.stored.NodeSubnet.size).toBe(0);
    await leave('n2');
    await run(care.withdraw(allocation()));
    expect(stores.stored.NodeSubnet.get(NAME)?.spec.nodeName).toBe('n2');
  });

  test('finds what the cache does not show where there may be one', async () => {
    const { care, run, stores } = setUp({ isBlind: true });
    await run(care.secure(allocation()));
    expect(stores.stored.NodeSubnet.size).toBe(1);
    await run(care.withdraw(allocation({ fixed: true })));
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('finds it where the cache still shows what another node had left in its place', async () => {
    const { care, run, stores, leave, goBlind } = setUp();
    await leave('n2');
    goBlind();
    await run(care.secure(allocation({ fixed: true })));
    expect(stores.stored.NodeSubnet.get(NAME)?.spec.nodeName).toBe('n1');
    await run(care.withdraw(allocation({ fixed: true })));
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('asks nobody for an ordinary address', async () => {
    const { care, run, stores } = setUp();
    await run(care.withdraw(allocation()));
    expect(stores.calls).toEqual([]);
  });
});

describe('maintaining', () => {
  test('gives back what no address in use needs, when it was seen twice', async () => {
    const { care, run, stores } = setUp();
    await run(care.secure(allocation()));
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(1);
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test.each(['by the book', 'in the kernel', 'in flight'])(
    'keeps what is in use %s, and what is another’s',
    async (how) => {
      const { care, run, stores, book, wire, inFlight, leave } = setUp();
      await run(care.secure(allocation()));
      if (how === 'by the book') await book();
      else if (how === 'in the kernel') wire();
      else inFlight.add(ADDRESS);
      await leave('n2', { exclusive: true }, '10.0.0.10/32');
      for (let i = 0; i < 3; i++) await run(care.maintain());
      expect(stores.stored.NodeSubnet.size).toBe(2);
    },
  );

  test('leads to a living pod that lies in none of the node’s subnets, when it was seen twice', async () => {
    const { care, run, stores, book, wire } = setUp();
    await book();
    wire();
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(0);
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.has(NAME)).toBe(true);
  });

  test('removes what another node has left as the way to a pod of this one, when it was seen twice', async () => {
    const { care, run, stores, book, wire, leave } = setUp({ isCovered: true });
    await book();
    wire();
    await leave('n2');
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(1);
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('leads nowhere else what is another’s by now, as the cache does not show yet', async () => {
    const { care, run, stores, book, wire, leave } = setUp({ isCovered: true });
    await book('n2');
    wire();
    await leave('n2');
    for (let i = 0; i < 3; i++) await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(1);
  });

  test('makes nothing for an address that is given back meanwhile, however long the apiserver does not answer', async () => {
    let isAway = true;
    const { care, run, stores, book, wire, pass } = setUp({
      fault: ({ kind, verb }) => (kind === 'NodeSubnet' && verb === 'create' && isAway ? 'fail' : 'none'),
    });
    await book();
    wire();
    await run(care.maintain());
    const mending = care.maintain();
    await pass(1_000);
    await run(care.withdraw(allocation()));
    isAway = false;
    await run(mending);
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('makes what the release finds that follows, also where the cache does not show it', async () => {
    const { care, run, stores, book, wire } = setUp({ isBlind: true });
    await book();
    wire();
    await run(care.maintain());
    await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(1);
    await run(care.withdraw(allocation()));
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });

  test('leads nowhere where the book gives the address to nobody here', async () => {
    const { care, run, stores, wire } = setUp();
    wire();
    for (let i = 0; i < 3; i++) await run(care.maintain());
    expect(stores.stored.NodeSubnet.size).toBe(0);
  });
});

test('the kernel is not told of another node’s way to an address that is here', () => {
  const pool = { metadata: allocation().metadata };
  const theirs = subnetOf('10.0.0.9/32', pool, 'n2', { exclusive: true });
  const others = [
    subnetOf('10.0.0.10/32', pool, 'n2', { exclusive: true }),
    subnetOf('10.0.0.9/32', pool, 'n1', { exclusive: true }),
    subnetOf('10.0.0.0/26', pool, 'n2'),
  ];
  const wired = createWiredAddresses(RESTLESS);
  const resting = allocationOf(ADDRESS, {}, { releasedAt: '2026-01-01T00:00:00Z' });
  const seen = (here: boolean) =>
    subnetsForKernel(
      [theirs, ...others],
      'n1',
      createIsHeldHere(new Map([[ADDRESS, here ? allocation() : resting]]), wired),
    ).map(({ spec }) => `${formatCIDR(spec.cidr)} ${spec.nodeName}`);
  expect(seen(true)).toEqual(['10.0.0.10/32 n2', '10.0.0.9/32 n1', '10.0.0.0/26 n2']);
  expect(seen(false)).toHaveLength(4);
  wired.wired(attachmentOf('c1'), { ipv4: parseAddress(ADDRESS) });
  expect(seen(false)).toHaveLength(3);
});

function allocation(spec: object = {}) {
  return allocationOf(ADDRESS, spec);
}

function setUp({
  isCovered = false,
  isBlind = false,
  fault = () => 'none',
}: {
  isCovered?: boolean | 'by another pool';
  isBlind?: boolean;
  fault?: (call: FakeCall) => Fault;
} = {}) {
  const stores = createFakeStores({ fault });
  const clock = createFakeClock();
  const pool = stores.applyPool('p', { cidrs: ['10.0.0.0/16'] });
  const cache = new Map<string, NodeSubnet>();
  let blind = isBlind;
  stores.onChange((change) => {
    if (change.kind !== 'NodeSubnet' || blind) return;
    if (change.type === 'DELETED') cache.delete(change.object.metadata.name);
    else cache.set(change.object.metadata.name, change.object);
  });
  const allocations = new Map<string, ReturnType<typeof allocation>>();
  const wired = createWiredAddresses(RESTLESS);
  const inFlight = new Set<string>();
  let comparisons = 0;
  const { signal } = new AbortController();
  const care = createExclusiveSubnets({
    stores,
    pools: () => [...stores.stored.IPPool.values()],
    subnets: {
      get: (name) => cache.get(name),
      list: () => [...cache.values()],
      waitFor: (predicate) => {
        if (!predicate()) throw new Error('the fake shows everything at once');
        return Promise.resolve();
      },
    },
    node: () => ({ name: 'n1', uid: 'uid-n1', labels: {}, addresses: [parseAddress('192.0.2.1')] }),
    coveredByOwn: (_, named) => (isCovered === 'by another pool' ? named === undefined : isCovered),
    inForce: () => {
      comparisons++;
      return Promise.resolve();
    },
    allocations,
    isHeldHere: createIsHeldHere(allocations, wired),
    inFlight,
    wired,
    observe: () => undefined,
    clock,
    random: Math.random,
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
  return {
    stores,
    inFlight,
    inForce: () => comparisons,
    run: <T>(work: Promise<T>) => clock.until(work),
    goBlind: () => (blind = true),
    pass: (ms: number) => clock.advance(ms),
    care: {
      secure: (one: ReturnType<typeof allocation>) => care.secure(one, signal),
      withdraw: (one: ReturnType<typeof allocation>) => care.withdraw(one, signal),
      maintain: () => care.maintain(signal),
    },
    /** The book says that a sandbox here has the address; or, as the cache does not show yet, one elsewhere. */
    async book(nodeName = 'n1') {
      allocations.set(ADDRESS, allocation());
      await stores.allocations.create(allocation({ nodeName }).spec);
    },
    wire: () => wired.wired(attachmentOf('c1'), { ipv4: parseAddress(ADDRESS) }),
    /** Another node's subnet. */
    async leave(nodeName: string, spec: object = { exclusive: true }, cidr = '10.0.0.9/32') {
      await stores.subnets.create(subnetOf(cidr, pool, nodeName, spec).spec);
    },
  };
}
