import { randomUUID } from 'node:crypto';
import { allocationName, GROUP, type IPAllocation, type IPPool, type NodeSubnet } from '../api/index.ts';
import {
  addressCandidates,
  claimHeldAddresses,
  createRingCursor,
  drawableSubnets,
  heldCandidates,
  poolFamilies,
  SubnetGivenBackError,
  usableFamilies,
  whyNotHolder,
  whyNotServing,
  type HeldCandidate,
  type HeldClaimRequest,
} from '../ipam/index.ts';
import { getNode, isRefusal } from '../kube/index.ts';
import { FAMILIES, formatAddress, type Family } from '../net/index.ts';
import { readSurroundings, withCluster, type Cluster } from './cluster.ts';
import type { Call, Command, World } from './command.ts';
import { EXIT, RefusedError, UsageError, type ExitCode } from './errors.ts';
import { answer, formatOf, OUTPUT_FLAG } from './output.ts';
import { styleFor } from './style.ts';

export const ADDR_REQUEST: Command = {
  words: ['addr', 'request'],
  summary: 'hold an address of a pool without a pod, until it is released',
  about: [
    'Prints the address alone, of a pool with both families one of each, a line each.',
    'Without --node it is counted and routed nowhere, and comes from where no node has a',
    "subnet, if there is such space. With --node it comes from that node's subnets, and",
    'other nodes send what goes to it there.',
  ].join('\n'),
  operands: [{ name: 'POOL', values: 'pools' }],
  flags: [
    { name: 'node', value: 'NODE', about: "from this node's subnets", values: 'nodes' },
    { name: 'holder', value: 'TEXT', about: 'for whom, as the lists show it; default cli:USER@HOST' },
    { name: 'family', value: 'FAMILY', about: 'one address of this family: ipv4 or ipv6', values: FAMILIES },
    OUTPUT_FLAG,
  ],
  run: requestAddress,
};

/** For one request; the apiserver answers in milliseconds, or not at all. */
const DEADLINE_MS = 30_000;

/** On the objects of one request: two people may hold addresses under one name. */
const REQUEST_ANNOTATION = `${GROUP}/request`;

async function requestAddress(call: Call, world: World): Promise<ExitCode> {
  const format = formatOf(call);
  const holder = call.text('holder') ?? `cli:${world.person}`;
  const refusal = whyNotHolder(holder);
  if (refusal !== undefined) throw new UsageError(`--holder ${JSON.stringify(holder)}: ${refusal}`);
  const request = randomUUID();
  const asked = {
    holder,
    family: familyOf(call),
    nodeName: call.text('node'),
    poolName: call.operands[0] ?? '',
  };
  const claimed = await withCluster(call, world, (cluster) => claim(cluster, world, asked, request), {
    [REQUEST_ANNOTATION]: request,
  });
  await answer(world, format, {
    data: claimed.map(({ spec }) => ({
      address: formatAddress(spec.address),
      pool: spec.pool,
      ...(spec.nodeName === undefined ? {} : { node: spec.nodeName }),
      holder,
    })),
    text: () => claimed.map(({ spec }) => `${formatAddress(spec.address)}\n`).join(''),
  });
  if (format === 'table' && world.stdout.isTerminal) await hint(world, holder);
  return EXIT.done;
}

/** A person is told how it ends; a script that reads stdout, and keeps stderr in a log, is not. */
async function hint({ stderr, env }: World, holder: string): Promise<void> {
  const text = `held for ${holder}; give it back with: kubectl weft addr release ADDRESS`;
  await stderr.write(`${styleFor(stderr, env).dim(text)}\n`);
}

interface Asked {
  readonly poolName: string;
  readonly holder: string;
  /** Absent: one address of each family of the pool. */
  readonly family: Family | undefined;
  readonly nodeName: string | undefined;
}

function familyOf(call: Call): Family | undefined {
  const text = call.text('family');
  const family = FAMILIES.find((one) => one === text);
  if (text === undefined || family !== undefined) return family;
  throw new UsageError(`--family ${text}: it must be one of ${FAMILIES.join(', ')}`);
}

/** Looks at what there is and claims; once more where the node has given the subnet back meanwhile. */
async function claim(cluster: Cluster, world: World, asked: Asked, request: string): Promise<IPAllocation[]> {
  for (let triesLeft = 3; ; triesLeft--) {
    try {
      return await claimOnce(cluster, world, asked, request);
    } catch (error) {
      if (!(error instanceof SubnetGivenBackError) || triesLeft === 1) throw error;
    }
  }
}

async function claimOnce(
  cluster: Cluster,
  world: World,
  asked: Asked,
  request: string,
): Promise<IPAllocation[]> {
  const { signal, clock, random } = world;
  const { holder, nodeName, poolName } = asked;
  const [pools, subnets, allocations] = await Promise.all([
    cluster.pools.listAll(signal),
    cluster.subnets.listAll(signal),
    cluster.allocations.listMatching({ pool: poolName }, signal),
  ]);
  const pool = requirePool(poolName, pools, subnets);
  const view = { pool, pools, subnets, allocations };
  const searches =
    nodeName === undefined
      ? await searchAnywhere(cluster, view, asked.family, signal)
      : await searchOnNode(cluster, view, asked.family, nodeName, signal);
  return claimHeldAddresses(
    {
      store: cluster.allocations,
      clock,
      random,
      isOurs: ({ metadata }) => metadata.annotations[REQUEST_ANNOTATION] === request,
      isRefusal,
    },
    {
      pool,
      holder,
      ...(nodeName === undefined ? {} : { nodeName }),
      searches,
      isStillThere: async ({ metadata }, until) =>
        (await cluster.subnets.get(metadata.name, until))?.metadata.uid === metadata.uid,
      deadlineMs: DEADLINE_MS,
      signal,
    },
  );
}

function requirePool(name: string, pools: readonly IPPool[], subnets: readonly NodeSubnet[]): IPPool {
  const pool = pools.find(({ metadata }) => metadata.name === name);
  if (pool === undefined) {
    const there = pools.map(({ metadata }) => metadata.name).sort();
    throw new RefusedError(
      `there is no IPPool ${name}: ${there.length === 0 ? 'there is none at all' : `there is ${there.join(', ')}`}`,
    );
  }
  const reason = whyNotServing(pool, { pools, subnets });
  if (reason !== undefined) throw new RefusedError(`IPPool ${name} gives out no addresses: ${reason}`);
  return pool;
}

interface View {
  readonly pool: IPPool;
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly allocations: readonly IPAllocation[];
}

type Searches = HeldClaimRequest['searches'];

async function searchAnywhere(
  cluster: Cluster,
  { allocations, ...view }: View,
  asked: Family | undefined,
  signal: AbortSignal,
): Promise<Searches> {
  const families = poolFamilies(view.pool).filter((family) => asked === undefined || family === asked);
  if (families.length === 0) {
    throw new RefusedError(
      `IPPool ${view.pool.metadata.name} has no ${asked ?? ''} CIDR: leave --family out, or add one to spec.cidrs`,
    );
  }
  const surroundings = await readSurroundings(cluster, view, signal);
  const inUse = allocations.map(({ spec }) => spec.address);
  return families.map((family) => ({
    family,
    candidates: heldCandidates({ ...view, ...surroundings, family, inUse }),
  }));
}

async function searchOnNode(
  { client }: Cluster,
  { pool, subnets, allocations }: View,
  asked: Family | undefined,
  nodeName: string,
  signal: AbortSignal,
): Promise<Searches> {
  const node = await getNode(client, nodeName, signal);
  if (node === undefined) throw new RefusedError(`there is no node ${nodeName}`);
  const drawable = drawableSubnets({
    ...{ pool, subnets, nodeName },
    nodeUID: node.uid,
    nodeLabels: node.labels,
  });
  const ofNodes = subnets.flatMap(({ spec }) => spec.nextHops).map(allocationName);
  const inUse = new Set([...allocations.map(({ metadata }) => metadata.name), ...ofNodes]);
  // Without being asked, a node of one family gets of a pool of both what its pods get.
  const families = asked === undefined ? usableFamilies(pool, node.addresses) : [asked];
  if (families.length === 0) {
    throw new RefusedError(
      `node ${nodeName} has no InternalIP of a family that IPPool ${pool.metadata.name} lists`,
    );
  }
  return families.map((family) => {
    const ofFamily = drawable.filter(({ spec }) => spec.cidr.family === family);
    if (ofFamily.length === 0) {
      throw new RefusedError(
        `node ${nodeName} has no ${family} subnet of IPPool ${pool.metadata.name} to take an address from: ` +
          'take one of another node, or of none (without --node)',
      );
    }
    const candidates: Iterator<HeldCandidate, undefined> = addressCandidates({
      pool,
      subnets: ofFamily,
      inUse,
      cursor: createRingCursor(),
    });
    return { family, candidates };
  });
}
