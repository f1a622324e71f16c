import type {
  Attachment,
  IPAllocation,
  IPAllocationSpec,
  IPPool,
  NodeSubnet,
  PodReference,
} from '../api/index.ts';
import {
  cidrHasAddress,
  countAddresses,
  intersectRanges,
  rangeOfCIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { addressCandidates, type Candidate, type NamesInUse, type RingCursor } from './candidates.ts';
import type { Clock, Random } from './clock.ts';
import { startDeadline } from './deadline.ts';
import { createDefinitely } from './definite-create.ts';
import { ClaimDeadlineError, PoolExhaustedError } from './errors.ts';
import { poolFamilies } from './pools.ts';
import { isOf, isResting, type ReleaseQueue } from './release.ts';
import type { AllocationStore } from './store.ts';
import { reservedRanges, usableRanges } from './subnets.ts';
import type { TakenNames } from './taken-names.ts';
import { claimWanted, type WantedAddress } from './wanted-claim.ts';

/** Is told what came of each try of a name. On the path of every ADD: it must be cheap, and not throw. */
export interface ClaimObserver {
  /** The object is there, and ours. */
  created(): void;
  /** Somebody else has the name. */
  taken(): void;
  /** No definite answer came: the same name is tried again. */
  retried(): void;
}

/** What the claims of one process share. Made once, and handed to every claim. */
export interface ClaimParts {
  readonly store: Pick<AllocationStore, 'create' | 'get' | 'bind'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly cursor: RingCursor;
  /** Names that claims and releases of this process are busy with: no two claims try the same one. */
  readonly inFlight: Set<string>;
  /** Names that were found taken before the cache showed them. */
  readonly taken: TakenNames;
  readonly releases: Pick<ReleaseQueue, 'release' | 'undo' | 'nextFreeInMs'>;
  readonly observer?: ClaimObserver;
}

export interface ClaimRequest {
  readonly pool: IPPool;
  /** The node's subnets of this pool to draw from (drawableSubnets), of all families. */
  readonly subnets: readonly NodeSubnet[];
  /** Whether one of them is still drawn from: a walk may outlast that, and its subnet may be another node's. */
  readonly stillDrawable?: (subnet: NodeSubnet) => boolean;
  /** One address of each is claimed. Default: those the pool lists. */
  readonly families?: readonly Family[];
  /** The very addresses that must be had, by family. Of the other families any is drawn. */
  readonly wanted?: Readonly<Partial<Record<Family, WantedAddress>>>;
  /** The pod, as `namespace/name`, for which what is claimed is kept. */
  readonly sticky?: string | undefined;
  readonly nodeName: string;
  readonly attachment: Attachment;
  readonly pod?: PodReference;
  /** This node's allocations by name, own writes laid over: the living cache, resting ones included. */
  readonly allocations: NamesInUse & { get(name: string): IPAllocation | undefined };
  /** Names in use by any other source, such as addresses seen in the kernel. */
  readonly alsoInUse?: { has(name: string, address: IPAddress): boolean };
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
 * @throws PoolExhaustedError if a family has no free address, AddressTakenError, ClaimDeadlineError, or the signal's
 *   reason
 */
export async function claimAddresses(parts: ClaimParts, request: ClaimRequest): Promise<IPAllocation[]> {
  const { clock, releases } = parts;
  const searches = startSearches(parts, request);
  const startedMs = clock.nowMs();
  const deadline = startDeadline(clock, request.deadlineMs);
  /** One family alone is of no use: where one fails the others stop too. */
  const failed = new AbortController();
  const signal = AbortSignal.any([
    failed.signal,
    deadline.signal,
    ...(request.signal === undefined ? [] : [request.signal]),
  ]);
  const results = await Promise.allSettled(
    searches.map(async (search) => {
      try {
        return await search.claim(signal);
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    }),
  );
  deadline.end();

  const claimed = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  if (claimed.length === searches.length && request.signal?.aborted !== true) return claimed;
  for (const allocation of claimed) {
    const kept = request.wanted?.[allocation.spec.address.family]?.kept;
    const neverUsed = kept?.metadata.uid !== allocation.metadata.uid;
    void releases.release(allocation, { reuseDelayMs: NEVER_USED, neverUsed });
  }
  if (signal.reason === deadline.signal.reason) {
    const cause = searches.map((search) => search.lastFailure()).find((failure) => failure !== undefined);
    throw new ClaimDeadlineError(request.pool.metadata.name, clock.nowMs() - startedMs, cause);
  }
  throw signal.reason;
}

/** Nobody ever had the address, so it needs no rest. */
const NEVER_USED = 0;

/** What is to be claimed of one family. */
interface Search {
  readonly claim: (signal: AbortSignal) => Promise<IPAllocation>;
  readonly lastFailure: () => unknown;
}

/** In the order of the families. */
function startSearches(parts: ClaimParts, request: ClaimRequest): Search[] {
  const families = request.families ?? poolFamilies(request.pool);
  const walks = startWalks(
    parts,
    request,
    families.filter((family) => request.wanted?.[family] === undefined),
  );
  return families.flatMap((family): Search[] => {
    const wanted = request.wanted?.[family];
    if (wanted !== undefined) return [searchWanted(parts, request, wanted)];
    const walk = walks.find((one) => one.family === family);
    if (walk === undefined) return [];
    const claim = (signal: AbortSignal) => claimFirstFree(parts, request, walk, signal);
    return [{ claim, lastFailure: () => walk.lastFailure }];
  });
}

function searchWanted(parts: ClaimParts, request: ClaimRequest, wanted: WantedAddress): Search {
  let lastFailure: unknown;
  const onFailure = (error: unknown) => {
    lastFailure = error;
  };
  return {
    claim: (signal) => claimWanted(parts, request, wanted, signal, onFailure),
    lastFailure: () => lastFailure,
  };
}

/** The search of one family: the name it is at, which is marked in flight, and those to come. */
interface Walk {
  readonly family: Family;
  readonly rest: Generator<Candidate, undefined>;
  current: Candidate;
  lastFailure: unknown;
}

/** Finds a first candidate for every family before anything is written: an exhausted pool costs no write. */
function startWalks(parts: ClaimParts, request: ClaimRequest, families: readonly Family[]): Walk[] {
  parts.taken.forgetShown(request.allocations);
  const walks: Walk[] = [];
  for (const family of families) {
    const rest = freeCandidates(parts, request, family);
    const first = rest.next();
    if (first.done === true) {
      for (const { current } of walks) parts.inFlight.delete(current.name);
      throw exhausted(parts, request, family);
    }
    walks.push({ family, rest, current: first.value, lastFailure: undefined });
  }
  return walks;
}

/** Candidates that no source calls used. Each that is handed out is marked in flight, and the ring moves on. */
function* freeCandidates(
  parts: ClaimParts,
  request: ClaimRequest,
  family: Family,
): Generator<Candidate, undefined> {
  const { cursor, inFlight, taken } = parts;
  const subnets = request.subnets.filter(({ spec }) => spec.cidr.family === family);
  const { pool, allocations: inUse, stillDrawable } = request;
  for (const candidate of addressCandidates({ pool, subnets, inUse, cursor, stillDrawable })) {
    const { name } = candidate;
    if (inFlight.has(name) || taken.has(name) || request.alsoInUse?.has(name, candidate.address)) continue;
    inFlight.add(name);
    cursor.handedOut(candidate.subnet, candidate.address);
    yield candidate;
  }
  return undefined;
}

async function claimFirstFree(
  parts: ClaimParts,
  request: ClaimRequest,
  walk: Walk,
  signal: AbortSignal,
): Promise<IPAllocation> {
  for (;;) {
    const answer = await claimName(parts, request, walk, signal);
    if (answer !== 'taken') return answer;
    const next = walk.rest.next();
    if (next.done === true) throw exhausted(parts, request, walk.family);
    walk.current = next.value;
  }
}

/** Creates the object of one name. On giving up an open outcome goes to be undone. */
async function claimName(
  parts: ClaimParts,
  { pool, nodeName, attachment, pod, sticky }: ClaimRequest,
  walk: Walk,
  signal: AbortSignal,
): Promise<IPAllocation | 'taken'> {
  const { address, name } = walk.current;
  const spec: IPAllocationSpec = {
    address,
    pool: pool.metadata.name,
    nodeName,
    attachment,
    ...(pod === undefined ? {} : { pod }),
    ...(sticky === undefined ? {} : { sticky }),
  };
  const attempt = { open: false };
  try {
    const answer = await createDefinitely(parts, {
      spec,
      // One that rests is an earlier claim's, on its way out.
      isOurs: (found) => isOf(found, attachment) && !isResting(found),
      onRetry: (failure) => {
        walk.lastFailure = failure ?? walk.lastFailure;
        parts.observer?.retried();
      },
      signal,
      attempt,
    });
    if (answer === 'taken') {
      parts.observer?.taken();
      parts.taken.remember(name);
    } else {
      parts.observer?.created();
    }
    return answer;
  } finally {
    if (attempt.open) void parts.releases.undo(name, attachment);
    else parts.inFlight.delete(name);
  }
}

/** What there is to say when every address is in use by someone: what does not rest is held. */
function exhausted(parts: ClaimParts, request: ClaimRequest, family: Family): PoolExhaustedError {
  const subnets = request.subnets.filter(({ spec }) => spec.cidr.family === family);
  const { pool } = request;
  const usable = countAddresses(subnets.flatMap((subnet) => usableRanges(subnet, pool)));
  const reserved = reservedRanges(pool, family);
  let resting = 0;
  for (const name of request.allocations.keys()) {
    const allocation = request.allocations.get(name);
    if (allocation === undefined || !isResting(allocation)) continue;
    if (subnets.some(({ spec }) => cidrHasAddress(spec.cidr, allocation.spec.address))) resting++;
  }
  const searched = subnets.map(({ spec }) => spec.cidr);
  const nextFreeInMs = parts.releases.nextFreeInMs(pool.metadata.name, searched);
  return new PoolExhaustedError({
    pool: request.pool.metadata.name,
    family,
    subnets: searched,
    usable,
    inUse: Number(usable) - resting,
    resting,
    reserved: countAddresses(
      subnets.flatMap(({ spec }) => intersectRanges(rangeOfCIDR(spec.cidr), reserved)),
    ),
    ...(resting === 0 || nextFreeInMs === undefined ? {} : { nextFreeInMs }),
  });
}
