import { mkdir, readFile, readdir, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { signalProcess } from './processes.ts';

/**
 * All processes of a cluster are in one cgroup of its own, and what they start is born there: so they are found
 * and ended without a name or a list, also those that a killed `up` had no time to write down. The cgroup is
 * made in every hierarchy, so that the containers of a node can be below it. Works with cgroup v1, v2 (by the
 * kernel's documentation; tried with v1) and both mounted beside each other.
 */
export async function makeCgroup(path: string): Promise<void> {
  const mounts = await cgroupMounts();
  for (const mount of mounts) {
    let parent = mount.path;
    for (const [depth, name] of path.split('/').entries()) {
      const child = join(parent, name);
      await mkdir(child, { recursive: true });
      // A cpuset takes no process before it has CPUs and memory nodes.
      if (mount.options.includes('cpuset')) await inheritCpuset(parent, child);
      // What is deeper belongs to a node, which does it itself.
      if (mount.version === 2 && mounts.length === 1 && depth < 2) await delegateControllers(parent);
      parent = child;
    }
  }
}

/** The files that a process writes its number to, to be in the cgroup. */
export async function procsFiles(path: string): Promise<string[]> {
  return (await hierarchies()).map((root) => join(root, path, 'cgroup.procs'));
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

/** Moves a process into the cgroup. */
export async function moveInto(path: string, pid: number): Promise<void> {
  for (const file of await procsFiles(path)) await writeFile(file, `${pid}`);
}

/** Where every cgroup hierarchy is mounted. Throws NoCgroupsError. */
export async function hierarchies(): Promise<string[]> {
  const mounts = await cgroupMounts();
  if (mounts.length === 0) throw new NoCgroupsError();
  return mounts.map((mount) => mount.path);
}

export class NoCgroupsError extends Error {
  override name = 'NoCgroupsError' as const;
  constructor() {
    super('no cgroup file system is mounted (see /proc/self/mountinfo); containers cannot run without one');
  }
}

async function inheritCpuset(parent: string, child: string): Promise<void> {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    const own = (await readFile(join(child, file), 'utf8')).trim();
    if (own === '') await writeFile(join(child, file), await readFile(join(parent, file)));
  }
}

async function delegateControllers(parent: string): Promise<void> {
  const available = (await readFile(join(parent, 'cgroup.controllers'), 'utf8')).trim().split(' ');
  await writeFile(join(parent, 'cgroup.subtree_control'), available.map((name) => `+${name}`).join(' '));
}

type CgroupMount = { readonly path: string; readonly version: 1 | 2; readonly options: readonly string[] };

/** From /proc/self/mountinfo; a hierarchy of version 1 names its controllers among its options. */
async function cgroupMounts(): Promise<CgroupMount[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return lines.flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const [type = '', , options = ''] = after.split(' ');
    const path = before.split(' ')[4];
    if (path === undefined || !type.startsWith('cgroup')) return [];
    return [{ path, version: type === 'cgroup2' ? (2 as const) : (1 as const), options: options.split(',') }];
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
