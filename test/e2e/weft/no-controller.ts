import { expect, it } from 'vitest';
import { rebootNode } from '../../../hack/cluster/cluster.ts';
import { turnOffNode } from '../../../hack/cluster/node.ts';
import { readState } from '../../../hack/cluster/state.ts';
import type { IPAllocation } from '../../../src/api/index.ts';
import { FAMILIES, formatAddress } from '../../../src/net/index.ts';
import { isHeld } from './addresses.ts';
import { CLUSTER_NAME } from './bring-up.ts';
import { checkCluster } from './check.ts';
import { addressesOf } from './paths.ts';
import { isReady, readiness, type Pod, type Stage } from './stage.ts';
import { pod, pool, POOL_NAME, REUSE_DELAY_SECONDS } from './workload.ts';

const NAME = 'alone';
const JOINS = 'node-3';
/** As many as a node's pool has addresses: the second ones get what the first ones had. */
const PODS_PER_NODE = 3;

/** F41: the controller is away, and a node joins. */
export function noControllerTests(stage: () => Stage): void {
  it('goes on without a controller (F41)', async () => {
    const { client, cluster, eventually, allocations, node, pods, pool: read, subnets } = stage();
    await scaleController(stage(), 0);
    // A machine of which this cluster knows nothing any more: its Node is deleted, its kernel is empty.
    const before = (await node(JOINS)).metadata.uid;
    const state = await readState(CLUSTER_NAME);
    await turnOffNode({ cgroup: state?.cgroup ?? '' }, JOINS);
    await cluster.kubectl(['delete', 'node', JOINS]);
    const [firsts] = await Promise.all([
      cluster
        .kubectl(['apply', '-f', '-'], JSON.stringify(list(tenant(cluster.nodes))))
        .then(() => eventually('the pods are taken', () => makePods(stage(), 'first'))),
      rebootNode(CLUSTER_NAME, JOINS),
    ]);

    const own = async () => (await allocations()).filter(({ spec }) => spec.pool.startsWith(NAME));
    const running = async (generation: string): Promise<Pod[]> => {
      const found = (await pods(`generation=${generation}`, NAME)).filter(isReady);
      expect(found).toHaveLength(firsts);
      return found;
    };
    const started = await eventually('the pods of every node run', () => running('first'), 120);
    const now = await node(JOINS);
    expect(now.metadata.uid).not.toBe(before);
    expect(readiness(now).status).toBe('True');
    const claimed = (await subnets()).filter(({ spec }) => spec.nodeUID === now.metadata.uid);
    for (const name of [poolOf(JOINS), POOL_NAME]) {
      const families = claimed.filter(({ spec }) => spec.pool === name).map(({ spec }) => spec.cidr.family);
      expect(new Set(families), `${JOINS} has subnets of ${name}`).toEqual(new Set(FAMILIES));
    }
    const addresses = started.flatMap(addressesOf).sort();
    expect(new Set(addresses).size).toBe(firsts * 2);

    // They go, and others get the very same addresses, since there are no more; not before these have rested.
    await cluster.kubectl(['-n', NAME, 'delete', 'pods', '-l', 'generation=first', '--wait=false']);
    const releasedAt = new Map<string, number>();
    await eventually('all of them rest', async () => {
      for (const one of await own()) {
        if (one.status?.releasedAt !== undefined)
          releasedAt.set(uidOf(one), Date.parse(one.status.releasedAt));
      }
      expect((await own()).filter(isHeld)).toEqual([]);
    });
    expect(releasedAt.size, 'seen at rest').toBe(addresses.length);
    const names = new Map((await own()).map((one) => [one.metadata.name, releasedAt.get(uidOf(one)) ?? 0]));
    await makePods(stage(), 'second');
    const followed = await eventually('others run in their place', () => running('second'), 90);
    expect(followed.flatMap(addressesOf).sort()).toEqual(addresses);
    for (const { metadata, spec } of (await own()).filter(isHeld)) {
      // The apiserver's times have no more than seconds.
      const restedMs = Date.parse(metadata.creationTimestamp) + 1_000 - (names.get(metadata.name) ?? 0);
      expect(restedMs, formatAddress(spec.address)).toBeGreaterThan(REUSE_DELAY_SECONDS * 1_000);
    }
    // Nobody has written a status: there was no controller.
    const statuses = () => Promise.all(cluster.nodes.map(async (name) => (await read(poolOf(name))).status));
    expect(await statuses()).toEqual(cluster.nodes.map(() => undefined));

    await scaleController(stage(), 2);
    await eventually('it counts what came to be without it', async () => {
      for (const status of await statuses()) {
        expect(status?.ipv4).toMatchObject({ allocated: PODS_PER_NODE, nodeSubnets: 1 });
      }
    });
    await eventually(
      'a clean check',
      async () => expect(await checkCluster(stage())).toEqual({ findings: [], unknownNodes: [] }),
      90,
    );
    await cluster.kubectl(['delete', 'namespace', NAME, '--timeout=60s']);
    await cluster.kubectl(['delete', 'ippool', ...cluster.nodes.map(poolOf), '--timeout=120s']);
    // The client's connections have outlived all this.
    await client.request({ method: 'GET', path: '/version' });
  });
}

const poolOf = (node: string) => `${NAME}-${node}`;

/** A pool for each node, of one piece of each family. The ranges are among those that the cluster's router drops. */
function tenant(nodes: readonly string[]): object[] {
  const pools = nodes.map((node, i) => {
    const first = 4 * (i + 1);
    const cidrs = [`10.244.170.${first}/30`, `fd00:10:244:170::${first.toString(16)}/126`];
    const base = pool(poolOf(node), cidrs) as { spec: object };
    const spec = {
      ...base.spec,
      nodeSubnetPrefixLength: { ipv4: 30, ipv6: 126 },
      nodeSelector: { matchLabels: { 'kubernetes.io/hostname': node } },
      namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': NAME } },
    };
    return { ...base, spec };
  });
  const annotations = { 'ipam.weft.dev/pools': nodes.map(poolOf).join(',') };
  return [{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAME, annotations } }, ...pools];
}

/** On each node as many pods as its pool has addresses; answers how many these are. */
async function makePods({ cluster }: Stage, generation: string): Promise<number> {
  const made = cluster.nodes.flatMap((node) =>
    Array.from({ length: PODS_PER_NODE }, (_, i) => {
      const base = pod(`${generation}-${node}-${i}`, NAME, { generation }) as { spec: object };
      return { ...base, spec: { ...base.spec, nodeSelector: { 'kubernetes.io/hostname': node } } };
    }),
  );
  // A new namespace has no account for its pods yet: then it is refused, and asked for again.
  await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(made)));
  return made.length;
}

async function scaleController({ cluster, eventually, pods }: Stage, replicas: number): Promise<void> {
  const deployment = ['deployment', 'weft-controller', `--replicas=${replicas}`];
  await cluster.kubectl(['-n', 'weft-system', 'scale', ...deployment]);
  await eventually(`${replicas} controllers`, async () => {
    const there = await pods('app.kubernetes.io/name=weft-controller', 'weft-system');
    expect(there.filter((one) => replicas === 0 || isReady(one))).toHaveLength(replicas);
  });
}

const uidOf = ({ metadata }: IPAllocation) => metadata.uid;

const list = (items: readonly object[]) => ({ apiVersion: 'v1', kind: 'List', items });
