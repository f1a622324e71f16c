import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * A process as it can be told from a later one with the same number: by its start time in ticks since boot, and
 * the boot itself.
 */
export type ProcessRecord = { readonly pid: number; readonly startTime: string; readonly bootId: string };

export type Command = {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Both outputs are appended here. */
  readonly logFile: string;
  /** Whether it outlives us; otherwise the kernel kills it when we end. */
  readonly survives: boolean;
};

/** Starts a command in a session of its own and answers how to know it again. */
export async function startProcess(command: Command): Promise<ProcessRecord> {
  mkdirSync(dirname(command.logFile), { recursive: true });
  const log = openSync(command.logFile, 'a');
  const [program, args] = command.survives
    ? [command.command, command.args]
    : ['setpriv', ['--pdeathsig', 'KILL', command.command, ...command.args]];
  const child = spawn(program, args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...command.env },
  });
  closeSync(log);
  const pid = await new Promise<number>((resolve, reject) => {
    child.once('spawn', () => resolve(child.pid ?? 0));
    child.once('error', reject);
  });
  child.unref();
  const record = await recordOf(pid);
  if (record === undefined) throw new ProcessEndedError(command.command, command.logFile);
  return record;
}

/** A process that should stay ended at once. */
export class ProcessEndedError extends Error {
  override name = 'ProcessEndedError' as const;
  readonly logFile: string;
  constructor(command: string, logFile: string) {
    super(`${command} ended right after its start; the end of ${logFile} says why`);
    this.logFile = logFile;
  }
}

/** Undefined if there is no living process of that number. */
export async function recordOf(pid: number): Promise<ProcessRecord | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (stat === undefined) return undefined;
  return parseRecord(`${stat.trimEnd()}\n${await readFile('/proc/sys/kernel/random/boot_id', 'utf8')}`);
}

/** Reads a line of /proc/PID/stat and one with a boot ID. Undefined for a zombie, and for anything else. */
export function parseRecord(text: string): ProcessRecord | undefined {
  // The second field is the program's name in parentheses and may hold anything, so count from its end.
  const match = /^([0-9]+) \(.*\) ([^ZX]) ([^\n]*)\n([0-9a-f-]+)\n$/s.exec(text);
  const startTime = match?.[3]?.split(' ')[18];
  if (match?.[1] === undefined || match[4] === undefined || startTime === undefined) return undefined;
  return { pid: Number(match[1]), startTime, bootId: match[4] };
}

/** Whether exactly this process, not a later one of its number, is there and no zombie. */
export async function isAlive(record: ProcessRecord): Promise<boolean> {
  const now = await recordOf(record.pid);
  return now?.startTime === record.startTime && now.bootId === record.bootId;
}

/** Asks the process to end, and kills it after `graceMs` milliseconds. Touches no other process of that number. */
export async function stopProcess(record: ProcessRecord, graceMs: number): Promise<void> {
  const killAt = performance.now() + graceMs;
  let signal: NodeJS.Signals | undefined = 'SIGTERM';
  while (await isAlive(record)) {
    if (performance.now() >= killAt) signal = 'SIGKILL';
    if (signal !== undefined) signalProcess(record.pid, signal);
    signal = undefined;
    await sleep(20);
  }
  while (await isEnding(record)) await sleep(5);
}

/** Its first thread is a zombie and others are not done yet: its ports are taken until they are. */
async function isEnding(record: ProcessRecord): Promise<boolean> {
  const stat = await readFile(`/proc/${record.pid}/stat`, 'utf8').catch(() => '');
  const fields = /^[0-9]+ \(.*\) [ZX] ([^\n]*)\n$/s.exec(stat)?.[1]?.split(' ') ?? [];
  return fields[18] === record.startTime && Number(fields[16]) > 1;
}

/** Sends a signal; a process that has just gone is not an error. */
export function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
