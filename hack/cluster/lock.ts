import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { spawn } from 'node:child_process';

/**
 * Runs `work` while holding an exclusive lock on `path` (made if missing), so that two processes never build or
 * change the same thing at once. `onWait` is called once if somebody else holds it. The kernel drops the lock
 * with the process that holds it, also after a kill -9: a stale lock cannot exist.
 */
export async function withFileLock<T>(path: string, work: () => Promise<T>, onWait: () => void): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  const release = (await tryLock(path, ['--nonblock'])) ?? (onWait(), await tryLock(path, []));
  if (release === undefined) throw new LockError(path);
  try {
    return await work();
  } finally {
    release();
  }
}

/** The lock file could not be locked at all (not: it is held by somebody else). */
export class LockError extends Error {
  override name = 'LockError' as const;
  readonly path: string;
  constructor(path: string) {
    super(
      `cannot lock ${path}: flock(1) ended without the lock. Is util-linux installed, and the folder writable?`,
    );
    this.path = path;
  }
}

/** flock(1) holds the lock for as long as its `cat` reads our pipe, which ends when we do. */
async function tryLock(path: string, flags: readonly string[]): Promise<(() => void) | undefined> {
  const holder = spawn('flock', [...flags, path, 'sh', '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const failed = new Promise<undefined>((resolve) => {
    holder.once('error', () => resolve(undefined));
    holder.once('exit', () => resolve(undefined));
  });
  const lines = createInterface(holder.stdout);
  const locked = new Promise<true>((resolve) => lines.once('line', () => resolve(true)));
  if ((await Promise.race([locked, failed])) === undefined) return undefined;
  holder.unref();
  return () => holder.stdin.end();
}
