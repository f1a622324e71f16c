import {
  nodeSubnetName,
  POOL_FINALIZER,
  type IPPool,
  type Labels,
  type NodeSubnet,
  type NodeSubnetSpec,
  type PoolUsage,
} from '../api/index.ts';
import {
  cidrContains,
  cidrHasAddress,
  cidrsOverlap,
  formatAddress,
  formatCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { jitteredBackOff, type Clock, type Random } from './clock.ts';
import { orAborted, startDeadline } from './deadline.ts';
import { messageOf, SubnetUnavailableError } from './errors.ts';
import type { Foreign } from './foreign.ts';
import { servingCIDRs } from './pools.ts';
import type { NodeSubnetStore, PoolStore } from './store.ts';
import type { SubnetHold } from './subnet-hold.ts';
import { freeSubnet, isExclusive, ownSubnets, usableFamilies } from './subnets.ts';

/** The node that claims: its Node object's name, UID, labels, and InternalIPs in their order. */
export interface ClaimingNode {
  readonly name: string;
  readonly uid: string;
  readonly labels: Labels;
  readonly addresses: readonly IPAddress[];
}

/** Is told what came of each claim of a subnet, and not of each who waits for it. */
export interface SubnetClaimObserver {
  /** The node has one more. */
  claimed(): void;
  /** Another node had that CIDR, or one that overlaps it: the search goes on. */
  taken(): void;
  /** The claim was given up. */
  unavailable(): void;
}

/** What the subnet claims of one process share. Made once. */
export interface SubnetClaimState {
  /** Names of own subnets whose claim is not complete: drawn from by nobody (drawableSubnets leaves them out). */
  readonly unconfirmed: Set<string>;
  /** Those of them for which this process sent a create: they have no address yet, so they may be deleted. */
  readonly created: Set<string>;
  /** Claims under way, by pool UID and family: who asks meanwhile gets the same. */
  readonly running: Map<string, Promise<NodeSubnet>>;
}

export function createSubnetClaimState(): SubnetClaimState {
  return { unconfirmed: new Set(), created: new Set(), running: new Map() };
}

export interface SubnetClaimParts {
  readonly stores: { readonly subnets: NodeSubnetStore; readonly pools: PoolStore };
  /** The caches, as they are at the moment of the call. */
  readonly pools: () => readonly IPPool[];
  readonly subnets: () => readonly NodeSubnet[];
  readonly node: ClaimingNode;
  /** The Services' CIDRs, where known: no subnet comes from a CIDR that overlaps them. */
  readonly serviceCIDRs?: () => readonly CIDR[];
  /** Resolves when the watch, not only the own write laid over the cache, has delivered that NodeSubnet. */
  readonly waitDelivered: (name: string, signal: AbortSignal) => Promise<void>;
  readonly state: SubnetClaimState;
  /** Asked before each create, and again before the subnet counts. Absent: nobody holds claims. */
  readonly hold?: SubnetHold;
  readonly clock: Clock;
  readonly random: Random;
  /** How long nodes keep a subnet empty before they give it back, for the one who waits for it. */
  readonly giveBackMs: number;
  /** For the claim of one subnet; callers may stop waiting for it earlier. */
  readonly deadlineMs: number;
  readonly observer?: SubnetClaimObserver;
}

export interface SubnetClaimOptions {
  /** Default: those the pool lists and the node has an address of. */
  readonly families?: readonly Family[];
  /** Ends the waiting. The claim itself goes on: the node needs the subnet all the same. */
  readonly signal?: AbortSignal;
}

/**
 * Claims one subnet per family for the node, by creating the objects that are named by their CIDRs (design
 * section 5): create, then GET the pool (same uid, not terminating, our finalizer there, CIDR still listed), then
 * wait until the watch has delivered our own create: a watch is in revision order, so what overlaps in the cache
 * at that moment is older, and ours is deleted. No address is drawn before that. While claims are held, because
 * etcd went back and nodes claim again what it has forgotten, none is begun, and one that had begun is taken back.
 * @throws SubnetUnavailableError, or the signal's reason
 */
export async function claimNodeSubnets(
  parts: SubnetClaimParts,
  pool: IPPool,
  { families = usableFamilies(pool, parts.node.addresses), signal }: SubnetClaimOptions = {},
): Promise<NodeSubnet[]> {
  const { name } = pool.metadata;
  if (families.length === 0) {
    throw new SubnetUnavailableError(
      name,
      undefined,
      `node ${parts.node.name} has no InternalIP of a family that the pool lists. Give the node one, or the pool a CIDR of the other family`,
    );
  }
  const results = await Promise.allSettled(
    families.map(async (family) => {
      const claim = claimOnce(parts, pool, family);
      return signal === undefined ? claim : orAborted(claim, signal);
    }),
  );
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}

/** What came of own subnets found at start. */
export interface Confirmation {
  readonly confirmed: readonly NodeSubnet[];
  /** Not drawn from: each with the reason, a part of a sentence. */
  readonly refused: readonly { readonly subnet: NodeSubnet; readonly reason: string }[];
}

/**
 * Completes the claims of own subnets that this process did not make, before it draws from them: at start, since
 * the process before may have been killed between the steps. Of two that overlap the older one serves: who made
 * the younger one sees the older at its own check. Nothing is deleted: they may have addresses in use. May be
 * repeated for those that were refused.
 */
export async function confirmNodeSubnets(
  parts: SubnetClaimParts,
  subnets: readonly NodeSubnet[],
  signal: AbortSignal,
): Promise<Confirmation> {
  const { unconfirmed } = parts.state;
  for (const subnet of subnets) unconfirmed.add(subnet.metadata.name);
  const judged = await Promise.all(
    subnets.map(async (subnet) => {
      // The finalizer holds the pool for us. Whether it still lists the CIDR is judged at each draw (isDrained).
      await retried(parts, signal, () => secureFinalizer(parts, subnet, signal));
      return { subnet, reason: whyOverlapping(parts, subnet, (other) => isNoYounger(other, subnet)) };
    }),
  );
  const refused: { subnet: NodeSubnet; reason: string }[] = [];
  const confirmed: NodeSubnet[] = [];
  for (const { subnet, reason } of judged) {
    if (reason !== undefined) {
      refused.push({ subnet, reason });
    } else {
      unconfirmed.delete(subnet.metadata.name);
      confirmed.push(subnet);
    }
  }
  return { confirmed, refused };
}

/**
 * Completes the claims that their deadline cut after the create, or takes them back: without need for another
 * subnet nobody else comes by them. Those of a claim under way are waited for.
 * @throws SubnetUnavailableError for the first that could not be completed, or the signal's reason
 */
export async function finishLeftBehind(parts: SubnetClaimParts, signal: AbortSignal): Promise<void> {
  forgetEarlierNodes(parts);
  const own = ownSubnets(parts.subnets(), parts.node.name, parts.node.uid);
  for (const subnet of own.filter(({ metadata }) => parts.state.created.has(metadata.name))) {
    const { pool, poolUID, cidr } = subnet.spec;
    const finish = async (until: AbortSignal) => {
      const overlap = await complete(parts, subnet, until);
      if (overlap === undefined) return subnet;
      throw new SubnetUnavailableError(pool, cidr.family, overlap);
    };
    const claim = shared(parts, poolUID, cidr.family, () => within(parts, pool, cidr.family, finish));
    await orAborted(claim, signal);
  }
}

/**
 * A Node that was made anew in the middle of a claim has left a subnet under its earlier UID, without routes, from which
 * nobody draws. It goes back like one of an earlier machine; it stays unconfirmed, should it be bound anew all the same.
 */
function forgetEarlierNodes({ node, state, subnets }: SubnetClaimParts): void {
  for (const { metadata, spec } of subnets()) {
    if (spec.nodeName === node.name && spec.nodeUID !== node.uid) state.created.delete(metadata.name);
  }
}

/** One claim per pool and family at a time: all who need a subnet at the same moment share it. */
function claimOnce(parts: SubnetClaimParts, pool: IPPool, family: Family): Promise<NodeSubnet> {
  const { uid, name } = pool.metadata;
  return shared(parts, uid, family, () =>
    within(parts, name, family, (signal) => claimSubnet(parts, pool, family, signal)),
  );
}

function shared(
  { state: { running }, observer }: SubnetClaimParts,
  poolUID: string,
  family: Family,
  start: () => Promise<NodeSubnet>,
): Promise<NodeSubnet> {
  const key = `${poolUID}/${family}`;
  const known = running.get(key);
  if (known !== undefined) return known;
  const claim = start().finally(() => running.delete(key));
  running.set(key, claim);
  void claim.then(
    () => observer?.claimed(),
    () => observer?.unavailable(),
  );
  return claim;
}

async function within(
  parts: SubnetClaimParts,
  poolName: string,
  family: Family,
  claim: (signal: AbortSignal) => Promise<NodeSubnet>,
): Promise<NodeSubnet> {
  const deadline = startDeadline(parts.clock, parts.deadlineMs);
  try {
    return await claim(deadline.signal);
  } catch (error) {
    if (error instanceof SubnetUnavailableError) throw error;
    throw new SubnetUnavailableError(poolName, family, messageOf(error), { cause: error, failed: true });
  } finally {
    deadline.end();
  }
}

async function claimSubnet(
  parts: SubnetClaimParts,
  pool: IPPool,
  family: Family,
  signal: AbortSignal,
): Promise<NodeSubnet> {
  /** Found taken by others in this claim: the cache may not show them yet. */
  const taken: CIDR[] = [];
  for (;;) {
    await notHeld(parts, signal);
    // One whose claim failed half-way comes first: created by us, drawn from by nobody.
    const subnet =
      leftBehind(parts, pool, family) ?? (await createSubnet(parts, pool, family, taken, signal));
    if (subnet !== undefined) {
      if ((await complete(parts, subnet, signal)) === undefined) return subnet;
      taken.push(subnet.spec.cidr); // elsewhere: two that met here would meet here again
    }
    parts.observer?.taken();
  }
}

/**
 * The steps after the create. Undefined: the subnet may be drawn from. Else why it overlaps, and it has been deleted.
 * @throws SubnetUnavailableError where the pool does not allow it; it has been deleted then too
 */
async function complete(
  parts: SubnetClaimParts,
  subnet: NodeSubnet,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { pool, cidr } = subnet.spec;
  const poolProblem = await retried(parts, signal, () => secureFinalizer(parts, subnet, signal));
  if (poolProblem !== undefined) {
    await retried(parts, signal, () => deleteOwn(parts, subnet, signal));
    throw new SubnetUnavailableError(pool, cidr.family, poolProblem);
  }
  if (await isHeld(parts, signal)) {
    await retried(parts, signal, () => deleteOwn(parts, subnet, signal));
    throw new SubnetUnavailableError(pool, cidr.family, HELD);
  }
  await parts.waitDelivered(subnet.metadata.name, signal);
  const overlap = whyOverlapping(parts, subnet);
  if (overlap === undefined) settle(parts, subnet);
  else await retried(parts, signal, () => deleteOwn(parts, subnet, signal));
  return overlap;
}

function leftBehind(parts: SubnetClaimParts, pool: IPPool, family: Family): NodeSubnet | undefined {
  const { created } = parts.state;
  return ownSubnets(parts.subnets(), parts.node.name, parts.node.uid).find(
    ({ metadata, spec }) =>
      created.has(metadata.name) && spec.poolUID === pool.metadata.uid && spec.cidr.family === family,
  );
}

/** Creates the object of one free CIDR; undefined if it turned out to be another's, which `taken` notes. */
async function createSubnet(
  parts: SubnetClaimParts,
  pool: IPPool,
  family: Family,
  taken: CIDR[],
  signal: AbortSignal,
): Promise<NodeSubnet | undefined> {
  const { stores, node, state } = parts;
  const cidr = freeSubnet({
    pool,
    pools: parts.pools(),
    subnets: parts.subnets(),
    family,
    nodeUID: node.uid,
    taken,
    foreign: foreignTo(parts),
  });
  if (cidr === undefined)
    throw new SubnetUnavailableError(pool.metadata.name, family, whyNone(parts, pool, family));
  const name = nodeSubnetName(cidr);
  const spec: NodeSubnetSpec = {
    cidr,
    pool: pool.metadata.name,
    poolUID: pool.metadata.uid,
    nodeName: node.name,
    nodeUID: node.uid,
    nextHops: nextHopsIn(pool, node),
  };
  state.unconfirmed.add(name);
  state.created.add(name);
  return retried(parts, signal, async () => {
    for (;;) {
      const outcome = await stores.subnets.create(spec, signal);
      if (outcome.kind === 'created') return outcome.object;
      const found = await stores.subnets.get(name, signal);
      if (found === undefined) continue; // deleted in between: the name is free again
      const { nodeUID, poolUID } = found.spec;
      if (nodeUID === node.uid && poolUID === pool.metadata.uid) return found;
      settleName(parts, name);
      taken.push(cidr);
      return undefined;
    }
  });
}

async function notHeld(parts: SubnetClaimParts, signal: AbortSignal): Promise<void> {
  while (await isHeld(parts, signal)) {
    await parts.clock.sleep(HOLD_POLL_MS * (1 + parts.random()), signal).catch(() => {
      throw new Error(HELD);
    });
  }
}

async function isHeld(parts: SubnetClaimParts, signal: AbortSignal): Promise<boolean> {
  const { hold } = parts;
  return hold !== undefined && retried(parts, signal, () => hold.isHeld(signal));
}

/** How often it is asked whether claims are still held, at the most. */
const HOLD_POLL_MS = 1_000;

const HELD =
  'claims of node subnets are held for a while, because etcd is back at an older state and other nodes claim again ' +
  'what it has forgotten. Try again';

/** Where others send a subnet's traffic: nowhere, where it is a part of a LAN. Then nobody routes it. */
export function nextHopsIn(pool: IPPool, node: Pick<ClaimingNode, 'addresses'>): IPAddress[] {
  return pool.spec.use === 'Lan' ? [] : [...node.addresses];
}

/**
 * The addresses of nodes, as far as the objects tell: ours, those of all that hold a subnet, and what the controller has
 * found inside of pools, which sees the others, too.
 */
function foreignTo({ node, pools, subnets, serviceCIDRs }: SubnetClaimParts): Foreign {
  return {
    nodes: [
      ...node.addresses,
      ...subnets().flatMap(({ spec }) => spec.nextHops),
      ...pools().flatMap(({ status }) => status?.nodeAddresses ?? []),
    ],
    services: serviceCIDRs?.() ?? [],
  };
}

function whyNone(parts: SubnetClaimParts, pool: IPPool, family: Family): string {
  const isFamily = (cidr: CIDR) => cidr.family === family;
  const listed = pool.spec.cidrs.filter(isFamily);
  const { nodes, services } = foreignTo(parts);
  const inTheWay = nodes.find(
    (address) => pool.spec.use !== 'Lan' && listed.some((cidr) => cidrHasAddress(cidr, address)),
  );
  const length = pool.spec.nodeSubnetPrefixLength[family];
  if (inTheWay !== undefined) {
    return `its CIDRs hold ${formatAddress(inTheWay)}, the address of a node. Give the pool a CIDR without nodes`;
  }
  if (servingCIDRs(pool, parts.pools(), { nodes: [], services }).every((cidr) => !isFamily(cidr))) {
    return 'its CIDRs overlap those of older IPPools or of the Services. Give the pool a CIDR of its own';
  }
  const held = parts
    .subnets()
    .filter(
      (subnet) =>
        subnet.spec.poolUID === pool.metadata.uid && isFamily(subnet.spec.cidr) && !isExclusive(subnet),
    ).length;
  const figures = poolFigures(pool.status?.[family]);
  const next =
    `the next comes free when a node that holds more than it needs has had one empty for ` +
    `${Math.round(parts.giveBackMs / 1000)} s`;
  return `no /${length} is free in its CIDRs: nodes hold ${held}${figures}; ${next}. Add a CIDR to the pool, or wait for that`;
}

/** What the pool's status counts, for people alone: nobody decides by it, and it may be a little old. */
function poolFigures(usage: PoolUsage | undefined): string {
  if (usage === undefined) return '';
  const { allocated, resting, reserved, free } = usage;
  return (
    `; of the pool's ${usage.capacity} addresses ${allocated} are in use, ${resting} rest after their release, ` +
    `${reserved} are reserved and ${free} are free in the subnets of other nodes, as its status says`
  );
}

/** Sees to it that the pool cannot go while the subnet is there. Answers why that is not possible, if it is not. */
export async function secureFinalizer(
  { stores }: Pick<SubnetClaimParts, 'stores'>,
  { spec }: NodeSubnet,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (;;) {
    const pool = await stores.pools.get(spec.pool, signal);
    if (pool === undefined) return 'the pool has been deleted';
    const { uid, deletionTimestamp, finalizers } = pool.metadata;
    if (uid !== spec.poolUID) return 'the pool has been deleted and made anew. Try again';
    if (deletionTimestamp !== undefined) return 'the pool is being deleted';
    const isHeld =
      finalizers.includes(POOL_FINALIZER) || (await stores.pools.addFinalizer(pool, signal)) === 'done';
    if (!isHeld) continue; // the pool has changed: look again
    const isListed = pool.spec.cidrs.some((cidr) => cidrContains(cidr, spec.cidr));
    return isListed ? undefined : `the pool does not list ${formatCIDR(spec.cidr)} any more. Try again`;
  }
}

function whyOverlapping(
  parts: SubnetClaimParts,
  subnet: NodeSubnet,
  counts: (other: NodeSubnet) => boolean = () => true,
): string | undefined {
  const other = parts
    .subnets()
    .find(
      (one) =>
        one.metadata.name !== subnet.metadata.name &&
        !isExclusive(one) &&
        cidrsOverlap(one.spec.cidr, subnet.spec.cidr) &&
        counts(one),
    );
  if (other === undefined) return undefined;
  return `it overlaps ${formatCIDR(other.spec.cidr)} of node ${other.spec.nodeName}`;
}

/**
 * Times of creation are whole seconds. Which of two of one second came first, and so may have been drawn from, they
 * do not tell: neither is confirmed until the empty one has been given back.
 */
function isNoYounger(a: NodeSubnet, b: NodeSubnet): boolean {
  return Date.parse(a.metadata.creationTimestamp) <= Date.parse(b.metadata.creationTimestamp);
}

/** Deletes a subnet that this process created and from which nothing was drawn. */
async function deleteOwn(parts: SubnetClaimParts, subnet: NodeSubnet, signal: AbortSignal): Promise<void> {
  const { subnets } = parts.stores;
  let seen = subnet;
  while ((await subnets.delete(seen, signal)) === 'changed') {
    const found = await subnets.get(subnet.metadata.name, signal);
    if (found?.metadata.uid !== subnet.metadata.uid) break;
    seen = found;
  }
  settle(parts, subnet);
}

function settle(parts: SubnetClaimParts, { metadata }: NodeSubnet): void {
  settleName(parts, metadata.name);
}

function settleName({ state }: SubnetClaimParts, name: string): void {
  state.unconfirmed.delete(name);
  state.created.delete(name);
}

/** Repeats a step until it does not throw: whatever it wrote may have committed, so it must bear repeating. */
export async function retried<T>(
  { clock, random }: Pick<SubnetClaimParts, 'clock' | 'random'>,
  signal: AbortSignal,
  step: () => Promise<T>,
): Promise<T> {
  const backOff = jitteredBackOff(random);
  let lastFailure: unknown;
  for (;;) {
    try {
      signal.throwIfAborted();
      return await step();
    } catch (error) {
      if (signal.aborted) throw new Error(endText(signal, lastFailure), { cause: error });
      lastFailure = error;
      await clock.sleep(backOff.next(), signal).catch(() => undefined);
    }
  }
}

function endText(signal: AbortSignal, lastFailure: unknown): string {
  const last = lastFailure === undefined ? '' : `; the last failure was: ${messageOf(lastFailure)}`;
  return `${messageOf(signal.reason)}${last}`;
}
