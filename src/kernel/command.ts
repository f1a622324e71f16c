import { execa, ExecaError } from 'execa';
import { closeSync, writeSync } from 'node:fs';
import * as libc from './libc.ts';

/** Runs a program with that standard input and returns its standard output. Rejects with CommandError. */
export type CommandRunner = (file: string, args: readonly string[], input?: string) => Promise<string>;

/** A program did not end with status 0, or not in time, or could not be started. */
export class CommandError extends Error {
  override name = 'CommandError' as const;
  readonly command: string;
  readonly exitCode: number | undefined;
  readonly stderr: string;

  constructor(command: string, exitCode: number | undefined, stderr: string, reason: string, cause: unknown) {
    super(`${command}: ${stderr.trim() === '' ? reason : stderr.trim()}`, { cause });
    this.command = command;
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

export interface CommandRunnerOptions {
  /** Put before every command: `['ip', 'netns', 'exec', 'x']` runs it in another namespace. */
  readonly prefix?: readonly string[];
  readonly timeoutMs?: number;
}

const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const MFD_CLOEXEC = 0x1;
const DEFAULT_TIMEOUT_MS = 10_000;

/** Programs run without a shell, with a fixed environment, and are killed when their time is over. */
export function createCommandRunner(options: CommandRunnerOptions = {}): CommandRunner {
  const { prefix = [], timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  return async (file, args, input) => {
    const [program = file, ...rest] = [...prefix, file, ...args];
    const stdin = openInput(input ?? '');
    try {
      const { stdout } = await execa(program, rest, {
        // Any descriptor will do; execa's types name only the first few.
        stdin: stdin as 3,
        env: { PATH: SEARCH_PATH, LC_ALL: 'C' },
        extendEnv: false,
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        stripFinalNewline: false,
        maxBuffer: 256 << 20,
      });
      return stdout;
    } catch (error) {
      if (!(error instanceof ExecaError)) throw error;
      const stderr = typeof error.stderr === 'string' ? error.stderr : '';
      throw new CommandError([file, ...args].join(' '), error.exitCode, stderr, error.shortMessage, error);
    } finally {
      closeSync(stdin);
    }
  };
}

/**
 * A file in memory, read from its start. Node would give a program a socket as its standard input, and `nft -j`,
 * which opens /dev/stdin by name, cannot open a socket.
 */
function openInput(text: string): number {
  const fd = libc.memfdCreate('weft-stdin', MFD_CLOEXEC);
  if (fd < 0) throw new libc.SystemCallError('memfd_create', libc.lastErrno());
  // At explicit positions, so that the offset the program inherits stays 0.
  const data = Buffer.from(text);
  for (let at = 0; at < data.length;) at += writeSync(fd, data, at, data.length - at, at);
  return fd;
}
