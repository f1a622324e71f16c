/** The kernel state a node should have, and the difference from what it has. Pure: no I/O. */
export * from './state.ts';
export * from './vxlan.ts';
export * from './peers.ts';
export * from './address-set.ts';
export * from './nft-commands.ts';
export * from './isolation.ts';
export * from './host-ports.ts';
export * from './pod-rules.ts';
export * from './node-sets.ts';
export * from './filter.ts';
export * from './desired.ts';
export * from './diff.ts';
export * from './peer-index.ts';
export * from './peer-changes.ts';
