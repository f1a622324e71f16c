import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  cidrContains,
  cidrHasAddress,
  cidrsOverlap,
  compareCIDRs,
  FAMILIES,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { NoPoolError } from './errors.ts';

/** What the decider's own cache holds: all that whether a pool serves may depend on. No status is read. */
export interface ClusterView {
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
}

export interface PoolChoice extends ClusterView {
  /** Draw from this pool or fail. */
  readonly requestedPool?: string;
}

/**
 * The pools that may be drawn from, in the order in which to try them. The one place where a pool is chosen:
 * who may draw and in which order is decided here and nowhere else (design section 4).
 * @throws NoPoolError that says of each pool why it is not among them
 */
export function choosePools(choice: PoolChoice): IPPool[] {
  const { pools, requestedPool } = choice;
  const asked =
    requestedPool === undefined ? pools : pools.filter((pool) => pool.metadata.name === requestedPool);
  if (requestedPool !== undefined && asked.length === 0) {
    throw new NoPoolError([{ pool: requestedPool, reason: 'there is no such IPPool' }], requestedPool);
  }
  const candidates: IPPool[] = [];
  const refusals: { pool: string; reason: string }[] = [];
  for (const pool of [...asked].sort(byName)) {
    const reason = whyNotServing(pool, choice);
    if (reason === undefined) candidates.push(pool);
    else refusals.push({ pool: pool.metadata.name, reason });
  }
  if (candidates.length === 0) throw new NoPoolError(refusals, requestedPool);
  return candidates;
}

/** Whether addresses may be drawn from the pool: a pure function of the objects, never of a status. */
export function serves(pool: IPPool, view: ClusterView): boolean {
  return whyNotServing(pool, view) === undefined;
}

/** Why the pool does not serve, as a part of a sentence; undefined if it does. */
export function whyNotServing(pool: IPPool, view: ClusterView): string | undefined {
  if (pool.metadata.deletionTimestamp !== undefined) return 'it is being deleted';
  if (servingCIDRs(pool, view.pools).length > 0) return undefined;
  // What was claimed before the overlap came up keeps serving.
  if (view.subnets.some((subnet) => subnet.spec.poolUID === pool.metadata.uid)) return undefined;
  return 'each of its CIDRs overlaps one of an older IPPool';
}

/** The families that the pool lists: a pod gets one address of each. */
export function poolFamilies(pool: IPPool): Family[] {
  return FAMILIES.filter((family) => pool.spec.cidrs.some((cidr) => cidr.family === family));
}

/**
 * The CIDRs of the pool from which new NodeSubnets may come. Overlap is judged per CIDR: of two that overlap,
 * that of the younger pool (creationTimestamp, then name) gets none; what was claimed keeps serving. The same
 * where it overlaps `foreign`, addresses that are not pods': those of nodes, the Services' CIDRs.
 */
export function servingCIDRs(
  pool: IPPool,
  allPools: readonly IPPool[],
  foreign: readonly CIDR[] = [],
): CIDR[] {
  const older = allPools.filter((other) => isOlder(other, pool)).flatMap((other) => other.spec.cidrs);
  const inTheWay = [...older, ...foreign];
  return pool.spec.cidrs.filter((cidr) => !inTheWay.some((other) => cidrsOverlap(cidr, other)));
}

/**
 * "The pools" as destinations: every CIDR of every pool and every NodeSubnet, so that what is drained keeps its
 * treatment (design section 7). Sorted, and none inside another.
 */
export function poolDestinations(pools: readonly IPPool[], subnets: readonly NodeSubnet[]): CIDR[] {
  const all = [...pools.flatMap((pool) => pool.spec.cidrs), ...subnets.map((subnet) => subnet.spec.cidr)];
  const widest: CIDR[] = [];
  // CIDRs nest or are disjoint: in this order one that is inside another is inside the last that was kept.
  for (const cidr of all.sort(compareCIDRs)) {
    const last = widest.at(-1);
    if (last === undefined || !cidrContains(last, cidr)) widest.push(cidr);
  }
  return widest;
}

/** Whose address it is. `pool` is absent where a NodeSubnet names a pool that is not there (any more). */
export interface PoolOfAddress {
  readonly poolName: string;
  readonly pool?: IPPool;
  readonly subnet?: NodeSubnet;
}

/**
 * The pool that decides how an address is treated: that of its longest NodeSubnet, else that of the longest CIDR
 * that holds it, the older pool's first. Undefined for an address of no pool.
 */
export function poolOfAddress(
  address: IPAddress,
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
): PoolOfAddress | undefined {
  const subnet = longest(
    subnets.filter(({ spec }) => cidrHasAddress(spec.cidr, address)),
    ({ spec }) => spec.cidr,
  );
  if (subnet !== undefined) {
    const pool = pools.find(({ metadata }) => metadata.name === subnet.spec.pool);
    return { poolName: subnet.spec.pool, subnet, ...(pool === undefined ? {} : { pool }) };
  }
  const holding = [...pools]
    .sort((a, b) => (isOlder(a, b) ? -1 : 1))
    .flatMap((pool) => pool.spec.cidrs.map((cidr) => ({ pool, cidr })))
    .filter(({ cidr }) => cidrHasAddress(cidr, address));
  const found = longest(holding, ({ cidr }) => cidr);
  return found === undefined ? undefined : { poolName: found.pool.metadata.name, pool: found.pool };
}

function byName(a: IPPool, b: IPPool): number {
  return a.metadata.name < b.metadata.name ? -1 : 1;
}

/** Of two pools, which came first. A total order: names are unique. */
function isOlder(a: IPPool, b: IPPool): boolean {
  const [bornA, bornB] = [Date.parse(a.metadata.creationTimestamp), Date.parse(b.metadata.creationTimestamp)];
  return bornA !== bornB ? bornA < bornB : a.metadata.name < b.metadata.name;
}

/** The first of those with the longest prefix. */
function longest<T>(items: readonly T[], cidrOfItem: (item: T) => CIDR): T | undefined {
  return items.reduce<T | undefined>(
    (best, item) =>
      best === undefined || cidrOfItem(item).prefixLength > cidrOfItem(best).prefixLength ? item : best,
    undefined,
  );
}
