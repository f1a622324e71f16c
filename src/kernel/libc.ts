/**
 * The few C functions that Node does not offer. This is the only file that loads koffi; a bundle keeps
 * `koffi` external. `load(null)` takes the symbols of the running process, so any libc serves.
 */
import koffi, { type KoffiFunc } from 'koffi';
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';

const symbols = koffi.load(null);

export const socket = symbols.func('int socket(int, int, int)') as KoffiFunc<
  (domain: number, type: number, protocol: number) => number
>;
export const close = symbols.func('int close(int)') as KoffiFunc<(fd: number) => number>;
export const bind = symbols.func('int bind(int, const void *, unsigned int)') as KoffiFunc<
  (fd: number, address: Uint8Array, length: number) => number
>;
export const getsockname = symbols.func('int getsockname(int, void *, void *)') as KoffiFunc<
  (fd: number, address: Uint8Array, length: Uint8Array) => number
>;
export const setsockopt = symbols.func(
  'int setsockopt(int, int, int, const void *, unsigned int)',
) as KoffiFunc<(fd: number, level: number, option: number, value: Uint8Array, length: number) => number>;
export const send = symbols.func('long send(int, const void *, size_t, int)') as KoffiFunc<
  (fd: number, data: Uint8Array, length: number, flags: number) => number
>;
export const recv = symbols.func('long recv(int, void *, size_t, int)') as KoffiFunc<
  (fd: number, data: Uint8Array, length: number, flags: number) => number
>;
export const setns = symbols.func('int setns(int, int)') as KoffiFunc<(fd: number, type: number) => number>;
export const fstatfs = symbols.func('int fstatfs(int, void *)') as KoffiFunc<
  (fd: number, status: Uint8Array) => number
>;

export const flock = symbols.func('int flock(int, int)') as KoffiFunc<
  (fd: number, operation: number) => number
>;
export const clockGettime = symbols.func('int clock_gettime(int, void *)') as KoffiFunc<
  (clock: number, time: Uint8Array) => number
>;
export const memfdCreate = symbols.func('int memfd_create(const char *, unsigned int)') as KoffiFunc<
  (name: string, flags: number) => number
>;

/** errno of the last call above, as a positive number. Read it before anything else is called. */
export function lastErrno(): number {
  return koffi.errno();
}

/** A system call failed for a reason that is not the kernel's answer to a netlink request. */
export class SystemCallError extends Error {
  override name = 'SystemCallError' as const;
  readonly call: string;
  readonly errno: number;
  /** Like 'EBADF'. */
  readonly code: string;

  constructor(call: string, errno: number) {
    super(`${call}: ${errorCode(errno)}: ${errorText(errno)}`);
    this.call = call;
    this.errno = errno;
    this.code = errorCode(errno);
  }
}

/** 'EEXIST' for 17. */
export function errorCode(errno: number): string {
  return getSystemErrorName(-errno);
}

/** 'file already exists' for 17. */
export function errorText(errno: number): string {
  return getSystemErrorMessage(-errno) ?? 'unknown error';
}
