/** What a plugin prints when it fails (specification, section 5). */
export interface CniErrorObject {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/**
 * The one error object that a failed call prints.
 * `verb` matters for DEL alone: runtimes read certain words in its errors as "there was nothing to delete".
 */
export function cniErrorObject(error: unknown, cniVersion: string, verb?: string): CniErrorObject {
  const wording = verb === 'DEL' ? withoutAbsence : (text: string) => text;
  const details = detailsOf(error);
  return {
    cniVersion,
    code: codeOf(error),
    msg: wording(messageOf(error)),
    ...(details === '' ? {} : { details: wording(details) }),
  };
}

/** Neither a number of the specification nor one of ours: something nobody thought of (libcni's ErrInternal). */
const INTERNAL = 999;

/**
 * Error class to CNI code, for every class that may reach the runtime. Classes of other folders stand here by name,
 * since the executable must not load what they import. Never 3: it tells the runtime to skip the clean-up.
 * 1 to 99 are the specification's, 8 is libcni's, 100 and up are ours.
 */
const CODES: Readonly<Record<string, number>> = {
  IncompatibleVersionError: 1,
  UnsupportedFieldError: 2,
  InvalidEnvironmentError: 4,
  InputOutputError: 5,
  UndecodableInputError: 6,
  InvalidConfigurationError: 7,
  // What the runtime asks for, and the pod cannot have.
  UnservedHostPortError: 7,
  TooManyPodRulesError: 7,
  AgentUnreachableError: 11,
  VerbDeadlineError: 11,
  PoolExhaustedError: 11,
  IsolatedPoolFullError: 11,
  AddressTakenError: 11,
  HostPortTakenError: 11,
  NoPoolError: 11,
  ClaimerUnknownError: 11,
  ClaimDeadlineError: 11,
  SubnetUnavailableError: 11,
  FiltersNotInForceError: 11,
  AddressHeldError: 11,
  NotServingError: 50,
  DataPathBrokenError: 51,
  // The DEL that took its place is what counts.
  SupersededError: 11,
  // The apiserver is away, or refuses weft's account.
  UnreachableError: 11,
  ServerError: 11,
  TooManyRequestsError: 11,
  ForbiddenError: 101,
  UnauthorizedError: 101,
  // What the pod's or its namespace's annotations ask for cannot be given.
  InvalidAnnotationError: 105,
  FixedAddressError: 105,
  SourcesRefusedError: 105,
  // The kernel refused, or did not answer.
  NetlinkError: 104,
  NetlinkBatchError: 104,
  DumpInterruptedError: 104,
  SystemCallError: 104,
  CommandError: 104,
  AliasTooLongError: 4,
  LinkExistsError: 106,
  CheckFailedError: 107,
};

function codeOf(error: unknown): number {
  if (!(error instanceof Error)) return INTERNAL;
  if (error.name === 'InvalidNamespaceError') return namespaceCode(error);
  return Object.hasOwn(CODES, error.name) ? (CODES[error.name] ?? INTERNAL) : INTERNAL;
}

/** What could not be looked at, as by an agent that may open no more files, is no mistake of the runtime's. */
function namespaceCode(error: Error): number {
  const reason = 'reason' in error ? error.reason : undefined;
  if (reason === 'hostNamespace') return 8;
  return reason === 'notAccessible' ? 104 : 4;
}

function messageOf(error: unknown): string {
  if (error instanceof UnsupportedFieldError) return error.messageWithValue();
  return error instanceof Error ? error.message : String(error);
}

/** The error's own details, or else the chain of its causes. */
function detailsOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  if ('details' in error && typeof error.details === 'string') return error.details;
  const causes: string[] = [];
  let cause = error.cause;
  while (cause instanceof Error && causes.length < 5) {
    causes.push(cause.message);
    cause = cause.cause;
  }
  return causes.join(': ');
}

/** containerd takes a DEL error with these words for success and then forgets the attachment. */
function withoutAbsence(text: string): string {
  return text.replace(/no such file or directory/gi, 'the path is missing').replace(/not found/gi, 'missing');
}

/** The configuration is written for another version of CNI, or for one without this verb. */
export class IncompatibleVersionError extends Error {
  override name = 'IncompatibleVersionError' as const;
}

/**
 * The configuration asks for something that weft does not know. The specification wants the value told, too: the runtime is
 * told, which has it anyway. The message, which logs keep, is without it: configurations of other plugins hold tokens.
 */
export class UnsupportedFieldError extends Error {
  override name = 'UnsupportedFieldError' as const;
  readonly field: string;
  /** Private, since loggers print what else an error has. */
  readonly #value: unknown;

  constructor(field: string, value: unknown) {
    super(`unsupported field in the network configuration: ${field}`);
    this.field = field;
    this.#value = value;
  }

  messageWithValue(): string {
    return `${this.message}: ${excerpt(JSON.stringify(this.#value) ?? 'undefined')}`;
  }
}

/** A CNI_* variable is missing or malformed. */
export class InvalidEnvironmentError extends Error {
  override name = 'InvalidEnvironmentError' as const;
}

/** Reading the input, or writing what must be kept, failed. */
export class InputOutputError extends Error {
  override name = 'InputOutputError' as const;
}

/** What came on stdin, or a result in it, cannot be read. */
export class UndecodableInputError extends Error {
  override name = 'UndecodableInputError' as const;
}

/** The network configuration is readable, and wrong. */
export class InvalidConfigurationError extends Error {
  override name = 'InvalidConfigurationError' as const;
}

/** The agent of this node does not answer on its socket. */
export class AgentUnreachableError extends Error {
  override name = 'AgentUnreachableError' as const;
}

/** A verb did not end within its time. */
export class VerbDeadlineError extends Error {
  override name = 'VerbDeadlineError' as const;

  constructor(verb: string, deadlineMs: number, hint: string) {
    super(`${verb} did not end within ${deadlineMs / 1000} s; ${hint}`);
  }
}

/** The agent has not been able to serve since this node booted. */
export class NotServingError extends Error {
  override name = 'NotServingError' as const;
}

/** This node's data path has been broken for some time: new pods would not reach others. */
export class DataPathBrokenError extends Error {
  override name = 'DataPathBrokenError' as const;
}

/** What CHECK found is not what ADD made; the message names the difference. */
export class CheckFailedError extends Error {
  override name = 'CheckFailedError' as const;
}

/** A value from outside, short enough for a message. */
export function excerpt(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 120)}… (${text.length} characters)`;
}
