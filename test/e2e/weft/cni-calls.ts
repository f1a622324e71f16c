import { expect, it } from 'vitest';
import { formatAddress } from '../../../src/net/index.ts';
import type { Cluster } from '../../../hack/cluster/open.ts';
import { NODE_BINARIES } from '../../../hack/cluster/node-config.ts';
import type { Stage } from './stage.ts';

const NODE = 'node-2';
const NETWORKS = '/run/weft-e2e-net.d';

/** What one call of cnitool came to. */
export interface CniCall {
  readonly failed: boolean;
  /** Stdout and stderr, trimmed. */
  readonly output: string;
}

/** Calls from another orchestrator: no Kubernetes arguments, configurations of each version. */
export function cniCallTests(stage: () => Stage): void {
  it.each(['0.4.0', '1.0.0', '1.1.0'])(
    'serves cnitool without Kubernetes arguments with a configuration of version %s',
    async (version) => {
      const { cluster, eventually, allocations } = stage();
      const sandbox = `cni-${version.replaceAll('.', '-')}`;
      const conflist = { cniVersion: version, name: sandbox, plugins: [{ type: 'weft' }] };
      const write = `mkdir -p ${NETWORKS}; cat >${NETWORKS}/${sandbox}.conflist`;
      await cluster.execOnNode(NODE, ['sh', '-euc', write], JSON.stringify(conflist));
      await makeSandbox(cluster, NODE, sandbox);
      const call = (verb: Verb) =>
        cnitool(cluster, NODE, verb, sandbox, { network: sandbox, folder: NETWORKS });
      const own = async () =>
        (await allocations()).filter(
          ({ spec, status }) => spec.attachment?.network === sandbox && status?.releasedAt === undefined,
        );

      const add = await call('add');
      expect(add.failed, add.output).toBe(false);
      const result = JSON.parse(add.output) as { cniVersion: string; ips: { address: string }[] };
      expect(result.cniVersion).toBe(version);
      const held = (await own()).map(({ spec }) => formatAddress(spec.address));
      expect(held).toHaveLength(2);
      expect(result.ips.map(({ address }) => address.split('/')[0]).sort()).toEqual(held.sort());
      expect(await call('check')).toEqual({ failed: false, output: '' });
      expect(await call('del')).toEqual({ failed: false, output: '' });
      await eventually('its addresses are released', async () => expect(await own()).toHaveLength(0), 15);
      // Repeated, there is nothing to do, which is success.
      expect(await call('del')).toEqual({ failed: false, output: '' });
      await removeSandbox(cluster, NODE, sandbox);
      await cluster.execOnNode(NODE, ['rm', `${NETWORKS}/${sandbox}.conflist`]);
    },
  );
}

type Verb = 'add' | 'check' | 'del';

/** One call for the namespace of that name; by default with weft's own conflist. */
export async function cnitool(
  cluster: Cluster,
  node: string,
  verb: Verb,
  sandbox: string,
  { network = 'weft', folder = '/etc/cni/net.d' } = {},
): Promise<CniCall> {
  const environment = [`NETCONFPATH=${folder}`, 'CNI_PATH=/opt/cni/bin'];
  const call = [`${NODE_BINARIES}/cnitool`, verb, network, `/run/netns/${sandbox}`];
  const script = `exec 2>&1; "$@" || echo "FAILED $?"`;
  const output = await cluster.execOnNode(node, [
    ...['sh', '-c', script, 'sh', 'env', ...environment, ...call],
  ]);
  return { failed: /^FAILED [0-9]+$/m.test(output), output: output.trim() };
}

/** An ADD as a runtime sends it, without cnitool, which keeps the error's code to itself. */
export async function plainAdd(cluster: Cluster, node: string, sandbox: string): Promise<unknown> {
  const environment = [
    ...['CNI_COMMAND=ADD', `CNI_CONTAINERID=${sandbox}`, `CNI_NETNS=/run/netns/${sandbox}`],
    ...['CNI_IFNAME=eth0', 'CNI_PATH=/opt/cni/bin'],
  ];
  const configuration = JSON.stringify({ cniVersion: '1.0.0', name: 'weft', type: 'weft' });
  const script = '"$@" || true';
  return JSON.parse(
    await cluster.execOnNode(
      node,
      ['sh', '-c', script, 'sh', 'env', ...environment, '/opt/cni/bin/weft'],
      configuration,
    ),
  );
}

/** A network namespace as a runtime makes one. */
export async function makeSandbox(cluster: Cluster, node: string, name: string): Promise<void> {
  await cluster.execOnNode(node, ['ip', 'netns', 'add', name]);
}

export async function removeSandbox(cluster: Cluster, node: string, name: string): Promise<void> {
  await cluster.execOnNode(node, ['ip', 'netns', 'delete', name]);
}
