import { mkdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isAddressCall } from '../cni/index.ts';
import type { Clock } from '../ipam/index.ts';
import {
  dyingPodLink,
  findPodLinks,
  hostLinkName,
  tryLockFile,
  type CommandRunner,
  type FileLock,
  type NetlinkSocket,
} from '../kernel/index.ts';
import { CONFLIST_FILE, CONFLIST_STAGING } from './conflist.ts';
import { workOffDeletedNotes } from './deleted-notes.ts';
import { restoreSettings } from './earlier-settings.ts';
import type { AgentParts } from './parts.ts';
import { removeExecutables } from './remove-executables.ts';
import { removeDeadLinks, removeNetwork } from './remove-network.ts';
import { attachmentsOf } from './sweep.ts';
import { whyStillUsed } from './still-used.ts';
import { namesIn } from './names-in.ts';

export interface UninstallParts {
  readonly host: NetlinkSocket;
  readonly run: CommandRunner;
  readonly sysctlRoot: string;
  readonly runDirectory: string;
  readonly confDirectory: string;
  readonly binDirectory: string;
  /** Told when what it waits for has changed. */
  readonly onWaiting: (reason: string) => void;
  readonly clock: Clock;
  readonly log: Pick<AgentParts['log'], 'info' | 'warn' | 'error'>;
  readonly signal: AbortSignal;
}

/** How often it looks whether it may go on. */
const LOOK_MS = 1_000;
/** A DEL that began before looks for an agent for three seconds, and leaves a note then. */
const LAST_CALLS_MS = 5_000;

/**
 * Leaves the node as it was before weft: resolves when nothing of it is there any more. It holds the node's lock from
 * its first step to its last, so no agent puts back what it takes away.
 *
 * | the node | what is done |
 * |---|---|
 * | an agent serves it | nothing: it waits, and says so |
 * | pods live on weft's links, or a configuration names its executables | what is dead goes, the rest stays, the executable and the conflist too: these pods keep their network, and can be deleted |
 * | neither | everything goes: the conflist first, the executables and the lock's file last |
 *
 * It may be killed after any step, and run again. What fails is told and tried again.
 * @throws the signal's reason
 */
export async function uninstallNode(parts: UninstallParts): Promise<void> {
  const lock = await lockNode(parts);
  try {
    while (!(await removeIfUnused(parts))) await parts.clock.sleep(LOOK_MS, parts.signal);
  } finally {
    lock.release();
  }
}

async function lockNode({ runDirectory, onWaiting, clock, signal }: UninstallParts): Promise<FileLock> {
  const path = join(runDirectory, LOCK_FILE);
  for (;;) {
    await mkdir(runDirectory, { recursive: true, mode: 0o700 });
    const lock = tryLockFile(path);
    if (lock !== undefined) return lock;
    onWaiting(
      `an agent of weft serves this node (it holds the lock of ${path}) and would put everything back: ` +
        `delete it first, by "kubectl delete -k config/weft"`,
    );
    await clock.sleep(LOOK_MS, signal);
  }
}

/** @returns whether nothing is left */
async function removeIfUnused(parts: UninstallParts): Promise<boolean> {
  try {
    tell(parts, await removeDead(parts));
    const reason = whyStillUsed({
      pods: attachmentsOf(findPodLinks(parts.host)).map(({ addresses }) => addresses),
      configurations: await configurationsNamingWeft(parts.confDirectory),
    });
    if (reason !== undefined) {
      parts.onWaiting(reason);
      return false;
    }
    await removeEverything(parts);
    return true;
  } catch (error) {
    parts.log.error({ err: error }, 'not all could be removed: it is tried again');
    parts.onWaiting(`not all could be removed: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
}

/** Also what a runtime has deleted since the last agent, where the namespace lives on. */
async function removeDead({ host, runDirectory, log }: UninstallParts): Promise<string[]> {
  if (findPodLinks(host).length > 0) {
    await workOffDeletedNotes({
      directory: join(runDirectory, 'deleted'),
      del({ asks, attachment }) {
        // Its other end goes with it.
        if (asks === 'Interface') {
          dyingPodLink(host, undefined, hostLinkName(attachment.containerID, attachment.ifName));
        }
        return Promise.resolve();
      },
      log,
    });
  }
  return removeDeadLinks(host);
}

async function removeEverything(parts: UninstallParts): Promise<void> {
  const { host, run, runDirectory, confDirectory, binDirectory, sysctlRoot } = parts;
  // First, so that the runtime asks for no more pods; none can start in between, since no agent answers.
  tell(parts, await removeConflist(confDirectory));
  tell(parts, await removeNetwork(host, run));
  const restored = restoreSettings(runDirectory, sysctlRoot);
  if (restored.length > 0) parts.log.info({ settings: restored }, 'gave settings their earlier values back');
  tell(parts, await removeExecutables(binDirectory));
  await parts.clock.sleep(LAST_CALLS_MS, parts.signal);
  tell(parts, await removeRunDirectory(runDirectory));
}

async function removeConflist(directory: string): Promise<string[]> {
  const here = await namesIn(directory);
  const ours = [CONFLIST_FILE, CONFLIST_STAGING].filter((name) => here.includes(name));
  for (const name of ours) await rm(join(directory, name), { recursive: true, force: true });
  return ours.map((name) => join(directory, name));
}

/** Configurations besides weft's own by which a runtime calls its executables. What is no JSON calls nothing. */
async function configurationsNamingWeft(directory: string): Promise<string[]> {
  const names = (await namesIn(directory)).filter(
    (name) => /\.(conf|conflist|json)$/.test(name) && name !== CONFLIST_FILE,
  );
  const found: string[] = [];
  for (const name of names.sort()) {
    const path = join(directory, name);
    if (callsWeft(await readFile(path, 'utf8'))) found.push(path);
  }
  return found;
}

function callsWeft(text: string): boolean {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return false;
  }
  if (!isObject(parsed)) return false;
  const plugins: readonly unknown[] =
    'plugins' in parsed && Array.isArray(parsed.plugins) ? parsed.plugins : [];
  return [parsed, ...plugins]
    .filter(isObject)
    .some((plugin) => isAddressCall(plugin) || ('type' in plugin && plugin.type === 'weft'));
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** The file of the lock goes last: until then no agent begins. */
async function removeRunDirectory(directory: string): Promise<string[]> {
  const names = (await namesIn(directory)).filter((name) => name !== LOCK_FILE);
  for (const name of [...names, LOCK_FILE]) await rm(join(directory, name), { recursive: true, force: true });
  await rmdir(directory).catch((error: unknown) => {
    // Something is mounted there, which is not weft's doing; or an agent has begun, which waited for this.
    if (!hasCode(error, 'EBUSY', 'ENOTEMPTY', 'ENOENT')) throw error;
  });
  return [directory];
}

const LOCK_FILE = 'agent.lock';

function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

function tell({ log }: UninstallParts, removed: readonly string[]): void {
  if (removed.length > 0) log.info({ removed }, 'removed');
}
