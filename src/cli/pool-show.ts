import type { IPAllocation, IPPool, NodeSubnet, PoolUsage } from '../api/index.ts';
import {
  exhaustedFamilies,
  countingFor,
  poolReport,
  whyNotServing,
  type CIDRReport,
  type FamilyUsage,
  type NodeReport,
  type PoolReport,
  type PoolReportInput,
} from '../ipam/index.ts';
import { FAMILIES, formatAddress, formatCIDR, type Family } from '../net/index.ts';
import { bar, barLegend, shareText, type Shares } from './bar.ts';
import { readSurroundings, withCluster, type Cluster } from './cluster.ts';
import type { Call, Command, World } from './command.ts';
import { EXIT, RefusedError, type ExitCode } from './errors.ts';
import { countText, durationText } from './figures.ts';
import { answer, formatOf, OUTPUT_FLAG } from './output.ts';
import { styleFor, type Style } from './style.ts';
import { renderTable, widthOf, type Cell } from './table.ts';
import type { Plain } from './yaml.ts';

export const POOL_SHOW: Command = {
  words: ['pool', 'show'],
  summary: 'how pools are used, by CIDR and by node',
  about: [
    'Counts the objects themselves; no status is read. Addresses that are held without a',
    'pod come first: no pod that goes frees them, and a drained CIDR waits for them.',
    "RESERVED is what nobody gets: a node's own or a bridge's address in every subnet,",
    'what the pool reserves, and what is drained. USE is allocated and resting of what can',
    'be had.',
  ].join('\n'),
  operands: [{ name: 'POOL', isOptional: true, isRepeated: true, values: 'pools' }],
  flags: [OUTPUT_FLAG],
  run: showPools,
};

async function showPools(call: Call, world: World): Promise<ExitCode> {
  const format = formatOf(call);
  const shown = await withCluster(call, world, (cluster) => readPools(cluster, call.operands, world.signal));
  const now = world.clock.wallTime();
  await answer(world, format, {
    data: shown.map(dataOf),
    text: () => (shown.length === 0 ? '' : textOf(shown, now, world)),
  });
  if (shown.length === 0 && format === 'table') await world.stderr.write('there is no IPPool\n');
  return EXIT.done;
}

interface Shown {
  readonly pool: IPPool;
  readonly report: PoolReport;
  /** Why nothing is drawn from it. */
  readonly refusal: string | undefined;
  readonly exhausted: readonly Family[];
}

async function readPools(cluster: Cluster, names: readonly string[], signal: AbortSignal): Promise<Shown[]> {
  const pools = await cluster.pools.listAll(signal);
  const asked = poolsOf(names, pools);
  const subnets = await cluster.subnets.listAll(signal);
  const allocations = await readAllocations(cluster, asked, { pools, subnets }, signal);
  const surroundings = await readSurroundings(cluster, { pools: asked, subnets }, signal);
  return asked.map((pool) => {
    const input: PoolReportInput = { pool, pools, subnets, allocations, ...surroundings };
    return {
      pool,
      report: poolReport(input),
      refusal: whyNotServing(pool, { pools, subnets }),
      exhausted: exhaustedFamilies(input),
    };
  });
}

/** From so many pools on one list of all costs the apiserver less than one for each: it looks at all objects every time. */
const FEW_POOLS = 4;

/** People hold them, or they are kept for pods: no NodeSubnet says in whose range they lie. */
const WITHOUT_NODE = { nodeName: '' };

/** The allocations that matter for the pools asked for: their own, and those of others that may lie in their ranges. */
async function readAllocations(
  { allocations }: Cluster,
  asked: readonly IPPool[],
  { pools, subnets }: { readonly pools: readonly IPPool[]; readonly subnets: readonly NodeSubnet[] },
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  const counts = asked.map((pool) => countingFor(pool, pools, subnets));
  // A pool that is gone may have left subnets behind.
  const names = new Set([
    ...pools.map(({ metadata }) => metadata.name),
    ...subnets.map(({ spec }) => spec.pool),
  ]);
  const near = [...names].filter((name) => counts.some((counting) => counting(name)));
  if (near.length === names.size || near.length >= FEW_POOLS) return allocations.listMatching({}, signal);
  const filters = [...near.map((pool) => ({ pool })), WITHOUT_NODE];
  const lists = await Promise.all(filters.map((filter) => allocations.listMatching(filter, signal)));
  return [...new Map(lists.flat().map((one) => [one.metadata.name, one])).values()];
}

function poolsOf(names: readonly string[], pools: readonly IPPool[]): IPPool[] {
  const there = new Map(pools.map((pool) => [pool.metadata.name, pool]));
  const missing = names.filter((name) => !there.has(name));
  if (missing.length > 0) {
    const known = [...there.keys()].sort().join(', ');
    throw new RefusedError(
      `there is no IPPool ${missing.join(', ')}: ${known === '' ? 'there is none at all' : `there is ${known}`}`,
    );
  }
  const asked = names.length === 0 ? [...there.keys()] : [...new Set(names)];
  return asked.sort().flatMap((name) => there.get(name) ?? []);
}

function dataOf({ pool, report, refusal, exhausted }: Shown): Plain {
  return {
    name: pool.metadata.name,
    serves: refusal === undefined,
    ...(refusal === undefined ? {} : { reason: refusal }),
    exhausted,
    usage: { ...report.usage },
    holders: report.holders.map(({ spec, metadata }) => ({
      address: formatAddress(spec.address),
      holder: spec.holder ?? '',
      ...(spec.nodeName === undefined ? {} : { node: spec.nodeName }),
      createdAt: metadata.creationTimestamp,
    })),
    cidrs: report.cidrs.map(({ cidr, usage }) => ({
      ...(cidr === undefined ? { drained: true } : { cidr: formatCIDR(cidr), drained: false }),
      usage: { ...usage },
    })),
    nodes: report.nodes.map(({ nodeName, subnets, usage }) => ({
      node: nodeName,
      subnets: subnets.map(({ cidr, isDrained }) => ({ cidr: formatCIDR(cidr), drained: isDrained })),
      usage: { ...usage },
    })),
  };
}

/** At most so wide is a bar; a narrow terminal gets a shorter one. */
const [WIDEST_BAR, NARROWEST_BAR] = [30, 8];

/** A CIDR of IPv4 and the space before it. */
const SUBNETS_ROOM = 20;

const INDENT = '  ';

interface Look {
  readonly style: Style;
  /** Undefined: no bars, as in a pipe. */
  readonly barWidth: number | undefined;
  /** The width of the terminal; undefined in a pipe, where nothing is cut. */
  readonly columns: number | undefined;
  readonly now: Date;
}

function textOf(shown: readonly Shown[], now: Date, { stdout, env }: World): string {
  const style = styleFor(stdout, env);
  const text = (look: Look) => shown.map((one) => poolText(one, look)).join('\n');
  if (!stdout.isTerminal) return text({ style, now, barWidth: undefined, columns: undefined });
  const barWidth = fittingBar(shown, { style, now, barWidth: WIDEST_BAR, columns: stdout.columns });
  return `${text({ style, now, barWidth, columns: stdout.columns })}\n${barLegend(style)}\n`;
}

/** As wide a bar as leaves room for the subnets beside it, if they are short. */
function fittingBar(shown: readonly Shown[], look: Look): number {
  const widths = shown.map(({ pool, report }) =>
    widthOf(usageRows(pool.metadata.name, report, look).map((row) => row.slice(0, -1))),
  );
  const wanted = INDENT.length + Math.max(...widths) + SUBNETS_ROOM;
  const excess = wanted - (look.columns ?? wanted);
  return Math.min(WIDEST_BAR, Math.max(NARROWEST_BAR, WIDEST_BAR - excess));
}

function poolText({ pool, report, refusal, exhausted }: Shown, look: Look): string {
  const { style } = look;
  const states = [
    refusal === undefined ? style.green('serving') : style.red(`not serving: ${refusal}`),
    ...exhausted.map((family) => style.red(`${NAMES[family]} exhausted`)),
    ...(report.cidrs.some(({ cidr }) => cidr === undefined) ? [style.yellow('draining')] : []),
  ];
  return [
    `${style.bold(pool.metadata.name)}   ${states.join(', ')}\n`,
    ...(report.holders.length === 0 ? [] : ['\n', holdersText(report.holders, look)]),
    '\n',
    renderTable(usageRows(pool.metadata.name, report, look), {
      right: numberColumns(look),
      indent: INDENT,
      fit: look.columns,
    }),
  ].join('');
}

function holdersText(holders: readonly IPAllocation[], { style, now }: Look): string {
  const headings = ['HELD WITHOUT A POD', 'HOLDER', 'NODE', 'FOR'].map((text) => ({
    text,
    paint: style.bold,
  }));
  const rows = holders.map(({ spec, metadata }): Cell[] => [
    { text: formatAddress(spec.address), paint: style.cyan },
    { text: spec.holder ?? '', paint: style.yellow },
    spec.nodeName ?? '-',
    durationText(now.getTime() - Date.parse(metadata.creationTimestamp)),
  ]);
  return renderTable([headings, ...rows], { indent: INDENT });
}

const NAMES: Readonly<Record<Family, string>> = { ipv4: 'IPv4', ipv6: 'IPv6' };

function usageRows(poolName: string, report: PoolReport, look: Look): Cell[][] {
  const headings = (first: string) => headingsOf(first, look);
  const cidrs = report.cidrs.flatMap((one) => cidrLines(one, look));
  const nodes = report.nodes.flatMap((one) => nodeLines(one, look));
  return [
    headings('POOL'),
    ...usageLines({ name: poolName, usage: report.usage, subnets: countSubnets }, look),
    ...(cidrs.length === 0 ? [] : [[], headings('CIDR'), ...cidrs]),
    ...(nodes.length === 0 ? [] : [[], headings('NODE'), ...nodes]),
  ];
}

function headingsOf(first: string, { style, barWidth }: Look): Cell[] {
  const bars = barWidth === undefined ? [] : [''];
  const texts = [first, '', ...bars, 'USE', 'ALLOCATED', 'RESTING', 'FREE', 'RESERVED', 'SUBNETS'];
  return texts.map((text) => ({ text, paint: style.bold }));
}

function countSubnets(_family: Family, { nodeSubnets, freeSubnets }: PoolUsage): string {
  return `${nodeSubnets}, ${countText(freeSubnets)} free`;
}

function cidrLines({ cidr, usage }: CIDRReport, look: Look): Cell[][] {
  return cidr === undefined
    ? usageLines({ name: 'drained', usage, subnets: countSubnets, isDrained: () => true }, look)
    : usageLines({ name: formatCIDR(cidr), usage, subnets: countSubnets }, look);
}

function nodeLines({ nodeName, subnets, usage }: NodeReport, look: Look): Cell[][] {
  const ofFamily = (family: Family) => subnets.filter(({ cidr }) => cidr.family === family);
  return usageLines(
    {
      name: nodeName,
      usage,
      subnets: (family) =>
        ofFamily(family)
          .map(({ cidr, isDrained }) => `${formatCIDR(cidr)}${isDrained ? ' (drained)' : ''}`)
          .join(', '),
      isDrained: (family) => ofFamily(family).every(({ isDrained }) => isDrained),
    },
    look,
  );
}

/** A part of a pool, or the whole. */
interface Counted {
  readonly name: string;
  readonly usage: FamilyUsage;
  readonly subnets: (family: Family, usage: PoolUsage) => string;
  /** Of what is drained nothing can be had: its use is what is left in it, which falls to 0. Default: no. */
  readonly isDrained?: (family: Family) => boolean;
}

/** One line for each family; the name stands in all of them, so that they can be grepped for. */
function usageLines(
  { name, usage, subnets, isDrained = () => false }: Counted,
  { style, barWidth }: Look,
): Cell[][] {
  return FAMILIES.flatMap((family) => {
    const counts = usage[family];
    if (counts === undefined) return [];
    const shares: Shares = {
      allocated: BigInt(counts.allocated),
      resting: BigInt(counts.resting),
      free: BigInt(isDrained(family) ? counts.reserved : counts.free),
    };
    return [
      [
        name,
        NAMES[family],
        ...(barWidth === undefined ? [] : [bar(shares, barWidth, style)]),
        shareText(shares),
        countText(counts.allocated),
        countText(counts.resting),
        countText(counts.free),
        countText(counts.reserved),
        { text: subnets(family, counts), paint: style.dim },
      ],
    ];
  });
}

function numberColumns({ barWidth }: Look): ReadonlySet<number> {
  const first = barWidth === undefined ? 2 : 3;
  return new Set([first, first + 1, first + 2, first + 3, first + 4]);
}
