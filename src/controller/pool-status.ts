import type { Condition, IPPool, IPPoolStatus, NodeSubnet, PoolUsage } from '../api/index.ts';
import {
  compareFindings,
  exhaustedFamilies,
  isDrained,
  poolUsage,
  servingCIDRs,
  whyNotServing,
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
  const found = [
    ready(facts),
    exhausted(facts),
    nearlyExhausted(usage, facts.nearlyExhausted),
    overlapping(facts),
    draining(facts),
    peersUnmatched(facts),
  ];
  return {
    ...(pool.metadata.generation === undefined ? {} : { observedGeneration: pool.metadata.generation }),
    ...usage,
    conditions: [...found.map((finding) => asCondition(finding, pool, now)), ...consistent(facts, now)],
  };
}

/** Whether the difference must be shown at once: a condition turned, or the spec is a newer one. */
export function isUrgent(current: IPPoolStatus | undefined, desired: IPPoolStatus): boolean {
  const gist = (status: IPPoolStatus | undefined) => [
    status?.observedGeneration,
    ...(status?.conditions ?? []).map(({ type, status, reason }) => `${type} ${status} ${reason}`),
  ];
  return JSON.stringify(gist(current)) !== JSON.stringify(gist(desired));
}

/** Whether there is nothing to write. */
export function sameStatus(current: IPPoolStatus | undefined, desired: IPPoolStatus): boolean {
  return JSON.stringify(sorted(current)) === JSON.stringify(sorted(desired));
}

/** At most so many names in one message. */
const MOST_NAMED = 10;

/** "10.244.1.0/26 of node-a, …": the subnets that someone waits for, as text. */
export function namedSubnets(subnets: readonly NodeSubnet[]): string {
  const named = subnets
    .slice(0, MOST_NAMED)
    .map(({ spec }) => `${formatCIDR(spec.cidr)} of ${spec.nodeName}`);
  const more = subnets.length - named.length;
  return [...named, ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
}

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

function exhausted(facts: PoolFacts): Finding {
  const families = exhaustedFamilies(facts);
  if (families.length === 0) {
    return {
      type: 'Exhausted',
      holds: false,
      reason: 'AddressesLeft',
      message: 'every node can get addresses',
    };
  }
  return {
    type: 'Exhausted',
    holds: true,
    reason: 'NoSubnetFree',
    message: `no ${families.join(' and no ')} subnet is free, and a node's subnets are full: add a CIDR to spec.cidrs`,
  };
}

function nearlyExhausted(usage: Partial<Record<'ipv4' | 'ipv6', PoolUsage>>, threshold: number): Finding {
  const short = FAMILIES.filter((family) => {
    const counts = usage[family];
    return counts !== undefined && shareInUse(counts) >= threshold;
  });
  return short.length > 0
    ? {
        type: 'NearlyExhausted',
        holds: true,
        reason: 'FewLeft',
        message: `${Math.round(threshold * 100)} % or more of its ${short.join(' and ')} addresses or subnets are in use`,
      }
    : {
        type: 'NearlyExhausted',
        holds: false,
        reason: 'EnoughLeft',
        message: 'addresses and subnets are left',
      };
}

/** The larger of the shares of addresses and of subnets that are in use, 0 to 1. */
function shareInUse({ capacity, free, nodeSubnets, freeSubnets }: PoolUsage): number {
  const addresses = 1 - Number(free) / Number(capacity);
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
  if (drained.length === 0) {
    return {
      type: 'Draining',
      holds: false,
      reason: 'NothingLeft',
      message: 'every node subnet of the pool is drawn from',
    };
  }
  return {
    type: 'Draining',
    holds: true,
    reason: whyDrained(pool, drained, isDeleted),
    message: `nothing new is drawn from ${drained.length} node subnets, which go when ${lastToGo(pool)} are gone: ${whatIsLeft(drained, facts)}`,
  };
}

/** A node keeps the subnet of a bridge for as long as the bridge has its gateway (design, section 5). */
function lastToGo({ spec: { use } }: IPPool): string {
  return use === 'Bridge' ? "their pods, and the nodes' links with their gateways," : 'their pods';
}

function whyDrained({ spec }: IPPool, drained: readonly NodeSubnet[], isDeleted: boolean): string {
  if (isDeleted) return 'Deleting';
  if (spec.disabled) return 'Disabled';
  const isListed = ({ spec: { cidr } }: NodeSubnet) =>
    spec.cidrs.some((listed) => cidrContains(listed, cidr));
  return drained.every(isListed) ? 'NodesNotSelected' : 'RangeRemoved';
}

/**
 * "14 addresses are left. Held by printer: 10.244.1.5. 10.244.1.0/26 of node-a (12), …": who keeps a drain from
 * ending. Those without a pod come first, since nobody ends them by restarting workloads.
 */
function whatIsLeft(drained: readonly NodeSubnet[], { allocations }: PoolFacts): string {
  const ranges = mergeRangesByFamily(drained);
  const left = allocations.filter(({ spec: { address } }) =>
    rangesHave(ranges[address.family], address.value),
  );
  const held = left.filter(({ spec }) => spec.holder !== undefined);
  const holders = held
    .slice(0, MOST_NAMED)
    .map(({ spec }) => `${formatAddress(spec.address)} (${spec.holder ?? ''})`);
  const counted = drained
    .map((subnet) => ({
      subnet,
      count: left.filter(({ spec }) => cidrHasAddress(subnet.spec.cidr, spec.address)).length,
    }))
    .sort((a, b) => b.count - a.count);
  const named = counted
    .slice(0, MOST_NAMED)
    .map(({ subnet: { spec }, count }) => `${formatCIDR(spec.cidr)} of ${spec.nodeName} (${count})`);
  const more = counted.length - named.length;
  return [
    `${left.length} addresses are left`,
    ...(holders.length > 0 ? [`held without a pod: ${holders.join(', ')}`] : []),
    [...named, ...(more > 0 ? [`and ${more} more`] : [])].join(', '),
  ].join('; ');
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
  const [worst, ...others] = [...findings].sort(compareFindings);
  if (worst === undefined) {
    const message = 'the objects of this pool agree with each other';
    return [asCondition({ type: 'Consistent', holds: true, reason: 'NothingFound', message }, pool, now)];
  }
  const more = others.length + 1 - MOST_NAMED;
  const messages = [worst, ...others].slice(0, MOST_NAMED).map(({ message }) => message);
  const message = [...messages, ...(more > 0 ? [`and ${more} more: kubectl weft check`] : [])].join('; ');
  return [asCondition({ type: 'Consistent', holds: false, reason: worst.reason, message }, pool, now)];
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
