/** The Linux kernel: the only folder that touches it. */
export * from './alias.ts';
export * from './names.ts';
export * from './namespaces.ts';
export * from './pod-link.ts';
export * from './rtnetlink/index.ts';
