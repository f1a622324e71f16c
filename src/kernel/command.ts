import { execa, ExecaError } from 'execa';

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
const DEFAULT_TIMEOUT_MS = 10_000;

/** Programs run without a shell, with a fixed environment, and are killed when their time is over. */
export function createCommandRunner(options: CommandRunnerOptions = {}): CommandRunner {
  const { prefix = [], timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  return async (file, args, input) => {
    const [program = file, ...rest] = [...prefix, file, ...args];
    try {
      const { stdout } = await execa(program, rest, {
        input: input ?? '',
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
    }
  };
}
