/** Which pool, which address, which subnet: policy, and claim and release over the stores declared here. */
export * from './store.ts';
export * from './clock.ts';
export * from './errors.ts';
export * from './annotations.ts';
export * from './selectors.ts';
export * from './pools.ts';
export * from './demand.ts';
export * from './subnets.ts';
export * from './candidates.ts';
export * from './taken-names.ts';
export * from './claim.ts';
export * from './release.ts';
export * from './attachment-lock.ts';
export * from './subnet-claim.ts';
export * from './sweep.ts';
export * from './usage.ts';
