import fc from 'fast-check';
import type { IPAllocation, IPPool, NodeSubnet } from '../../../src/api/index.ts';
import {
  auditCluster,
  countingFor,
  poolUsage,
  SNAPSHOT_FORMAT,
  type AuditedNode,
  type Finding,
  type NodeSnapshot,
  type SnapshotSandbox,
} from '../../../src/ipam/index.ts';
import {
  FAMILIES,
  formatAddress,
  formatCIDR,
  parseAddress,
  parseCIDR,
  type Family,
  type IPAddress,
} from '../../../src/net/index.ts';
import { allocationOf, attachmentOf, poolOf, RELEASED, subnetOf } from '../objects.ts';

/** A whole cluster as objects and snapshots. */
export interface World {
  readonly pools: readonly IPPool[];
  readonly nodes: readonly AuditedNode[];
  readonly subnets: readonly NodeSubnet[];
  readonly allocations: readonly IPAllocation[];
  readonly snapshots: readonly NodeSnapshot[];
}

export const BOOT = 'this-boot';
export const SERVICES = [parseCIDR('10.96.0.0/16')];

const RANGES: readonly Readonly<Record<Family, string>>[] = [
  { ipv4: '10.1.0.0/24', ipv6: 'fd00:1::/120' },
  { ipv4: '10.2.0.0/24', ipv6: 'fd00:2::/120' },
];
const POOL_NAMES = ['p', 'q'] as const;
/** The pools' pieces. Both families have 16 addresses in each. */
const PIECE = { ipv4: 28, ipv6: 124 };
const PIECE_SIZE = 16n;

/** What stands on a node. A sandbox has one address of each family of one pool. */
type Item = 'sandbox' | 'resting' | 'held' | 'starting' | 'address only';

/** A healthy world: one or two pools, up to four nodes, each with subnets of each pool and things that use them. */
export const anyWorld: fc.Arbitrary<World> = fc
  .record({
    pools: fc.constantFrom(1, 2),
    heldNowhere: fc.nat({ max: 2 }),
    nodes: fc.array(
      fc.record({
        isReady: fc.boolean(),
        answers: fc.boolean(),
        subnets: fc.constantFrom(1, 2),
        items: fc.array(
          fc.tuple(
            fc.constantFrom<Item>('sandbox', 'sandbox', 'resting', 'held', 'starting', 'address only'),
            fc.nat({ max: 1 }),
          ),
          { maxLength: 10 },
        ),
      }),
      { minLength: 1, maxLength: 4 },
    ),
  })
  .map(({ pools: poolCount, heldNowhere, nodes: plans }) => {
    const pools = POOL_NAMES.slice(0, poolCount).map((name, i) =>
      poolOf(name, { cidrs: Object.values(RANGES[i] ?? {}), nodeSubnetPrefixLength: PIECE }),
    );
    const nodes = plans.map(({ isReady }, i) => nodeOf(i, isReady));
    const subnets = plans.flatMap((plan, i) =>
      pools.flatMap((pool) =>
        FAMILIES.flatMap((family) =>
          Array.from({ length: plan.subnets }, (_, k) => pieceOf(pool, family, 2 * i + k, `n${i}`)),
        ),
      ),
    );
    const allocations: IPAllocation[] = [];
    const snapshots: NodeSnapshot[] = [];
    plans.forEach((plan, i) => {
      const snapshot = {
        sandboxes: [] as SnapshotSandbox[],
        inFlight: [] as string[],
        namespaces: [] as Namespace[],
      };
      plan.items.forEach(([item, which], k) => {
        const pool = pools[which % pools.length];
        if (pool !== undefined) addItem(item, { pool, node: i, offset: k + 1, allocations, snapshot });
      });
      if (plan.answers) snapshots.push(snapshotOf(i, snapshot));
    });
    for (let k = 0; k < heldNowhere; k++) {
      const [pool] = pools;
      if (pool === undefined) continue;
      const { nodeName: _, ...spec } = allocationOf(addressIn(pool, 'ipv4', 15, k + 3), {
        holder: 'a printer',
        pool: pool.metadata.name,
      }).spec;
      const held = allocationOf(formatAddress(spec.address), { holder: 'a printer' });
      allocations.push({ ...held, spec });
    }
    return withStatus({ pools, nodes, subnets, allocations, snapshots });
  });

/** The world with the status that each pool should have: what a controller has written. */
export function withStatus(world: World): World {
  return {
    ...world,
    pools: world.pools.map((pool) => ({
      ...pool,
      status: {
        ...poolUsage({ ...world, pool, allocations: countedFor(pool, world), foreign: foreignOf(world) }),
        conditions: pool.status?.conditions ?? [],
      },
    })),
  };
}

export function findingsOf(world: World, settledBeforeMs?: number): Finding[] {
  return auditCluster({
    book: {
      pools: world.pools,
      subnets: world.subnets,
      nodes: world.nodes,
      serviceCIDRs: SERVICES,
      unreadable: [],
      ...(settledBeforeMs === undefined ? {} : { settledBeforeMs }),
    },
    allocations: world.allocations,
    snapshots: world.snapshots,
  });
}

/** The address at that place of the pool's n-th piece. */
export function addressIn(pool: IPPool, family: Family, piece: number, offset: number): string {
  const range = pool.spec.cidrs.find((cidr) => cidr.family === family);
  return formatAddress({
    family,
    value: (range?.first ?? 0n) + BigInt(piece) * PIECE_SIZE + BigInt(offset),
  });
}

/** The pool's n-th piece, held by that node. */
export function pieceOf(pool: IPPool, family: Family, piece: number, nodeName: string): NodeSubnet {
  const first = parseAddress(addressIn(pool, family, piece, 0));
  const cidr = { family, first: first.value, prefixLength: PIECE[family] };
  return subnetOf(formatCIDR(cidr), pool, nodeName);
}

export function nodeOf(index: number, isReady = true): AuditedNode {
  return {
    name: `n${index}`,
    uid: `uid-n${index}`,
    labels: {},
    addresses: [parseAddress(`192.0.2.${index + 1}`), parseAddress(`2001:db8::${index + 1}`)],
    isReady,
  };
}

export function sandboxOf(containerID: string, addresses: readonly string[]): SnapshotSandbox {
  const parsed = addresses.map((address): IPAddress => parseAddress(address));
  return {
    network: 'weft',
    containerID,
    ifName: 'eth0',
    podUID: `pod-${containerID}`,
    link: `weft-${containerID}`,
    addresses: parsed,
    addressesInPod: parsed,
  };
}

type Namespace = NodeSnapshot['namespaces'][number];

function addItem(
  item: Item,
  {
    pool,
    node,
    offset,
    allocations,
    snapshot,
  }: {
    readonly pool: IPPool;
    readonly node: number;
    readonly offset: number;
    readonly allocations: IPAllocation[];
    readonly snapshot: { sandboxes: SnapshotSandbox[]; inFlight: string[]; namespaces: Namespace[] };
  },
): void {
  const containerID = `c${node}-${offset}`;
  const addresses = FAMILIES.map((family) => addressIn(pool, family, 2 * node, offset));
  const common = { pool: pool.metadata.name, nodeName: `n${node}` };
  const netns = { path: `/run/netns/${containerID}`, inode: 1_000 + offset, bootID: BOOT };
  for (const address of addresses) {
    allocations.push(
      item === 'held'
        ? allocationOf(address, { ...common, holder: 'a printer' })
        : allocationOf(
            address,
            {
              ...common,
              attachment: attachmentOf(containerID, {
                kind: item === 'address only' ? 'AddressOnly' : 'Interface',
                netns,
              }),
            },
            item === 'resting' ? RELEASED : undefined,
          ),
    );
  }
  if (item === 'sandbox') snapshot.sandboxes.push(sandboxOf(containerID, addresses));
  if (item === 'starting') snapshot.inFlight.push(`${containerID}/eth0`);
  if (item === 'address only') {
    snapshot.namespaces.push({
      path: netns.path,
      inode: netns.inode,
      state: offset % 2 === 0 ? 'alive' : 'unknown',
    });
  }
}

function snapshotOf(
  node: number,
  facts: Pick<NodeSnapshot, 'sandboxes' | 'inFlight' | 'namespaces'>,
): NodeSnapshot {
  return {
    format: SNAPSHOT_FORMAT,
    nodeName: `n${node}`,
    nodeUID: `uid-n${node}`,
    bootID: BOOT,
    takenAt: '2026-01-01T00:00:00Z',
    strays: [],
    kernel: { missing: [], extra: [], diverting: [] },
    ...facts,
  };
}

function countedFor(pool: IPPool, { pools, subnets, allocations }: World): IPAllocation[] {
  const counts = countingFor(pool, pools, subnets);
  return allocations.filter(({ spec }) => counts(spec.pool) || spec.nodeName === undefined);
}

function foreignOf({ nodes }: World) {
  return { nodes: nodes.flatMap(({ addresses }) => addresses), services: SERVICES };
}
