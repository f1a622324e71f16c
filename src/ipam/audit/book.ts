import type { IPPool, Labels, NodeSubnet } from '../../api/index.ts';
import type { CIDR, IPAddress } from '../../net/index.ts';
import type { Foreign } from '../foreign.ts';
import type { CountedAllocation } from '../usage.ts';
import { auditAddresses } from './addresses.ts';
import { auditAttachments } from './attachments.ts';
import { auditCounts } from './counts.ts';
import type { Finding, FindingObject } from './finding.ts';
import { auditNames } from './names.ts';
import { auditGoneNodes, auditNodeSubnets } from './node-subnets.ts';
import { auditOverlaps } from './overlaps.ts';

/** One reading of the apiserver, or of caches that were complete. */
export interface Book {
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly allocations: readonly AuditedAllocation[];
  readonly nodes: readonly AuditedNode[];
  /** The ranges of Services; undefined where the cluster does not tell (before Kubernetes 1.33). */
  readonly serviceCIDRs: readonly CIDR[] | undefined;
  /** Objects that are there and that this version of weft cannot read. */
  readonly unreadable: readonly UnreadableObject[];
  /**
   * Objects that were made later than this (milliseconds since 1970) are not judged: what belongs to them may be on
   * its way. Absent: whoever audits again and again waits until a finding has stood for the grace.
   */
  readonly settledBeforeMs?: number;
  /** Names of IPAllocations of which a look at the nodes has shown what is wrong: nothing more is said of them. */
  readonly explained?: ReadonlySet<string>;
}

/** What of the book is not pods'. */
export function foreignOf({ nodes, serviceCIDRs }: Pick<Book, 'nodes' | 'serviceCIDRs'>): Foreign {
  return { nodes: nodes.flatMap(({ addresses }) => addresses), services: serviceCIDRs ?? [] };
}

/** An IPAllocation, as far as the audit of the book needs it: whole objects need not be kept. */
export interface AuditedAllocation extends CountedAllocation {
  readonly metadata: { readonly name: string; readonly uid: string };
  readonly nodeName: string | undefined;
  /** The same for all addresses of one attachment of a node, and only for those. Undefined: held by name. */
  readonly attachment: string | undefined;
  readonly createdAtMs?: number;
}

/** A Node, as far as the audit needs it. */
export interface AuditedNode {
  readonly name: string;
  readonly uid: string;
  readonly labels: Labels;
  readonly addresses: readonly IPAddress[];
  readonly isReady: boolean;
  /** Since when it has been as it is: made, and ready. */
  readonly settledAtMs?: number;
}

export interface UnreadableObject {
  readonly object: FindingObject;
  readonly problem: string;
}

/** Those of a kind that are there and cannot be read, by name: of what belongs to them it cannot be said that they are gone. */
export function unreadableNames(
  { unreadable }: Pick<Book, 'unreadable'>,
  kind: FindingObject['kind'],
): ReadonlySet<string> {
  return new Set(unreadable.flatMap(({ object }) => (object.kind === kind ? [object.name] : [])));
}

/** One part of the audit; each looks at everything by itself, so that callers may rest between them. */
export type BookAudit = (book: Book) => Finding[];

/**
 * Invariants 4 to 9, and of 3 what needs no look at a node. Each mistake is to be found once, by the invariant that
 * it breaks first: a subnet that overlaps another is no reason to report its addresses, too.
 */
export const BOOK_AUDITS: readonly BookAudit[] = [
  auditNames,
  auditAttachments,
  auditAddresses,
  auditOverlaps,
  auditNodeSubnets,
  auditGoneNodes,
  auditCounts,
];

/** What the objects alone say. */
export function auditBook(book: Book): Finding[] {
  return BOOK_AUDITS.flatMap((audit) => audit(book));
}
