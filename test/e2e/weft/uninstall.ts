import { join } from 'node:path';
import { expect, it } from 'vitest';
import { nodeDump } from './node-dump.ts';
import { lostPaths } from './paths.ts';
import { isReady, type Stage } from './stage.ts';

const CONFIG = join(import.meta.dirname, '..', '..', '..', 'config');
const NAMESPACE = 'weft-uninstall';

/**
 * F34 with a real runtime: weft is taken away while pods run, they go on, they can be deleted, and their nodes are left
 * as they were. Not on a cluster that is to be used again.
 */
export function uninstallTests(stage: () => Stage): void {
  it.skipIf(process.env.WEFT_E2E_KEEP === '1')(
    'leaves every node as it was, once its last pod has gone (F34)',
    { timeout: 600_000 },
    async () => {
      const { cluster, eventually, pods } = stage();
      const logs = () =>
        cluster.kubectl(['-n', NAMESPACE, 'logs', '-l', `app.kubernetes.io/name=${NAMESPACE}`, '--prefix']);
      await cluster.kubectl(['delete', '-k', join(CONFIG, 'weft'), '--timeout=120s']);
      await cluster.kubectl(['apply', '-k', join(CONFIG, 'uninstall')]);
      await eventually('every node that has pods waits for them', async () => {
        const clearing = await pods('', NAMESPACE);
        expect(clearing.map(({ status }) => status.phase)).toEqual(cluster.nodes.map(() => 'Running'));
        expect(clearing.filter(isReady)).toEqual([]);
        expect((await logs()).match(/interfaces? of (a pod|pods) lives? on this node/g)).not.toBeNull();
      });
      expect(await lostPaths(stage()), 'pods go on without weft').toEqual([]);

      for (const namespace of ['default', 'kube-system']) {
        await cluster.kubectl(['-n', namespace, 'delete', 'deployment', '--all', '--timeout=60s']);
        await eventually(
          `the pods of ${namespace} are deleted, without an agent`,
          async () => expect(await pods('', namespace)).toEqual([]),
          120,
        );
      }
      const status = ['rollout', 'status', `daemonset/${NAMESPACE}`, '--timeout=120s'];
      await cluster.kubectl(['-n', NAMESPACE, ...status]);
      for (const node of cluster.nodes) {
        expect(await nodeDump(cluster, node), `${node}\n${await logs()}`).toEqual(stage().before.get(node));
      }
      await cluster.kubectl(['delete', '-k', join(CONFIG, 'uninstall'), '--timeout=60s']);
      for (const node of cluster.nodes) {
        expect(await nodeDump(cluster, node), node).toEqual(stage().before.get(node));
      }
    },
  );
}
