import { readFile } from 'node:fs/promises';
import { FAMILIES, firstAddress, formatAddress, formatCIDR, type CIDR, type Family } from '../net/index.ts';
import type { CommandRunner } from './command.ts';
import { HOST_LINK_PREFIX, VXLAN_LINK_NAME } from './names.ts';
import { applyNft, parseNft } from './nft.ts';

/** Which of weft's packets foreign filters must let through. */
export interface AcceptedTraffic {
  /** VXLAN, if this node uses it: its port, and the family between nodes. Our own table drops what does not come from one. */
  readonly vxlan: { readonly port: number; readonly underlay: Family } | undefined;
  /** The families that have pods. */
  readonly families: readonly Family[];
  /**
   * Where pods have their addresses. What a port of this node takes in for a pod of another node comes and goes by the
   * uplink, and links of other plugins have any name: these are told by address.
   */
  readonly forwarded: readonly CIDR[];
}

/** What stood in the way, and what was done. */
export interface AcceptReport {
  /** Rules that had to be inserted, as a person would write them; empty if none was missing. */
  readonly inserted: readonly string[];
  /** Rules of ours that nothing asks for any more, and that went. */
  readonly removed: readonly string[];
  /** Base chains that drop and that weft leaves alone: `inet firewalld filter_FORWARD`. */
  readonly unhandled: readonly string[];
}

export interface AcceptOptions {
  readonly run: CommandRunner;
  /** Name of weft's own nft table, which is not foreign. */
  readonly ownTable: string;
  /** The tables that xtables-legacy has loaded for a family; reading them never loads a module. */
  readonly legacyTables?: (family: Family) => Promise<readonly string[]>;
}

/** One rule that a chain must hold. */
interface AcceptRule {
  readonly chain: 'FORWARD' | 'INPUT';
  /** In nft's JSON. */
  readonly expression: readonly unknown[];
  /** For iptables, without `-A CHAIN`. */
  readonly iptables: readonly string[];
}

/** A rule that a chain has. */
interface PresentRule {
  readonly handle: number;
  readonly comment: string | undefined;
  /** In nft's JSON, without counters. */
  readonly expression: readonly unknown[];
}

interface Chain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
  readonly policy: string | undefined;
}

/** The comment of the rules that are ours: one that nothing asks for any more is taken out by it. */
const MARK = 'weft-accept';
const CHAINS = ['FORWARD', 'INPUT'] as const;
const NFT_FAMILY: Readonly<Record<Family, 'ip' | 'ip6'>> = { ipv4: 'ip', ipv6: 'ip6' };
const LEGACY_PROGRAM: Readonly<Record<Family, string>> = {
  ipv4: 'iptables-legacy',
  ipv6: 'ip6tables-legacy',
};
const LEGACY_TABLES: Readonly<Record<Family, string>> = {
  ipv4: '/proc/net/ip_tables_names',
  ipv6: '/proc/net/ip6_tables_names',
};

/**
 * Lets weft's packets through foreign base chains that end in a drop: an accept in a table of our own does not
 * override a drop in another (design, section 7). Rules go to the head of `filter` FORWARD and INPUT of ip
 * and ip6, by nft, or by xtables-legacy where the policy stands there. Those with our mark go again when nothing asks
 * for them, or nothing drops any more. Call it again when a notification says that rules changed; what is there already
 * is left as it is.
 * @throws CommandError
 */
export async function ensureAccepted(
  traffic: AcceptedTraffic,
  { run, ownTable, legacyTables = readLegacyTables }: AcceptOptions,
): Promise<AcceptReport> {
  const chains = await listBaseChains(run);
  const reports: Changed[] = [];
  for (const family of FAMILIES) {
    const rules = acceptRules(family, traffic);
    reports.push(await changeByNft(run, family, rules, chains));
    if ((await legacyTables(family)).includes('filter')) {
      reports.push(await changeByLegacy(run, family, rules));
    }
  }
  return {
    inserted: reports.flatMap(({ inserted }) => inserted),
    removed: reports.flatMap(({ removed }) => removed),
    unhandled: await unhandledChains(run, ownTable, chains),
  };
}

type Changed = Pick<AcceptReport, 'inserted' | 'removed'>;

/** What pods send is of their families, and what carries it through the tunnel of the nodes' own. */
function acceptRules(family: Family, traffic: AcceptedTraffic): AcceptRule[] {
  return [
    ...(traffic.families.includes(family) ? acceptForwarded(family, traffic) : []),
    ...(traffic.vxlan?.underlay === family ? [acceptTunnel(traffic.vxlan.port)] : []),
  ];
}

function acceptTunnel(port: number): AcceptRule {
  return {
    chain: 'INPUT',
    expression: [match({ payload: { protocol: 'udp', field: 'dport' } }, port), { accept: null }],
    iptables: ['-p', 'udp', '-m', 'udp', '--dport', String(port), ...ACCEPT],
  };
}

function acceptForwarded(family: Family, { vxlan, forwarded }: AcceptedTraffic): AcceptRule[] {
  return [
    ...acceptLinks(`${HOST_LINK_PREFIX}*`, `${HOST_LINK_PREFIX}+`),
    // What is drained elsewhere is among no CIDR, and keeps its way.
    ...(vxlan === undefined ? [] : acceptLinks(VXLAN_LINK_NAME, VXLAN_LINK_NAME)),
    ...forwarded.filter((cidr) => cidr.family === family).flatMap(acceptAddresses),
  ];
}

/** By a link's name as nft and as iptables spell it. */
function acceptLinks(nft: string, iptables: string): AcceptRule[] {
  return (['iifname', 'oifname'] as const).map((key) => ({
    chain: 'FORWARD',
    expression: [match({ meta: { key } }, nft), { accept: null }],
    iptables: [key === 'iifname' ? '-i' : '-o', iptables, ...ACCEPT],
  }));
}

function acceptAddresses(cidr: CIDR): AcceptRule[] {
  const protocol = NFT_FAMILY[cidr.family];
  const prefix = { addr: formatAddress(firstAddress(cidr)), len: cidr.prefixLength };
  return (['saddr', 'daddr'] as const).map((field) => ({
    chain: 'FORWARD',
    expression: [match({ payload: { protocol, field } }, { prefix }), { accept: null }],
    iptables: [field === 'saddr' ? '-s' : '-d', formatCIDR(cidr), ...ACCEPT],
  }));
}

async function changeByNft(
  run: CommandRunner,
  family: Family,
  rules: readonly AcceptRule[],
  chains: readonly Chain[],
): Promise<Changed> {
  const nftFamily = NFT_FAMILY[family];
  const commands: Readonly<Record<string, unknown>>[] = [];
  const inserted: string[] = [];
  const removed: string[] = [];
  for (const name of CHAINS) {
    const chain = chains.find((c) => c.family === nftFamily && c.table === 'filter' && c.name === name);
    if (chain === undefined) continue;
    const place = { family: nftFamily, table: 'filter', chain: name };
    const present = await listRules(run, chain);
    const wanted = endsInDrop(chain, present) ? rules.filter((rule) => rule.chain === name) : [];
    for (const rule of wanted) {
      if (present.some((one) => sameRule(one, rule))) continue;
      commands.push({ insert: { rule: { ...place, expr: rule.expression, comment: MARK } } });
      inserted.push(`${nftFamily} filter ${describeRule(rule)}`);
    }
    for (const one of present) {
      if (one.comment !== MARK || wanted.some((rule) => sameRule(one, rule))) continue;
      commands.push({ delete: { rule: { ...place, handle: one.handle } } });
      removed.push(`${nftFamily} filter ${name} ${JSON.stringify(one.expression)}`);
    }
  }
  if (commands.length > 0) await applyNft(run, { nftables: commands });
  return { inserted, removed };
}

async function changeByLegacy(
  run: CommandRunner,
  family: Family,
  rules: readonly AcceptRule[],
): Promise<Changed> {
  const program = LEGACY_PROGRAM[family];
  const inserted: string[] = [];
  const removed: string[] = [];
  for (const name of CHAINS) {
    const lines = (await run(program, ['-w', '-S', name])).split('\n');
    const last = lines.findLast((line) => line.startsWith('-A')) ?? '';
    const drops = lines.includes(`-P ${name} DROP`) || /^-A \S+ -j (DROP|REJECT)\b/.test(last);
    const wanted = drops ? rules.filter(({ chain }) => chain === name) : [];
    const spellings = wanted.map((rule) =>
      [rule.iptables, marked(rule.iptables)].map((args) => args.join(' ')),
    );
    for (const [i, rule] of wanted.entries()) {
      if (spellings[i]?.some((text) => lines.includes(`-A ${name} ${text}`)) === true) continue;
      await run(program, ['-w', '-I', name, ...marked(rule.iptables)]);
      inserted.push(`${program} ${describeRule(rule)}`);
    }
    for (const line of lines) {
      const text = line.slice(`-A ${name} `.length);
      if (!line.endsWith(` ${MARKED_ACCEPT.join(' ')}`) || spellings.flat().includes(text)) continue;
      await run(program, ['-w', '-D', name, ...text.split(' ')]);
      removed.push(`${program} ${name} ${text}`);
    }
  }
  return { inserted, removed };
}

const ACCEPT = ['-j', 'ACCEPT'];
const MARKED_ACCEPT = ['-m', 'comment', '--comment', MARK, ...ACCEPT];

/** The rule with our mark, as iptables itself spells it. */
function marked(iptables: readonly string[]): string[] {
  return [...iptables.slice(0, -ACCEPT.length), ...MARKED_ACCEPT];
}

async function unhandledChains(
  run: CommandRunner,
  ownTable: string,
  chains: readonly Chain[],
): Promise<string[]> {
  const unhandled: string[] = [];
  for (const chain of chains) {
    const handled =
      chain.table === 'filter' && ['FORWARD', 'INPUT'].includes(chain.name) && chain.family !== 'inet';
    if (handled || chain.table === ownTable || !['forward', 'input'].includes(chain.hook)) continue;
    if (endsInDrop(chain, await listRules(run, chain))) {
      unhandled.push(`${chain.family} ${chain.table} ${chain.name}`);
    }
  }
  return unhandled;
}

async function listBaseChains(run: CommandRunner): Promise<Chain[]> {
  const { nftables } = parseNft(await run('nft', ['-j', 'list', 'chains']));
  return nftables.flatMap(({ chain }) => {
    if (!isRecord(chain) || typeof chain.hook !== 'string') return [];
    const { family, table, name, hook, policy } = chain;
    if (typeof family !== 'string' || typeof table !== 'string' || typeof name !== 'string') return [];
    return [{ family, table, name, hook, policy: typeof policy === 'string' ? policy : undefined }];
  });
}

async function listRules(run: CommandRunner, chain: Chain): Promise<PresentRule[]> {
  const { nftables } = parseNft(
    await run('nft', ['-j', '-s', 'list', 'chain', chain.family, chain.table, chain.name]),
  );
  return nftables.flatMap(({ rule }) => {
    if (!isRecord(rule) || !Array.isArray(rule.expr) || typeof rule.handle !== 'number') return [];
    const { handle, comment, expr } = rule;
    const expression = expr.filter((part) => !(isRecord(part) && 'counter' in part));
    return [{ handle, comment: typeof comment === 'string' ? comment : undefined, expression }];
  });
}

/** By its policy, or by a last rule that drops or rejects whatever comes. */
function endsInDrop(chain: Chain, rules: readonly PresentRule[]): boolean {
  const last = rules.at(-1)?.expression;
  const verdict = last?.length === 1 ? last[0] : undefined;
  return (
    chain.policy === 'drop' ||
    (isRecord(verdict) && ('drop' in verdict || 'reject' in verdict || isXtDrop(verdict)))
  );
}

function isXtDrop({ xt }: Readonly<Record<string, unknown>>): boolean {
  return isRecord(xt) && xt.type === 'target' && ['DROP', 'REJECT'].includes(String(xt.name));
}

function sameRule({ expression }: PresentRule, rule: AcceptRule): boolean {
  return JSON.stringify(expression) === JSON.stringify(rule.expression);
}

function match(left: unknown, right: string | number | object): unknown {
  return { match: { op: '==', left, right } };
}

function describeRule(rule: AcceptRule): string {
  return `${rule.chain} ${rule.iptables.join(' ')}`;
}

async function readLegacyTables(family: Family): Promise<readonly string[]> {
  try {
    return (await readFile(LEGACY_TABLES[family], 'utf8')).split('\n').filter((name) => name !== '');
  } catch (error) {
    // Without xtables-legacy in the kernel there is no such file.
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
