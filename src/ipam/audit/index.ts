/** The invariants of a cluster (design, section 10): what two readings of it say about them. Pure. */
export * from './finding.ts';
export * from './book.ts';
export * from './snapshot.ts';
export * from './sandboxes.ts';
export * from './cluster.ts';
export * from './confirm.ts';
