import { expect, it } from 'vitest';
import { addressesOf } from './paths.ts';
import { isReady, type Pod, type Stage } from './stage.ts';
import { answering } from './tenants.ts';
import { pod, WEB } from './workload.ts';

const NAME = 'keeps';
const REPLICAS = 2;

/** Pods of a StatefulSet that keep their addresses (`ipam.weft.dev/sticky`). */
export function stickyTests(stage: () => Stage): void {
  it(
    'keeps the addresses of a StatefulSet over restarts, a rollout and a change of nodes, reached from everywhere',
    { timeout: 300_000 },
    async () => {
      const { allocations, cluster, eventually, subnets } = stage();
      const apply = (node: string, version: string) =>
        cluster.kubectl(['apply', '-f', '-'], JSON.stringify(statefulSet(node, version)));
      await apply('node-1', '1');
      const had = await running(stage(), 'node-1');
      expect(Object.values(had).flat()).toHaveLength(2 * REPLICAS);
      await expectReached(stage());

      await cluster.kubectl(['delete', 'pod', ...Object.keys(had), '--wait=true', '--timeout=60s']);
      expect(await running(stage(), 'node-1')).toEqual(had);
      await expectReached(stage());

      await apply('node-1', '2');
      expect(await running(stage(), 'node-1')).toEqual(had);
      await expectReached(stage());

      for (const node of ['node-2', 'node-3', 'node-1']) {
        await apply(node, '2');
        expect(await running(stage(), node), `on ${node}`).toEqual(had);
        await expectReached(stage());
      }

      // Kept for a while after the StatefulSet has gone, and no longer.
      await cluster.kubectl(['delete', 'statefulset', NAME, '--timeout=60s']);
      await eventually(
        'nothing of it is left',
        async () => {
          const kept = (await allocations()).filter(({ spec }) =>
            spec.sticky?.startsWith(`default/${NAME}-`),
          );
          expect(kept.map(({ metadata }) => metadata.name)).toEqual([]);
          const ways = (await subnets()).filter(({ spec }) => spec.exclusive === true);
          expect(ways.map(({ metadata }) => metadata.name)).toEqual([]);
        },
        90,
      );
    },
  );
}

function statefulSet(node: string, version: string): object {
  const labels = { app: NAME };
  const { spec } = pod(NAME, 'default') as { spec: object };
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: { name: NAME, namespace: 'default' },
    spec: {
      replicas: REPLICAS,
      serviceName: NAME,
      podManagementPolicy: 'Parallel',
      selector: { matchLabels: labels },
      template: {
        metadata: { labels, annotations: { 'ipam.weft.dev/sticky': 'true', version } },
        spec: { ...spec, nodeSelector: { 'kubernetes.io/hostname': node } },
      },
    },
  };
}

/** The addresses of each pod by its name, when the newest are all Ready on that node. */
async function running(
  { cluster, eventually, pods }: Stage,
  node: string,
): Promise<Record<string, string[]>> {
  await cluster.kubectl(['rollout', 'status', `statefulset/${NAME}`, '--timeout=120s']);
  return eventually(`they run on ${node}`, async () => {
    const found = await pods(`app=${NAME}`);
    expect(found.filter(isReady)).toHaveLength(REPLICAS);
    expect(new Set(found.map(({ spec }) => spec.nodeName))).toEqual(new Set([node]));
    return Object.fromEntries(found.map((one) => [one.metadata.name, addressesOf(one)]));
  });
}

/** From a pod on each node. */
async function expectReached(stage: Stage): Promise<void> {
  const own = await stage.pods(`app=${NAME}`);
  const others = (await stage.pods(`app=${WEB}`)).filter(isReady);
  for (const node of stage.cluster.nodes) {
    const from = others.find(({ spec }): boolean => spec.nodeName === node);
    if (from === undefined) throw new Error(`no pod of ${WEB} runs on ${node}`);
    const reached = () => answering(stage, from, own);
    await stage.eventually(
      `a pod on ${node} reaches them`,
      async () => expect(await reached()).toEqual(own.flatMap((one: Pod) => addressesOf(one))),
      10,
    );
  }
}
