import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildForImage } from '../../../hack/build.ts';
import { upCluster } from '../../../hack/cluster/cluster.ts';
import { downCluster } from '../../../hack/cluster/down.ts';
import type { Cluster } from '../../../hack/cluster/open.ts';
import { stderrProgress, step } from '../../../hack/cluster/progress.ts';
import { readState } from '../../../hack/cluster/state.ts';
import { buildImage } from '../../../hack/image.ts';
import { nodeDumps } from './node-dump.ts';
import { openStage, type Stage } from './stage.ts';
import { deployment, pool, POOL_NAME, service, WEB, WEB_PODS } from './workload.ts';

/** Another one, so that two checkouts can be tested at once. */
export const CLUSTER_NAME = process.env.WEFT_E2E_NAME ?? 'e2e';

/** With WEFT_E2E_KEEP=1 the cluster is left running and used again: for whoever writes tests. */
const KEEP = process.env.WEFT_E2E_KEEP === '1';

/** A node with this label has no agent of the DaemonSet. */
export const NO_AGENT_LABEL = 'weft.dev/e2e-agent';

/**
 * Brings up a cluster and applies everything to it at once: the kinds, weft, a pool, a Deployment and its Service,
 * while no node has ever been Ready. Answers as soon as the apiserver has taken it all.
 */
export async function bringUp(): Promise<Stage> {
  const progress = stderrProgress();
  if (KEEP && (await readState(CLUSTER_NAME)) !== undefined) {
    return openStage(await upCluster({ name: CLUSTER_NAME }, progress));
  }
  await downCluster(CLUSTER_NAME, progress);
  await step(progress, 'building executable and bundles', () => buildForImage());
  const archive = await buildImage(progress);
  const cluster = await upCluster({ name: CLUSTER_NAME, nodes: 3, segments: 2 }, progress);
  await step(progress, 'the image into the nodes', () => cluster.importImage(archive));
  await requireNeverReady(cluster);
  const before = await nodeDumps(cluster);
  await step(progress, 'applying everything at once', () => applyEverything(cluster));
  return openStage(cluster, before);
}

/** Removes the cluster, unless it is to be kept. */
export async function takeDown(stage: Stage | undefined): Promise<void> {
  await stage?.close();
  if (!KEEP) await downCluster(CLUSTER_NAME, stderrProgress());
}

/** The cluster is not as fresh as the tests need it. */
export class NodeReadyTooEarlyError extends Error {
  override name = 'NodeReadyTooEarlyError' as const;
  constructor(states: string) {
    super(`before weft is there no node can be Ready, but their conditions are: ${states}`);
  }
}

async function requireNeverReady(cluster: Cluster): Promise<void> {
  const path = '{range .items[*].status.conditions[?(@.type=="Ready")]}{.status} {end}';
  const states = await cluster.kubectl(['get', 'nodes', '-o', `jsonpath=${path}`]);
  if (states.includes('True')) throw new NodeReadyTooEarlyError(states);
}

/**
 * The manifests that a user applies, by an overlay that adds a pool and a workload and shortens the durations.
 * The apiserver cannot take an object of a kind that is defined by the same call, so the same command is repeated,
 * as whoever keeps it in git does.
 */
async function applyEverything(cluster: Cluster): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-e2e-'));
  try {
    await writeFile(join(directory, 'kustomization.yaml'), JSON.stringify(overlay(directory)));
    const objects = [
      pool(POOL_NAME, ['10.244.0.0/24', 'fd00:10:244::/64']),
      deployment(WEB, WEB_PODS),
      service(WEB),
    ];
    const list = { apiVersion: 'v1', kind: 'List', items: objects };
    await writeFile(join(directory, 'workload.yaml'), JSON.stringify(list));
    for (let attempt = 1; ; attempt++) {
      try {
        await cluster.kubectl(['apply', '-k', directory]);
        return;
      } catch (error) {
        if (attempt === 5) throw error;
      }
      await sleep(1_000);
    }
  } finally {
    await rm(directory, { recursive: true });
  }
}

function overlay(directory: string): object {
  const config = join(import.meta.dirname, '..', '..', '..', 'config', 'default');
  const affinity = {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [
          { matchExpressions: [{ key: NO_AGENT_LABEL, operator: 'NotIn', values: ['off'] }] },
        ],
      },
    },
  };
  const patch = (kind: string, flags: readonly string[], more: readonly object[] = []) => ({
    target: { kind, namespace: 'weft-system' },
    patch: JSON.stringify([
      ...flags.map((value) => ({ op: 'add', path: '/spec/template/spec/containers/0/args/-', value })),
      ...more,
    ]),
  });
  return {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    resources: [relative(directory, config), 'workload.yaml'],
    patches: [
      patch(
        'DaemonSet',
        [...AGENT_FLAGS, `--boot-id=${BOOT_ID_IN_POD}`],
        [
          { op: 'add', path: '/spec/template/spec/affinity', value: affinity },
          // The nodes share a kernel: each one's boot ID is a file of its own, which a container's /proc hides.
          {
            op: 'add',
            path: '/spec/template/spec/volumes/-',
            value: { name: 'boot-id', hostPath: { path: '/proc/sys/kernel/random/boot_id', type: 'File' } },
          },
          {
            op: 'add',
            path: '/spec/template/spec/containers/0/volumeMounts/-',
            value: { name: 'boot-id', mountPath: BOOT_ID_IN_POD, readOnly: true },
          },
        ],
      ),
      patch('Deployment', CONTROLLER_FLAGS),
    ],
  };
}

const BOOT_ID_IN_POD = '/host/boot-id';

export const GRACE_SECONDS = 15;

/** Short, so that no test waits for minutes. */
export const AGENT_FLAGS = [
  '--sweep-seconds=5',
  `--grace-seconds=${GRACE_SECONDS}`,
  '--give-back-seconds=10',
  '--quarantine-seconds=10',
];
const CONTROLLER_FLAGS = [
  '--quarantine-seconds=10',
  '--status-seconds=2',
  '--pool-deletion-seconds=5',
  '--lease-seconds=5',
  '--sticky-keep-seconds=10',
];
