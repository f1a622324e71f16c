/** The three kinds: one zod schema each, from which types and CRDs come. */
export * from './group.ts';
export * from './metadata.ts';
export * from './names.ts';
export * from './selector.ts';
export * from './ippool.ts';
export * from './nodesubnet.ts';
export * from './ipallocation.ts';
export * from './vxlan-mac.ts';
