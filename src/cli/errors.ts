import {
  ClaimDeadlineError,
  messageOf,
  NothingFreeError,
  OutcomeUnknownError,
  SubnetGivenBackError,
} from '../ipam/index.ts';
import {
  KubeConfigError,
  KubeError,
  NotFoundError,
  ServerError,
  TooManyRequestsError,
  UnauthorizedError,
  UnreachableError,
} from '../kube/index.ts';

/** Exit codes: scripts tell by them what a failure means. */
export const EXIT = { done: 0, refused: 1, usage: 2, unreachable: 3, stopped: 130 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** The command line cannot be understood. */
export class UsageError extends Error {
  override name = 'UsageError' as const;
  /** Which help to look at: the words of the command, as far as they were understood. */
  readonly words: readonly string[];

  constructor(message: string, words: readonly string[] = []) {
    super(message);
    this.words = words;
  }
}

/** What was asked for is not done; the message says why, and what to do. */
export class RefusedError extends Error {
  override name = 'RefusedError' as const;
}

/** The caller pressed Ctrl-C. What was begun has been undone. */
export class StoppedError extends Error {
  override name = 'StoppedError' as const;
}

/** The answer could not be written where it was to go, such as onto a full disk. */
export class OutputError extends Error {
  override name = 'OutputError' as const;
}

/** What a failure is to the caller: the code, and what to read. */
export interface Failure {
  readonly code: ExitCode;
  readonly text: string;
}

/** The one place where errors become exit codes. */
export function failureOf(error: unknown): Failure {
  if (error instanceof UsageError) {
    const help = ['kubectl weft', ...error.words, '--help'].join(' ');
    return { code: EXIT.usage, text: `${error.message}\nSee: ${help}` };
  }
  if (error instanceof NotFoundError && error.reason === '')
    return { code: EXIT.unreachable, text: NO_KINDS };
  const known = CODES.find(([kind]) => error instanceof kind);
  if (known === undefined) {
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { code: EXIT.refused, text: `this is a mistake in kubectl-weft, please report it: ${trace}` };
  }
  return { code: known[1], text: textOf(error) };
}

const NO_KINDS =
  'the cluster does not know the kinds of weft (ippools, nodesubnets, ipallocations): weft is not installed in it, ' +
  'or the kubeconfig leads to another cluster';

/** The first that fits counts, so those of which there are more special ones stand last. */
const CODES: readonly (readonly [abstract new (...args: never[]) => Error, ExitCode])[] = [
  [RefusedError, EXIT.refused],
  [StoppedError, EXIT.stopped],
  [OutputError, EXIT.refused],
  [NothingFreeError, EXIT.refused],
  [SubnetGivenBackError, EXIT.refused],
  [KubeConfigError, EXIT.unreachable],
  [UnreachableError, EXIT.unreachable],
  [ClaimDeadlineError, EXIT.unreachable],
  [OutcomeUnknownError, EXIT.unreachable],
  [UnauthorizedError, EXIT.unreachable],
  [TooManyRequestsError, EXIT.unreachable],
  [ServerError, EXIT.unreachable],
  [KubeError, EXIT.refused],
];

function textOf(error: unknown): string {
  // A kubeconfig that cannot be read says only in its cause why.
  const cause =
    error instanceof KubeConfigError && error.cause !== undefined ? `: ${messageOf(error.cause)}` : '';
  return `${messageOf(error)}${cause}`;
}
