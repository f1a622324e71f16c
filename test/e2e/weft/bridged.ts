import { expect, it } from 'vitest';
import { z } from 'zod';
import { isHeld } from './addresses.ts';
import { cnitool, makeSandbox, removeSandbox } from './cni-calls.ts';
import { addressesOf, podOn } from './paths.ts';
import { isReady, type Stage } from './stage.ts';
import { WEB } from './workload.ts';

const NETWORK = 'bridged';
const FOLDER = '/run/weft-e2e-bridged.d';

/** A reference plugin that makes containers' interfaces on each node, with addresses of weft-ipam. */
interface Plugin {
  readonly type: 'bridge' | 'ptp';
  readonly settings: object;
  /** What it leaves on the node after the last container. */
  readonly link?: string;
}

const PLUGINS: readonly Plugin[] = [
  { type: 'bridge', settings: { bridge: 'br-e2e', isGateway: true, mtu: 1430 }, link: 'br-e2e' },
  { type: 'ptp', settings: { mtu: 1430 } },
];

const conflist = ({ type, settings }: Plugin) => ({
  cniVersion: '1.0.0',
  name: NETWORK,
  plugins: [{ type, ...settings, ipam: { type: 'weft-ipam', pool: NETWORK } }],
});

const Result = z.object({ ips: z.array(z.object({ address: z.string() })) });

/** Addresses for other plugins, on every node of a cluster whose nodes do not all share a segment. */
export function bridgedTests(stage: () => Stage): void {
  it.each(PLUGINS)(
    'lets containers of the plugin $type, pods and nodes reach each other everywhere',
    { timeout: 180_000 },
    async (plugin) => {
      const { cluster, allocations, subnets, eventually } = stage();
      await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(POOL));
      const containers = new Map<string, string[]>();
      for (const node of cluster.nodes) containers.set(node, await attach(stage(), node, plugin));
      expect([...containers.values()].flat()).toHaveLength(2 * cluster.nodes.length);

      // A bridge's new gateway is probed for duplicates first, and does not answer meanwhile.
      await eventually('every path works', () => expectPaths(stage(), containers), 15);

      for (const node of cluster.nodes) await detach(stage(), node, plugin);
      await eventually('all their addresses are released', async () =>
        expect((await allocations()).filter((one) => isHeld(one) && one.spec.pool === NETWORK)).toEqual([]),
      );
      await cluster.kubectl(['delete', 'ippool', NETWORK, '--timeout=120s']);
      expect((await subnets()).filter(({ spec }) => spec.pool === NETWORK)).toEqual([]);
    },
  );
}

/** A container on the node; answers its addresses. */
async function attach(stage: Stage, node: string, plugin: Plugin): Promise<string[]> {
  const { cluster } = stage;
  const write = `mkdir -p ${FOLDER}; cat >${FOLDER}/${NETWORK}.conflist`;
  await cluster.execOnNode(node, ['sh', '-euc', write], JSON.stringify(conflist(plugin)));
  await makeSandbox(cluster, node, sandboxOn(node));
  const added = await call(stage, 'add', node);
  expect(added.failed, added.output).toBe(false);
  const { ips } = Result.parse(JSON.parse(added.output));
  return ips.map(({ address }) => address.split('/')[0] ?? '');
}

async function detach(stage: Stage, node: string, { link }: Plugin): Promise<void> {
  expect(await call(stage, 'del', node)).toEqual({ failed: false, output: '' });
  await removeSandbox(stage.cluster, node, sandboxOn(node));
  if (link !== undefined) await stage.cluster.execOnNode(node, ['ip', 'link', 'delete', link]);
}

/** One packet of each family from each container to all others and all pods, and to each from pods and nodes. */
async function expectPaths(
  { cluster, pods, inPod }: Stage,
  containers: ReadonlyMap<string, readonly string[]>,
): Promise<void> {
  const running = (await pods(`app=${WEB}`)).filter(isReady);
  for (const node of cluster.nodes) {
    const others = [...containers].filter(([name]) => name !== node).flatMap(([, addresses]) => addresses);
    const targets = [...others, ...running.flatMap(addressesOf)];
    const inSandbox = ['ip', 'netns', 'exec', sandboxOn(node), 'sh', '-c', pings(targets)];
    expect(await cluster.execOnNode(node, inSandbox), `from the container on ${node}`).toBe('');
    const all = pings([...containers.values()].flat());
    const from = podOn(running, node).metadata.name;
    expect(await inPod(from, all), `from ${from} on ${node}`).toBe('');
    expect(await cluster.execOnNode(node, ['sh', '-c', all]), `from ${node}`).toBe('');
  }
}

const POOL = {
  apiVersion: 'ipam.weft.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: NETWORK },
  spec: { use: 'Bridge', cidrs: ['10.245.0.0/24', 'fd00:10:245::/64'], reuseDelaySeconds: 1 },
};

const sandboxOn = (node: string) => `bridged-${node}`;

const call = ({ cluster }: Stage, verb: 'add' | 'del', node: string) =>
  cnitool(cluster, node, verb, sandboxOn(node), { network: NETWORK, folder: FOLDER });

/** All at once; each that is lost prints its address. */
function pings(targets: readonly string[]): string {
  const lines = targets.map((address) => `ping -q -c 1 -W 2 ${address} >/dev/null 2>&1 || echo ${address} &`);
  return `${lines.join('\n')}\nwait`;
}
