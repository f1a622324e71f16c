import { formatCIDR, type CIDR, type Family } from '../net/index.ts';

/** What a pool had, in one family, when a claim found no address in it. */
export interface Exhaustion {
  readonly pool: string;
  readonly family: Family;
  /** The node's subnets that were searched; none: the node holds no subnet of that family to draw from. */
  readonly subnets: readonly CIDR[];
  /** How many addresses those subnets can hand out. */
  readonly usable: bigint;
  /** How many of them are given to someone, claims under way counted. */
  readonly inUse: number;
  /** How many were released and wait for their reuse delay. */
  readonly resting: number;
  /** Milliseconds until the first resting one comes free, where known. */
  readonly nextFreeInMs?: number;
}

/** No address is free in the subnets that this node holds of the pool. */
export class PoolExhaustedError extends Error {
  override name = 'PoolExhaustedError' as const;
  readonly pool: string;
  readonly family: Family;
  readonly subnets: readonly CIDR[];
  readonly usable: bigint;
  readonly inUse: number;
  readonly resting: number;
  readonly nextFreeInMs: number | undefined;

  constructor(exhaustion: Exhaustion, options?: ErrorOptions) {
    super(exhaustionText(exhaustion), options);
    this.pool = exhaustion.pool;
    this.family = exhaustion.family;
    this.subnets = exhaustion.subnets;
    this.usable = exhaustion.usable;
    this.inUse = exhaustion.inUse;
    this.resting = exhaustion.resting;
    this.nextFreeInMs = exhaustion.nextFreeInMs;
  }
}

/** A pool, and why nothing can be drawn from it. */
export interface PoolRefusal {
  readonly pool: string;
  readonly reason: string;
}

/** No pool serves and admits what asks for an address. */
export class NoPoolError extends Error {
  override name = 'NoPoolError' as const;
  readonly requestedPool: string | undefined;
  readonly refusals: readonly PoolRefusal[];

  constructor(refusals: readonly PoolRefusal[], requestedPool?: string) {
    super(noPoolText(refusals, requestedPool));
    this.requestedPool = requestedPool;
    this.refusals = refusals;
  }
}

/** The claim's time was over before the apiserver gave a definite answer. `cause` is the last failure. */
export class ClaimDeadlineError extends Error {
  override name = 'ClaimDeadlineError' as const;
  readonly pool: string;
  readonly elapsedMs: number;

  constructor(pool: string, elapsedMs: number, cause: unknown) {
    const last = cause === undefined ? 'no answer came' : `the last failure was: ${messageOf(cause)}`;
    super(
      `no address of IPPool ${pool} could be claimed within ${Math.round(elapsedMs)} ms: ${last}. ` +
        'Look at the apiserver and at the path from this node to it',
      { cause },
    );
    this.pool = pool;
    this.elapsedMs = elapsedMs;
  }
}

/** The node could not get a subnet of the pool. `reason` is a sentence; `cause` a failure, if one was behind it. */
export class SubnetUnavailableError extends Error {
  override name = 'SubnetUnavailableError' as const;
  readonly pool: string;
  readonly family: Family | undefined;
  readonly reason: string;

  constructor(pool: string, family: Family | undefined, reason: string, options?: ErrorOptions) {
    const kind = family === undefined ? 'subnet' : `${family} subnet`;
    super(`this node gets no ${kind} of IPPool ${pool}: ${reason}`, options);
    this.pool = pool;
    this.family = family;
    this.reason = reason;
  }
}

/** A later request for the same attachment, a DEL, has taken the place of this one. */
export class SupersededError extends Error {
  override name = 'SupersededError' as const;
  readonly attachment: string;

  constructor(attachment: string) {
    super(`the attachment ${attachment} is being deleted: what was under way for it has been given up`);
    this.attachment = attachment;
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function exhaustionText(exhaustion: Exhaustion): string {
  const { pool, family, subnets, usable, inUse, resting, nextFreeInMs } = exhaustion;
  if (subnets.length === 0) {
    return `IPPool ${pool} has no ${family} address for this node: the node holds no ${family} subnet of it to draw from`;
  }
  const next =
    nextFreeInMs === undefined ? '' : `, the next comes free in ${Math.ceil(nextFreeInMs / 1000)} s`;
  return (
    `IPPool ${pool} has no free ${family} address on this node: of ${usable} usable in ` +
    `${subnets.map(formatCIDR).join(', ')}, ${inUse} are in use and ${resting} rest after their release${next}. ` +
    'Add a CIDR to the pool, or wait for pods to go'
  );
}

function noPoolText(refusals: readonly PoolRefusal[], requestedPool: string | undefined): string {
  const asked =
    requestedPool === undefined ? 'no IPPool serves' : `IPPool ${requestedPool} cannot be drawn from`;
  if (refusals.length === 0) return `${asked}: there is no IPPool in the cluster. Create one`;
  return `${asked}: ${refusals.map(({ pool, reason }) => `${pool}: ${reason}`).join('; ')}`;
}
