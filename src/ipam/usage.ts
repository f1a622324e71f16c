import type { IPAllocation, IPPool, NodeSubnet, PoolUsage } from '../api/index.ts';
import type { Family } from '../net/index.ts';

/** An allocation, as far as counting needs it: whole objects need not be kept. */
export interface CountedAllocation {
  readonly spec: Pick<IPAllocation['spec'], 'address' | 'pool'>;
  readonly status?: IPAllocation['status'];
}

export interface UsageInput {
  readonly pool: IPPool;
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  readonly allocations: readonly CountedAllocation[];
}

export function poolUsage(input: UsageInput): Partial<Record<Family, PoolUsage>> {
  throw new Error(`${input.pool.metadata.name} not built yet`);
}

/** Families in which no subnet is free and a node's subnets of the pool are full. */
export function exhaustedFamilies(input: UsageInput): Family[] {
  throw new Error(`${input.pool.metadata.name} not built yet`);
}

export function isExhausted(input: UsageInput): boolean {
  return exhaustedFamilies(input).length > 0;
}
