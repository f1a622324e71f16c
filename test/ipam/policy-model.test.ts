import fc from 'fast-check';
import { expect, test } from 'vitest';
import { allocationName, type IPAllocation, type IPPool, type NodeSubnet } from '../../src/api/index.ts';
import {
  addressCandidates,
  choosePools,
  countUnused,
  createRingCursor,
  drawableSubnets,
  FixedAddressError,
  freeSubnet,
  isExclusive,
  NoPoolError,
  poolOfNamed,
  poolUsage,
  type PoolChoice,
  type RingCursor,
} from '../../src/ipam/index.ts';
import {
  ADDRESS_BITS,
  cidrContains,
  cidrHasAddress,
  cidrOf,
  cidrsOverlap,
  firstAddress,
  formatAddress,
  formatCIDR,
  hostCIDR,
  lastValue,
  parseAddress,
  parseCIDR,
  sameAddress,
  sameCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../../src/net/index.ts';
import { allocationOf, poolOf, RELEASED, subnetOf } from './objects.ts';

/**
 * The pure policy as a whole, driven by whatever people, pods and nodes may do in any order, beside a model that knows
 * of every address by itself: nothing is handed out that is in use, resting, reserved, a node's own, or drained;
 * subnets are disjoint and lie where their pool serves; and nothing is ever lost: used + resting + free + reserved = usable,
 * for each pool and each subnet. There are several pools, whose ranges overlap in part and whose subnets differ in size.
 */
const NODES = ['n1', 'n2', 'n3'];

interface Layout {
  readonly what: string;
  readonly family: Family;
  readonly pools: readonly PoolLayout[];
  /** Addresses that pods ask for. */
  readonly named: readonly string[];
  /** Whether there are so few addresses that each may be looked at. */
  readonly isSmall: boolean;
}

interface PoolLayout {
  readonly name: string;
  readonly subnetLength: number;
  /** What it lists in turns; the first at the beginning. */
  readonly cidrs: readonly (readonly string[])[];
  /** Of which any part is reserved in turns; at the beginning nothing. */
  readonly reservable: readonly string[];
}

const LAYOUTS: readonly Layout[] = [
  {
    what: 'a few addresses of IPv4',
    family: 'ipv4',
    pools: [
      {
        name: 'a',
        subnetLength: 29,
        cidrs: [
          ['10.0.0.0/27', '10.0.0.32/27'],
          ['10.0.0.0/27'],
          ['10.0.0.32/27'],
          ['10.0.0.0/28', '10.0.0.64/27'],
        ],
        reservable: ['10.0.0.3', '10.0.0.8/29', '10.0.0.33', '10.0.0.36/30'],
      },
      {
        name: 'b',
        subnetLength: 30,
        cidrs: [['10.0.0.32/28', '10.0.0.64/27'], ['10.0.0.64/27'], ['10.0.0.0/26']],
        reservable: ['10.0.0.34/31', '10.0.0.64/28', '10.0.0.81'],
      },
      {
        name: 'c',
        subnetLength: 28,
        cidrs: [['10.0.0.64/26'], ['10.0.0.96/27'], ['10.0.0.0/25']],
        reservable: ['10.0.0.64/28', '10.0.0.96', '10.0.0.98/31'],
      },
    ],
    named: ['10.0.0.5', '10.0.0.8', '10.0.0.35', '10.0.0.66', '10.0.0.101'],
    isSmall: true,
  },
  {
    what: 'a few addresses of IPv6',
    family: 'ipv6',
    pools: [
      {
        name: 'a',
        subnetLength: 125,
        cidrs: [['fd00::/123', 'fd00::20/123'], ['fd00::/123'], ['fd00::40/123']],
        reservable: ['fd00::3', 'fd00::8/125', 'fd00::21', 'fd00::24/126'],
      },
      {
        name: 'b',
        subnetLength: 126,
        cidrs: [['fd00::20/124', 'fd00::40/123'], ['fd00::40/123'], ['fd00::/122']],
        reservable: ['fd00::22/127', 'fd00::40/124'],
      },
    ],
    named: ['fd00::5', 'fd00::8', 'fd00::23', 'fd00::42'],
    isSmall: true,
  },
  {
    what: 'a /32 of IPv6',
    family: 'ipv6',
    pools: [
      {
        name: 'a',
        subnetLength: 64,
        cidrs: [['fd00::/32'], ['fd00::/33'], ['fd00:0:8000::/34', 'fd01::/48']],
        reservable: ['fd00::/64', 'fd00:0:1::/48', 'fd00::1', 'fd00:0:ffff::/49'],
      },
      {
        name: 'b',
        subnetLength: 126,
        cidrs: [['fd00:0:8000::/33'], ['fd00:0:8000::/64', 'fd02::/32'], ['fd01::/120']],
        reservable: ['fd00:0:8000::/65', 'fd02::3', 'fd01::8/125'],
      },
      {
        name: 'c',
        subnetLength: 122,
        cidrs: [['fd00:0:c000::/40', 'fd03::/122'], ['fd03::/122'], ['fd00::/31']],
        reservable: ['fd00:0:c000::/41', 'fd03::20/123'],
      },
    ],
    named: ['fd00::5', 'fd00:0:8000::2', 'fd00:0:ffff:ffff:ffff:ffff:ffff:fffe', 'fd01::9', 'fd03::21'],
    isSmall: false,
  },
];

/** A pool as people have made it. */
interface ModelPool {
  readonly layout: PoolLayout;
  /** Grows with each that is made: which of two is the older, and, as part of its UID, which it is. */
  birth: number;
  cidrs: readonly string[];
  reserved: readonly string[];
  disabled: boolean;
  /** Selects the nodes with the label: n1 and n2. */
  selective: boolean;
}

interface Model {
  readonly layout: Layout;
  readonly pools: readonly ModelPool[];
  births: number;
}

/** The real one: objects as the apiserver would have them. */
interface World {
  pools: readonly IPPool[];
  subnets: NodeSubnet[];
  readonly allocations: Map<string, IPAllocation>;
  readonly cursor: RingCursor;
}

type Command = fc.Command<Model, World>;

const labelsOf = (nodeName: string): Record<string, string> => (nodeName === 'n3' ? {} : { pods: 'yes' });

function makePools({ layout: { family }, pools }: Model): IPPool[] {
  return pools.map(({ layout, birth, cidrs, reserved, disabled, selective }) =>
    poolOf(
      layout.name,
      {
        cidrs,
        nodeSubnetPrefixLength: { [family]: layout.subnetLength },
        reserved,
        disabled,
        fixedAddresses: true,
        ...(selective ? { nodeSelector: { matchLabels: { pods: 'yes' } } } : {}),
      },
      {
        uid: `${layout.name} ${birth}`,
        // Two of one second: then the name decides.
        creationTimestamp: new Date(Date.UTC(2026, 0, 1, 0, 0, Math.floor(birth / 2))).toISOString(),
      },
    ),
  );
}

// --- What the model knows by itself ---

function poolIn(model: Model, name: string): ModelPool {
  const found = model.pools.find(({ layout }) => layout.name === name);
  if (found === undefined) throw new Error(`there is no pool ${name}`);
  return found;
}

const parsed = new Map<string, CIDR>();
/** Also a single address; each text is parsed once: they are looked at millions of times. */
function cidrOfText(text: string): CIDR {
  const known = parsed.get(text);
  if (known !== undefined) return known;
  const cidr = text.includes('/') ? parseCIDR(text) : hostCIDR(parseAddress(text));
  parsed.set(text, cidr);
  return cidr;
}

const uidOf = ({ layout, birth }: ModelPool) => `${layout.name} ${birth}`;
const lists = ({ cidrs }: ModelPool, cidr: CIDR) =>
  cidrs.some((listed) => cidrContains(cidrOfText(listed), cidr));
const reserves = ({ reserved }: ModelPool, address: IPAddress) =>
  reserved.some((one) => cidrHasAddress(cidrOfText(one), address));
const admits = ({ disabled, selective }: ModelPool, nodeName: string) =>
  !disabled && (!selective || nodeName !== 'n3');

function isOlder(a: ModelPool, b: ModelPool): boolean {
  const [secondA, secondB] = [Math.floor(a.birth / 2), Math.floor(b.birth / 2)];
  return secondA !== secondB ? secondA < secondB : a.layout.name < b.layout.name;
}

/** The CIDRs from which the pool may have new subnets. */
function openCIDRs(pool: ModelPool, { pools }: Model): CIDR[] {
  if (pool.disabled) return [];
  const older = pools.filter((other) => isOlder(other, pool)).flatMap(({ cidrs }) => cidrs.map(cidrOfText));
  return pool.cidrs.map(cidrOfText).filter((cidr) => !older.some((other) => cidrsOverlap(other, cidr)));
}

/** The shared subnets claimed from that very pool. */
function subnetsOf(pool: ModelPool, { subnets }: World): NodeSubnet[] {
  return subnets.filter((subnet) => subnet.spec.poolUID === uidOf(pool) && !isExclusive(subnet));
}

function isDrawn(pool: ModelPool, { spec }: NodeSubnet): boolean {
  return admits(pool, spec.nodeName) && lists(pool, spec.cidr);
}

function piecesOf(cidr: CIDR, prefixLength: number): CIDR[] {
  const { family } = cidr;
  return eachOf(cidr, 1n << BigInt(ADDRESS_BITS[family] - prefixLength)).map((address) =>
    cidrOf(address, prefixLength),
  );
}

function eachOf(cidr: CIDR, step = 1n): IPAddress[] {
  const found: IPAddress[] = [];
  for (let value = cidr.first; value <= lastValue(cidr); value += step)
    found.push({ family: cidr.family, value });
  return found;
}

/** The places where a node could claim a subnet of the pool, by looking at each. */
function freePieces(pool: ModelPool, model: Model, { subnets }: World): CIDR[] {
  const taken = subnets.filter((subnet) => !isExclusive(subnet)).map(({ spec }) => spec.cidr);
  return openCIDRs(pool, model)
    .flatMap((cidr) => piecesOf(cidr, pool.layout.subnetLength))
    .filter((piece) => !taken.some((other) => cidrsOverlap(other, piece)))
    .filter((piece) => givesOf(pool, piece).length > 0);
}

/** The addresses of a subnet that may ever be a pod's. */
function givesOf(pool: ModelPool, cidr: CIDR): IPAddress[] {
  return eachOf(cidr).filter((address) => address.value !== cidr.first && !reserves(pool, address));
}

/** Those of them that nobody has. */
function freeOf(pool: ModelPool, cidr: CIDR, used: ReadonlySet<bigint>): IPAddress[] {
  return givesOf(pool, cidr).filter(({ value }) => !used.has(value));
}

function usedIn({ allocations }: World): Set<bigint> {
  return new Set([...allocations.values()].map(({ spec }) => spec.address.value));
}

/** How many addresses the CIDRs have together: they nest or are disjoint. */
function sizeTogether(cidrs: readonly CIDR[]): bigint {
  return cidrs
    .filter((cidr, i) => !cidrs.some((other, j) => isAround(other, cidr) || (j < i && sameCIDR(other, cidr))))
    .reduce((sum, cidr) => sum + sizeOf(cidr), 0n);
}

function isAround(outer: CIDR, inner: CIDR): boolean {
  return outer.prefixLength < inner.prefixLength && cidrContains(outer, inner);
}

function sizeOf({ family, prefixLength }: CIDR): bigint {
  return 1n << BigInt(ADDRESS_BITS[family] - prefixLength);
}

// --- What may happen ---

function choiceOf({ pools, subnets }: World, nodeName: string): PoolChoice {
  return { pools, subnets, claimer: { node: { name: nodeName, labels: labelsOf(nodeName) } } };
}

/** The pools from which a pod of the node may draw; those that the model says. */
function chosen(model: Model, world: World, nodeName: string): readonly IPPool[] {
  const expected = model.pools.filter(
    (pool) =>
      admits(pool, nodeName) && (openCIDRs(pool, model).length > 0 || subnetsOf(pool, world).length > 0),
  );
  const pools = unless(NoPoolError, () => choosePools(choiceOf(world, nodeName))) ?? [];
  expect(pools.map(({ metadata }) => metadata.uid).sort()).toEqual(expected.map(uidOf).sort());
  return pools;
}

function unless<T>(kind: typeof NoPoolError | typeof FixedAddressError, act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (error instanceof kind) return undefined;
    throw error;
  }
}

/** The work with a pool, if a pod of the node may draw from it. */
function withPool(
  nodeName: string,
  name: string,
  what: string,
  work: (model: Model, world: World, its: { readonly pool: IPPool; readonly model: ModelPool }) => void,
): Command {
  return {
    check: () => true,
    run(model, world) {
      const pool = chosen(model, world, nodeName).find(({ metadata }) => metadata.name === name);
      if (pool !== undefined) work(model, world, { pool, model: poolIn(model, name) });
    },
    toString: () => `${what}(${nodeName}, ${name})`,
  };
}

const claimSubnet = (nodeName: string, name: string): Command =>
  withPool(nodeName, name, 'claimSubnet', (model, world, its) => {
    const { pools, subnets } = world;
    const { family, isSmall } = model.layout;
    const cidr = freeSubnet({ pool: its.pool, pools, subnets, family, nodeUID: `uid-${nodeName}` });
    if (isSmall) {
      const free = freePieces(its.model, model, world).map(formatCIDR);
      if (cidr === undefined) expect(free).toEqual([]);
      else expect(free).toContain(formatCIDR(cidr));
    }
    if (cidr === undefined) return;
    expect(cidr.prefixLength).toBe(its.model.layout.subnetLength);
    expect(openCIDRs(its.model, model).some((open) => cidrContains(open, cidr))).toBe(true);
    for (const subnet of subnets) {
      if (!isExclusive(subnet)) expect(cidrsOverlap(subnet.spec.cidr, cidr), formatCIDR(cidr)).toBe(false);
    }
    subnets.push(subnetOf(formatCIDR(cidr), its.pool, nodeName));
  });

const draw = (nodeName: string, name: string): Command =>
  withPool(nodeName, name, 'draw', (model, world, its) => {
    const { subnets, allocations, cursor } = world;
    const node = { nodeName, nodeUID: `uid-${nodeName}`, nodeLabels: labelsOf(nodeName) };
    const drawable = drawableSubnets({ pool: its.pool, subnets, ...node });
    const search = { pool: its.pool, subnets: drawable, inUse: allocations, cursor };
    const { value } = addressCandidates(search).next();
    const own = subnetsOf(its.model, world).filter(
      (subnet) => subnet.spec.nodeName === nodeName && isDrawn(its.model, subnet),
    );
    if (value === undefined) {
      // Then there is none: each address of the node's is taken, or not to be drawn.
      if (model.layout.isSmall) {
        expect(own.flatMap(({ spec }) => freeOf(its.model, spec.cidr, usedIn(world)))).toEqual([]);
      }
      return;
    }
    const { name: drawn, address, subnet } = value;
    expect(allocations.has(drawn)).toBe(false);
    expect(reserves(its.model, address), `${drawn} is reserved`).toBe(false);
    const around = own.find(({ spec }) => cidrHasAddress(spec.cidr, address));
    expect(around?.metadata.name, `${drawn} is of no subnet of the node that is drawn from`).toBe(
      subnet.metadata.name,
    );
    expect(address.value, `${drawn} is a node's own`).not.toBe(subnet.spec.cidr.first);
    cursor.handedOut(subnet, address);
    allocations.set(drawn, allocationOf(formatAddress(address), { nodeName, pool: name }));
  });

/** A pod that asks for its address; what the agent does where its subnets do not have it, by a subnet of that alone. */
const ask = (nodeName: string, text: string): Command => ({
  check: () => true,
  run(model, world) {
    const { subnets, allocations } = world;
    const address = parseAddress(text);
    const pools = chosen(model, world, nodeName);
    const named = { [address.family]: address };
    const pool = unless(FixedAddressError, () => poolOfNamed(named, pools, choiceOf(world, nodeName)));
    const name = allocationName(address);
    if (pool === undefined || allocations.has(name)) return;
    const its = poolIn(model, pool.metadata.name);
    expect(admits(its, nodeName) && lists(its, hostCIDR(address)) && !reserves(its, address)).toBe(true);
    expect(sameAddress(address, firstAddress(cidrOf(address, its.layout.subnetLength)))).toBe(false);
    allocations.set(name, allocationOf(text, { nodeName, pool: pool.metadata.name, fixed: true }));
    const isCovered = subnets.some(
      (subnet) =>
        !isExclusive(subnet) &&
        subnet.spec.nodeName === nodeName &&
        cidrHasAddress(subnet.spec.cidr, address),
    );
    if (!isCovered)
      subnets.push(subnetOf(formatCIDR(hostCIDR(address)), pool, nodeName, { exclusive: true }));
  },
  toString: () => `ask(${nodeName}, ${text})`,
});

const release = (which: number): Command => ({
  check: () => true,
  run(_, world) {
    const { allocations } = world;
    const living = [...allocations.values()].filter(({ status }) => status === undefined);
    const chosenOne = living[which % Math.max(living.length, 1)];
    if (chosenOne === undefined) return;
    const { metadata, spec } = chosenOne;
    if (spec.fixed !== true) {
      allocations.set(metadata.name, { ...chosenOne, status: RELEASED });
      return;
    }
    // What a pod has named comes free without a rest, and its way goes first.
    const way = formatCIDR(hostCIDR(spec.address));
    world.subnets = world.subnets.filter((one) => !isExclusive(one) || formatCIDR(one.spec.cidr) !== way);
    allocations.delete(metadata.name);
  },
  toString: () => `release(${which})`,
});

const rested: Command = {
  check: () => true,
  run(_, { allocations }) {
    for (const [name, { status }] of allocations) if (status !== undefined) allocations.delete(name);
  },
  toString: () => 'rested',
};

/** Each node gives back what none of its own addresses lies in. */
const giveBack: Command = {
  check: () => true,
  run(_, world) {
    const all = [...world.allocations.values()];
    world.subnets = world.subnets.filter(
      (subnet) =>
        isExclusive(subnet) ||
        all.some(
          ({ spec }) =>
            spec.nodeName === subnet.spec.nodeName && cidrHasAddress(subnet.spec.cidr, spec.address),
        ),
    );
  },
  toString: () => 'giveBack',
};

const editPool = (name: string, change: Partial<Omit<ModelPool, 'layout' | 'birth'>>): Command => ({
  check: () => true,
  run(model, world) {
    Object.assign(poolIn(model, name), change);
    world.pools = makePools(model);
  },
  toString: () => `editPool(${name}, ${JSON.stringify(change)})`,
});

/** It was deleted, and went when no subnet was left: now it is the youngest. */
const remakePool = (name: string): Command => ({
  check: () => true,
  run(model, world) {
    const pool = poolIn(model, name);
    if (world.subnets.some(({ spec }) => spec.poolUID === uidOf(pool))) return;
    pool.birth = model.births++;
    world.pools = makePools(model);
  },
  toString: () => `remakePool(${name})`,
});

// --- What holds after each step ---

function conserved(inner: Command): Command {
  return {
    check: inner.check,
    run(model, world) {
      inner.run(model, world);
      const allocations = [...world.allocations.values()];
      for (const pool of world.pools) {
        const its = poolIn(model, pool.metadata.name);
        expectPoolConserved(model, world, pool, its, allocations);
        for (const subnet of subnetsOf(its, world)) {
          if (model.layout.isSmall) expectSubnetConserved(world, pool, its, subnet, allocations);
        }
      }
    },
    toString: () => String(inner),
  };
}

function expectPoolConserved(
  model: Model,
  world: World,
  pool: IPPool,
  its: ModelPool,
  allocations: readonly IPAllocation[],
): void {
  const { family, isSmall } = model.layout;
  const { pools, subnets } = world;
  const counted = poolUsage({ pool, pools, subnets, allocations, labelsOf })[family];
  if (counted === undefined) throw new Error(`the pool lists no ${family}`);
  const numbers = [counted.allocated, counted.resting, counted.free, counted.reserved].map(BigInt);
  expect(numbers.reduce((sum, one) => sum + one, 0n)).toBe(BigInt(counted.capacity));
  expect(numbers.filter((one) => one < 0n)).toEqual([]);

  const own = allocations.filter(({ spec }) => spec.pool === pool.metadata.name);
  const resting = own.filter(({ status }) => status !== undefined);
  expect([counted.allocated, counted.resting]).toEqual([own.length - resting.length, resting.length]);
  const held = subnetsOf(its, world);
  expect(counted.nodeSubnets).toBe(held.length);
  const territory = [...its.cidrs.map(cidrOfText), ...held.map(({ spec }) => spec.cidr)];
  const strays = own.filter(({ spec }) => !territory.some((cidr) => cidrHasAddress(cidr, spec.address)));
  expect(counted.capacity).toBe(String(sizeTogether(territory) + BigInt(strays.length)));
  if (!isSmall) return;
  const pieces = freePieces(its, model, world);
  expect(counted.freeSubnets).toBe(String(pieces.length));
  const drawn = held.filter((subnet) => isDrawn(its, subnet)).map(({ spec }) => spec.cidr);
  const used = usedIn(world);
  const free = [...drawn, ...pieces].flatMap((cidr) => freeOf(its, cidr, used));
  expect(counted.free).toBe(String(free.length));
}

/** Each address of a subnet is one of four, and what the claims count as left is what a look at each finds. */
function expectSubnetConserved(
  { cursor, allocations: inUse }: World,
  pool: IPPool,
  its: ModelPool,
  subnet: NodeSubnet,
  allocations: readonly IPAllocation[],
): void {
  const { cidr } = subnet.spec;
  const gives = givesOf(its, cidr);
  const inside = allocations.filter(({ spec }) => gives.some(({ value }) => value === spec.address.value));
  const resting = inside.filter(({ status }) => status !== undefined).length;
  const free = countUnused({ pool, subnets: [subnet], inUse, cursor }, subnet);
  const reserved = sizeOf(cidr) - BigInt(gives.length);
  const used = inside.length - resting;
  expect(BigInt(used) + BigInt(resting) + free + reserved, formatCIDR(cidr)).toBe(sizeOf(cidr));
}

test.each(LAYOUTS)('whatever is done in whatever order, $what', { timeout: 120_000 }, (layout) => {
  const anyNode = fc.constantFrom(...NODES);
  const anyPool = fc.constantFrom(...layout.pools);
  const anyName = anyPool.map(({ name }) => name);
  const nodeAndPool = fc.tuple(anyNode, anyName);
  const commands = fc.commands(
    [
      nodeAndPool.map(([nodeName, name]) => claimSubnet(nodeName, name)),
      nodeAndPool.map(([nodeName, name]) => draw(nodeName, name)),
      nodeAndPool.map(([nodeName, name]) => draw(nodeName, name)),
      fc.tuple(anyNode, fc.constantFrom(...layout.named)).map(([nodeName, text]) => ask(nodeName, text)),
      fc.nat(30).map(release),
      fc.constant(rested),
      fc.constant(giveBack),
      anyPool.chain(({ name, cidrs }) =>
        fc.constantFrom(...cidrs).map((its) => editPool(name, { cidrs: its })),
      ),
      anyPool.chain(({ name, reservable }) =>
        fc.subarray([...reservable]).map((reserved) => editPool(name, { reserved })),
      ),
      fc.tuple(anyName, fc.boolean()).map(([name, disabled]) => editPool(name, { disabled })),
      fc.tuple(anyName, fc.boolean()).map(([name, selective]) => editPool(name, { selective })),
      anyName.map(remakePool),
    ].map((command) => command.map(conserved)),
    { maxCommands: 120, size: 'max' },
  );
  fc.assert(
    fc.property(commands, (sequence) => {
      fc.modelRun(() => {
        const pools = layout.pools.map((its, birth) => ({
          layout: its,
          birth,
          cidrs: its.cidrs[0] ?? [],
          reserved: [],
          disabled: false,
          selective: false,
        }));
        const model: Model = { layout, pools, births: pools.length };
        const world: World = {
          pools: makePools(model),
          subnets: [],
          allocations: new Map(),
          cursor: createRingCursor(),
        };
        return { model, real: world };
      }, sequence);
    }),
    { numRuns: 150 },
  );
});
