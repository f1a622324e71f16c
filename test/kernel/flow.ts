import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Throwaway } from './throwaway.ts';

/** What became of a TCP connection. */
export interface FlowOutcome {
  /** Everything came back in order. */
  readonly whole: boolean;
  readonly error?: string;
  /** The longest time in which nothing came back. */
  readonly longestMs: number;
}

/** A TCP connection between two machines that carries a number every 20 ms there and back. */
export interface Flow {
  /** Ends it, waiting for what is still on its way. */
  end(): Promise<FlowOutcome>;
}

let lastPort = 7000;

/** Resolves when the connection stands. */
export async function startFlow(
  from: Throwaway,
  to: Throwaway,
  { address, source }: { readonly address: string; readonly source?: string },
): Promise<Flow> {
  const port = String(++lastPort);
  const server = start(to, ['serve', '::', port]);
  await server.line();
  const client = start(from, ['send', address, port, ...(source === undefined ? [] : [source])]);
  await client.line();
  return {
    async end() {
      client.child.stdin.end();
      const outcome = JSON.parse(await client.line()) as FlowOutcome;
      server.child.kill('SIGKILL');
      return outcome;
    },
  };
}

function start(machine: Throwaway, args: readonly string[]) {
  const program = new URL('flow-process.ts', import.meta.url).pathname;
  const child = spawn('nsenter', [`--net=${machine.path}`, process.execPath, program, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    async line(): Promise<string> {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`${args.join(' ')} in ${machine.name} ended without an answer`);
      return value;
    },
  };
}

/** Echo requests every 20 ms; answers the longest run of lost ones, in milliseconds. */
export function startPings(from: Throwaway, to: string): { end(): Promise<number> } {
  const child = spawn('nsenter', [`--net=${from.path}`, 'ping', '-n', '-i', '0.02', to], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    async end() {
      child.kill('SIGINT');
      await ended;
      const answered = [...output.matchAll(/icmp_seq=(\d+) ttl/g)].map(([, number]) => Number(number));
      const gaps = answered.slice(1).map((number, i) => number - (answered[i] ?? 0) - 1);
      const sent = Number(/(\d+) packets transmitted/.exec(output)?.[1]);
      // What was on its way when it ended is not lost.
      return 20 * Math.max(0, sent - (answered.at(-1) ?? 0) - 2, ...gaps);
    },
  };
}
