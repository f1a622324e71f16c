import type { IPFamily } from './fabric.ts';
import type { Throwaway } from './throwaway.ts';

/** Counts what arrives at the machine from now on: echo requests, unless something else is said. */
export function countArrivals(
  machine: Throwaway,
  family: IPFamily,
  type = family === 4 ? 'icmp type echo-request' : 'icmpv6 type echo-request',
): () => number {
  machine.sh(
    `nft 'add table inet arrivals; add chain inet arrivals input { type filter hook input priority 0; }; ` +
      `add rule inet arrivals input ${type} counter'`,
  );
  return () => Number(/packets (\d+)/.exec(machine.sh('nft list table inet arrivals'))?.[1]);
}
