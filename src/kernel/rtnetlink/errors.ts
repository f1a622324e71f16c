import { errorCode, errorText } from '../libc.ts';

/** The kernel refused one netlink request. */
export class NetlinkError extends Error {
  override name = 'NetlinkError' as const;
  readonly errno: number;
  /** Like 'EEXIST'. */
  readonly code: string;
  /** What was asked for, naming its object: `add route 10.0.0.0/26 via 192.0.2.2`. */
  readonly request: string;
  /** The kernel's own explanation (extended acknowledgement), where it gave one. */
  readonly kernelText: string | undefined;

  constructor(request: string, errno: number, kernelText?: string) {
    const explanation = kernelText === undefined ? '' : ` (the kernel says: ${kernelText})`;
    super(`${request}: ${errorCode(errno)}: ${errorText(errno)}${explanation}`);
    this.errno = errno;
    this.code = errorCode(errno);
    this.request = request;
    this.kernelText = kernelText;
  }
}

/** Some requests of a batch were refused; the others took effect. */
export class NetlinkBatchError extends Error {
  override name = 'NetlinkBatchError' as const;
  readonly errors: readonly NetlinkError[];

  constructor(total: number, errors: readonly NetlinkError[]) {
    const shown = errors.slice(0, 5).map((error) => error.message);
    const more = errors.length > shown.length ? `; and ${errors.length - shown.length} more` : '';
    super(`${errors.length} of ${total} netlink requests were refused: ${shown.join('; ')}${more}`);
    this.errors = errors;
  }
}

/** A listing changed under every attempt to read it, so no complete one could be had. */
export class DumpInterruptedError extends Error {
  override name = 'DumpInterruptedError' as const;
  readonly request: string;

  constructor(request: string, attempts: number) {
    super(`${request}: the kernel's tables changed during each of ${attempts} attempts; try again`);
    this.request = request;
  }
}

/** Whether the kernel answered with one of these codes ('ENODEV', …). */
export function isNetlinkError(error: unknown, ...codes: string[]): error is NetlinkError {
  return error instanceof NetlinkError && codes.includes(error.code);
}
