import type { IPAllocation } from '../../api/index.ts';
import { attachmentID } from '../attachment-lock.ts';
import { auditBook, type AuditedAllocation, type Book } from './book.ts';
import { compareFindings, type Finding } from './finding.ts';
import { auditSandboxes } from './sandboxes.ts';
import type { NodeSnapshot } from './snapshot.ts';

/** One reading of a whole cluster: the objects, and what the nodes that answered say. */
export interface ClusterReading {
  readonly book: Omit<Book, 'allocations' | 'explained'>;
  readonly allocations: readonly IPAllocation[];
  readonly snapshots: readonly NodeSnapshot[];
}

/** All invariants, the worst finding first. */
export function auditCluster({ book, allocations, snapshots }: ClusterReading): Finding[] {
  const { settledBeforeMs } = book;
  const ofSandboxes = auditSandboxes({
    allocations,
    snapshots,
    ...(settledBeforeMs === undefined ? {} : { settledBeforeMs }),
  });
  const explained = new Set(
    ofSandboxes.filter(({ object }) => object.kind === 'IPAllocation').map(({ object }) => object.name),
  );
  const ofBook = auditBook({ ...book, allocations: allocations.map(auditedAllocation), explained });
  return [...ofSandboxes, ...ofBook].sort(compareFindings);
}

/** What the audit of the book needs of an IPAllocation. */
export function auditedAllocation({ metadata, spec, status }: IPAllocation): AuditedAllocation {
  return {
    metadata: { name: metadata.name, uid: metadata.uid },
    spec: { address: spec.address, pool: spec.pool },
    nodeName: spec.nodeName,
    attachment: spec.attachment === undefined ? undefined : attachmentID(spec.attachment),
    createdAtMs: Date.parse(metadata.creationTimestamp),
    status,
  };
}
