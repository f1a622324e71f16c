import type { IPPool, NodeSubnet } from '../../api/index.ts';
import { cidrContains, compareCIDRs, formatCIDR } from '../../net/index.ts';
import { servingCIDRs } from '../pools.ts';
import { isExclusive } from '../subnets.ts';
import type { Book } from './book.ts';
import type { Finding } from './finding.ts';
import { areSettled } from './settled.ts';

/** Invariant 7: NodeSubnets are disjoint, and pools that overlap older ones are marked so. */
export function auditOverlaps(book: Book): Finding[] {
  return [...overlappingSubnets(book), ...book.pools.flatMap((pool) => unmarkedOverlap(pool, book))];
}

function overlappingSubnets(book: Book): Finding[] {
  const findings = new Map<NodeSubnet, Finding>();
  // CIDRs nest or are disjoint: in this order, what holds a subnet is on the stack when it comes.
  const around: NodeSubnet[] = [];
  for (const subnet of [...book.subnets].sort((a, b) => compareCIDRs(a.spec.cidr, b.spec.cidr))) {
    // It may lie inside another's on purpose: the longer prefix routes, and the allocation's name keeps its address unique.
    if (isExclusive(subnet)) continue;
    for (let last = around.at(-1); last !== undefined && !cidrContains(last.spec.cidr, subnet.spec.cidr);) {
      around.pop();
      last = around.at(-1);
    }
    for (const outer of around) {
      const [older, younger] = isOlder(outer, subnet) ? [outer, subnet] : [subnet, outer];
      if (areSettled(book, younger.metadata.creationTimestamp)) {
        findings.set(younger, overlap(younger, older));
      }
    }
    around.push(subnet);
  }
  return [...findings.values()];
}

function overlap(younger: NodeSubnet, older: NodeSubnet): Finding {
  return {
    invariant: 7,
    severity: 'critical',
    reason: 'SubnetsOverlap',
    object: { kind: 'NodeSubnet', name: younger.metadata.name, uid: younger.metadata.uid },
    node: younger.spec.nodeName,
    pool: younger.spec.pool,
    message:
      `NodeSubnet ${younger.metadata.name} of node ${younger.spec.nodeName} overlaps ${formatCIDR(older.spec.cidr)} of ` +
      `node ${older.spec.nodeName}, which is older: nothing is drawn from it, and no node routes to it. Start the pods ` +
      'that have addresses of it anew; the agent gives it back when it is empty',
  };
}

/** By the time of creation, then by name: a total order, and the one that routing decides by. */
function isOlder(a: NodeSubnet, b: NodeSubnet): boolean {
  const [bornA, bornB] = [Date.parse(a.metadata.creationTimestamp), Date.parse(b.metadata.creationTimestamp)];
  return bornA !== bornB ? bornA < bornB : a.metadata.name < b.metadata.name;
}

function unmarkedOverlap(pool: IPPool, book: Book): Finding[] {
  const made = book.pools.map(({ metadata }) => metadata.creationTimestamp);
  // Without any status the whole of it is the finding (invariant 9).
  if (pool.status === undefined || !areSettled(book, ...made)) return [];
  const serving = new Set(servingCIDRs(pool, book.pools));
  const losing = pool.spec.cidrs.filter((cidr) => !serving.has(cidr));
  const marked = pool.status.conditions?.some(
    ({ type, status }) => type === 'Overlapping' && status === 'True',
  );
  if (losing.length === 0 || marked === true) return [];
  return [
    {
      invariant: 7,
      severity: 'warning',
      reason: 'OverlapNotMarked',
      object: { kind: 'IPPool', name: pool.metadata.name, uid: pool.metadata.uid },
      pool: pool.metadata.name,
      message:
        `IPPool ${pool.metadata.name} overlaps an older one with ${losing.map(formatCIDR).join(', ')}, and its ` +
        'condition Overlapping does not say so: see whether weft-controller runs, and its log',
    },
  ];
}
