import fc from 'fast-check';
import { expect, test } from 'vitest';
import { allocationName, type IPAllocation, type IPPool, type NodeSubnet } from '../../src/api/index.ts';
import {
  addressCandidates,
  createRingCursor,
  drawableSubnets,
  freeSubnet,
  isDrained,
  poolUsage,
  servingCIDRs,
  type RingCursor,
} from '../../src/ipam/index.ts';
import { cidrContains, cidrHasAddress, cidrsOverlap, formatCIDR } from '../../src/net/index.ts';
import { allocationOf, poolOf, RELEASED, subnetOf } from './objects.ts';
import { SPREAD, type Space } from './spaces.ts';

/**
 * The pure policy as a whole, driven by whatever people, pods and nodes may do in any order, beside a model that knows
 * of every address by itself: nothing is handed out that is in use, resting, reserved, a node's own, or drained;
 * subnets are disjoint and lie in their pool; and nothing is ever lost: used + resting + free + reserved = usable.
 */
const NODES = ['n1', 'n2', 'n3'];
/** By the numbers of a space: where the pool's CIDRs of 32 addresses begin. */
const BLOCKS = [0, 32, 64];
/** A subnet has 8. */
const SUBNET_BITS = 3;

interface Reservation {
  readonly first: number;
  readonly hostBits: number;
}
const RESERVABLE: readonly Reservation[] = [
  { first: 3, hostBits: 0 },
  { first: 8, hostBits: 3 },
  { first: 33, hostBits: 0 },
  { first: 34, hostBits: 1 },
  { first: 64, hostBits: 4 },
];

interface Model {
  readonly space: Space;
  blocks: number[];
  reserved: Reservation[];
  disabled: boolean;
  /** Selects the nodes with the label: n1 and n2. */
  selective: boolean;
}

/** The real one: objects as the apiserver would have them. */
interface World {
  pool: IPPool;
  subnets: NodeSubnet[];
  allocations: Map<string, IPAllocation>;
  readonly cursor: RingCursor;
}

const labelsOf = (nodeName: string): Record<string, string> => (nodeName === 'n3' ? {} : { pods: 'yes' });

function poolOfModel({ space, blocks, reserved, disabled, selective }: Model): IPPool {
  return poolOf('p', {
    cidrs: blocks.map((first) => space.cidr(first, 5)),
    nodeSubnetPrefixLength: { [space.family]: space.prefixLength(SUBNET_BITS) },
    reserved: reserved.map(({ first, hostBits }) => space.cidr(first, hostBits)),
    disabled,
    ...(selective ? { nodeSelector: { matchLabels: { pods: 'yes' } } } : {}),
  });
}

function isReserved({ reserved }: Model, number: number): boolean {
  return reserved.some(({ first, hostBits }) => number >= first && number < first + 2 ** hostBits);
}

const isListed = ({ blocks }: Model, number: number) =>
  blocks.some((first) => number >= first && number < first + 32);

const claimSubnet = (nodeName: string): fc.Command<Model, World> => ({
  check: () => true,
  run(model, world) {
    const { pool, subnets } = world;
    const { family } = model.space;
    const cidr = freeSubnet({ pool, pools: [pool], subnets, family, nodeUID: `uid-${nodeName}` });
    if (cidr === undefined) return;
    expect(model.disabled).toBe(false);
    expect(servingCIDRs(pool, [pool]).some((block) => cidrContains(block, cidr))).toBe(true);
    for (const { spec } of subnets) expect(cidrsOverlap(spec.cidr, cidr), formatCIDR(cidr)).toBe(false);
    subnets.push(subnetOf(formatCIDR(cidr), pool, nodeName));
  },
  toString: () => `claimSubnet(${nodeName})`,
});

const draw = (nodeName: string): fc.Command<Model, World> => ({
  check: () => true,
  run(model, world) {
    const { pool, subnets, allocations, cursor } = world;
    const { space } = model;
    const node = { nodeName, nodeUID: `uid-${nodeName}`, nodeLabels: labelsOf(nodeName) };
    const drawable = drawableSubnets({ pool, subnets, ...node });
    const { value } = addressCandidates({ pool, subnets: drawable, inUse: allocations, cursor }).next();
    const own = subnets.filter(({ spec }) => spec.nodeName === nodeName);
    if (value === undefined) {
      // Then there is none: each address of the node's is taken, or not to be drawn.
      const left = own
        .map(({ spec: { cidr } }) => space.number({ family: cidr.family, value: cidr.first }))
        .flatMap((first) => [1, 2, 3, 4, 5, 6, 7].map((i) => first + i))
        .filter((number) => isListed(model, number) && !isReserved(model, number))
        .filter((number) => !allocations.has(allocationName(space.address(number))));
      if (!model.disabled && (!model.selective || nodeName !== 'n3')) expect(left).toEqual([]);
      return;
    }
    const { name, address, subnet } = value;
    const number = space.number(address);
    expect(allocations.has(name)).toBe(false);
    expect(isReserved(model, number), `${name} is reserved`).toBe(false);
    expect(number % 2 ** SUBNET_BITS, `${name} is a node's own`).not.toBe(0);
    expect(own.some(({ spec }) => cidrHasAddress(spec.cidr, address))).toBe(true);
    expect(model.disabled || (model.selective && nodeName === 'n3')).toBe(false);
    expect(isListed(model, number)).toBe(true);
    cursor.handedOut(subnet, address);
    allocations.set(name, allocationOf(space.text(number), { nodeName }));
  },
  toString: () => `draw(${nodeName})`,
});

const release = (which: number): fc.Command<Model, World> => ({
  check: () => true,
  run(_, { allocations }) {
    const living = [...allocations.values()].filter(({ status }) => status === undefined);
    const chosen = living[which % Math.max(living.length, 1)];
    if (chosen !== undefined) allocations.set(chosen.metadata.name, { ...chosen, status: RELEASED });
  },
  toString: () => `release(${which})`,
});

const rested: fc.Command<Model, World> = {
  check: () => true,
  run(_, { allocations }) {
    for (const [name, { status }] of allocations) if (status !== undefined) allocations.delete(name);
  },
  toString: () => 'rested',
};

const giveBack: fc.Command<Model, World> = {
  check: () => true,
  run(_, world) {
    world.subnets = world.subnets.filter((subnet) =>
      [...world.allocations.values()].some(({ spec }) => cidrHasAddress(subnet.spec.cidr, spec.address)),
    );
  },
  toString: () => 'giveBack',
};

const editPool = (change: Partial<Omit<Model, 'space'>>): fc.Command<Model, World> => ({
  check: () => true,
  run(model, world) {
    Object.assign(model, change);
    world.pool = poolOfModel(model);
  },
  toString: () => `editPool(${JSON.stringify(change)})`,
});

/** After each step: what is counted equals what a look at every address finds. */
function conserved(inner: fc.Command<Model, World>): fc.Command<Model, World> {
  return {
    check: inner.check,
    run(model, world) {
      inner.run(model, world);
      const { pool, subnets } = world;
      const allocations = [...world.allocations.values()];
      const usage = poolUsage({ pool, pools: [pool], subnets, allocations, labelsOf });
      const counted = usage[model.space.family];
      if (counted === undefined) throw new Error(`the pool lists no ${model.space.family}`);
      const numbers = [counted.allocated, counted.resting, counted.free, counted.reserved].map(BigInt);
      expect(numbers.reduce((sum, one) => sum + one, 0n)).toBe(BigInt(counted.capacity));
      expect(counted.resting).toBe(allocations.filter(({ status }) => status !== undefined).length);
      expect(counted.allocated + counted.resting).toBe(allocations.length);
      expect(counted.nodeSubnets).toBe(subnets.length);
      // Nothing of a drained subnet is free.
      const drained = subnets.filter((subnet) => isDrained(subnet, pool, labelsOf(subnet.spec.nodeName)));
      if (drained.length === subnets.length && counted.freeSubnets === '0') expect(counted.free).toBe('0');
    },
    toString: () => String(inner),
  };
}

test.each(SPREAD)('whatever is done in whatever order, $family', { timeout: 60_000 }, (space) => {
  const anyNode = fc.constantFrom(...NODES);
  const commands = fc.commands(
    [
      anyNode.map(claimSubnet),
      anyNode.map(draw),
      anyNode.map(draw),
      fc.nat(30).map(release),
      fc.constant(rested),
      fc.constant(giveBack),
      fc.subarray(BLOCKS, { minLength: 1 }).map((blocks) => editPool({ blocks })),
      fc.subarray([...RESERVABLE]).map((reserved) => editPool({ reserved })),
      fc.boolean().map((disabled) => editPool({ disabled })),
      fc.boolean().map((selective) => editPool({ selective })),
    ].map((command) => command.map(conserved)),
    { maxCommands: 120, size: 'max' },
  );
  fc.assert(
    fc.property(commands, (sequence) => {
      fc.modelRun(() => {
        const model: Model = { space, blocks: [...BLOCKS], reserved: [], disabled: false, selective: false };
        const world: World = {
          pool: poolOfModel(model),
          subnets: [],
          allocations: new Map(),
          cursor: createRingCursor(),
        };
        return { model, real: world };
      }, sequence);
    }),
    { numRuns: 300 },
  );
});
