import { spawn } from 'node:child_process';
import { serveFlows, startFlows, type Enter, type FlowOutcome } from '../flows/flows.ts';
import type { Throwaway } from './throwaway.ts';

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
  const port = ++lastPort;
  const server = await serveFlows(inside(to), port);
  const spec = { protocol: 'TCP', address, port, everyMs: 20 } as const;
  const flows = await startFlows(inside(from), [{ ...spec, ...(source === undefined ? {} : { source }) }]);
  return {
    async end() {
      const [outcome] = await flows.end();
      server.stop();
      if (outcome === undefined) throw new Error('one flow has one outcome');
      return outcome;
    },
  };
}

const inside =
  ({ path }: Throwaway): Enter =>
  (command) =>
    Promise.resolve(['nsenter', `--net=${path}`, ...command]);

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
