import { formatAddress, formatCIDR, type CIDR, type Family, type IPAddress } from '../net/index.ts';

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
  /** How many addresses of those subnets the pool reserves. */
  readonly reserved: bigint;
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
  readonly reserved: bigint;
  readonly nextFreeInMs: number | undefined;

  constructor(exhaustion: Exhaustion, options?: ErrorOptions) {
    super(exhaustionText(exhaustion), options);
    this.pool = exhaustion.pool;
    this.family = exhaustion.family;
    this.subnets = exhaustion.subnets;
    this.usable = exhaustion.usable;
    this.inUse = exhaustion.inUse;
    this.resting = exhaustion.resting;
    this.reserved = exhaustion.reserved;
    this.nextFreeInMs = exhaustion.nextFreeInMs;
  }
}

/** An Isolated pool is full, and what is to be kept apart is not put among others instead. */
export class IsolatedPoolFullError extends Error {
  override name = 'IsolatedPoolFullError' as const;
  readonly pool: string;

  constructor(pool: string, full: Error) {
    super(`${full.message}. No other pool is tried, since IPPool ${pool} is Isolated`, { cause: full });
    this.pool = pool;
  }
}

/** A pool, and why nothing can be drawn from it. */
export interface PoolRefusal {
  readonly pool: string;
  readonly reason: string;
}

/** For whom there is no pool. */
export interface PoollessClaimer {
  /** The pool that the network configuration names. */
  readonly requestedPool?: string | undefined;
  readonly nodeName: string;
  readonly namespace?: string | undefined;
}

/** No pool serves and admits who asks for an address. */
export class NoPoolError extends Error {
  override name = 'NoPoolError' as const;
  readonly claimer: PoollessClaimer;
  readonly refusals: readonly PoolRefusal[];

  constructor(refusals: readonly PoolRefusal[], claimer: PoollessClaimer) {
    super(noPoolText(refusals, claimer));
    this.claimer = claimer;
    this.refusals = refusals;
  }
}

/** What an annotation says cannot be read. */
export class InvalidAnnotationError extends Error {
  override name = 'InvalidAnnotationError' as const;
  readonly annotation: string;

  constructor(place: string, annotation: string, value: string, reason: string) {
    const shown = value.length <= 120 ? value : `${value.slice(0, 120)}…`;
    super(`${place} has the annotation ${annotation}: ${JSON.stringify(shown)}: ${reason}`);
    this.annotation = annotation;
  }
}

/** The pod asks for an address that it cannot have, now or later. `reason` is a part of a sentence. */
export class FixedAddressError extends Error {
  override name = 'FixedAddressError' as const;
  readonly address: IPAddress;

  constructor(address: IPAddress, reason: string) {
    super(
      `the pod asks for ${formatAddress(address)} by its annotation ipam.weft.dev/addresses, and gets no other: ${reason}`,
    );
    this.address = address;
  }
}

/** The very address that the pod is to have is somebody else's. `holder` says whose, as a part of a sentence. */
export class AddressTakenError extends Error {
  override name = 'AddressTakenError' as const;
  readonly address: IPAddress;
  readonly holder: string;

  constructor(address: IPAddress, holder: string) {
    super(
      `${formatAddress(address)}, which this pod is to have, ${holder}. It gets it as soon as it is free, and no other meanwhile`,
    );
    this.address = address;
    this.holder = holder;
  }
}

/** The very address that the pod is to have may be a living pod's whose object etcd has forgotten: nobody claims it yet. */
export class AddressHeldError extends Error {
  override name = 'AddressHeldError' as const;
  readonly address: IPAddress;

  constructor(address: IPAddress) {
    super(
      `${formatAddress(address)}, which this pod is to have, is not given to anybody for a while: etcd is back at an ` +
        'older state, and nodes claim again what it has forgotten. Try again',
    );
    this.address = address;
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
  /** The claim failed, and whether one is free is not known: no reason to turn to another pool. */
  readonly failed: boolean;

  constructor(
    pool: string,
    family: Family | undefined,
    reason: string,
    options?: ErrorOptions & { readonly failed?: boolean },
  ) {
    const kind = family === undefined ? 'subnet' : `${family} subnet`;
    super(`this node gets no ${kind} of IPPool ${pool}: ${reason}`, options);
    this.pool = pool;
    this.family = family;
    this.reason = reason;
    this.failed = options?.failed === true;
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
  const { pool, family, subnets, usable } = exhaustion;
  if (subnets.length === 0) {
    return `IPPool ${pool} has no ${family} address for this node: the node holds no ${family} subnet of it to draw from`;
  }
  return (
    `IPPool ${pool} has no free ${family} address on this node: of ${usable} usable in ` +
    `${subnets.map(formatCIDR).join(', ')}, ${figuresOf(exhaustion)}. ` +
    'Add a CIDR to the pool, or wait for pods to go'
  );
}

/** "12 are in use and 3 rest after their release, the next comes free in 20 s; 4 more are reserved" */
export function figuresOf({
  inUse,
  resting,
  reserved,
  nextFreeInMs,
}: Pick<PoolExhaustedError, 'inUse' | 'resting' | 'reserved'> & {
  readonly nextFreeInMs?: number | undefined;
}): string {
  const next =
    nextFreeInMs === undefined ? '' : `, the next comes free in ${Math.ceil(nextFreeInMs / 1000)} s`;
  const more = reserved > 0n ? `; ${reserved} more are reserved` : '';
  return `${inUse} are in use and ${resting} rest after their release${next}${more}`;
}

/** At most so many pools in one message: a cluster may have one for each tenant. */
const MOST_NAMED = 10;

function noPoolText(
  refusals: readonly PoolRefusal[],
  { requestedPool, nodeName, namespace }: PoollessClaimer,
): string {
  const who =
    namespace === undefined ? `on node ${nodeName}` : `by namespace ${namespace} on node ${nodeName}`;
  const asked =
    requestedPool === undefined
      ? `no IPPool can be drawn from ${who}`
      : `IPPool ${requestedPool} cannot be drawn from ${who}`;
  if (refusals.length === 0) return `${asked}: there is no IPPool in the cluster. Create one`;
  const named = refusals.slice(0, MOST_NAMED).map(({ pool, reason }) => `${pool}: ${reason}`);
  const more = refusals.length - named.length;
  return `${asked}: ${[...named, ...(more > 0 ? [`and ${more} more`] : [])].join('; ')}`;
}
