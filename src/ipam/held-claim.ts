import { allocationName, type IPAllocation, type IPPool, type NodeSubnet } from '../api/index.ts';
import { formatAddress, formatCIDR, type Family, type IPAddress } from '../net/index.ts';
import { jitteredBackOff, type Clock, type Random } from './clock.ts';
import { startDeadline } from './deadline.ts';
import { createDefinitely } from './definite-create.ts';
import { ClaimDeadlineError } from './errors.ts';
import type { HeldCandidate } from './held-candidates.ts';
import { UNKNOWN_SETTLES_MS } from './release.ts';
import type { AllocationStore } from './store.ts';

export interface HeldClaimParts {
  readonly store: Pick<AllocationStore, 'create' | 'get' | 'delete'>;
  readonly clock: Clock;
  readonly random: Random;
  /** Whether this claim sent the create of that object: the holder's name does not tell, two may ask under one. */
  readonly isOurs: (found: IPAllocation) => boolean;
  /** Whether a failure is a refusal, which trying again would not change. */
  readonly isRefusal: (error: unknown) => boolean;
}

export interface HeldClaimRequest {
  readonly pool: IPPool;
  readonly holder: string;
  /** Absent: the address is counted, and routed nowhere. */
  readonly nodeName?: string;
  /** Where to look for one address of each family. */
  readonly searches: readonly {
    readonly family: Family;
    readonly candidates: Iterator<HeldCandidate, undefined>;
  }[];
  /** Asked after the create, for an address on a node: whether the node has the subnet still. */
  readonly isStillThere: (subnet: NodeSubnet, signal: AbortSignal) => Promise<boolean>;
  readonly deadlineMs: number;
  /** The caller's reason to give up. */
  readonly signal: AbortSignal;
}

/**
 * Claims one address per family for a holder without a pod, all or none, by creating the objects that are named by
 * them. Only another owner's object of that name moves on to the next candidate. What was created is deleted again
 * if it does not succeed in full, and so is what may have been.
 * @returns the allocations, in the order of `searches`
 * @throws NothingFreeError, SubnetGivenBackError, a refusal, ClaimDeadlineError, OutcomeUnknownError, or the
 *   signal's reason
 */
export async function claimHeldAddresses(
  parts: HeldClaimParts,
  request: HeldClaimRequest,
): Promise<IPAllocation[]> {
  const { clock } = parts;
  const startedMs = clock.nowMs();
  const deadline = startDeadline(clock, request.deadlineMs);
  const claim: Claim = {
    signal: AbortSignal.any([deadline.signal, request.signal]),
    claimed: [],
    open: undefined,
    lastFailure: undefined,
  };
  try {
    for (const search of request.searches) {
      claim.claimed.push(await claimFirstFree(parts, request, search, claim));
    }
    return claim.claimed;
  } catch (error) {
    await takeBack(parts, claim);
    if (!deadline.signal.aborted || request.signal.aborted) throw error;
    throw new ClaimDeadlineError(request.pool.metadata.name, clock.nowMs() - startedMs, claim.lastFailure);
  } finally {
    deadline.end();
  }
}

/** Every candidate was somebody else's. */
export class NothingFreeError extends Error {
  override name = 'NothingFreeError' as const;
  readonly family: Family;

  constructor(pool: string, family: Family, nodeName: string | undefined) {
    const where = nodeName === undefined ? '' : ` in the node subnets of ${nodeName}`;
    super(
      `IPPool ${pool} has no free ${family} address${where}: each is in use, rests or is reserved. ` +
        'Release one, or add a CIDR to the pool',
    );
    this.family = family;
  }
}

/** The node gave the subnet back while an address of it was being claimed: look again at what it has. */
export class SubnetGivenBackError extends Error {
  override name = 'SubnetGivenBackError' as const;

  constructor({ spec }: NodeSubnet) {
    super(`node ${spec.nodeName} gave its subnet ${formatCIDR(spec.cidr)} back while an address was claimed`);
  }
}

/** Addresses that may stay claimed, since the apiserver did not answer. */
export class OutcomeUnknownError extends Error {
  override name = 'OutcomeUnknownError' as const;
  readonly addresses: readonly IPAddress[];

  constructor(addresses: readonly IPAddress[], cause: unknown) {
    const texts = addresses.map(formatAddress).join(', ');
    super(`the apiserver stopped answering, and ${texts} may have been claimed: look, and release it`, {
      cause,
    });
    this.addresses = addresses;
  }
}

/** One request, as far as it has come. */
interface Claim {
  readonly signal: AbortSignal;
  readonly claimed: IPAllocation[];
  /** The address whose create has an unknown outcome. */
  open: IPAddress | undefined;
  lastFailure: unknown;
}

async function claimFirstFree(
  parts: HeldClaimParts,
  request: HeldClaimRequest,
  { family, candidates }: HeldClaimRequest['searches'][number],
  claim: Claim,
): Promise<IPAllocation> {
  const { pool, holder, nodeName } = request;
  for (;;) {
    const next = candidates.next();
    if (next.done === true) throw new NothingFreeError(pool.metadata.name, family, nodeName);
    const { address, subnet } = next.value;
    const attempt = { open: false };
    try {
      const answer = await createDefinitely(parts, {
        spec: { address, pool: pool.metadata.name, holder, ...(nodeName === undefined ? {} : { nodeName }) },
        isOurs: parts.isOurs,
        isRefusal: parts.isRefusal,
        onRetry: (failure) => {
          claim.lastFailure = failure ?? claim.lastFailure;
        },
        signal: claim.signal,
        attempt,
      });
      if (answer === 'taken') continue;
      if (nodeName === undefined || subnet === undefined) return answer;
      claim.claimed.push(answer);
      if (!(await request.isStillThere(subnet, claim.signal))) throw new SubnetGivenBackError(subnet);
      claim.claimed.pop();
      return answer;
    } finally {
      if (attempt.open) claim.open = address;
    }
  }
}

/** For how long a request that failed tries to leave nothing behind. */
const TAKE_BACK_MS = 8_000;

/** @throws OutcomeUnknownError where the apiserver does not answer */
async function takeBack(parts: HeldClaimParts, { claimed, open }: Claim): Promise<void> {
  const addresses = [
    ...claimed.map(({ spec }) => ({ address: spec.address, settlesMs: 0 })),
    ...(open === undefined ? [] : [{ address: open, settlesMs: UNKNOWN_SETTLES_MS }]),
  ];
  const deadline = startDeadline(parts.clock, TAKE_BACK_MS);
  const results = await Promise.allSettled(
    addresses.map(({ address, settlesMs }) => removeOurs(parts, address, settlesMs, deadline.signal)),
  );
  deadline.end();
  const left = addresses.filter((_, i) => results[i]?.status === 'rejected').map(({ address }) => address);
  if (left.length === 0) return;
  const failure = results.find((result) => result.status === 'rejected');
  throw new OutcomeUnknownError(left, failure?.reason);
}

/** Deletes the object of that name if it is ours. Until it settles a "not found" is asked for again. */
async function removeOurs(
  { store, clock, random, isOurs }: HeldClaimParts,
  address: IPAddress,
  settlesMs: number,
  signal: AbortSignal,
): Promise<void> {
  const sinceMs = clock.nowMs();
  const backOff = jitteredBackOff(random);
  let lastFailure: unknown;
  for (;;) {
    try {
      const found = await store.get(allocationName(address), signal);
      if (found !== undefined) {
        if (!isOurs(found) || (await store.delete(found, signal)) !== 'changed') return;
      } else if (clock.nowMs() - sinceMs >= settlesMs) {
        return;
      }
    } catch (error) {
      if (signal.aborted) throw lastFailure ?? error;
      lastFailure = error;
    }
    await clock.sleep(backOff.next(), signal).catch(() => {
      throw lastFailure ?? signal.reason;
    });
  }
}
