import { closeSync, constants, openSync } from 'node:fs';
import * as libc from './libc.ts';

/** A lock that the kernel lets go of when its holder ends, however it ends. */
export interface FileLock {
  release(): void;
}

const EXCLUSIVE_WITHOUT_WAITING = 2 | 4;

/**
 * Takes the lock of a file (flock), or answers undefined while another process holds it. The file is made where
 * it is missing and never removed: another process may be waiting on it.
 * @throws SystemCallError
 */
export function tryLockFile(path: string): FileLock | undefined {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  if (libc.flock(fd, EXCLUSIVE_WITHOUT_WAITING) !== 0) {
    const errno = libc.lastErrno();
    closeSync(fd);
    if (libc.errorCode(errno) === 'EAGAIN') return undefined;
    throw new libc.SystemCallError(`flock(${path})`, errno);
  }
  return { release: () => closeSync(fd) };
}
