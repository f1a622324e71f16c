import { readFile, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { killCgroup, removeCgroup } from './cgroups.ts';
import { withFileLock } from './lock.ts';
import { step, type Progress } from './progress.ts';
import { lockFile, readState, stateDirectory, type ClusterState } from './state.ts';

/**
 * Removes everything of the cluster, also one that is half made: the processes by their cgroup, namespaces and
 * mounts with them (nothing of them has a name or a place in the host's own), the host's link if it carries our
 * mark, the cgroup, the folder. Answers false if there was none.
 * Throws CgroupBusyError, MountLeftError.
 */
export async function downCluster(name: string, progress: Progress): Promise<boolean> {
  return withFileLock(
    lockFile(name),
    async () => {
      const state = await readState(name);
      if (state !== undefined) await step(progress, `removing cluster ${name}`, () => remove(state));
      // Without a state file nothing was made yet; the folder may be there.
      await rm(stateDirectory(name), { recursive: true, force: true });
      return state !== undefined;
    },
    () => progress(`waiting for another process that changes cluster ${name}`),
  );
}

async function remove(state: ClusterState): Promise<void> {
  const directory = stateDirectory(state.options.name);
  await killCgroup(state.cgroup);
  await removeHostLink(state);
  await removeCgroup(state.cgroup);
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  const left = mounts.find((path) => path.startsWith(`${directory}/`));
  // Nobody of ours mounts there: removing the folder could reach into somebody else's files.
  if (left !== undefined) throw new MountLeftError(left);
  // The state file goes last, so that a killed `down` can be run again.
  await execa('find', [
    directory,
    '-mindepth',
    '1',
    '-maxdepth',
    '1',
    '!',
    '-name',
    'cluster.json',
    '-exec',
    'rm',
    '-rf',
    '--one-file-system',
    '{}',
    '+',
  ]);
  await rm(directory, { recursive: true });
}

async function removeHostLink(state: ClusterState): Promise<void> {
  const { name, alias } = state.hostLink;
  for (;;) {
    const shown = await execa('ip', ['link', 'show', name], { reject: false });
    if (shown.exitCode !== 0 || !shown.stdout.includes(`alias ${alias}`)) return;
    await execa('ip', ['link', 'delete', name], { reject: false });
    await sleep(20);
  }
}

export class MountLeftError extends Error {
  override name = 'MountLeftError' as const;
  constructor(path: string) {
    super(`something is mounted on ${path}, which no cluster does; unmount it and run down again`);
  }
}
