import * as z from 'zod';

/**
 * The error that a refused request stands for, told by the Status' `reason`: AlreadyExists and Conflict are both
 * 409. This is the one place that reads it.
 * @param request what was asked, for the message: `POST /apis/…`
 */
export function errorOfAnswer(
  request: string,
  answer: { readonly statusCode: number; readonly text: string; readonly retryAfterSeconds?: number },
): KubeError {
  const status = statusOf(answer.text);
  const facts: Facts = {
    request,
    statusCode: answer.statusCode,
    reason: status.reason ?? '',
    detail: status.message ?? (answer.text.trim().slice(0, 300) || 'no explanation'),
  };
  if (answer.statusCode === 429 || status.reason === 'TooManyRequests') {
    const seconds = answer.retryAfterSeconds ?? status.details?.retryAfterSeconds ?? 1;
    return new TooManyRequestsError(facts, seconds * 1000);
  }
  const byReason = status.reason === undefined ? undefined : BY_REASON[status.reason];
  const byCode = BY_CODE[answer.statusCode];
  return new (byReason ?? byCode ?? ServerError)(facts);
}

interface Facts {
  readonly request: string;
  readonly statusCode: number;
  /** `reason` of the Status; empty if the answer was none. */
  readonly reason: string;
  /** The apiserver's own words. */
  readonly detail: string;
}

/** The apiserver answered, and the answer is no. What the network does is an UnreachableError instead. */
export class KubeError extends Error {
  override name = 'KubeError';
  readonly request: string;
  readonly statusCode: number;
  readonly reason: string;
  /** The apiserver's own words. */
  readonly detail: string;

  constructor(facts: Facts) {
    super(`${facts.request}: ${facts.detail} (${facts.statusCode} ${facts.reason || 'without reason'})`);
    this.request = facts.request;
    this.statusCode = facts.statusCode;
    this.reason = facts.reason;
    this.detail = facts.detail;
  }
}

/** Somebody has that name already. */
export class AlreadyExistsError extends KubeError {
  override name = 'AlreadyExistsError' as const;
}

/** The object is not the one that was meant: another resourceVersion or uid. */
export class ConflictError extends KubeError {
  override name = 'ConflictError' as const;
}

export class NotFoundError extends KubeError {
  override name = 'NotFoundError' as const;
}

/** 410: the revision is no longer known to the apiserver. Only this makes a watch list again. */
export class GoneError extends KubeError {
  override name = 'GoneError' as const;
}

export class UnauthorizedError extends KubeError {
  override name = 'UnauthorizedError' as const;
}

export class ForbiddenError extends KubeError {
  override name = 'ForbiddenError' as const;
}

/** The schema or a CEL rule refuses the object; `detail` carries the rule's message. */
export class InvalidError extends KubeError {
  override name = 'InvalidError' as const;
}

export class TooManyRequestsError extends KubeError {
  override name = 'TooManyRequestsError' as const;
  readonly retryAfterMs: number;

  constructor(facts: Facts, retryAfterMs: number) {
    super(facts);
    this.retryAfterMs = retryAfterMs;
  }
}

/** Any other refusal, 5xx above all. A write that got one may have been committed. */
export class ServerError extends KubeError {
  override name = 'ServerError' as const;

  /** The apiserver is not yet as far as the revision that was asked for; long on end it is a sign of a restored etcd. */
  get isTooLargeResourceVersion(): boolean {
    return this.detail.includes('Too large resource version');
  }
}

/** No answer came: refused, reset, timed out. If `sent`, a write may have been committed all the same. */
export class UnreachableError extends Error {
  override name = 'UnreachableError' as const;
  readonly request: string;
  readonly sent: boolean;

  constructor(request: string, sent: boolean, cause: Error) {
    const outcome = sent ? 'whether it was carried out is not known' : 'it was not sent';
    super(`${request}: no answer from the apiserver (${causeText(cause)}); ${outcome}`, { cause });
    this.request = request;
    this.sent = sent;
  }
}

/** Whether the apiserver says no to the request itself: nothing was done, and the same again would get the same answer. */
export function isRefusal(error: unknown): boolean {
  return [InvalidError, ForbiddenError, UnauthorizedError, NotFoundError].some(
    (kind) => error instanceof kind,
  );
}

const BY_REASON: Readonly<Record<string, new (facts: Facts) => KubeError>> = {
  AlreadyExists: AlreadyExistsError,
  Conflict: ConflictError,
  NotFound: NotFoundError,
  Gone: GoneError,
  Expired: GoneError,
  Unauthorized: UnauthorizedError,
  Forbidden: ForbiddenError,
  Invalid: InvalidError,
  BadRequest: InvalidError,
};

/** For answers without a Status: what stands between us and the apiserver writes its own. */
const BY_CODE: Readonly<Record<number, new (facts: Facts) => KubeError>> = {
  400: InvalidError,
  401: UnauthorizedError,
  403: ForbiddenError,
  404: NotFoundError,
  410: GoneError,
  422: InvalidError,
};

const Status = z.object({
  reason: z.string().optional(),
  message: z.string().optional(),
  details: z.object({ retryAfterSeconds: z.number().optional() }).optional(),
});

function statusOf(text: string): z.output<typeof Status> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return {}; // not a Status: the code alone tells, and the message shows the text
  }
  return Status.safeParse(parsed).data ?? {};
}

function causeText(cause: Error): string {
  if (cause instanceof AggregateError && cause.errors.length > 0) {
    return cause.errors.map((one: unknown) => (one instanceof Error ? one.message : String(one))).join(', ');
  }
  return cause.message || cause.name;
}
