import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { upCluster } from './cluster/cluster.ts';
import { TEST_IMAGE } from './cluster/node-config.ts';
import { step, stderrProgress } from './cluster/progress.ts';
import { installWeft } from './install-weft.ts';
import { measurePaths, placedPods, reachabilityTable } from './reachability.ts';

// npm run demo: the whole way once. A cluster, weft by the manifests that a user applies, an IPPool, a Deployment,
// and what one sees then. Run again it reuses what is there. Ends non-zero if any path fails.

const progress = stderrProgress();
const PODS_PER_NODE = 2;

const cluster = await upCluster({ nodes: 3, segments: 2 }, progress);
const pool = await readFile(join(import.meta.dirname, '..', 'config', 'samples', 'pod-network.yaml'), 'utf8');
await installWeft(cluster, pool, progress);
await step(progress, 'a Deployment with pods on every node', async () => {
  await cluster.kubectl(
    ['apply', '-f', '-'],
    JSON.stringify(deployment(cluster.nodes.length * PODS_PER_NODE)),
  );
  await cluster.kubectl(['rollout', 'status', 'deployment/demo', '--timeout=180s']);
});
await step(progress, "the pool's figures", async () => {
  await cluster.kubectl(['wait', '--for=condition=Ready', 'ippools', '--all', '--timeout=90s']);
});

for (const args of [
  ['get', 'ippools'],
  ['get', 'nodesubnets'],
  ['get', 'ipallocations'],
  ['get', 'pods', '-o', 'wide'],
]) {
  console.log(`\n$ kubectl ${args.join(' ')}\n${(await cluster.kubectl(args)).trimEnd()}`);
}

const pods = await placedPods(cluster, 'app=demo');
const paths = await step(progress, 'measuring every path, both families', () => measurePaths(cluster, pods));
console.log(`\nEvery path between the nodes, by packets sent from the pods (mean round trip):\n`);
console.log(reachabilityTable(paths));

const lost = paths.filter(({ milliseconds }) => milliseconds === undefined);
// Per node and family: two paths to each of the nodes.
const expected = cluster.nodes.length * cluster.nodes.length * 2 * 2;
console.log(`\n${paths.length - lost.length} of ${expected} paths work.`);
console.log(`
The cluster is running. To use it:    eval "$(npm run -s cluster -- env)"    and then kubectl
To remove it:                         npm run cluster -- down`);
if (paths.length < expected || lost.length > 0) {
  console.error('Some paths do not work: see above, and kubectl -n weft-system get pods -o wide');
  process.exitCode = 1;
}

function deployment(replicas: number): object {
  const labels = { app: 'demo' };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'demo' },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          terminationGracePeriodSeconds: 1,
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: 'kubernetes.io/hostname',
              whenUnsatisfiable: 'DoNotSchedule',
              labelSelector: { matchLabels: labels },
            },
          ],
          containers: [{ name: 'server', image: TEST_IMAGE, imagePullPolicy: 'IfNotPresent' }],
        },
      },
    },
  };
}
