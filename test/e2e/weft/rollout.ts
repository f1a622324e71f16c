import { expect, it } from 'vitest';
import { addressesOf, lostPaths } from './paths.ts';
import { isReady, type Stage } from './stage.ts';
import { deployment } from './workload.ts';

/** Two versions of the DaemonSet share each node for a moment: one serves, the other stands by, Ready. */
export function rolloutTests(stage: () => Stage): void {
  it('ends a rollout of the agents while pods go on getting addresses', async () => {
    const { cluster, eventually, pods } = stage();
    const agents = async () => pods('app.kubernetes.io/name=weft-agent', 'weft-system');
    const before = (await agents()).map(({ metadata }) => metadata.uid);
    const version = { spec: { template: { metadata: { annotations: { version: `${Date.now()}` } } } } };
    await cluster.kubectl([
      ...['-n', 'weft-system', 'patch', 'daemonset', 'weft-agent', '--patch', JSON.stringify(version)],
    ]);
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(deployment('meanwhile', 6)));
    await cluster.kubectl(['rollout', 'status', 'deployment/meanwhile', '--timeout=90s']);
    const status = ['rollout', 'status', 'daemonset/weft-agent', '--timeout=240s'];
    await cluster.kubectl(['-n', 'weft-system', ...status]);

    await eventually('the old agents are gone', async () => {
      const now = await agents();
      expect(now.filter(({ metadata }) => before.includes(metadata.uid))).toEqual([]);
      expect(now.filter(isReady)).toHaveLength(cluster.nodes.length);
    });
    const started = await pods('app=meanwhile');
    expect(started.map((pod) => addressesOf(pod).length)).toEqual(started.map(() => 2));
    expect(await lostPaths(stage())).toEqual([]);
    await cluster.kubectl(['delete', 'deployment', 'meanwhile', '--wait=false']);
  });
}
