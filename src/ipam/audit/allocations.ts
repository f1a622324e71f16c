import type { AuditedAllocation, Book } from './book.ts';
import type { Finding } from './finding.ts';
import { areSettled } from './settled.ts';

/** Those that are old enough, and of which nothing is known to be wrong yet. */
export function judgedAllocations(book: Book): AuditedAllocation[] {
  return book.allocations.filter(
    ({ metadata, createdAtMs }) =>
      areSettled(book, createdAtMs) && book.explained?.has(metadata.name) !== true,
  );
}

/** A finding about an allocation. */
export function findingOn(
  { metadata, nodeName, spec }: AuditedAllocation,
  facts: Pick<Finding, 'invariant' | 'severity' | 'reason' | 'message'>,
): Finding {
  return {
    ...facts,
    object: { kind: 'IPAllocation', name: metadata.name, uid: metadata.uid },
    ...(nodeName === undefined ? {} : { node: nodeName }),
    pool: spec.pool,
  };
}
