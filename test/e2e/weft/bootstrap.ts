import { expect, it } from 'vitest';
import { isReady, readiness, type Stage } from './stage.ts';
import { POOL_NAME, WEB, WEB_PODS } from './workload.ts';

/** Everything was applied at once to nodes that were never Ready; now it comes up. */
export function bootstrapTests(stage: () => Stage): void {
  it('comes up where everything was applied at once to nodes that were never Ready', async () => {
    const { cluster, eventually, node, pods, subnets, pool } = stage();
    await eventually(
      'every node is Ready',
      async () => {
        const states = await Promise.all(
          cluster.nodes.map(async (name) => readiness(await node(name)).status),
        );
        expect(states).toEqual(cluster.nodes.map(() => 'True'));
      },
      180,
    );
    for (const workload of ['daemonset/weft-agent', 'deployment/weft-controller']) {
      await cluster.kubectl(['-n', 'weft-system', 'rollout', 'status', workload, '--timeout=120s']);
    }
    await eventually(
      'two pods of the Deployment on each node, ready',
      async () => {
        const placed = (await pods(`app=${WEB}`)).filter(isReady).map(({ spec }) => spec.nodeName ?? '');
        expect(placed.sort()).toEqual(cluster.nodes.flatMap((name) => [name, name]));
        expect(placed).toHaveLength(WEB_PODS);
      },
      120,
    );
    await cluster.kubectl(['-n', 'kube-system', 'rollout', 'status', 'deployment/coredns', '--timeout=60s']);
    const holders = (await subnets()).map(({ spec }) => spec.nodeName);
    expect([...new Set(holders)].sort()).toEqual(cluster.nodes);
    await eventually('the pool is Ready', async () => {
      const conditions = (await pool(POOL_NAME)).status?.conditions ?? [];
      expect(conditions.find(({ type }) => type === 'Ready')?.status).toBe('True');
    });
  });
}
