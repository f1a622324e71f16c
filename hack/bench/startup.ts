import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CallAnswer } from '../../src/cni/protocol.ts';
import { compile } from '../build.ts';
import type { Cluster } from '../cluster/open.ts';
import { step, type Progress } from '../cluster/progress.ts';
import type { Figure, Target } from './figures.ts';
import { CNITOOL_ENVIRONMENT, runOnNode } from './on-node.ts';
import type { Command } from './spawn.ts';
import { summarize } from './statistics.ts';

/**
 * The executable alone, as it is installed on the node, from its start until its end has been seen: VERSION, which
 * asks nobody, and STATUS, answered at once by a socket of ours. Beside it a program that does nothing, compiled the
 * same way, which is the least that can be had so, and one that is not compiled by bun at all.
 */
export async function measureStartup(cluster: Cluster, node: string, progress: Progress): Promise<Figure[]> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-bench-'));
  const closeSocket = await answerAtOnce(join(directory, 'agent.sock'));
  try {
    const input = join(directory, 'input');
    const empty = join(directory, 'empty');
    await writeFile(`${empty}.ts`, 'process.exit(0);\n');
    await compile(`${empty}.ts`, empty);
    await writeFile(input, JSON.stringify({ cniVersion: '1.1.0', name: 'weft', type: 'weft' }));
    const weft = (verb: string): Command => ({
      argv: ['/opt/cni/bin/weft'],
      environment: { CNI_COMMAND: verb },
      stdin: input,
    });
    const measured = [
      { what: 'VERSION, start to end', who: 'weft', command: weft('VERSION'), target: AT_MOST_4_MS },
      { what: 'one request, start to end', who: 'weft', command: weft('STATUS'), target: AT_MOST_4_MS },
      { what: 'start to end', who: 'an empty program', command: { argv: [empty] } satisfies Command },
      { what: 'start to end', who: '/bin/true', command: { argv: ['/bin/true'] } satisfies Command },
    ];
    const calls = Array.from({ length: ROUNDS }, () => measured.map(({ command }) => command)).flat();
    const plan = {
      environment: CNITOOL_ENVIRONMENT,
      steps: [{ kind: 'calls', calls, inFlight: 1, restMs: 5 } as const],
    };
    // In a mount namespace of its own the agent's folder is ours, and the agent does not notice.
    const hidden = ['unshare', '--mount', '--propagation', 'private', 'sh', '-euc'];
    const script = 'mount --bind "$1" /run/weft; shift; exec "$@"';
    const [timed] = await step(progress, 'start-up of the executable', () =>
      runOnNode(cluster, node, plan, [...hidden, script, 'sh', directory]),
    );
    return measured.map(({ what, who, target }, index) => {
      const durations = timed?.durationsMs.filter((_, call) => call % measured.length === index) ?? [];
      const { count, p50Ms, p99Ms } = summarize(durations);
      return { ...{ part: 'startup', what, who, count, p50Ms, p99Ms }, ...(target && { target }) };
    });
  } finally {
    await closeSocket();
    await rm(directory, { recursive: true, force: true });
  }
}

const ROUNDS = 300;
const AT_MOST_4_MS: Target = { value: 'p50Ms', bound: 'at most', limit: 4 };

/** An agent that has nothing to do. Answers the function that ends it. */
async function answerAtOnce(path: string): Promise<() => Promise<void>> {
  const answer = JSON.stringify({ stdout: '', exitCode: 0 } satisfies CallAnswer);
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => response.end(answer));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}
