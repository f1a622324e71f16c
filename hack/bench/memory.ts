import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processesIn } from '../cluster/cgroups.ts';
import type { Cluster } from '../cluster/open.ts';
import { step, type Progress } from '../cluster/progress.ts';
import { readState } from '../cluster/state.ts';
import { contenders, WEFT } from './contenders.ts';
import type { Figure, Target } from './figures.ts';
import { clearNode, CNITOOL, CNITOOL_ENVIRONMENT, NODE_FOLDER, runOnNode, writeOnNode } from './on-node.ts';
import type { Command } from './spawn.ts';

/** As many pods as a kubelet takes. */
const ATTACHMENTS = 110;
const SAMPLE_EVERY_MS = 5_000;

/**
 * The resident memory of agent and controller, as the kernel counts it, while a node has 110 attachments for
 * `minutes`: the most of what was seen every 5 s during the last tenth of that time. Of the controller's replicas
 * the larger.
 */
export async function measureMemory(
  cluster: Cluster,
  node: string,
  minutes: number,
  progress: Progress,
): Promise<Figure[]> {
  const networks = contenders({ dual: false }).filter(({ who }) => who === WEFT);
  const names = Array.from({ length: ATTACHMENTS }, (_, index) => `weft-bench-memory-${index}`);
  const batch = (verb: string) => names.map((name) => `netns ${verb} ${name}\n`).join('');
  const files = new Map(['add', 'delete'].map((verb) => [`${NODE_FOLDER}/${verb}`, batch(verb)]));
  const aside = (verb: string) =>
    ({ kind: 'aside', command: { argv: ['/bin/ip', '-batch', `${NODE_FOLDER}/${verb}`] } }) as const;
  const calls = (verb: string) => {
    const commands = names.flatMap((name) =>
      networks.map(({ network }): Command => ({ argv: [CNITOOL, verb, network, `/run/netns/${name}`] })),
    );
    return { kind: 'calls', calls: commands, inFlight: 4, restMs: 0 } as const;
  };
  const run = (steps: Parameters<typeof runOnNode>[2]['steps']) =>
    runOnNode(cluster, node, { environment: CNITOOL_ENVIRONMENT, steps });

  await clearNode(cluster, node);
  try {
    await writeOnNode(cluster, node, networks, files);
    await step(progress, `${ATTACHMENTS} attachments on ${node}`, () => run([aside('add'), calls('add')]));
    const samples = await step(progress, `memory after ${minutes} min`, () =>
      sampleAfter(cluster, node, minutes * 60_000),
    );
    await run([calls('del'), aside('delete')]);
    return [
      figure(`agent, ${ATTACHMENTS} attachments`, samples.agent),
      figure('controller', samples.controller),
    ];
  } finally {
    await clearNode(cluster, node);
  }
}

/** In bytes. */
type Samples = { readonly agent: number[]; readonly controller: number[] };

async function sampleAfter(cluster: Cluster, node: string, totalMs: number): Promise<Samples> {
  const samples: Samples = { agent: [], controller: [] };
  await sleep(totalMs * 0.9);
  const end = performance.now() + totalMs * 0.1;
  do {
    samples.agent.push(await largest(cluster, [node], '/weft/agent.mjs'));
    samples.controller.push(await largest(cluster, cluster.nodes, '/weft/controller.mjs'));
    await sleep(SAMPLE_EVERY_MS);
  } while (performance.now() < end);
  return samples;
}

function figure(what: string, bytes: readonly number[]): Figure {
  const target: Target = { value: 'megabytes', bound: 'at most', limit: 96 };
  return {
    ...{ part: 'memory', what, who: WEFT, count: bytes.length, megabytes: Math.max(...bytes) / 1e6, target },
  };
}

/** RSS in bytes of the largest process on the nodes that runs `program`. Throws NoSuchProcessError. */
async function largest(cluster: Cluster, nodes: readonly string[], program: string): Promise<number> {
  const state = await readState(cluster.name);
  const groups = nodes.map((node) => join(state?.cgroup ?? '', node));
  const pids = (await Promise.all(groups.map((group) => processesIn(group)))).flat();
  const sizes = await Promise.all(pids.map((pid) => residentBytes(pid, program)));
  const found = sizes.filter((size) => size !== undefined);
  if (found.length === 0) throw new NoSuchProcessError(program, nodes);
  return Math.max(...found);
}

/** What is to be measured does not run. */
export class NoSuchProcessError extends Error {
  override name = 'NoSuchProcessError' as const;
  constructor(program: string, nodes: readonly string[]) {
    super(`no process on ${nodes.join(', ')} runs ${program}; kubectl -n weft-system get pods says why`);
  }
}

/** Undefined for a process of another program, and for one that has ended meanwhile. */
async function residentBytes(pid: number, program: string): Promise<number | undefined> {
  const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  if (!words.includes(program)) return undefined;
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const kilobytes = /^VmRSS:\s+([0-9]+) kB$/m.exec(status)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}
