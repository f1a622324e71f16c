import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { IPAllocation, NodeSubnet } from '../../../src/api/index.ts';
import type { Finding, NodeSnapshot } from '../../../src/ipam/index.ts';
import { FAMILIES, formatAddress, hostCIDR, parseAddress } from '../../../src/net/index.ts';
import { allocationOf, attachmentOf, poolOf, RELEASED, subnetOf } from '../objects.ts';
import {
  addressIn,
  anyWorld,
  findingsOf,
  nodeOf,
  pieceOf,
  sandboxOf,
  withStatus,
  type World,
} from './world.ts';

/** Findings as `2 NoAllocation 10.0.0.5`, in the order of their text. */
const gist = (findings: readonly Pick<Finding, 'invariant' | 'reason' | 'object'>[]) =>
  findings.map(({ invariant, reason, object }) => `${invariant} ${reason} ${object.name}`).sort();

test('a healthy cluster has no finding', () => {
  fc.assert(
    fc.property(anyWorld, (world) => {
      expect(findingsOf(world)).toEqual([]);
    }),
  );
});

test('a node needs no subnet of a pool for other plugins before it has a container of them', () => {
  fc.assert(
    fc.property(anyWorld, (world) => {
      const others = [
        poolOf('bridged', { cidrs: ['10.200.0.0/16'], use: 'Bridge' }),
        poolOf('lan', { cidrs: ['10.201.0.0/16'], use: 'Lan', gateway: { ipv4: '10.201.0.1' } }),
      ];
      const findings = findingsOf({ ...world, pools: [...world.pools, ...others] });
      expect(findings.filter(({ reason }) => reason === 'NoSubnet')).toEqual([]);
    }),
  );
});

interface Corruption {
  readonly name: string;
  /** The world with one mistake in it, and what is to be found; undefined where this world gives no occasion. */
  readonly corrupt: (
    world: World,
    pick: number,
  ) => { readonly world: World; readonly expected: string[] } | undefined;
}

const CORRUPTIONS: readonly Corruption[] = [
  {
    name: 'an address on a second sandbox',
    corrupt: (world, pick) =>
      withLive(world, pick, ({ addresses }) => {
        const [address] = addresses;
        if (address === undefined) return undefined;
        const text = formatAddress(address);
        return {
          world: onLastSnapshot(world, ({ sandboxes }) => ({
            sandboxes: [...sandboxes, sandboxOf('twin', [text])],
          })),
          expected: [`1 AddressOnTwoSandboxes ${nameOf(text)}`],
        };
      }),
  },
  {
    name: "a pod that has given itself another's address",
    corrupt: (world, pick) =>
      withLive(world, pick, ({ addresses }) => {
        const [address] = addresses;
        if (address === undefined) return undefined;
        const thief = { ...sandboxOf('thief', []), addressesInPod: [address] };
        const changed = onLastSnapshot(world, ({ sandboxes }) => ({ sandboxes: [...sandboxes, thief] }));
        const node = world.snapshots.at(-1)?.nodeName ?? '';
        return {
          world: changed,
          expected: [`1 AddressOnTwoSandboxes ${nameOf(formatAddress(address))}`, `4 NoAddress ${node}`],
        };
      }),
  },
  {
    name: 'an allocation deleted under its sandbox',
    corrupt: (world, pick) =>
      onLiveAllocation(
        world,
        pick,
        () => undefined,
        ({ metadata }) => [`2 NoAllocation ${metadata.name}`],
      ),
  },
  {
    name: 'an address that the book gives to another sandbox',
    corrupt: (world, pick) =>
      onLiveAllocation(
        world,
        pick,
        (one) => ({ ...one, spec: { ...one.spec, attachment: attachmentOf('somebody-else') } }),
        ({ metadata }) => [`2 AddressOfAnother ${metadata.name}`],
      ),
  },
  {
    name: 'an address that the book gives to a holder',
    corrupt: (world, pick) =>
      onLiveAllocation(
        world,
        pick,
        ({ spec: { attachment: _, ...spec }, ...one }) => ({
          ...one,
          spec: { ...spec, holder: 'a printer' },
        }),
        ({ metadata }) => [`2 AddressOfAnother ${metadata.name}`],
      ),
  },
  {
    name: 'an allocation moved to another node',
    corrupt: (world, pick) => {
      const there = world.nodes.at(-1)?.name ?? '';
      return onLiveAllocation(
        world,
        pick,
        (one) =>
          one.spec.nodeName === there ? undefined : { ...one, spec: { ...one.spec, nodeName: there } },
        ({ metadata, spec }) => [
          `2 ${spec.nodeName === there ? 'NoAllocation' : 'NamesAnotherNode'} ${metadata.name}`,
        ],
      );
    },
  },
  {
    name: 'an address that rests while its sandbox lives',
    corrupt: (world, pick) =>
      onLiveAllocation(
        world,
        pick,
        (one) => ({ ...one, status: RELEASED }),
        ({ metadata }) => [`2 RestsWhileInUse ${metadata.name}`],
      ),
  },
  {
    name: 'a sandbox that vanished without a DEL',
    corrupt: (world, pick) =>
      withLive(world, pick, (gone) => ({
        world: {
          ...world,
          snapshots: world.snapshots.map((snapshot) => ({
            ...snapshot,
            sandboxes: snapshot.sandboxes.filter((sandbox) => sandbox !== gone),
          })),
        },
        expected: gone.addresses.map((address) => `3 NoSandbox ${nameOf(formatAddress(address))}`),
      })),
  },
  {
    name: 'an allocation of an earlier boot',
    corrupt: (world) => {
      const node = world.snapshots.at(-1)?.nodeName;
      if (node === undefined) return undefined;
      const address = freeAddress(world, node);
      const netns = { path: '/run/netns/x', inode: 7, bootID: 'an-earlier-boot' };
      return {
        world: plus(
          world,
          allocationOf(address, {
            ...of(node),
            attachment: attachmentOf('old', { kind: 'AddressOnly', netns }),
          }),
        ),
        expected: [`3 NoSandbox ${address}`],
      };
    },
  },
  {
    name: 'an allocation that names a node that is gone',
    corrupt: (world) => ({
      world: plus(
        world,
        allocationOf(freeAddress(world, 'n0'), { ...of('gone'), attachment: attachmentOf('lost') }),
      ),
      expected: ['3 NodeGone gone'],
    }),
  },
  {
    name: 'two addresses of one family for one attachment',
    corrupt: (world) => {
      const silent = world.nodes.find(
        ({ name }) => !world.snapshots.some(({ nodeName }) => nodeName === name),
      );
      if (silent === undefined) return undefined;
      const more = [13, 14].map((offset) =>
        allocationOf(addressOn(world, silent.name, offset), {
          ...of(silent.name),
          attachment: attachmentOf('greedy'),
        }),
      );
      return {
        world: plus(world, ...more),
        expected: [`4 TwoOfOneFamily ${more.at(-1)?.metadata.name ?? ''}`],
      };
    },
  },
  {
    name: 'an address outside of all subnets',
    corrupt: (world) => withSandbox(world, 'n0', '10.1.0.205', '5 OutsideSubnets 10.1.0.205'),
  },
  {
    name: 'an address in the subnet of another node',
    corrupt: (world) => {
      const other = world.nodes[1];
      if (other === undefined) return undefined;
      const address = freeAddress(world, other.name);
      return withSandbox(world, 'n0', address, `5 SubnetOfAnotherNode ${address}`);
    },
  },
  {
    name: 'an address that counts for another pool than its subnet',
    corrupt: (world) => {
      if (world.pools.length < 2) return undefined;
      const address = freeAddress(world, 'n0');
      return withSandbox(world, 'n0', address, `5 SubnetOfAnotherPool ${address}`, 'q');
    },
  },
  {
    name: "the node's own address given to a sandbox",
    corrupt: (world) => {
      const address = addressOn(world, 'n0', 0);
      return withSandbox(world, 'n0', address, `5 AddressOfTheNode ${address}`);
    },
  },
  {
    name: 'an address of a sandbox that was reserved since',
    corrupt: (world, pick) =>
      withLive(world, pick, ({ addresses }) => {
        const address = at(addresses, pick);
        if (address === undefined) return undefined;
        const reserved = [hostCIDR(address)];
        const pools = world.pools.map((pool) => ({ ...pool, spec: { ...pool.spec, reserved } }));
        return {
          world: withStatus({ ...world, pools }),
          expected: [`5 Reserved ${nameOf(formatAddress(address))}`],
        };
      }),
  },
  {
    name: 'an address held outside of its pool',
    corrupt: (world) => ({
      world: plus(world, withoutNode(allocationOf('203.0.113.9', { holder: 'a printer', pool: 'p' }))),
      expected: ['5 OutsidePool 203.0.113.9'],
    }),
  },
  {
    name: 'an address held for a pool that is not there',
    corrupt: (world) => ({
      world: plus(world, withoutNode(allocationOf('203.0.113.9', { holder: 'a printer', pool: 'gone' }))),
      expected: ['5 PoolGone 203.0.113.9'],
    }),
  },
  {
    name: 'an attachment without a node',
    corrupt: (world) => ({
      world: plus(world, withoutNode(allocationOf('10.1.0.205', { pool: 'p' }))),
      expected: ['5 NoNode 10.1.0.205'],
    }),
  },
  {
    name: 'a subnet of a pool that is gone',
    corrupt: (world) => ({
      world: plusSubnet(world, subnetOf('10.3.0.0/28', poolOf('gone', { cidrs: ['10.3.0.0/24'] }), 'n0')),
      expected: ['5 PoolGone 10.3.0.0-28'],
    }),
  },
  {
    name: 'a subnet of another size than its pool’s pieces',
    corrupt: (world) => {
      const [pool] = world.pools;
      if (pool === undefined) return undefined;
      return {
        world: plusSubnet(world, subnetOf('10.1.0.192/29', pool, 'n0')),
        expected: ['5 WrongSize 10.1.0.192-29'],
      };
    },
  },
  {
    name: 'a renamed allocation',
    corrupt: (world, pick) =>
      onLiveAllocation(
        world,
        pick,
        (one) => ({ ...one, metadata: { ...one.metadata, name: '10.9.9.9' } }),
        () => ['6 WrongName 10.9.9.9'],
      ),
  },
  {
    name: 'a renamed subnet',
    corrupt: (world, pick) => {
      const subnet = at(world.subnets, pick);
      if (subnet === undefined) return undefined;
      const renamed = { ...subnet, metadata: { ...subnet.metadata, name: '10.9.9.0-24' } };
      return {
        world: withStatus({
          ...world,
          subnets: world.subnets.map((one) => (one === subnet ? renamed : one)),
        }),
        expected: ['6 WrongName 10.9.9.0-24'],
      };
    },
  },
  {
    name: 'a subnet that overlaps others',
    corrupt: (world) => ({
      world: withStatus(withOverlappingPool(world, true, '10.1.0.0/27')),
      expected: ['7 SubnetsOverlap 10.1.0.0-27'],
    }),
  },
  {
    name: 'a pool that overlaps an older one and does not say so',
    corrupt: (world) => ({
      world: withStatus(withOverlappingPool(world, false)),
      expected: ['7 OverlapNotMarked younger'],
    }),
  },
  {
    name: 'a subnet bound to an older UID of its node',
    corrupt: (world, pick) => {
      const subnet = at(world.subnets, pick);
      if (subnet === undefined) return undefined;
      const stale = { ...subnet, spec: { ...subnet.spec, nodeUID: 'an-older-uid' } };
      return {
        world: { ...world, subnets: world.subnets.map((one) => (one === subnet ? stale : one)) },
        expected: [`8 OlderNodeUID ${subnet.metadata.name}`],
      };
    },
  },
  {
    name: 'two nodes with one MAC',
    corrupt: (world) => {
      const [first] = world.nodes;
      if (first === undefined) return undefined;
      // Not ready, so that it needs no subnets.
      const twin = { ...nodeOf(5, false), uid: first.uid };
      return {
        world: withStatus({ ...world, nodes: [...world.nodes, twin] }),
        expected: [`8 SharedMAC ${twin.name}`],
      };
    },
  },
  {
    name: 'a ready node without subnets',
    corrupt: (world) => ({
      world: withStatus({ ...world, nodes: [...world.nodes, nodeOf(4)] }),
      expected: world.pools.flatMap(() => FAMILIES.map(() => '8 NoSubnet n4')),
    }),
  },
  {
    name: 'a subnet of a node that is gone',
    corrupt: (world) => {
      const [pool] = world.pools;
      if (pool === undefined) return undefined;
      return { world: plusSubnet(world, pieceOf(pool, 'ipv6', 12, 'gone')), expected: ['8 NodeGone gone'] };
    },
  },
  {
    name: 'a wrong counter',
    corrupt: (world) => ({
      world: {
        ...world,
        pools: world.pools.map((pool, i) => {
          const ipv4 = pool.status?.ipv4;
          if (i > 0 || ipv4 === undefined) return pool;
          return { ...pool, status: { ...pool.status, ipv4: { ...ipv4, allocated: ipv4.allocated + 1 } } };
        }),
      },
      expected: ['9 WrongCount p'],
    }),
  },
  {
    name: 'a pool without a status',
    corrupt: (world) => ({
      world: { ...world, pools: world.pools.map(({ status: _, ...pool }) => pool) },
      expected: world.pools.map(({ metadata }) => `9 NoStatus ${metadata.name}`),
    }),
  },
  {
    name: 'a kernel that has lost a route',
    corrupt: (world) => {
      const node = world.snapshots.at(-1)?.nodeName;
      if (node === undefined) return undefined;
      return {
        world: onLastSnapshot(world, () => ({
          kernel: { missing: ['route 10.1.0.16/28'], extra: [], diverting: [] },
        })),
        expected: [`10 KernelDiffers ${node}`],
      };
    },
  },
  {
    name: 'an address in a namespace that nothing tells of',
    corrupt: (world) => {
      if (world.snapshots.length === 0) return undefined;
      const address = parseAddress('10.200.0.1');
      return {
        world: onLastSnapshot(world, () => ({ strays: [{ address, path: '/run/netns/b' }] })),
        expected: ['2 NoAllocation 10.200.0.1'],
      };
    },
  },
  {
    name: 'such an address that is somebody else’s by the book',
    corrupt: (world, pick) => {
      const owner = at(world.allocations, pick);
      if (owner === undefined || world.snapshots.length === 0) return undefined;
      return {
        world: onLastSnapshot(world, () => ({
          strays: [{ address: owner.spec.address, path: '/run/netns/b' }],
        })),
        expected: [`2 AddressOfAnother ${owner.metadata.name}`],
      };
    },
  },
  {
    name: "a route of somebody else inside another node's subnet",
    corrupt: (world) => {
      const node = world.snapshots.at(-1)?.nodeName;
      if (node === undefined) return undefined;
      return {
        world: onLastSnapshot(world, () => ({
          kernel: { missing: [], extra: [], diverting: ['route 10.1.0.20/30 via 192.0.2.9 dev eth0'] },
        })),
        expected: [`10 PacketsDiverted ${node}`],
      };
    },
  },
  {
    name: 'a pod that has taken its address away',
    corrupt: (world, pick) =>
      withLive(world, pick, (robbed) => {
        const [address, ...rest] = robbed.addresses;
        if (address === undefined) return undefined;
        return {
          world: {
            ...world,
            snapshots: world.snapshots.map((snapshot) => ({
              ...snapshot,
              sandboxes: snapshot.sandboxes.map((one) =>
                one === robbed ? { ...one, addressesInPod: rest } : one,
              ),
            })),
          },
          expected: [`10 AddressMissingInPod ${nameOf(formatAddress(address))}`],
        };
      }),
  },
];

describe('one mistake is found, and nothing else', () => {
  test.each(CORRUPTIONS)('$name', ({ corrupt }) => {
    let met = 0;
    fc.assert(
      fc.property(anyWorld, fc.nat(), (world, pick) => {
        const corrupted = corrupt(world, pick);
        fc.pre(corrupted !== undefined);
        if (corrupted === undefined) return;
        met++;
        expect(gist(findingsOf(corrupted.world))).toEqual([...corrupted.expected].sort());
      }),
      { numRuns: 60, maxSkipsPerRun: 200 },
    );
    expect(met).toBeGreaterThanOrEqual(60);
  });
});

test('every message names its object, and says what to do', () => {
  fc.assert(
    fc.property(anyWorld, fc.nat(), fc.constantFrom(...CORRUPTIONS), (world, pick, { corrupt }) => {
      const corrupted = corrupt(world, pick);
      fc.pre(corrupted !== undefined);
      for (const { object, message } of corrupted === undefined ? [] : findingsOf(corrupted.world)) {
        const spelled = object.name.includes('-') ? [object.name, compressed(object.name)] : [object.name];
        expect(
          spelled.some((name) => message.includes(name)),
          message,
        ).toBe(true);
        expect(message).toMatch(/delete|Delete|anew|read its log|and its log/);
      }
    }),
  );
});

test('what is younger than the grace is not judged', () => {
  const young = [
    'an allocation that names a node that is gone',
    'an address outside of all subnets',
    'a subnet of a pool that is gone',
    'a subnet that overlaps others',
    'an address held outside of its pool',
  ];
  const beforeAll = Date.parse('2025-12-31T23:59:59Z');
  fc.assert(
    fc.property(anyWorld, fc.nat(), fc.constantFrom(...young), (world, pick, name) => {
      const corrupted = CORRUPTIONS.find((one) => one.name === name)?.corrupt(world, pick);
      expect(corrupted).toBeDefined();
      if (corrupted !== undefined) expect(findingsOf(corrupted.world, beforeAll)).toEqual([]);
    }),
  );
});

test('a Node that was just made, or made anew, is given time for its subnets', () => {
  const settledBeforeMs = Date.parse('2026-02-01T00:00:00Z');
  const waiting = ['a subnet bound to an older UID of its node', 'a ready node without subnets'];
  fc.assert(
    fc.property(
      anyWorld,
      fc.nat(),
      fc.constantFrom(...waiting),
      fc.boolean(),
      (world, pick, name, isYoung) => {
        const corrupted = CORRUPTIONS.find((one) => one.name === name)?.corrupt(world, pick);
        const settledAtMs = settledBeforeMs + (isYoung ? 1 : 0);
        const nodes = corrupted?.world.nodes.map((node) => ({ ...node, settledAtMs })) ?? [];
        const found =
          corrupted === undefined ? [] : findingsOf({ ...corrupted.world, nodes }, settledBeforeMs);
        expect(gist(found)).toEqual(isYoung ? [] : [...(corrupted?.expected ?? [])].sort());
      },
    ),
  );
});

test('of a silent node nothing is said', () => {
  fc.assert(
    fc.property(anyWorld, (world) => {
      expect(findingsOf({ ...world, snapshots: [] })).toEqual([]);
    }),
  );
});

function withLive(
  world: World,
  pick: number,
  corrupt: (
    sandbox: NodeSnapshot['sandboxes'][number],
  ) => { readonly world: World; readonly expected: string[] } | undefined,
) {
  const sandbox = at(
    world.snapshots.flatMap(({ sandboxes }) => sandboxes),
    pick,
  );
  return sandbox === undefined ? undefined : corrupt(sandbox);
}

/** Changes or removes (undefined) the allocation of one address of a living sandbox. */
function onLiveAllocation(
  world: World,
  pick: number,
  change: (allocation: IPAllocation) => IPAllocation | undefined,
  expected: (allocation: IPAllocation) => string[],
) {
  return withLive(world, pick, ({ addresses }) => {
    const address = at(addresses, pick);
    const found = world.allocations.find(({ spec }) => spec.address.value === address?.value);
    if (found === undefined) return undefined;
    const changed = change(found);
    return {
      world: withStatus({
        ...world,
        allocations: world.allocations.flatMap((one) => (one === found ? (changed ?? []) : [one])),
      }),
      expected: expected(found),
    };
  });
}

function onLastSnapshot(world: World, change: (snapshot: NodeSnapshot) => Partial<NodeSnapshot>): World {
  const last = world.snapshots.at(-1);
  return {
    ...world,
    snapshots: world.snapshots.map((one) => (one === last ? { ...one, ...change(one) } : one)),
  };
}

/** A sandbox on the node, living where the node answers, with an allocation of that address. */
function withSandbox(world: World, nodeName: string, address: string, expected: string, pool = 'p') {
  const allocation = allocationOf(address, { pool, nodeName, attachment: attachmentOf('new') });
  return {
    world: {
      ...plus(world, allocation),
      snapshots: world.snapshots.map((one) =>
        one.nodeName === nodeName
          ? { ...one, sandboxes: [...one.sandboxes, sandboxOf('new', [address])] }
          : one,
      ),
    },
    expected: [expected],
  };
}

/** A younger pool over the first one's range with larger pieces, as that of an edited range is. */
function withOverlappingPool(world: World, marked: boolean, subnet?: string): World {
  const later = { creationTimestamp: '2026-01-02T00:00:00Z' };
  const younger = poolOf('younger', { cidrs: ['10.1.0.0/24'], nodeSubnetPrefixLength: { ipv4: 27 } }, later);
  const condition = {
    type: 'Overlapping',
    status: marked ? ('True' as const) : ('False' as const),
    reason: 'x',
    message: '',
    lastTransitionTime: later.creationTimestamp,
  };
  const held = subnet === undefined ? [] : [subnetOf(subnet, younger, 'n0')];
  return {
    ...world,
    pools: [...world.pools, { ...younger, status: { conditions: [condition] } }],
    subnets: [
      ...world.subnets,
      ...held.map(({ metadata, spec }) => ({ metadata: { ...metadata, ...later }, spec })),
    ],
  };
}

function plus(world: World, ...allocations: readonly IPAllocation[]): World {
  return withStatus({ ...world, allocations: [...world.allocations, ...allocations] });
}

function plusSubnet(world: World, subnet: NodeSubnet): World {
  return withStatus({ ...world, subnets: [...world.subnets, subnet] });
}

function withoutNode({ metadata, spec: { nodeName: _, ...spec } }: IPAllocation): IPAllocation {
  return { metadata, spec };
}

const of = (nodeName: string) => ({ pool: 'p', nodeName });

/** An IPv4 address of the node's first subnet of pool p, at that place. */
function addressOn({ pools: [pool] }: World, nodeName: string, offset: number): string {
  return pool === undefined ? '' : addressIn(pool, 'ipv4', 2 * Number(nodeName.slice(1)), offset);
}

/** One that nothing in a generated world has. */
function freeAddress(world: World, nodeName: string): string {
  return addressOn(world, nodeName, 12);
}

function at<T>(items: readonly T[], pick: number): T | undefined {
  return items[pick % items.length];
}

function nameOf(address: string): string {
  return allocationOf(address).metadata.name;
}

/** An IPv6 name as messages spell the address. */
function compressed(name: string): string {
  const groups = name
    .split('-')
    .slice(0, 8)
    .map((group) => parseInt(group, 16).toString(16));
  if (groups.length < 8) return name;
  const value = groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
  return formatAddress(parseAddress(formatAddress({ family: 'ipv6', value })));
}
