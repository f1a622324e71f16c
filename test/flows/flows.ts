import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Numbers that are sent to an end that sends them back. */
export interface FlowSpec {
  readonly protocol: 'TCP' | 'UDP';
  readonly address: string;
  readonly port: number;
  readonly source?: string;
  /** Between two numbers. */
  readonly everyMs: number;
}

/** What became of a flow. */
export interface FlowOutcome {
  readonly sent: number;
  /** How many numbers did not come back; by TCP those that did not in their order. */
  readonly lost: number;
  /** For how long at most all that was sent was lost. */
  readonly gapMs: number;
  /** The first that its socket met, or why a TCP connection did not carry on. */
  readonly error?: string;
  /** The longest time in which nothing came back, be it lost, late, or not read by a busy machine. */
  readonly longestMs: number;
}

/** The whole command line that runs a command where an end is to be. */
export type Enter = (command: readonly string[]) => Promise<[string, ...string[]]>;

/** What sends numbers back. */
export interface FlowServer {
  stop(): void;
}

/** Flows under way from one place. */
export interface Flows {
  /** Ends them, waiting for what is still on its way; one outcome for each spec. */
  end(): Promise<FlowOutcome[]>;
  /** Ends them without asking what became of them. */
  stop(): void;
}

/** Resolves when it listens for TCP and UDP. */
export async function serveFlows(enter: Enter, port: number, addresses = ['::']): Promise<FlowServer> {
  const server = await start(enter, ['serve', String(port), ...addresses]);
  await server.line();
  return { stop: () => server.child.kill('SIGKILL') };
}

/** Resolves when all connections stand; rejects if one does not come to be, which is said on stderr. */
export async function startFlows(enter: Enter, specs: readonly FlowSpec[]): Promise<Flows> {
  const sender = await start(enter, ['send', JSON.stringify(specs)]);
  await sender.line();
  return {
    async end() {
      sender.child.stdin.end();
      return JSON.parse(await sender.line()) as FlowOutcome[];
    },
    stop: () => sender.child.kill('SIGKILL'),
  };
}

async function start(enter: Enter, args: readonly string[]) {
  const program = new URL('program.ts', import.meta.url).pathname;
  const [command, ...rest] = await enter([process.execPath, program, ...args]);
  const child = spawn(command, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    async line(): Promise<string> {
      const { value, done } = await lines.next();
      if (done === true) throw new FlowEndedError([command, ...rest].join(' '));
      return value;
    },
  };
}

/** An end of a flow ended by itself. */
export class FlowEndedError extends Error {
  override name = 'FlowEndedError' as const;
  constructor(command: string) {
    super(`${command} ended without an answer; what it said is on stderr`);
  }
}
