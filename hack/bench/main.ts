import { writeFile } from 'node:fs/promises';
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts';
import type { KubeConnection } from '../../src/kube/connection.ts';
import { kubeconfigConnection } from '../../src/kube/kubeconfig.ts';
import { upCluster } from '../cluster/cluster.ts';
import { downCluster } from '../cluster/down.ts';
import type { Cluster } from '../cluster/open.ts';
import { stderrProgress, type Progress } from '../cluster/progress.ts';
import { readState } from '../cluster/state.ts';
import { installWeft } from '../install-weft.ts';
import { AT_ONCE, REST_MS } from './attachment-plan.ts';
import { measureAttachments } from './attachments.ts';
import { measureClaims } from './claims.ts';
import { benchPool } from './contenders.ts';
import { verdictOf, type Figure } from './figures.ts';
import { describeMachine, machineLines, type Machine } from './machine.ts';
import { measureMemory } from './memory.ts';
import { measureNetwork } from './network.ts';
import { parseOptions, UsageError, type Options, type Part } from './options.ts';
import { measurePods } from './pods.ts';
import { measureScale } from './scale.ts';
import { measureStartup } from './startup.ts';
import { renderTable } from './table.ts';

/**
 * npm run bench: measures everything in one run on one local cluster of its own, which it makes and removes. A
 * figure that falls short is no failure of the run: it is in the table, and says so.
 */
try {
  await bench(parseOptions(process.argv.slice(2)), stderrProgress());
} catch (error) {
  if (!(error instanceof Error)) throw error;
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}

async function bench(options: Options, progress: Progress): Promise<void> {
  const name = options.clusterName;
  const machine = describeMachine();
  const alone = options.parts.map(withoutCluster);
  if (alone.every((measure) => measure !== undefined)) {
    const figures: Figure[] = [];
    for (const measure of alone) figures.push(...(await measure(progress, options)));
    await report(machine, options, figures);
    return;
  }
  const keep = options.keep || (await readState(name)) !== undefined;
  try {
    const cluster = await upCluster({ name, nodes: 2, segments: 1 }, progress);
    await installWeft(cluster, JSON.stringify(benchPool(options)), progress);
    await measureAndReport(cluster, machine, options, progress);
  } finally {
    if (!keep) await downCluster(name, progress);
  }
}

/** What needs no cluster makes none. */
function withoutCluster(
  part: Part,
): ((progress: Progress, options: Options) => Promise<Figure[]>) | undefined {
  return part === 'network' ? measureNetwork : part === 'scale' ? measureScale : undefined;
}

/** What was measured is reported also where a later part fails. */
async function measureAndReport(
  cluster: Cluster,
  machine: Machine,
  options: Options,
  progress: Progress,
): Promise<void> {
  const connection = await kubeconfigConnection(cluster.kubeconfig);
  const client = createKubeClient(connection, { userAgent: 'weft-bench' });
  const parts = partsOn({ cluster, connection, client, options, progress });
  const figures: Figure[] = [];
  try {
    for (const part of options.parts) {
      const measured = await parts[part]();
      figures.push(...measured);
      // A run takes half an hour: what is known is shown, also to whoever ends it before its end.
      process.stderr.write(renderTable(measured, [], []));
    }
  } finally {
    await client.close();
    if (figures.length > 0) await report(machine, options, figures);
  }
}

type Context = {
  readonly cluster: Cluster;
  readonly connection: KubeConnection;
  readonly client: KubeClient;
  readonly options: Options;
  readonly progress: Progress;
};

function partsOn(context: Context): Record<Part, () => Promise<Figure[]>> {
  const { cluster, connection, client, options, progress } = context;
  const node = cluster.nodes[0] ?? '';
  return {
    add: () => measureAttachments(cluster, node, options, progress),
    claims: () => measureClaims(connection, client, progress),
    startup: () => measureStartup(cluster, node, progress),
    pods: () => measurePods(cluster, client, options, progress),
    memory: () => measureMemory(cluster, node, options.minutes, progress),
    network: () => measureNetwork(progress),
    scale: () => measureScale(progress, options),
  };
}

async function report(machine: Machine, options: Options, figures: readonly Figure[]): Promise<void> {
  const result = {
    measuredAt: new Date().toISOString(),
    machine,
    method: notes(options),
    figures: figures.map((figure) => ({ ...figure, verdict: verdictOf(figure) })),
  };
  const json = `${JSON.stringify(result, null, 2)}\n`;
  if (options.outputFile !== undefined) await writeFile(options.outputFile, json);
  const table = () => renderTable(figures, machineLines(machine), notes(options));
  process.stdout.write(options.output === 'json' ? json : table());
}

/** How it was measured, as far as a reader of the figures must know. */
function notes(options: Options): string[] {
  const about: Record<Part, readonly string[]> = {
    add: [
      `add: cnitool in a node of a local cluster, ${options.dual ? 'IPv4 and IPv6' : 'IPv4'}, in turns, each call`,
      `  ${REST_MS} ms after the one before it, or ${AT_ONCE} at once; from the start of cnitool to its end. Every attachment`,
      '  has a fresh namespace. weft writes to the apiserver, host-local to a file; ptp and bridge do not masquerade.',
    ],
    claims: [
      'claims: the same object by weft and by bare requests, in turns, on as many kept-alive connections.',
    ],
    startup: [
      'startup: the installed executable, in turns with programs that do nothing, started by posix_spawn.',
    ],
    pods: ['pods: as a watch shows them; the kubelet itself looks for what has changed once a second.'],
    memory: [
      `memory: resident set as the kernel counts it (10^6 bytes), the most seen at the end of ${options.minutes} min.`,
    ],
    network: [
      'network: nodes are namespaces of this machine, with routes and filters by the code of the agent; TCP in one',
      '  connection, 128 KiB a write; a request is one byte and its answer. In turns; the median of the rounds.',
    ],
    scale: [
      'scale: one etcd and apiserver, nodes simulated in one process, the controller as the cluster runs it.',
    ],
  };
  return [
    ...options.parts.flatMap((part) => about[part]),
    'ratio: to ptp + host-local, to bare creates, or to the bare link.',
  ];
}
