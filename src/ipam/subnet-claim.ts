import type { IPPool, NodeSubnet } from '../api/index.ts';
import type { CIDR, Family, IPAddress } from '../net/index.ts';
import type { Clock, Random } from './clock.ts';
import type { NodeSubnetStore, PoolStore } from './store.ts';

/** The node that claims: its Node object's name, UID and InternalIPs in their order. */
export interface ClaimingNode {
  readonly name: string;
  readonly uid: string;
  readonly addresses: readonly IPAddress[];
}

/** What the subnet claims of one process share. Made once. */
export interface SubnetClaimState {
  /** Names of own subnets whose claim is not complete: drawn from by nobody (drawableSubnets leaves them out). */
  readonly unconfirmed: Set<string>;
  /** CIDRs that were found taken before the cache showed them. */
  readonly taken: Map<string, CIDR>;
  /** Claims under way, by pool UID and family: who asks meanwhile gets the same. */
  readonly running: Map<string, Promise<NodeSubnet>>;
}

export function createSubnetClaimState(): SubnetClaimState {
  return { unconfirmed: new Set(), taken: new Map(), running: new Map() };
}

export interface SubnetClaimParts {
  readonly stores: { readonly subnets: NodeSubnetStore; readonly pools: PoolStore };
  /** The caches, as they are at the moment of the call. */
  readonly pools: () => readonly IPPool[];
  readonly subnets: () => readonly NodeSubnet[];
  readonly node: ClaimingNode;
  /** Resolves when the watch, not only the own write laid over the cache, has delivered that NodeSubnet. */
  readonly waitDelivered: (name: string, signal: AbortSignal) => Promise<void>;
  readonly state: SubnetClaimState;
  readonly clock: Clock;
  readonly random: Random;
  /** Of one call. */
  readonly deadlineMs: number;
}

export interface SubnetClaimOptions {
  /** Default: those the pool lists and the node has an address of. */
  readonly families?: readonly Family[];
  readonly signal?: AbortSignal;
}

/**
 * Claims one subnet per family for the node, by creating the objects that are named by their CIDRs (design
 * section 5): create, then GET the pool (same uid, not terminating, our finalizer there, CIDR still listed), then
 * wait until the watch has delivered our own create: what overlaps in the cache at that moment is older, and ours
 * is deleted. No address is drawn before that.
 * @throws SubnetUnavailableError, or the signal's reason
 */
export async function claimNodeSubnets(
  parts: SubnetClaimParts,
  pool: IPPool,
  options: SubnetClaimOptions = {},
): Promise<NodeSubnet[]> {
  throw new Error(`${parts.clock.nowMs()} ${pool.metadata.name} ${options.families?.length} not built yet`);
}

/**
 * Completes the claim of own subnets found in the cache: at start, since a process may have been killed between
 * the steps. Those that may not be kept are deleted.
 * @returns the confirmed ones
 */
export async function confirmNodeSubnets(
  parts: SubnetClaimParts,
  subnets: readonly NodeSubnet[],
  signal?: AbortSignal,
): Promise<NodeSubnet[]> {
  throw new Error(`${parts.clock.nowMs()} ${subnets.length} ${signal?.aborted} not built yet`);
}
