import type { Clock } from '../ipam/index.ts';
import { tryLockFile, type FileLock } from '../kernel/index.ts';
import type { AgentParts } from './parts.ts';

/** How often a waiting agent looks whether the one before it has ended. */
const LOOK_MS = 100;

/**
 * Waits until this agent is the only one of its node. During a rollout the next one starts beside the present one
 * and stands by, Ready and with warm caches, until that has ended.
 * @throws the signal's reason
 */
export async function waitForLock(
  path: string,
  {
    clock,
    log,
    signal,
  }: { readonly clock: Clock; readonly log: AgentParts['log']; readonly signal: AbortSignal },
): Promise<FileLock> {
  let told = false;
  for (;;) {
    const lock = tryLockFile(path);
    if (lock !== undefined) return lock;
    if (!told) log.info({ path }, 'another agent serves this node: standing by');
    told = true;
    await clock.sleep(LOOK_MS, signal);
  }
}
