import {
  allocationName,
  type Attachment,
  type IPAllocation,
  type IPPool,
  type NodeSubnet,
  type PodReference,
} from '../api/index.ts';
import type { CIDR, Family } from '../net/index.ts';
import {
  addressCandidates,
  countInUse,
  type Candidate,
  type NamesInUse,
  type RingCursor,
} from './candidates.ts';
import { jitteredBackOff, type Clock, type Random } from './clock.ts';
import { ClaimDeadlineError, PoolExhaustedError } from './errors.ts';
import { poolFamilies } from './pools.ts';
import { isOf, isResting, type ReleaseQueue } from './release.ts';
import type { AllocationStore } from './store.ts';
import { usableRange } from './subnets.ts';
import type { TakenNames } from './taken-names.ts';

/** What the claims of one process share. Made once, and handed to every claim. */
export interface ClaimParts {
  readonly store: Pick<AllocationStore, 'create' | 'get'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly cursor: RingCursor;
  /** Names that claims and releases of this process are busy with: no two claims try the same one. */
  readonly inFlight: Set<string>;
  /** Names that were found taken before the cache showed them. */
  readonly taken: TakenNames;
  readonly releases: Pick<ReleaseQueue, 'release' | 'undo' | 'nextFreeInMs'>;
}

export interface ClaimRequest {
  readonly pool: IPPool;
  /** The node's subnets of this pool to draw from (drawableSubnets), of all families. */
  readonly subnets: readonly NodeSubnet[];
  /** One address of each is claimed. Default: those the pool lists. */
  readonly families?: readonly Family[];
  readonly nodeName: string;
  readonly attachment: Attachment;
  readonly pod?: PodReference;
  /** This node's allocations by name, own writes laid over: the living cache, resting ones included. */
  readonly allocations: NamesInUse & { get(name: string): IPAllocation | undefined };
  /** Names in use by any other source, such as addresses seen in the kernel. */
  readonly alsoInUse?: { has(name: string): boolean };
  /** From the call on. */
  readonly deadlineMs: number;
  /** The caller's reason to give up. */
  readonly signal?: AbortSignal;
}

/**
 * Claims one address per family, all at once, by creating the objects that are named by them: one write each and
 * no read when nothing goes wrong. Only another owner's object of that name moves a claim on to the next
 * candidate; after any other failure the same name is tried again, since the create may have committed.
 * If it does not succeed in full nothing stays claimed: what was created is deleted, what is unknown is undone.
 * @returns the allocations, in the order of `families`
 * @throws PoolExhaustedError if a family has no free address, ClaimDeadlineError, or the signal's reason
 */
export async function claimAddresses(parts: ClaimParts, request: ClaimRequest): Promise<IPAllocation[]> {
  throw new Error(`${parts.clock.nowMs()} ${request.nodeName} not built yet`);
}
