import { expect, it } from 'vitest';
import { expectNothingLost, startPodFlows, toPod, toServiceAndOutside, type FlowPath } from './flows.ts';
import { addressesOf, lostPaths, podOn } from './paths.ts';
import { isReady, type Stage } from './stage.ts';
import { deployment, WEB } from './workload.ts';

/** Two versions of the DaemonSet share each node for a moment: one serves, the other stands by, Ready. */
export function rolloutTests(stage: () => Stage): void {
  it('ends a rollout of the agents without a lost packet, while pods go on getting addresses', async () => {
    const { cluster, eventually, pods } = stage();
    const agents = async () => pods('app.kubernetes.io/name=weft-agent', 'weft-system');
    const before = (await agents()).map(({ metadata }) => metadata.uid);
    const flows = await startPodFlows(stage(), await everyKindOfPath(stage()));
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
    const ended = await flows.end();
    expectNothingLost(ended);
    const sent = ended.reduce((sum, flow) => sum + flow.sent, 0);
    const silence = Math.max(...ended.map(({ longestMs }) => longestMs));
    console.log(`${sent} numbers by ${ended.length} flows; nothing came for ${silence} ms at most`);
    const started = await pods('app=meanwhile');
    expect(started.map((pod) => addressesOf(pod).length)).toEqual(started.map(() => 2));
    expect(await lostPaths(stage())).toEqual([]);
    await cluster.kubectl(['delete', 'deployment', 'meanwhile', '--wait=false']);
  });
}

/**
 * From a pod on each node, both families: to the other pod of that node, to one of the next node (on one link, or
 * through the tunnel), to the Service, and to the outside, masqueraded.
 */
async function everyKindOfPath(stage: Stage): Promise<FlowPath[]> {
  const { nodes } = stage.cluster;
  const running = (await stage.pods(`app=${WEB}`)).filter(isReady);
  const paths = nodes.map(async (node, index) => {
    const from = podOn(running, node);
    const others = running.filter((pod) => pod !== from);
    const next = nodes[(index + 1) % nodes.length] ?? node;
    return [
      ...toPod(from, podOn(others, node), 'a pod of its node'),
      ...toPod(from, podOn(others, next), `a pod on ${next}`),
      ...(await toServiceAndOutside(stage, from)),
    ];
  });
  return (await Promise.all(paths)).flat();
}
