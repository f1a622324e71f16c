import type { Family } from '../../net/index.ts';
import { isResting } from '../release.ts';
import { findingOn, judgedAllocations } from './allocations.ts';
import type { AuditedAllocation, Book } from './book.ts';
import type { Finding } from './finding.ts';

/** Invariant 4, as far as the book says it: an attachment has at most one address of each family. */
export function auditAttachments(book: Book): Finding[] {
  const findings: Finding[] = [];
  // By node and family, so that no keys need be made for each of a large cluster's addresses.
  const firstOf = new Map<string | undefined, ByFamily>();
  for (const allocation of judgedAllocations(book)) {
    const { attachment, nodeName, spec } = allocation;
    if (attachment === undefined || isResting(allocation)) continue;
    const ofNode: ByFamily = firstOf.get(nodeName) ?? { ipv4: new Map(), ipv6: new Map() };
    firstOf.set(nodeName, ofNode);
    const other = ofNode[spec.address.family].get(attachment);
    if (other === undefined) {
      ofNode[spec.address.family].set(attachment, allocation);
      continue;
    }
    // Whatever the order of the list, the same finding.
    const [first, second] = [allocation, other].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    if (first === undefined || second === undefined) continue;
    findings.push(
      findingOn(second, {
        invariant: 4,
        severity: 'warning',
        reason: 'TwoOfOneFamily',
        message:
          `IPAllocations ${first.metadata.name} and ${second.metadata.name} name one interface of one sandbox, which ` +
          `has one ${spec.address.family} address: the agent of its node frees the other after the grace; ` +
          'if this stays, read its log',
      }),
    );
  }
  return findings;
}

/** The first allocation seen of each attachment. */
type ByFamily = Record<Family, Map<string, AuditedAllocation>>;
