import { mkdir, readFile, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { signalProcess } from './processes.ts';

/**
 * All processes of a cluster are in one cgroup of its own, and what they start is born there: so they are found
 * and ended without a name or a list, also those that a killed `up` had no time to write down. Works with
 * cgroup v1, v2 and both mounted beside each other.
 */
export async function makeCgroup(path: string): Promise<void> {
  await mkdir(join(await processHierarchy(), path), { recursive: true });
}

/** The file that a process writes its number to, to be in the cgroup. */
export async function procsFile(path: string): Promise<string> {
  return join(await processHierarchy(), path, 'cgroup.procs');
}

export async function cgroupExists(path: string): Promise<boolean> {
  const found = await Promise.all((await hierarchies()).map((root) => childrenOf(join(root, path))));
  return found.some((children) => children !== undefined);
}

/** Kills every process in the cgroup and below, until there is none. Throws CgroupBusyError after 20 s. */
export async function killCgroup(path: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const pids = await processesIn(path);
    if (pids.length === 0) return;
    if (performance.now() > deadline) throw new CgroupBusyError(path, pids);
    for (const pid of pids) signalProcess(pid, 'SIGKILL');
    await sleep(30);
  }
}

/** Removes the cgroup and those below it, in every hierarchy: containers are in all of them. */
export async function removeCgroup(path: string): Promise<void> {
  for (const root of await hierarchies()) await removeTree(join(root, path));
}

/** The numbers of the processes in the cgroup and below. */
export async function processesIn(path: string): Promise<number[]> {
  const lists = await Promise.all((await hierarchies()).map((root) => processesBelow(join(root, path))));
  return [...new Set(lists.flat())].filter((pid) => pid !== process.pid);
}

export class CgroupBusyError extends Error {
  override name = 'CgroupBusyError' as const;
  readonly pids: readonly number[];
  constructor(path: string, pids: readonly number[]) {
    super(
      `processes ${pids.join(', ')} of cgroup ${path} do not end though killed; ps -o stat,wchan says what for`,
    );
    this.pids = pids;
  }
}

/** Where every cgroup hierarchy is mounted. */
async function hierarchies(): Promise<string[]> {
  return (await cgroupMounts()).map((mount) => mount.path);
}

/** The hierarchy that counts for our own processes: version 2 where it is alone, else that of `pids`. */
async function processHierarchy(): Promise<string> {
  const mounts = await cgroupMounts();
  const chosen = mounts.find((mount) => mount.options.includes('pids')) ?? mounts[0];
  if (chosen === undefined) throw new NoCgroupsError();
  return chosen.path;
}

export class NoCgroupsError extends Error {
  override name = 'NoCgroupsError' as const;
  constructor() {
    super('no cgroup file system is mounted (see /proc/self/mountinfo); containers cannot run without one');
  }
}

/** From /proc/self/mountinfo: path, and the options of the file system (v1 names its controllers there). */
async function cgroupMounts(): Promise<{ readonly path: string; readonly options: readonly string[] }[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return lines.flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const [type = '', , options = ''] = after.split(' ');
    const path = before.split(' ')[4];
    return path !== undefined && type.startsWith('cgroup') ? [{ path, options: options.split(',') }] : [];
  });
}

async function processesBelow(directory: string): Promise<number[]> {
  const children = await childrenOf(directory);
  if (children === undefined) return [];
  const own = await readFile(join(directory, 'cgroup.procs'), 'utf8').catch(() => '');
  const below = await Promise.all(children.map((child) => processesBelow(join(directory, child))));
  return [
    ...own
      .split('\n')
      .filter((line) => line !== '' && line !== '0')
      .map(Number),
    ...below.flat(),
  ];
}

async function removeTree(directory: string): Promise<void> {
  const children = await childrenOf(directory);
  if (children === undefined) return;
  for (const child of children) await removeTree(join(directory, child));
  // A process that has just ended may still hold its cgroup for a moment.
  for (let attempt = 0; ; attempt++) {
    try {
      return await rmdir(directory);
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return;
      if (attempt >= 100) throw error;
      await sleep(20);
    }
  }
}

async function childrenOf(directory: string): Promise<string[] | undefined> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => undefined);
  return entries?.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}
