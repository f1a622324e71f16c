import { join } from 'node:path';
import type { Cluster } from '../cluster/open.ts';
import { NODE_BINARIES } from '../cluster/node-config.ts';
import type { CallPlan, Timed } from './calls.ts';
import { BENCH_BRIDGE, type Contender } from './contenders.ts';

/** The benchmark's own folder on a node, gone with the node or after a part. */
export const NODE_FOLDER = '/run/weft-bench';
const NETWORKS = `${NODE_FOLDER}/net.d`;
export const CNITOOL = `${NODE_BINARIES}/cnitool`;

/** What cnitool reads from its environment. */
export const CNITOOL_ENVIRONMENT = {
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  CNI_PATH: '/opt/cni/bin',
  NETCONFPATH: NETWORKS,
} as const;

/**
 * Runs a plan in a node, in one process that is entered into it once. `inside` are words before it, such as those
 * that give it a mount namespace of its own.
 */
export async function runOnNode(
  cluster: Cluster,
  node: string,
  plan: CallPlan,
  inside: readonly string[] = [],
): Promise<Timed[]> {
  const loop = [process.execPath, join(import.meta.dirname, 'call-loop.ts')];
  return JSON.parse(await cluster.execOnNode(node, [...inside, ...loop], JSON.stringify(plan))) as Timed[];
}

/** Writes the contenders' configurations where cnitool looks, and other files. */
export async function writeOnNode(
  cluster: Cluster,
  node: string,
  networks: readonly Contender[],
  files: ReadonlyMap<string, string> = new Map(),
): Promise<void> {
  const configurations = networks.map(
    ({ network, conflist }) => [`${NETWORKS}/${network}.conflist`, conflist] as const,
  );
  // Folder and file by file: what is written is data to the shell, never its text.
  const write = 'mkdir -p "$(dirname "$1")"; cat >"$1"';
  for (const [path, text] of [...configurations, ...files]) {
    await cluster.execOnNode(node, ['sh', '-euc', write, 'sh', path], text);
  }
}

/** Removes what the benchmark left on the node, also after a part has failed half way. */
export async function clearNode(cluster: Cluster, node: string): Promise<void> {
  const script = `
    for path in /run/netns/weft-bench-*; do
      [ -e "$path" ] && ip netns delete "$(basename "$path")"
    done
    ip link delete ${BENCH_BRIDGE} 2>/dev/null
    rm -rf ${NODE_FOLDER} /var/lib/cni/networks/bench-ptp /var/lib/cni/networks/bench-bridge
    rm -f /var/lib/cni/results/*-cnitool-*`;
  await cluster.execOnNode(node, ['sh', '-c', script]);
}
