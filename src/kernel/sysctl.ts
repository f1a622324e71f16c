import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where the agent's container sees the host's network settings, writable; then where a process on the host does. */
export const SYSCTL_ROOTS = ['/host/proc/sys/net', '/proc/sys/net'] as const;

/** A setting could not be read or written. */
export class SysctlError extends Error {
  override name = 'SysctlError' as const;
  readonly file: string;

  constructor(file: string, action: string, cause: unknown) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    super(`${action} ${file}: ${reason}`, { cause });
    this.file = file;
  }
}

/** The first of the roots that is there. @throws SysctlError if none is */
export function findSysctlRoot(roots: readonly string[] = SYSCTL_ROOTS): string {
  const found = roots.find((root) => {
    try {
      accessSync(root, constants.R_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found === undefined) throw new SysctlError(roots.join(' and '), 'look for', 'no such directory');
  return found;
}

/**
 * The value of a setting, without its line end; undefined if the kernel has no such setting (IPv6 switched off,
 * link gone). The path is given by its parts, since names of links may hold dots: `['ipv4', 'ip_forward']`.
 * @throws SysctlError
 */
export function readSysctl(root: string, path: readonly string[]): string | undefined {
  const file = join(root, ...path);
  try {
    return readFileSync(file, 'utf8').trimEnd();
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw new SysctlError(file, 'read', error);
  }
}

/**
 * Sets a setting unless it has that value, and returns whether it had to. It is never written without need:
 * writing `ip_forward` resets other settings.
 * @throws SysctlError, also where there is no such setting
 */
export function writeSysctl(root: string, path: readonly string[], value: string): boolean {
  if (readSysctl(root, path) === value) return false;
  const file = join(root, ...path);
  try {
    // Without O_CREAT: a missing setting is an error, not a new file.
    writeFileSync(file, value, { flag: 'r+' });
  } catch (error) {
    throw new SysctlError(file, `set to ${value}`, error);
  }
  return true;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
