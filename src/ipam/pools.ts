import type { Attachment, IPPool, Labels, NodeSubnet } from '../api/index.ts';
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
import { POOLS_ANNOTATION } from './annotations.ts';
import { NoPoolError, type PoolRefusal } from './errors.ts';
import { foreignCIDRs, NOTHING_FOREIGN, type Foreign } from './foreign.ts';
import { formatSelector, isSelective, selects } from './selectors.ts';

/** What the decider's own cache holds: all that whether a pool serves may depend on. No status is read. */
export interface ClusterView {
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
}

/** Who asks for addresses: all that admission depends on. */
export interface Claimer {
  readonly node: { readonly name: string; readonly labels: Labels };
  /** Absent for callers without Kubernetes arguments: they draw from the pools that admit every namespace. */
  readonly namespace?: ClaimerNamespace;
  /** The pools that the pod's own annotation names. */
  readonly podPools?: readonly string[] | undefined;
  readonly wishes?: AddressWishes;
}

/** What a pod asks for besides a pool. */
export interface AddressWishes {
  /** These addresses and no others. */
  readonly addresses?: Partial<Record<Family, IPAddress>> | undefined;
  /** The pod, as `namespace/name`, for which its addresses are kept. */
  readonly sticky?: string | undefined;
  /** Sources that are not its own and that it wants to send from. */
  readonly allowedSources?: readonly CIDR[] | undefined;
  /** Why its wish to keep its addresses means nothing, as a part of a sentence. */
  readonly notSticky?: string | undefined;
}

export interface ClaimerNamespace {
  readonly name: string;
  readonly labels: Labels;
  /** The pools that the namespace's annotation names: its pods draw from no others. */
  readonly pools?: readonly string[] | undefined;
}

export interface PoolChoice extends ClusterView {
  readonly claimer: Claimer;
  /** An interface of weft's own, the default, or addresses for one that another plugin makes. */
  readonly asks?: Attachment['kind'];
  /** Draw from this pool, which the network configuration names, or fail. Annotations then mean nothing. */
  readonly requestedPool?: string;
}

/**
 * The pools that may be drawn from, in the order in which to try them: the higher priority first, then by name.
 * The one place where a pool is chosen: who may draw and in which order is decided here and nowhere else (design,
 * section 4). A namespace's annotation bounds the list, the pod's own may only narrow it. A named pool that is not
 * there, or does not admit the namespace, is an error even where others would do: somebody expects it. One that
 * cannot be drawn from on this node, or now, is passed over as long as there are others.
 * @throws NoPoolError that says of each pool why it is not among them
 */
export function choosePools(choice: PoolChoice): IPPool[] {
  const { pools, claimer, requestedPool } = choice;
  const named = requestedPool === undefined ? namedPools(claimer) : [requestedPool];
  const asked = named === undefined ? pools : pools.filter(({ metadata }) => named.includes(metadata.name));
  const fail = (refusals: readonly PoolRefusal[]) =>
    new NoPoolError(refusals, {
      requestedPool,
      nodeName: claimer.node.name,
      namespace: claimer.namespace?.name,
    });
  const forbidden = named === undefined ? [] : refuseNamed(named, choice);
  if (forbidden.length > 0) throw fail(forbidden);

  const candidates: IPPool[] = [];
  const refusals: PoolRefusal[] = [];
  for (const pool of [...asked].sort(byPriority)) {
    const reason = whyUnusable(pool, choice);
    if (reason === undefined) candidates.push(pool);
    else refusals.push({ pool: pool.metadata.name, reason });
  }
  if (candidates.length === 0) throw fail(refusals);
  return candidates;
}

/** Why the pool is not among those that may be drawn from, as a part of a sentence; undefined if it is. */
export function whyNotDrawn(pool: IPPool, choice: PoolChoice): string | undefined {
  const { claimer, requestedPool } = choice;
  const { name } = pool.metadata;
  const [forbidden] = refuseNamed([name], choice);
  if (forbidden !== undefined) return forbidden.reason;
  const unusable = whyUnusable(pool, choice);
  if (unusable !== undefined) return unusable;
  if (requestedPool !== undefined && requestedPool !== name)
    return `the network configuration names ${requestedPool} only`;
  const named = requestedPool === undefined ? claimer.podPools : undefined;
  return named === undefined || named.includes(name)
    ? undefined
    : `the pod's annotation ${POOLS_ANNOTATION} names ${named.join(', ')} only`;
}

/** Whether the pool is for everyone on that node: its agent holds a subnet of it before any pod asks. */
export function isGeneral(pool: IPPool, view: ClusterView, node: Claimer['node']): boolean {
  return (
    pool.spec.use === 'Pods' &&
    serves(pool, view) &&
    !isSelective(pool.spec.namespaceSelector) &&
    selects(pool.spec.nodeSelector, node.labels)
  );
}

/** The pools that annotations name; undefined where none do. The namespace's bound is not judged here. */
function namedPools({ namespace, podPools }: Claimer): readonly string[] | undefined {
  return podPools ?? namespace?.pools;
}

/** The named pools that are nobody's to name here, each with the reason. */
function refuseNamed(named: readonly string[], { pools, claimer, requestedPool }: PoolChoice): PoolRefusal[] {
  const bound = requestedPool === undefined ? claimer.namespace?.pools : undefined;
  return named.flatMap((name) => {
    const pool = pools.find(({ metadata }) => metadata.name === name);
    const reason =
      bound !== undefined && !bound.includes(name)
        ? `the namespace's annotation ${POOLS_ANNOTATION} allows ${bound.join(', ')} only`
        : pool === undefined
          ? 'there is no such IPPool'
          : whyNotAdmitted(pool, claimer);
    return reason === undefined ? [] : [{ pool: name, reason }];
  });
}

/** Why nothing can be drawn from the pool here and now, named or not, as a part of a sentence; undefined if it can. */
function whyUnusable(pool: IPPool, choice: PoolChoice): string | undefined {
  return (
    whyNotAdmitted(pool, choice.claimer) ??
    whyNotForUse(pool, choice) ??
    whyNotServing(pool, choice) ??
    whyNotOnNode(pool, choice.claimer.node)
  );
}

/** Why the pool does not admit the namespace, as a part of a sentence; undefined if it does. */
function whyNotAdmitted({ spec: { namespaceSelector } }: IPPool, { namespace }: Claimer): string | undefined {
  if (namespaceSelector === undefined || !isSelective(namespaceSelector)) return undefined;
  const selector = `its namespaceSelector ${formatSelector(namespaceSelector)}`;
  if (namespace === undefined) return `${selector} admits pods of Kubernetes only`;
  if (selects(namespaceSelector, namespace.labels)) return undefined;
  return `${selector} does not match namespace ${namespace.name}`;
}

/** Why the pool's use does not allow what is asked for, as a part of a sentence; undefined if it does. */
function whyNotForUse({ spec: { use } }: IPPool, { asks = 'Interface' }: PoolChoice): string | undefined {
  if ((use === 'Pods') === (asks === 'Interface')) return undefined;
  return asks === 'Interface'
    ? `its use is ${use}: only weft-ipam draws from it, for the interfaces of other plugins`
    : 'its use is Pods: weft-ipam draws from pools of use Bridge or Lan only';
}

function whyNotOnNode({ spec: { nodeSelector } }: IPPool, node: Claimer['node']): string | undefined {
  if (nodeSelector === undefined || selects(nodeSelector, node.labels)) return undefined;
  return `its nodeSelector ${formatSelector(nodeSelector)} does not match node ${node.name}`;
}

/** Whether addresses may be drawn from the pool: a pure function of the objects, never of a status. */
export function serves(pool: IPPool, view: ClusterView): boolean {
  return whyNotServing(pool, view) === undefined;
}

/** Why the pool does not serve, as a part of a sentence; undefined if it does. */
export function whyNotServing(pool: IPPool, view: ClusterView): string | undefined {
  if (pool.metadata.deletionTimestamp !== undefined) return 'it is being deleted';
  if (pool.spec.disabled) return 'it is disabled';
  if (servingCIDRs(pool, view.pools).length > 0) return undefined;
  // What was claimed before the overlap came up keeps serving.
  if (view.subnets.some(({ spec }) => spec.poolUID === pool.metadata.uid && spec.exclusive !== true)) {
    return undefined;
  }
  return 'each of its CIDRs overlaps one of an older IPPool';
}

/** The families that the pool lists: a pod gets one address of each. */
export function poolFamilies(pool: IPPool): Family[] {
  return FAMILIES.filter((family) => pool.spec.cidrs.some((cidr) => cidr.family === family));
}

/**
 * The CIDRs of the pool from which new NodeSubnets may come. Overlap is judged per CIDR: of two that overlap,
 * that of the younger pool (creationTimestamp, then name) gets none; what was claimed keeps serving. The same
 * where it overlaps `foreign`, addresses that are not pods': those of nodes, the Services' CIDRs. A disabled pool
 * has none, and stands in the way of younger ones all the same: it may be enabled again. On a LAN nodes and others
 * have their addresses, too: there `foreign` is left out piece by piece (freeSubnet).
 */
export function servingCIDRs(
  pool: IPPool,
  allPools: readonly IPPool[],
  foreign: Foreign = NOTHING_FOREIGN,
): CIDR[] {
  if (pool.spec.disabled) return [];
  const older = allPools.filter((other) => isOlder(other, pool)).flatMap((other) => other.spec.cidrs);
  const inTheWay = pool.spec.use === 'Lan' ? older : [...older, ...foreignCIDRs(foreign)];
  return pool.spec.cidrs.filter((cidr) => !inTheWay.some((other) => cidrsOverlap(cidr, other)));
}

/**
 * "The pools" as destinations: every CIDR of every pool and every NodeSubnet, so that what is drained keeps its
 * treatment (design section 7); what lies on a LAN is none of them. Sorted, and none inside another.
 */
export function poolDestinations(pools: readonly IPPool[], subnets: readonly NodeSubnet[]): CIDR[] {
  const all = [
    ...pools.filter(({ spec }) => spec.use !== 'Lan').flatMap(({ spec }) => spec.cidrs),
    ...subnets.filter(({ spec }) => spec.nextHops.length > 0).map(({ spec }) => spec.cidr),
  ];
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

function byPriority(a: IPPool, b: IPPool): number {
  const [priorityA, priorityB] = [a.spec.priority, b.spec.priority];
  return priorityA !== priorityB ? priorityB - priorityA : a.metadata.name < b.metadata.name ? -1 : 1;
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
