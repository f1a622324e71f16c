import type { Attachment, IPAllocation, IPPool, PodReference } from '../api/index.ts';
import {
  AddressHeldError,
  AddressTakenError,
  choosePools,
  claimAddresses,
  ClaimDeadlineError,
  figuresOf,
  FixedAddressError,
  InvalidAnnotationError,
  IsolatedPoolFullError,
  NoPoolError,
  PoolExhaustedError,
  poolsAllowing,
  SourcesRefusedError,
  SubnetUnavailableError,
  type ClaimRequest,
  type PoolChoice,
} from '../ipam/index.ts';
import { cidrHasAddress, formatCIDR } from '../net/index.ts';
import type { LostAllocations } from './lost-allocations.ts';
import type { StrayAddresses } from './stray-addresses.ts';
import type { AgentParts } from './parts.ts';
import { claimWished } from './wished-claim.ts';

/**
 * How a claim ended: the attachment has its addresses; no pool serves and admits it; those that do are full; its time was over;
 * nobody wanted the addresses any more; something that nobody thought of.
 */
export type ClaimOutcome = 'claimed' | 'refused' | 'exhausted' | 'timeout' | 'abandoned' | 'failed';

/** Who asks for addresses. */
export interface Claimant {
  readonly attachment: Attachment;
  readonly pod: PodReference | undefined;
  /** The pool that the network configuration names, if it names one. */
  readonly pool: string | undefined;
  /** Whether the node may claim one more subnet where its own are full; default: yes. Not under a bridge. */
  readonly mayGrow?: boolean;
}

/** The very addresses that must be had, and for whom what is claimed is kept. */
export type ClaimTerms = Pick<ClaimRequest, 'wanted' | 'sticky'>;

/** What a claim needs of the agent. */
export type ClaimingParts = Pick<
  AgentParts,
  | 'nodeName'
  | 'pools'
  | 'subnets'
  | 'isNodeAddress'
  | 'findClaimer'
  | 'allocations'
  | 'wired'
  | 'subnetSource'
  | 'claims'
  | 'recovery'
  | 'settings'
  | 'announce'
  | 'onClaimEnded'
  | 'exclusiveSubnets'
  | 'hold'
  | 'listSticky'
  | 'log'
> & { readonly lost: Pick<LostAllocations, 'has'>; readonly strays: Pick<StrayAddresses, 'has'> };

/**
 * Claims the attachment's addresses from the first pool that admits it and has them, with one more subnet for the
 * node where its own are full. What the pod's people must know of it is an Event on the pod.
 * @throws ClaimerUnknownError, InvalidAnnotationError, NoPoolError, SourcesRefusedError, FixedAddressError, AddressTakenError,
 *   AddressHeldError, PoolExhaustedError, SubnetUnavailableError, ClaimDeadlineError, or the signal's reason
 */
export async function claimFor(
  parts: ClaimingParts,
  claimant: Claimant,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  try {
    const claimed = await claimFromFirst(parts, claimant, signal);
    parts.onClaimEnded?.('claimed');
    return claimed;
  } catch (error) {
    parts.onClaimEnded?.(signal.aborted ? 'abandoned' : outcomeOf(error));
    if (isForPeople(error)) parts.announce.refused(claimant.pod, error);
    throw error;
  }
}

async function claimFromFirst(
  parts: ClaimingParts,
  claimant: Claimant,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  await parts.recovery.settled(signal);
  const { pool: requestedPool } = claimant;
  const annotations = requestedPool === undefined ? 'obeyed' : 'ignored';
  const claimer = await parts.findClaimer(claimant.pod, annotations, signal);
  const choice: PoolChoice = {
    pools: parts.pools(),
    subnets: parts.subnets(),
    claimer,
    asks: claimant.attachment.kind,
    ...(requestedPool === undefined ? {} : { requestedPool }),
  };
  const chosen = choosePools(choice);
  const { wishes } = claimer;
  const pools = wishes?.allowedSources === undefined ? chosen : poolsAllowing(chosen, wishes.allowedSources);
  if (wishes?.notSticky !== undefined) parts.announce.notGranted(claimant.pod, wishes.notSticky);
  if (wishes?.addresses !== undefined || wishes?.sticky !== undefined) {
    return claimWished(parts, claimant, { ...wishes, pools, choice }, signal);
  }
  return claimFromOneOf(parts, claimant, pools, {}, signal);
}

/** From the first of the pools that has room; behind an Isolated one, none is tried. */
export async function claimFromOneOf(
  parts: ClaimingParts,
  claimant: Claimant,
  pools: readonly IPPool[],
  terms: ClaimTerms,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  let refusal: unknown;
  for (const [index, pool] of pools.entries()) {
    try {
      const claimed = await claimFromPool(parts, claimant, pool, terms, signal);
      if (refusal instanceof Error) parts.announce.overflowed(claimant.pod, pool, refusal);
      return claimed;
    } catch (error) {
      if (!isFull(error)) throw error;
      // What is to be kept apart from others must not be among them because there is no room.
      if (pool.spec.isolation.mode === 'Isolated') {
        throw index === pools.length - 1 ? error : new IsolatedPoolFullError(pool.metadata.name, error);
      }
      // The first pool's reason is the one that its people look for.
      refusal ??= error;
    }
  }
  throw refusal;
}

async function claimFromPool(
  parts: ClaimingParts,
  claimant: Claimant,
  pool: IPPool,
  terms: ClaimTerms,
  signal: AbortSignal,
): Promise<IPAllocation[]> {
  const families = parts.subnetSource.families(pool);
  if (families.length === 0) {
    throw new SubnetUnavailableError(
      pool.metadata.name,
      undefined,
      'the node has no address of its families',
    );
  }
  const startedMs = parts.claims.clock.nowMs();
  for (;;) {
    try {
      const claimed = await claimAddresses(parts.claims, {
        pool,
        subnets: parts.subnetSource.drawable(pool),
        stillDrawable: ({ metadata }) =>
          parts.subnetSource.drawable(pool).some((subnet) => subnet.metadata.uid === metadata.uid),
        families,
        nodeName: parts.nodeName,
        attachment: claimant.attachment,
        ...(claimant.pod === undefined ? {} : { pod: claimant.pod }),
        allocations: parts.allocations,
        alsoInUse: {
          // What another node has the way to is that node's, although it lies in a subnet of this one.
          has: (name, address) =>
            parts.wired.has(name) ||
            parts.wired.rests(name) ||
            parts.lost.has(name) ||
            parts.strays.has(name) ||
            parts.exclusiveSubnets.of(address) !== undefined ||
            parts.isNodeAddress(address, pool),
        },
        ...terms,
        deadlineMs: parts.settings.addDeadlineMs,
        signal,
      });
      if (await standsAfterRecovery(parts, pool, claimed, terms, signal)) return claimed;
    } catch (error) {
      if (!(error instanceof PoolExhaustedError)) throw error;
      if (claimant.mayGrow === false && error.subnets.length > 0) throw bridgeIsFull(error);
      if (parts.claims.clock.nowMs() - startedMs > parts.settings.subnetWaitMs) throw error;
      await oneMoreSubnet(parts, pool, error, signal);
    }
  }
}

/**
 * Whether the addresses may be used. Where a recovery was under way by the end of the claim, its subnets may have
 * turned out to be another node's; then the addresses, which nobody has used, are given back. An address that must be
 * had needs no subnet: it stands for as long as its object is this claim's.
 */
async function standsAfterRecovery(
  parts: ClaimingParts,
  pool: IPPool,
  claimed: readonly IPAllocation[],
  { wanted }: ClaimTerms,
  signal: AbortSignal,
): Promise<boolean> {
  const giveBack = () => {
    for (const allocation of claimed) {
      const { uid } = allocation.metadata;
      const neverUsed = wanted?.[allocation.spec.address.family]?.kept?.metadata.uid !== uid;
      void parts.claims.releases.release(allocation, { reuseDelayMs: 0, neverUsed });
    }
  };
  try {
    if (!(await parts.recovery.settled(signal))) return true;
  } catch (error) {
    giveBack();
    throw error;
  }
  const subnets = parts.subnetSource.drawable(pool);
  const stands = claimed.every(({ metadata, spec }) =>
    wanted?.[spec.address.family] === undefined
      ? subnets.some((subnet) => cidrHasAddress(subnet.spec.cidr, spec.address))
      : parts.allocations.get(metadata.name)?.metadata.uid === metadata.uid,
  );
  if (!stands) giveBack();
  return stands;
}

/** A node that is full gets another subnet; where the pool has none left, being full is the error to show. */
async function oneMoreSubnet(
  parts: ClaimingParts,
  pool: IPPool,
  full: PoolExhaustedError,
  signal: AbortSignal,
): Promise<void> {
  try {
    await parts.subnetSource.claimMore(pool, full.family, signal);
  } catch (error) {
    if (!(error instanceof SubnetUnavailableError)) throw error;
    throw full.subnets.length === 0 || error.failed ? error : full;
  }
}

function outcomeOf(error: unknown): ClaimOutcome {
  if (isFull(error) || error instanceof IsolatedPoolFullError) return 'exhausted';
  if (error instanceof NoPoolError || error instanceof InvalidAnnotationError) return 'refused';
  if (error instanceof FixedAddressError || error instanceof AddressTakenError) return 'refused';
  if (error instanceof SourcesRefusedError) return 'refused';
  if (error instanceof AddressHeldError) return 'refused';
  return error instanceof ClaimDeadlineError ? 'timeout' : 'failed';
}

/** The way out is another one than for a pool that is full. */
function bridgeIsFull(full: PoolExhaustedError): SubnetUnavailableError {
  return new SubnetUnavailableError(
    full.pool,
    full.family,
    `a bridge has room for one of each family, and its ${full.subnets.map(formatCIDR).join(', ')} is full: of ` +
      `${full.usable} usable addresses ${figuresOf(full)}. Use a pool with larger pieces ` +
      '(nodeSubnetPrefixLength), or the plugin ptp',
    { cause: full },
  );
}

/** What the pod's or the pool's people can mend; the rest is the cluster's trouble, and in the ADD's error. */
function isForPeople(error: unknown): error is Error {
  return (
    error instanceof NoPoolError ||
    error instanceof InvalidAnnotationError ||
    error instanceof FixedAddressError ||
    error instanceof SourcesRefusedError ||
    error instanceof AddressTakenError ||
    error instanceof IsolatedPoolFullError ||
    error instanceof AddressHeldError ||
    isFull(error)
  );
}

function isFull(error: unknown): error is PoolExhaustedError | SubnetUnavailableError {
  if (error instanceof SubnetUnavailableError) return !error.failed;
  return error instanceof PoolExhaustedError;
}
