import { z } from 'zod';
import type { Cluster } from './cluster/open.ts';

/** Where a pod runs and what it is reached by. */
export interface PlacedPod {
  readonly name: string;
  readonly node: string;
  readonly addresses: readonly string[];
}

/** The four classic paths from one node to another, or to itself. */
export type PathName =
  'pod to own node' | 'pod to pod, one node' | 'pod to other node' | 'pod to pod, other node';

/** One measured path. `milliseconds` is the mean round trip; undefined where packets were lost. */
export interface MeasuredPath {
  readonly from: string;
  readonly to: string;
  readonly path: PathName;
  readonly family: 'IPv4' | 'IPv6';
  readonly target: string;
  readonly milliseconds: number | undefined;
}

interface Probe {
  readonly source: PlacedPod;
  readonly to: string;
  readonly path: PathName;
  readonly target: string;
}

const PACKETS = 3;

/** The pods with that label which run, with their nodes and addresses. */
export async function placedPods(cluster: Cluster, label: string): Promise<PlacedPod[]> {
  const text = await cluster.kubectl(['get', 'pods', '-l', label, '-o', 'json']);
  return PodList.parse(JSON.parse(text)).items.map(({ metadata, spec, status }) => ({
    name: metadata.name,
    node: spec.nodeName,
    addresses: status.podIPs.map(({ ip }) => ip),
  }));
}

/**
 * Measures every path between the nodes by packets sent from inside the pods: both families, each pair of nodes.
 * There must be two pods on each node.
 */
export async function measurePaths(cluster: Cluster, pods: readonly PlacedPod[]): Promise<MeasuredPath[]> {
  const nodes = await nodeAddresses(cluster);
  const sources = [...nodes.keys()].flatMap((node) => pods.find((pod) => pod.node === node) ?? []);
  const measured = await Promise.all(
    sources.map((source) => measureFrom(cluster, source, probesFrom(source, pods, nodes))),
  );
  return measured.flat();
}

/** The paths as an aligned table: one line for each path between two nodes, one column for each family. */
export function reachabilityTable(paths: readonly MeasuredPath[]): string {
  const lines = new Map<string, string[]>();
  for (const path of paths) {
    const key = `${path.from}\0${path.to}\0${path.path}`;
    const line = lines.get(key) ?? [path.from, path.to, path.path, '', ''];
    line[path.family === 'IPv4' ? 3 : 4] =
      path.milliseconds === undefined ? `LOST (${path.target})` : `${path.milliseconds.toFixed(2)} ms`;
    lines.set(key, line);
  }
  return alignedTable([['FROM', 'TO', 'PATH', 'IPV4', 'IPV6'], ...lines.values()]);
}

/** Columns padded to their widest cell. */
export function alignedTable(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, i) => Math.max(widest[i] ?? 0, cell.length)),
    [],
  );
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .join('\n');
}

function probesFrom(
  source: PlacedPod,
  pods: readonly PlacedPod[],
  nodes: ReadonlyMap<string, readonly string[]>,
): Probe[] {
  return [...nodes].flatMap(([to, addresses]): Probe[] => {
    const own = to === source.node;
    const other = pods.find((pod) => pod.node === to && pod.name !== source.name);
    const nodePath: PathName = own ? 'pod to own node' : 'pod to other node';
    const podPath: PathName = own ? 'pod to pod, one node' : 'pod to pod, other node';
    return [
      ...addresses.map((target) => ({ source, to, path: nodePath, target })),
      ...(other?.addresses ?? []).map((target) => ({ source, to, path: podPath, target })),
    ];
  });
}

async function measureFrom(
  cluster: Cluster,
  source: PlacedPod,
  probes: readonly Probe[],
): Promise<MeasuredPath[]> {
  // One shell in the pod sends to all targets side by side, since a ping alone takes two seconds; it prints one
  // line for each, in their order. The addresses come from the apiserver, never from a person.
  const file = (index: number) => `/tmp/ping-$$-${index}`;
  const script = [
    ...probes.map(({ target }, i) => `ping -q -c ${PACKETS} -W 2 ${target} >${file(i)} 2>&1 &`),
    'wait',
    ...probes.map((_probe, i) => `tr '\\n' ' ' <${file(i)}; echo`),
    'rm /tmp/ping-$$-*',
  ].join('\n');
  const output = await cluster.kubectl(['exec', source.name, '--', 'sh', '-c', script]);
  const lines = output.split('\n');
  return probes.map(({ to, path, target }, i) => ({
    from: source.node,
    to,
    path,
    family: target.includes(':') ? 'IPv6' : 'IPv4',
    target,
    milliseconds: meanRoundTrip(lines[i] ?? ''),
  }));
}

/** Mean of what ping says in its summary, in ms; undefined unless every packet came back. */
export function meanRoundTrip(summary: string): number | undefined {
  if (!summary.includes(` ${PACKETS} packets received`) && !summary.includes(` ${PACKETS} received`)) {
    return undefined;
  }
  const mean = /= [0-9.]+\/([0-9.]+)\//.exec(summary)?.[1];
  return mean === undefined ? undefined : Number(mean);
}

async function nodeAddresses(cluster: Cluster): Promise<Map<string, string[]>> {
  const text = await cluster.kubectl(['get', 'nodes', '-o', 'json']);
  return new Map(
    NodeList.parse(JSON.parse(text)).items.map(({ metadata, status }) => [
      metadata.name,
      status.addresses.filter(({ type }) => type === 'InternalIP').map(({ address }) => address),
    ]),
  );
}

const PodList = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string() }),
      spec: z.object({ nodeName: z.string() }),
      status: z.object({ podIPs: z.array(z.object({ ip: z.string() })) }),
    }),
  ),
});

const NodeList = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string() }),
      status: z.object({ addresses: z.array(z.object({ type: z.string(), address: z.string() })) }),
    }),
  ),
});
