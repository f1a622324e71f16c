import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { IPAllocation, IPPool, NodeSubnet } from '../../src/api/index.ts';
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

/**
 * The pure policy as a whole, driven by whatever people, pods and nodes may do in any order, beside a model that knows
 * of every address by itself: nothing is handed out that is in use, resting, reserved, a node's own, or drained;
 * subnets are disjoint and lie in their pool; and nothing is ever lost: used + resting + free + reserved = usable.
 */
const BLOCKS = ['10.0.0.0/27', '10.0.0.32/27', '10.0.0.64/27'];
const NODES = ['n1', 'n2', 'n3'];
const RESERVABLE = ['10.0.0.3', '10.0.0.8/29', '10.0.0.33', '10.0.0.34/31', '10.0.0.64/28'];
const SIZES = { ipv4: 29, ipv6: 122 };

interface Model {
  cidrs: string[];
  reserved: string[];
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

function edit(model: Model, world: World): void {
  world.pool = poolOf('p', {
    cidrs: model.cidrs,
    nodeSubnetPrefixLength: SIZES,
    reserved: model.reserved,
    disabled: model.disabled,
    ...(model.selective ? { nodeSelector: { matchLabels: { pods: 'yes' } } } : {}),
  });
}

function offsetOf(name: string): number {
  return Number(name.split('.')[3]);
}

function isReserved(model: Model, name: string): boolean {
  return model.reserved.some((text) => {
    const [address = '', length = '32'] = text.split('/');
    const size = 2 ** (32 - Number(length));
    return Math.floor(offsetOf(name) / size) === Math.floor(offsetOf(address) / size);
  });
}

const claimSubnet = (nodeName: string): fc.Command<Model, World> => ({
  check: () => true,
  run(model, world) {
    const { pool, subnets } = world;
    const cidr = freeSubnet({ pool, pools: [pool], subnets, family: 'ipv4', nodeUID: `uid-${nodeName}` });
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
    const node = { nodeName, nodeUID: `uid-${nodeName}`, nodeLabels: labelsOf(nodeName) };
    const drawable = drawableSubnets({ pool, subnets, ...node });
    const { value } = addressCandidates({ pool, subnets: drawable, inUse: allocations, cursor }).next();
    const own = subnets.filter(({ spec }) => spec.nodeName === nodeName);
    if (value === undefined) {
      // Then there is none: each address of the node's is taken, or not to be drawn.
      const left = own
        .filter(({ spec }) => model.cidrs.some((cidr) => cidrContains(poolBlock(cidr), spec.cidr)))
        .flatMap(({ spec }) =>
          [1, 2, 3, 4, 5, 6, 7].map((i) => `10.0.0.${Number(spec.cidr.first & 255n) + i}`),
        )
        .filter((name) => !allocations.has(name) && !isReserved(model, name));
      if (!model.disabled && (!model.selective || nodeName !== 'n3')) expect(left).toEqual([]);
      return;
    }
    const { name, address, subnet } = value;
    expect(allocations.has(name)).toBe(false);
    expect(isReserved(model, name), `${name} is reserved`).toBe(false);
    expect(offsetOf(name) % 8, `${name} is a node's own`).not.toBe(0);
    expect(own.some(({ spec }) => cidrHasAddress(spec.cidr, address))).toBe(true);
    expect(model.disabled || (model.selective && nodeName === 'n3')).toBe(false);
    expect(model.cidrs.some((cidr) => cidrHasAddress(poolBlock(cidr), address))).toBe(true);
    cursor.handedOut(subnet, address);
    allocations.set(name, allocationOf(name, { nodeName }));
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

const editPool = (change: Partial<Model>): fc.Command<Model, World> => ({
  check: () => true,
  run(model, world) {
    Object.assign(model, change);
    edit(model, world);
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
      const { ipv4 } = poolUsage({ pool, pools: [pool], subnets, allocations, labelsOf });
      if (ipv4 === undefined) throw new Error('the pool lists IPv4');
      const numbers = [ipv4.allocated, ipv4.resting, ipv4.free, ipv4.reserved].map(BigInt);
      expect(numbers.reduce((sum, one) => sum + one, 0n)).toBe(BigInt(ipv4.capacity));
      expect(ipv4.resting).toBe(allocations.filter(({ status }) => status !== undefined).length);
      expect(ipv4.allocated + ipv4.resting).toBe(allocations.length);
      expect(ipv4.nodeSubnets).toBe(subnets.length);
      // Nothing of a drained subnet is free.
      const drained = subnets.filter((subnet) => isDrained(subnet, pool, labelsOf(subnet.spec.nodeName)));
      if (drained.length === subnets.length && ipv4.freeSubnets === '0') expect(ipv4.free).toBe('0');
    },
    toString: () => String(inner),
  };
}

function poolBlock(cidr: string) {
  return poolOf('block', { cidrs: [cidr], nodeSubnetPrefixLength: SIZES }).spec.cidrs[0] ?? fail(cidr);
}

function fail(cidr: string): never {
  throw new Error(`${cidr} is no CIDR`);
}

test('whatever is done in whatever order', { timeout: 60_000 }, () => {
  const anyNode = fc.constantFrom(...NODES);
  const commands = fc.commands(
    [
      anyNode.map(claimSubnet),
      anyNode.map(draw),
      anyNode.map(draw),
      fc.nat(30).map(release),
      fc.constant(rested),
      fc.constant(giveBack),
      fc.subarray(BLOCKS, { minLength: 1 }).map((cidrs) => editPool({ cidrs })),
      fc.subarray(RESERVABLE).map((reserved) => editPool({ reserved })),
      fc.boolean().map((disabled) => editPool({ disabled })),
      fc.boolean().map((selective) => editPool({ selective })),
    ].map((command) => command.map(conserved)),
    { maxCommands: 120, size: 'max' },
  );
  fc.assert(
    fc.property(commands, (sequence) => {
      fc.modelRun(() => {
        const model: Model = { cidrs: [...BLOCKS], reserved: [], disabled: false, selective: false };
        const world: World = {
          pool: poolOf('p', { cidrs: BLOCKS, nodeSubnetPrefixLength: SIZES }),
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
