import {
  MOST_NODE_ADDRESSES,
  type Condition,
  type IPPool,
  type IPPoolStatus,
  type NodeSubnet,
  type PoolUsage,
} from '../api/index.ts';
import {
  exhaustedFamilies,
  fullNodes,
  isDrained,
  isExclusive,
  poolUsage,
  reservedRanges,
  servingCIDRs,
  summarizeFindings,
  whyNotServing,
  type CountedAllocation,
  type Finding as AuditFinding,
  type UsageInput,
} from '../ipam/index.ts';
import {
  cidrContains,
  cidrHasAddress,
  cidrsOverlap,
  FAMILIES,
  formatAddress,
  formatCIDR,
  mergeRanges,
  rangeOfCIDR,
  rangesHave,
  type CIDR,
  type Family,
  type IPAddress,
  type Range,
} from '../net/index.ts';

/** What a pool's status is computed from: objects, never an earlier status. */
export interface PoolFacts extends UsageInput {
  /** The InternalIPs of all nodes. */
  readonly nodeAddresses: readonly IPAddress[];
  /** The ranges of Services; undefined where the cluster does not tell (before Kubernetes 1.33). */
  readonly serviceCIDRs: readonly CIDR[] | undefined;
  /** The share of addresses or subnets in use, 0 to 1, from which a pool counts as nearly exhausted. */
  readonly nearlyExhausted: number;
  /** What the audit found about this pool; undefined: it has not looked for long enough, and what was said stands. */
  readonly findings?: readonly AuditFinding[] | undefined;
}

/**
 * The status that the pool should have. A condition that stands as before keeps its lastTransitionTime; `now` is
 * that of the others.
 */
export function poolStatus(given: PoolFacts, now: Date): IPPoolStatus {
  // What keeps the agents from claiming subnets must count here too.
  const foreign = { nodes: given.nodeAddresses, services: given.serviceCIDRs ?? [] };
  const facts = { ...given, foreign };
  const { pool } = facts;
  const usage = poolUsage(facts);
  const nodes = nodesInside(facts);
  const found = [
    ready(facts),
    exhausted(facts, usage),
    nearlyExhausted(usage, facts),
    overlapping(facts),
    draining(facts),
    peersUnmatched(facts),
  ];
  return {
    ...(pool.metadata.generation === undefined ? {} : { observedGeneration: pool.metadata.generation }),
    ...usage,
    ...(nodes.length === 0 ? {} : { nodeAddresses: nodes }),
    conditions: [...found.map((finding) => asCondition(finding, pool, now)), ...consistent(facts, now)],
  };
}

/** What agents must know of nodes (IPPoolStatus.nodeAddresses), always in the same order. */
function nodesInside({ pool, nodeAddresses }: PoolFacts): IPAddress[] {
  const { cidrs, use } = pool.spec;
  // A LAN has one CIDR of each family. Nobody is given what is reserved, whoever has it.
  const most = use === 'Lan' ? MOST_NODE_ADDRESSES / FAMILIES.length : 1;
  return cidrs.flatMap((cidr) => {
    const reserved = use === 'Lan' ? reservedRanges(pool, cidr.family) : [];
    return nodeAddresses
      .filter((address) => cidrHasAddress(cidr, address) && !rangesHave(reserved, address.value))
      .sort((a, b) => (a.value < b.value ? -1 : 1))
      .slice(0, most);
  });
}

/** Whether the difference must be shown at once: a condition turned, or the spec is a newer one. */
export function isUrgent(current: IPPoolStatus | undefined, desired: IPPoolStatus): boolean {
  const gist = (status: IPPoolStatus | undefined) => [
    status?.observedGeneration,
    // No agent should claim there before it knows.
    ...(status?.nodeAddresses ?? []).map(formatAddress),
    ...(status?.conditions ?? []).map(({ type, status, reason }) => `${type} ${status} ${reason}`),
  ];
  return JSON.stringify(gist(current)) !== JSON.stringify(gist(desired));
}

/** Whether there is nothing to write. */
export function sameStatus(current: IPPoolStatus | undefined, desired: IPPoolStatus): boolean {
  const text = (status: IPPoolStatus | undefined) =>
    JSON.stringify(sorted({ ...status, nodeAddresses: status?.nodeAddresses?.map(formatAddress) }));
  return text(current) === text(desired);
}

/** At most so many names in one message. */
const MOST_NAMED = 10;

/** "10.244.1.0/26 of node-a, …": the subnets that someone waits for, as text. */
export function namedSubnets(subnets: readonly NodeSubnet[]): string {
  return atMost(subnets.map(({ spec }) => `${formatCIDR(spec.cidr)} of ${spec.nodeName}`));
}

type Usage = Partial<Record<Family, PoolUsage>>;

interface Finding {
  readonly type:
    'Ready' | 'Exhausted' | 'NearlyExhausted' | 'Overlapping' | 'Draining' | 'PeersUnmatched' | 'Consistent';
  readonly holds: boolean;
  readonly reason: string;
  readonly message: string;
}

function ready({ pool, pools, subnets, foreign }: PoolFacts): Finding {
  const held = subnetsOf(pool, subnets);
  const claimable = servingCIDRs(pool, pools, foreign).length > 0;
  const why =
    whyNotServing(pool, { pools, subnets }) ??
    // What was claimed before the overlap came up keeps serving.
    (claimable || held.length > 0
      ? undefined
      : 'each of its CIDRs overlaps one of an older IPPool, of the Services, or the address of a node');
  if (why === undefined) {
    return { type: 'Ready', holds: true, reason: 'Serving', message: 'pods get addresses from this pool' };
  }
  if (pool.metadata.deletionTimestamp === undefined) {
    return {
      type: 'Ready',
      holds: false,
      reason: pool.spec.disabled ? 'Disabled' : 'Overlapping',
      message: `nothing is drawn from it: ${why}`,
    };
  }
  const message =
    held.length === 0
      ? 'deleted; it goes as soon as no claim from before the deletion can be under way'
      : `deleted; it waits for ${held.length} node subnets, which go when ${lastToGo(pool)} are gone: ${namedSubnets(held)}`;
  return { type: 'Ready', holds: false, reason: 'Deleting', message };
}

function exhausted(facts: PoolFacts, usage: Usage): Finding {
  const families = exhaustedFamilies(facts);
  if (families.length === 0) return notExhausted(facts, usage);
  return {
    type: 'Exhausted',
    holds: true,
    reason: 'NoSubnetFree',
    message: `no ${families.join(' and no ')} subnet is free, and a node's subnets are full: add a CIDR to spec.cidrs`,
  };
}

/** That no node waits yet does not mean that every node could get an address: the text says who could not. */
function notExhausted(facts: PoolFacts, usage: Usage): Finding {
  const { use } = facts.pool.spec;
  const drawn = familiesDrawn(facts);
  const taken = drawn.filter((family) => usage[family]?.freeSubnets === '0');
  const full = use === 'Bridge' ? drawn.flatMap((family) => fullNodes(family, facts)) : [];
  const limits = [
    ...(taken.length === 0
      ? []
      : [`no ${taken.join(' and no ')} subnet is free: a node that holds none gets no address`]),
    ...(full.length === 0
      ? []
      : [`full: ${atMost([...new Set(full)])}; a bridge gets no second subnet, ptp does`]),
  ];
  const finding = { type: 'Exhausted', holds: false } as const;
  if (drawn.length === 0) return { ...finding, reason: 'NotDrawn', message: NOT_DRAWN };
  return limits.length === 0
    ? { ...finding, reason: 'AddressesLeft', message: 'every node can get addresses' }
    : {
        ...finding,
        reason: 'AddressesLeft',
        message: `addresses are left, but not for all; ${limits.join('; ')}`,
      };
}

function nearlyExhausted(usage: Usage, facts: PoolFacts): Finding {
  const threshold = facts.nearlyExhausted;
  const drawn = familiesDrawn(facts);
  const short = drawn.filter((family) => {
    const counts = usage[family];
    return counts !== undefined && shareInUse(counts) >= threshold;
  });
  if (short.length > 0) {
    return {
      type: 'NearlyExhausted',
      holds: true,
      reason: 'FewLeft',
      message: `${Math.round(threshold * 100)} % or more of its ${short.join(' and ')} addresses or subnets are in use`,
    };
  }
  return drawn.length > 0
    ? {
        type: 'NearlyExhausted',
        holds: false,
        reason: 'EnoughLeft',
        message: 'addresses and subnets are left',
      }
    : { type: 'NearlyExhausted', holds: false, reason: 'NotDrawn', message: NOT_DRAWN };
}

/** What nobody draws from does not run short: the condition Ready says why it is so. */
const NOT_DRAWN = 'nothing is drawn from it, so nothing runs short';

/** The families of which a node could get an address now, if one were free. */
function familiesDrawn({ pool, pools, subnets, foreign, labelsOf }: PoolFacts): Family[] {
  if (whyNotServing(pool, { pools, subnets }) !== undefined) return [];
  const claimable = servingCIDRs(pool, pools, foreign);
  const drawn = subnetsOf(pool, subnets).filter(
    (subnet) => !isExclusive(subnet) && !isDrained(subnet, pool, labelsOf?.(subnet.spec.nodeName)),
  );
  const cidrs = [...claimable, ...drawn.map(({ spec }) => spec.cidr)];
  return FAMILIES.filter((family) => cidrs.some((cidr) => cidr.family === family));
}

/**
 * The larger of the shares of addresses and of subnets that are in use, 0 to 1. What is reserved is nobody's to get:
 * it is no part of either.
 */
function shareInUse({ allocated, resting, free, nodeSubnets, freeSubnets }: PoolUsage): number {
  const used = allocated + resting;
  const addresses = used / (used + Number(free));
  const subnets = nodeSubnets / (nodeSubnets + Number(freeSubnets));
  // A pool that never could hold a subnet divides nothing by nothing: all of it is in use.
  return Math.max(...[addresses, subnets].map((share) => (Number.isNaN(share) ? 1 : share)));
}

function overlapping({ pool, pools, nodeAddresses, serviceCIDRs }: PoolFacts): Finding {
  const serving = new Set(servingCIDRs(pool, pools));
  const losers = pool.spec.cidrs
    .filter((cidr) => !serving.has(cidr))
    .map((cidr) => {
      const others = pools.filter(
        ({ metadata, spec }) =>
          metadata.name !== pool.metadata.name && spec.cidrs.some((other) => cidrsOverlap(other, cidr)),
      );
      return `${formatCIDR(cidr)} overlaps IPPool ${others.map(({ metadata }) => metadata.name).join(', ')}, which is older: nothing new is claimed from it`;
    });
  // On a LAN they are left out piece by piece.
  const inTheWay = pool.spec.use === 'Lan' ? [] : pool.spec.cidrs;
  const services = (serviceCIDRs ?? []).flatMap((service) =>
    inTheWay
      .filter((cidr) => cidrsOverlap(cidr, service))
      .map((cidr) => `${formatCIDR(cidr)} overlaps the Services' ${formatCIDR(service)}`),
  );
  const nodes = inTheWay
    .filter((cidr) => nodeAddresses.some((address) => cidrHasAddress(cidr, address)))
    .map((cidr) => `${formatCIDR(cidr)} holds addresses of nodes`);
  const messages = [...losers, ...services, ...nodes];
  if (messages.length > 0) {
    const reason = losers.length > 0 ? 'OlderPool' : services.length > 0 ? 'ServiceRange' : 'NodeAddresses';
    return { type: 'Overlapping', holds: true, reason, message: messages.slice(0, MOST_NAMED).join('; ') };
  }
  const unknown = serviceCIDRs === undefined ? '; the ranges of Services are unknown' : '';
  return {
    type: 'Overlapping',
    holds: false,
    reason: 'Disjoint',
    message: `no older IPPool and no node lies in its ranges${unknown}`,
  };
}

function draining(facts: PoolFacts): Finding {
  const { pool, subnets, labelsOf } = facts;
  const isDeleted = pool.metadata.deletionTimestamp !== undefined;
  const held = subnetsOf(pool, subnets);
  const drained = held.filter(
    (subnet) => isDeleted || isDrained(subnet, pool, labelsOf?.(subnet.spec.nodeName)),
  );
  const left = addressesLeft(drained, facts);
  if (drained.length === 0 && left.length === 0) {
    return {
      type: 'Draining',
      holds: false,
      reason: 'NothingLeft',
      message: 'nothing is left of what it no longer gives',
    };
  }
  const where =
    drained.length === 0
      ? 'what it no longer gives'
      : `${drained.length} node subnets, which go when ${lastToGo(pool)} are gone`;
  return {
    type: 'Draining',
    holds: true,
    reason: whyDrained(pool, drained, left),
    message: `nothing new is drawn from ${where}: ${whatIsLeft(drained, left)}`,
  };
}

/** A node keeps the subnet of a bridge for as long as the bridge has its gateway (design, section 5). */
function lastToGo({ spec: { use } }: IPPool): string {
  return use === 'Bridge' ? "their pods, and the nodes' links with their gateways," : 'their pods';
}

function whyDrained(
  { metadata, spec }: IPPool,
  drained: readonly NodeSubnet[],
  left: readonly CountedAllocation[],
): string {
  if (metadata.deletionTimestamp !== undefined) return 'Deleting';
  if (spec.disabled) return 'Disabled';
  const isListed =
    drained.every(({ spec: { cidr } }) => spec.cidrs.some((listed) => cidrContains(listed, cidr))) &&
    left.every(({ spec: { address } }) => spec.cidrs.some((listed) => cidrHasAddress(listed, address)));
  return isListed ? 'NodesNotSelected' : 'RangeRemoved';
}

/**
 * What keeps a drain from ending: whatever lies in the drained subnets, and the pool's own wherever it gives nothing.
 * One that is held without a node, or kept for a pod, keeps no node subnet, and counts all the same.
 */
function addressesLeft(
  drained: readonly NodeSubnet[],
  { pool, allocations }: PoolFacts,
): CountedAllocation[] {
  const ranges = mergeRangesByFamily(drained);
  const givesNothing = pool.spec.disabled || pool.metadata.deletionTimestamp !== undefined;
  return allocations.filter(({ spec: { address, pool: name } }) => {
    if (rangesHave(ranges[address.family], address.value)) return true;
    if (name !== pool.metadata.name) return false;
    return givesNothing || !pool.spec.cidrs.some((cidr) => cidrHasAddress(cidr, address));
  });
}

/**
 * "14 addresses are left; held without a pod: 10.244.1.5 (printer); 10.244.1.0/26 of node-a (12), …": who keeps a
 * drain from ending. Those without a pod come first, since nobody ends them by restarting workloads.
 */
function whatIsLeft(drained: readonly NodeSubnet[], left: readonly CountedAllocation[]): string {
  const ranges = mergeRangesByFamily(drained);
  const holders = left.filter(({ spec }) => spec.holder !== undefined);
  const strays = left.filter(
    ({ spec: { address, holder } }) =>
      holder === undefined && !rangesHave(ranges[address.family], address.value),
  );
  const counted = drained
    .map((subnet) => ({
      subnet,
      count: left.filter(({ spec }) => cidrHasAddress(subnet.spec.cidr, spec.address)).length,
    }))
    .sort((a, b) => b.count - a.count);
  const parts = [
    {
      what: 'held without a pod: ',
      names: holders.map(({ spec }) => `${formatAddress(spec.address)} (${spec.holder ?? ''})`),
    },
    { what: 'in no node subnet: ', names: strays.map(({ spec }) => formatAddress(spec.address)) },
    {
      what: '',
      names: counted.map(
        ({ subnet: { spec }, count }) => `${formatCIDR(spec.cidr)} of ${spec.nodeName} (${count})`,
      ),
    },
  ];
  return [
    `${left.length} addresses are left`,
    ...parts.filter(({ names }) => names.length > 0).map(({ what, names }) => `${what}${atMost(names)}`),
  ].join('; ');
}

/** "a, b, …, and 3 more". */
function atMost(names: readonly string[]): string {
  const more = names.length - MOST_NAMED;
  return [...names.slice(0, MOST_NAMED), ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

/** Whether the pool names others as peers to no effect. It is told and nothing more: the filters go by the specs. */
function peersUnmatched({ pool: { metadata, spec }, pools }: PoolFacts): Finding {
  const type = 'PeersUnmatched';
  if (spec.isolation.mode !== 'Isolated') {
    return {
      type,
      holds: false,
      reason: 'NotIsolated',
      message: 'its pods are kept from nobody by this pool',
    };
  }
  const unmatched = spec.isolation.peers.flatMap((name) => {
    const peer = pools.find((other) => other.metadata.name === name);
    const named = (reason: string, why: string) => [{ reason, text: `${name}: ${why}` }];
    if (peer === undefined) return named('NoSuchPool', 'there is no such IPPool');
    if (peer.spec.use === 'Lan')
      return named('NotFiltered', 'its use is Lan, and what lies there is not filtered');
    if (peer.spec.isolation.mode === 'None' || name === metadata.name) return [];
    if (peer.spec.isolation.peers.includes(metadata.name)) return [];
    return named('NotNamedBack', `it is Isolated and does not name ${metadata.name} in its peers`);
  });
  const [first] = unmatched;
  if (first === undefined) {
    const message = 'it is isolated from all pools but its peers, each of which admits it';
    return { type, holds: false, reason: 'PeersMatch', message };
  }
  const texts = unmatched.slice(0, MOST_NAMED).map(({ text }) => text);
  const more = unmatched.length - texts.length;
  const message = `peers that it names to no effect: ${[...texts, ...(more > 0 ? [`and ${more} more`] : [])].join('; ')}`;
  return { type, holds: true, reason: first.reason, message };
}

function mergeRangesByFamily(subnets: readonly NodeSubnet[]): Record<Family, Range[]> {
  const rangesOf = (family: Family) =>
    mergeRanges(
      subnets.filter(({ spec }) => spec.cidr.family === family).map(({ spec }) => rangeOfCIDR(spec.cidr)),
    );
  return { ipv4: rangesOf('ipv4'), ipv6: rangesOf('ipv6') };
}

/** Whether the objects of this pool agree with each other (design, section 10): the worst finding is the reason. */
function consistent({ pool, findings }: PoolFacts, now: Date): Condition[] {
  if (findings === undefined) {
    return pool.status?.conditions?.filter(({ type }) => type === 'Consistent') ?? [];
  }
  const found = summarizeFindings(findings, MOST_NAMED);
  if (found === undefined) {
    const message = 'the objects of this pool agree with each other';
    return [asCondition({ type: 'Consistent', holds: true, reason: 'NothingFound', message }, pool, now)];
  }
  return [asCondition({ type: 'Consistent', holds: false, ...found }, pool, now)];
}

/** The subnets claimed from exactly this pool, not from an earlier one of its name; in the order of their names. */
export function subnetsOf(pool: IPPool, subnets: readonly NodeSubnet[]): NodeSubnet[] {
  return subnets
    .filter(({ spec }) => spec.poolUID === pool.metadata.uid)
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
}

function asCondition({ type, holds, reason, message }: Finding, pool: IPPool, now: Date): Condition {
  const status = holds ? 'True' : 'False';
  const before = pool.status?.conditions?.find((condition) => condition.type === type);
  return {
    type,
    status,
    reason,
    message,
    lastTransitionTime:
      before?.status === status ? before.lastTransitionTime : `${now.toISOString().slice(0, 19)}Z`,
    ...(pool.metadata.generation === undefined ? {} : { observedGeneration: pool.metadata.generation }),
  };
}

/** The same value with the keys of all objects in order, so that equal ones have equal text. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, part]) => part !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, part]) => [key, sorted(part)]),
  );
}
