import { join } from 'node:path';
import type { Cluster } from './cluster/open.ts';
import { step, type Progress } from './cluster/progress.ts';
import { buildForImage } from './build.ts';
import { buildImage } from './image.ts';

/**
 * Installs weft into a cluster by the manifests that a user applies, its image built from this checkout, and
 * applies `manifests` (YAML or JSON) with it, such as an IPPool. Answers when agents and controller have been
 * rolled out and every node is Ready. Can be repeated: what has not changed stays.
 * Throws execa's errors, and what buildImage throws.
 */
export async function installWeft(cluster: Cluster, manifests: string, progress: Progress): Promise<void> {
  const root = join(import.meta.dirname, '..');
  await step(progress, 'building executable and bundles', () => buildForImage());
  const archive = await buildImage(progress);
  await step(progress, "the image into the nodes' containerd", () => cluster.importImage(archive));
  await step(progress, 'kubectl apply -k config/default', () =>
    cluster.kubectl(['apply', '-k', join(root, 'config', 'default')]),
  );
  // The apiserver needs a moment to serve a kind that has just been defined.
  await cluster.kubectl(['wait', '--for=condition=Established', 'crd', ...KINDS, '--timeout=60s']);
  await cluster.kubectl(['apply', '-f', '-'], manifests);
  await step(progress, 'agents, controller and nodes', async () => {
    for (const workload of ['daemonset/weft-agent', 'deployment/weft-controller']) {
      await cluster.kubectl(['-n', 'weft-system', 'rollout', 'status', workload, '--timeout=180s']);
    }
    await cluster.kubectl(['wait', '--for=condition=Ready', 'nodes', '--all', '--timeout=120s']);
  });
}

const KINDS = ['ippools.ipam.weft.dev', 'nodesubnets.ipam.weft.dev', 'ipallocations.ipam.weft.dev'];
