import type { IPPool, NodeSubnet } from '../api/index.ts';
import type { Family } from '../net/index.ts';
import { countUnused, type NamesInUse, type RingCursor } from './candidates.ts';
import { NoPoolError } from './errors.ts';
import { choosePools, type Claimer, type ClusterView } from './pools.ts';

/**
 * How many of these claimers would draw from each pool, by the pool's name: each from the first that it would try. Those
 * for whom there is none are left out; their ADD says why.
 */
export function wantedFrom(claimers: readonly Claimer[], view: ClusterView): Map<string, number> {
  const wanted = new Map<string, number>();
  for (const claimer of claimers) {
    const first = firstPool(claimer, view);
    if (first !== undefined) wanted.set(first, (wanted.get(first) ?? 0) + 1);
  }
  return wanted;
}

export interface Headroom {
  readonly pool: IPPool;
  readonly family: Family;
  /** The node's subnets of the pool that are drawn from, of all families. */
  readonly subnets: readonly NodeSubnet[];
  readonly inUse: NamesInUse;
  readonly cursor: RingCursor;
  /** How many pods of the node will ask for an address of the pool. */
  readonly wanted: number;
  /** How many more are to be free where the node holds a subnet of the pool already. */
  readonly spare: number;
}

/** Whether the node's free addresses of the pool are fewer than will soon be needed: time for another subnet. */
export function runsLow({ pool, family, subnets, inUse, cursor, wanted, spare }: Headroom): boolean {
  const drawn = subnets.filter(({ spec }) => spec.cidr.family === family);
  const need = BigInt(wanted + (drawn.length > 0 ? spare : 0));
  let free = 0n;
  for (const subnet of drawn) {
    if (free >= need) return false;
    free += countUnused({ pool, subnets: drawn, inUse, cursor }, subnet);
  }
  return free < need;
}

function firstPool(claimer: Claimer, view: ClusterView): string | undefined {
  try {
    return choosePools({ ...view, claimer })[0]?.metadata.name;
  } catch (error) {
    if (error instanceof NoPoolError) return undefined;
    throw error;
  }
}
