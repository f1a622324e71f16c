import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeCgroup, procsFiles } from './cgroups.ts';
import { isAlive, parseRecord, ProcessEndedError, stopProcess, type ProcessRecord } from './processes.ts';

/** A long-lived process of a cluster. */
export type Part = {
  /** Unique in the cluster: the name of its record and of its log. */
  readonly name: string;
  /** The cgroup it is in, below the cluster's: `fabric`, `control-plane`, or a node's name. */
  readonly group: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
};

/** Starts parts and knows them again; `directory` is the cluster's, `cgroup` its cgroup. */
export function openParts(directory: string, cgroup: string): Parts {
  const recordFile = (name: string) => join(directory, 'processes', name);
  const logFile = (name: string) => join(directory, 'logs', `${name}.log`);

  const find = async (name: string): Promise<ProcessRecord | undefined> => {
    const text = await readFile(recordFile(name), 'utf8').catch(() => undefined);
    const record = text === undefined ? undefined : parseRecord(text);
    return record !== undefined && (await isAlive(record)) ? record : undefined;
  };

  const start = async (part: Part): Promise<ProcessRecord> => {
    await makeCgroup(join(cgroup, part.group));
    mkdirSync(join(directory, 'processes'), { recursive: true });
    mkdirSync(join(directory, 'logs'), { recursive: true });
    const log = openSync(logFile(part.name), 'a');
    // The process records itself before it becomes the program: so no kill of ours leaves one unrecorded.
    const recording = 'cat /proc/$$/stat /proc/sys/kernel/random/boot_id >"$1.new"; mv "$1.new" "$1"; shift';
    const recorded = ['sh', '-euc', `${recording}; exec "$@"`, 'sh', recordFile(part.name)];
    const [command, ...args] = await joining(join(cgroup, part.group), [
      ...recorded,
      part.command,
      ...part.args,
    ]);
    const child = spawn(command, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, ...part.env },
    });
    closeSync(log);
    child.unref();
    const ended = new Promise<'ended'>((resolve) => {
      child.once('exit', () => resolve('ended'));
      child.once('error', () => resolve('ended'));
    });
    for (;;) {
      const record = await find(part.name);
      if (record !== undefined && record.pid === child.pid) return record;
      if ((await Promise.race([ended, sleep(5)])) === 'ended') {
        throw new ProcessEndedError(part.command, logFile(part.name));
      }
    }
  };

  return {
    find,
    logFile,
    async ensure(part) {
      const found = await find(part.name);
      return found === undefined
        ? { record: await start(part), started: true }
        : { record: found, started: false };
    },
    async stop(name, graceMs) {
      const record = await find(name);
      if (record !== undefined) await stopProcess(record, graceMs);
    },
    async isSetUp(name) {
      const [record, marker] = await Promise.all([
        readFile(recordFile(name), 'utf8').catch(() => undefined),
        readFile(`${recordFile(name)}.set-up`, 'utf8').catch(() => ''),
      ]);
      return (await find(name)) !== undefined && record === marker;
    },
    async markSetUp(name) {
      await writeFile(`${recordFile(name)}.set-up`, await readFile(recordFile(name), 'utf8'));
    },
  };
}

export type Parts = {
  /** The living process of that name. */
  find(name: string): Promise<ProcessRecord | undefined>;
  /** Finds the part or starts it. Throws ProcessEndedError. */
  ensure(part: Part): Promise<{ readonly record: ProcessRecord; readonly started: boolean }>;
  stop(name: string, graceMs: number): Promise<void>;
  /** Whether what lives in the namespaces of this process was finished. */
  isSetUp(name: string): Promise<boolean>;
  markSetUp(name: string): Promise<void>;
  logFile(name: string): string;
};

/** A command line that joins the cgroup first, so that whatever the command starts ends with the cgroup. */
export async function joining(cgroup: string, command: readonly string[]): Promise<[string, ...string[]]> {
  const join = 'for file in $1; do echo $$ >"$file"; done; shift; exec "$@"';
  return ['sh', '-euc', join, 'sh', (await procsFiles(cgroup)).join(' '), ...command];
}

export type NamespaceKind = 'net' | 'mnt' | 'uts' | 'cgroup';
const UNSHARE: Record<NamespaceKind, readonly string[]> = {
  net: ['--net'],
  mnt: ['--mount', '--propagation', 'private'],
  uts: ['--uts'],
  cgroup: ['--cgroup'],
};
const NSENTER: Record<NamespaceKind, string> = {
  net: '--net',
  mnt: '--mount',
  uts: '--uts',
  cgroup: '--cgroup',
};

/**
 * A process that does nothing but hold namespaces: they have no name and no mount, and so vanish with the last
 * process in them, whatever happens to us.
 */
export function holderPart(name: string, group: string, kinds: readonly NamespaceKind[]): Part {
  const args = [...kinds.flatMap((kind) => UNSHARE[kind]), 'sleep', 'infinity'];
  return { name, group, command: 'unshare', args };
}

/** Waits until the process has left our namespaces. */
export async function namespacesReady(record: ProcessRecord, kinds: readonly NamespaceKind[]): Promise<void> {
  for (const kind of kinds) {
    const own = await readlink(`/proc/self/ns/${kind}`);
    while ((await readlink(`/proc/${record.pid}/ns/${kind}`)) === own) await sleep(2);
  }
  // unshare(1) still makes its mounts private before it becomes `sleep`.
  while ((await readFile(`/proc/${record.pid}/comm`, 'utf8')).trim() !== 'sleep') await sleep(2);
}

/** The words before a command that runs it inside. */
export function entering(record: ProcessRecord, kinds: readonly NamespaceKind[]): string[] {
  return ['nsenter', ...kinds.map((kind) => `${NSENTER[kind]}=/proc/${record.pid}/ns/${kind}`)];
}
