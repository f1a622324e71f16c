import { access, mkdir, symlink, unlink, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { dnsAddon } from './addons.ts';
import { ensureBinaries } from './binaries.ts';
import { writeKubeconfig } from './certificates.ts';
import { cgroupExists, killCgroup, makeCgroup } from './cgroups.ts';
import { controlPlaneCredentials, type ControlPlaneCredentials } from './control-plane.ts';
import { announceRouter, findFabric, makeFabric, serveOutside, type Fabric } from './fabric.ts';
import { ensureImages } from './images.ts';
import { withFileLock } from './lock.ts';
import { bootNode, startNodeAgents, startRuntime, turnOffNode, type NodeContext } from './node.ts';
import { importImageInto, openCluster, type Cluster } from './open.ts';
import { openParts } from './parts.ts';
import { DEFAULT_OPTIONS, planCluster, type ClusterOptions, type NodePlan } from './plan.ts';
import { step, type Progress } from './progress.ts';
import { startControllers, startStore } from './servers.ts';
import { createState, lockFile, readState, stateDirectory, type ClusterState } from './state.ts';

/**
 * Makes the cluster, or repairs the one of that name: what lives stays, what has died is started again, so a
 * second call is the way to mend a cluster. Answers when every node is registered; they are NotReady until
 * something gives them a network. Options left out are the cluster's, or the defaults for a new one.
 * Throws ClusterMismatchError, ForeignThingError and the errors of the parts.
 */
export async function upCluster(wanted: Partial<ClusterOptions>, progress: Progress): Promise<Cluster> {
  const name = wanted.name ?? DEFAULT_OPTIONS.name;
  const binaries = await ensureBinaries(undefined, progress);
  return withFileLock(
    lockFile(name),
    async () => {
      const state = await stateOf(name, wanted);
      const context = await step(progress, `network of ${state.options.nodes} nodes`, () =>
        connect(state, binaries),
      );
      await startAll(context, state, progress);
      return openCluster(name);
    },
    () => progress(`waiting for another process that changes cluster ${name}`),
  );
}

/**
 * A crash and a start of the node's machine: all its processes end at once, /run is empty and the boot ID
 * another afterwards; disks are as they were. Answers when containerd, kubelet and kube-proxy run again.
 */
export async function rebootNode(name: string, nodeName: string): Promise<void> {
  const state = await stateOf(name, {});
  const context = await connect(state, await ensureBinaries());
  const node = context.plan.nodes.find((candidate) => candidate.name === nodeName);
  if (node === undefined) throw new NoSuchNodeError(nodeName, context.plan.nodes);
  await turnOffNode(context, nodeName);
  const holder = await bootNode(context, node);
  await startRuntime(context, node, holder);
  await startNodeAgents(context, node, holder);
}

/** The running cluster is another than the one asked for. */
export class ClusterMismatchError extends Error {
  override name = 'ClusterMismatchError' as const;
  constructor(name: string, option: string, has: unknown, wanted: unknown) {
    super(
      `cluster ${name} has ${option} ${JSON.stringify(has)}, not ${JSON.stringify(wanted)}; remove it first ` +
        `(npm run cluster -- down --name ${name}), or take another --name`,
    );
  }
}

/** Something that we did not make stands where we would make our own. */
export class ForeignThingError extends Error {
  override name = 'ForeignThingError' as const;
  constructor(what: string) {
    super(
      `${what} is there already and not by this program; it is left alone. Remove it, or take another --name`,
    );
  }
}

export class NoSuchNodeError extends Error {
  override name = 'NoSuchNodeError' as const;
  constructor(value: string, nodes: readonly NodePlan[]) {
    super(`there is no ${value} in this cluster; there are ${nodes.map((node) => node.name).join(', ')}`);
  }
}

async function stateOf(name: string, wanted: Partial<ClusterOptions>): Promise<ClusterState> {
  const found = await readState(name);
  if (found === undefined) return newState({ ...DEFAULT_OPTIONS, ...wanted, name });
  for (const option of ['nodes', 'segments', 'bare', 'poolCidrs'] as const) {
    const value = wanted[option];
    if (value !== undefined && JSON.stringify(value) !== JSON.stringify(found.options[option])) {
      throw new ClusterMismatchError(name, option, found.options[option], value);
    }
  }
  return found;
}

async function newState(options: ClusterOptions): Promise<ClusterState> {
  const interfaces = networkInterfaces();
  const link = `${options.name}-api`;
  if ((await execa('ip', ['link', 'show', link], { reject: false })).exitCode === 0) {
    throw new ForeignThingError(`link ${link}`);
  }
  const addresses = Object.values(interfaces).flatMap((list) => (list ?? []).map(({ address }) => address));
  const free = Array.from({ length: 256 }, (_, network) => network).find(
    (network) => !addresses.some((address) => address.startsWith(`198.19.${network}.`)),
  );
  if (free === undefined) throw new ForeignThingError('every network of 198.19.0.0/16');
  const cgroup = `weft-cluster-${options.name}`;
  if (await cgroupExists(cgroup)) throw new ForeignThingError(`cgroup ${cgroup}`);
  return createState(options, free);
}

/** The network, made if it is not there. A network without one of its parts takes everything down with it. */
async function connect(state: ClusterState, binaries: string): Promise<NodeContext> {
  const directory = stateDirectory(state.options.name);
  const plan = planCluster(state.options);
  const parts = openParts(directory, state.cgroup);
  let fabric: Fabric | undefined = await findFabric(parts);
  if (fabric === undefined) {
    await killCgroup(state.cgroup);
    await hostLinkGone(state);
    await makeCgroup(state.cgroup);
    fabric = await makeFabric(parts, plan, state, join(directory, 'fabric'));
  }
  await announceRouter(parts, plan, fabric.router, join(directory, 'fabric'));
  await serveOutside(parts, fabric.router, join(directory, 'fabric', 'www'));
  const credentials = await credentialsOf(state, directory);
  return { directory, cgroup: state.cgroup, binaries, plan, parts, fabric, credentials };
}

/** The kernel removes a veth a moment after the namespace of its other end. */
async function hostLinkGone(state: ClusterState): Promise<void> {
  const { name } = state.hostLink;
  while ((await execa('ip', ['link', 'show', name], { reject: false })).exitCode === 0) {
    const { stdout } = await execa('ip', ['link', 'show', name], { reject: false });
    if (!stdout.includes(state.hostLink.alias)) throw new ForeignThingError(`link ${name}`);
    await execa('ip', ['link', 'delete', name], { reject: false });
    await sleep(20);
  }
}

function credentialsOf(state: ClusterState, directory: string): Promise<ControlPlaneCredentials> {
  const { controlPlane, apiService } = planCluster(state.options);
  return controlPlaneCredentials(join(directory, 'control-plane', 'pki'), [
    state.hostLink.controlPlane,
    ...[controlPlane.ipv4, controlPlane.ipv6, apiService.ipv4, apiService.ipv6, '127.0.0.1'],
  ]);
}

/** Control plane and nodes come up side by side; only the kubelets wait for the apiserver. */
async function startAll(context: NodeContext, state: ClusterState, progress: Progress): Promise<void> {
  const { credentials, directory, plan } = context;
  const url = `https://${state.hostLink.controlPlane}:${plan.controlPlane.port}`;
  const kubeconfig = await writeKubeconfig(
    join(directory, 'kubeconfig'),
    url,
    credentials.authority,
    credentials.admin,
  );
  await linkPrograms(context);
  const apiserver = step(progress, 'etcd and kube-apiserver', () => startStore(context, url)).then(
    async () => {
      await startControllers(context);
      await applyAddons(context, kubeconfig);
    },
  );
  const archive = ensureImages(context.binaries);
  const machines = step(progress, 'machines, containerd and images', () =>
    Promise.all(plan.nodes.map((node) => startMachine(context, node, archive))),
  );
  // Both are awaited to their end before a failure of either is thrown: nothing goes on behind our back.
  const [ready, holders] = await Promise.allSettled([apiserver, machines]);
  if (ready.status === 'rejected') throw ready.reason;
  if (holders.status === 'rejected') throw holders.reason;
  await step(progress, 'kubelets and their nodes', async () => {
    await Promise.all(holders.value.map(({ node, holder }) => startNodeAgents(context, node, holder)));
    await nodesRegistered(context, kubeconfig);
  });
}

async function startMachine(context: NodeContext, node: NodePlan, images: Promise<string>) {
  const holder = await bootNode(context, node);
  await startRuntime(context, node, holder);
  const archive = await images;
  // A mark beside the images themselves: they and it last as long as the node's disk.
  const mark = join(context.directory, 'nodes', node.name, 'lib', `has-${basename(archive)}`);
  if (!(await exists(mark))) {
    await importImageInto(context, node.name, holder, archive);
    await writeFile(mark, '');
  }
  return { node, holder };
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

const DIST = join(import.meta.dirname, '../../dist');

/**
 * kubectl, cnitool and ctr alone, so that nothing else on the user's PATH is hidden; and kubectl's plugin of this
 * checkout, which is there once it has been built.
 */
async function linkPrograms(context: NodeContext): Promise<void> {
  const folder = join(context.directory, 'bin');
  await mkdir(folder, { recursive: true });
  const targets = [
    ...['kubectl', 'cnitool', 'ctr'].map((program) => join(context.binaries, program)),
    ...['kubectl-weft', 'kubectl_complete-weft'].map((program) => join(DIST, program)),
  ];
  for (const target of targets) {
    const link = join(folder, basename(target));
    await unlink(link).catch(() => undefined);
    await symlink(target, link);
  }
}

async function applyAddons(context: NodeContext, kubeconfig: string): Promise<void> {
  const manifest = join(context.directory, 'addons.json');
  await writeFile(manifest, JSON.stringify(dnsAddon(context.plan)));
  const kubectl = join(context.binaries, 'kubectl');
  await execa(kubectl, ['--kubeconfig', kubeconfig, 'apply', '--server-side', '-f', manifest]);
}

async function nodesRegistered(context: NodeContext, kubeconfig: string): Promise<void> {
  const wanted = context.plan.nodes.map((node) => node.name);
  const deadline = performance.now() + 90_000;
  for (;;) {
    const get = ['--kubeconfig', kubeconfig, 'get', 'nodes', '-o', 'name'];
    const { stdout } = await execa(join(context.binaries, 'kubectl'), get);
    const missing = wanted.filter((name) => !stdout.split('\n').includes(`node/${name}`));
    if (missing.length === 0) return;
    if (performance.now() > deadline) throw new NodesMissingError(missing, join(context.directory, 'logs'));
    await sleep(200);
  }
}

export class NodesMissingError extends Error {
  override name = 'NodesMissingError' as const;
  constructor(nodes: readonly string[], logs: string) {
    super(`${nodes.join(', ')} did not register within 90 s; NODE.kubelet.log in ${logs} says why`);
  }
}
