/** The Linux kernel: the only folder that touches it. */
export * from './alias.ts';
export * from './boot-id.ts';
export * from './command.ts';
export * from './conntrack.ts';
export * from './file-lock.ts';
export * from './host-port-flows.ts';
export * from './iptables.ts';
export * from './names.ts';
export * from './namespaces.ts';
export * from './nft.ts';
export * from './pod-link.ts';
export * from './pod-link-repair.ts';
export * from './pod-mtu.ts';
export * from './pod-rules.ts';
export * from './rtnetlink/index.ts';
export * from './second-interface.ts';
export * from './sysctl.ts';
