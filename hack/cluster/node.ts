import { randomUUID } from 'node:crypto';
import { copyFile, cp, mkdir, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { REFERENCE_PLUGINS } from './binaries.ts';
import { writeKubeconfig } from './certificates.ts';
import { hierarchies, killCgroup, makeCgroup, moveInto, removeCgroup } from './cgroups.ts';
import type { ControlPlaneCredentials } from './control-plane.ts';
import { addressed, connectNode, runInside, type Fabric } from './fabric.ts';
import {
  containerdConfig,
  kubeletConfig,
  kubeProxyConfig,
  NODE_BINARIES,
  NODE_DIRECTORY,
} from './node-config.ts';
import { entering, holderPart, joining, namespacesReady, type NamespaceKind, type Parts } from './parts.ts';
import type { NodePlan, Plan, Quirk } from './plan.ts';
import type { ProcessRecord } from './processes.ts';

/** What every node of a cluster is made with. */
export type NodeContext = {
  readonly directory: string;
  readonly cgroup: string;
  readonly binaries: string;
  readonly plan: Plan;
  readonly parts: Parts;
  readonly fabric: Fabric;
  readonly credentials: ControlPlaneCredentials;
};

const NODE_NAMESPACES: readonly NamespaceKind[] = ['net', 'mnt', 'uts', 'cgroup'];

/** Below the node's cgroup, whose other children are its containers: in version 2, processes are in leaves. */
const DAEMONS = 'daemons';

/**
 * Makes sure that the node's machine is on: its namespaces, cable, addresses and mounts. A node that is off is
 * booted: with an empty /run and a new boot ID, while /var/lib, /etc and /opt are as they were.
 */
export async function bootNode(context: NodeContext, node: NodePlan): Promise<ProcessRecord> {
  const { parts } = context;
  const running = await parts.find(node.name);
  if (running !== undefined && (await parts.isSetUp(node.name))) return running;
  await turnOffNode(context, node.name);
  await writeNodeFiles(context, node);
  await makeCgroup(join(context.cgroup, node.name, DAEMONS));
  const { record } = await parts.ensure(holderPart(node.name, node.name, NODE_NAMESPACES));
  await namespacesReady(record, NODE_NAMESPACES);
  await runInside(record, beforeCableScript(node));
  await connectNode(context.fabric, node, record);
  await runInside(record, addressScript(context.plan, node));
  await mountOwnFolders(context, node, record);
  if (node.quirks.includes('router-advertisement')) await defaultRouteLearnt(node, record);
  await parts.markSetUp(node.name);
  return record;
}

/** Pulls the plug: every process of the node ends at once, and its namespaces with them. */
export async function turnOffNode(context: Pick<NodeContext, 'cgroup'>, nodeName: string): Promise<void> {
  const cgroup = join(context.cgroup, nodeName);
  await killCgroup(cgroup);
  await removeCgroup(cgroup);
}

/** Starts containerd if it is not running, and waits until it answers. */
export async function startRuntime(
  context: NodeContext,
  node: NodePlan,
  holder: ProcessRecord,
): Promise<void> {
  await context.parts.ensure(
    daemon(node, holder, 'containerd', ['--config', `${NODE_DIRECTORY}/config/containerd.toml`]),
  );
  const deadline = performance.now() + 30_000;
  for (;;) {
    const [command, ...args] = await nodeCommand(context, node.name, holder, ['ctr', 'version']);
    const answer = await execa(command, args, { reject: false });
    if (answer.exitCode === 0) return;
    if (performance.now() > deadline) {
      throw new NodeError(node.name, `containerd does not answer: ${answer.stderr}`, context.parts);
    }
    await sleep(100);
  }
}

/** Starts kubelet and kube-proxy where they are not running. Needs containerd and the apiserver. */
export async function startNodeAgents(
  context: NodeContext,
  node: NodePlan,
  holder: ProcessRecord,
): Promise<void> {
  const { parts } = context;
  await parts.ensure(
    daemon(node, holder, 'kubelet', [
      `--config=${NODE_DIRECTORY}/config/kubelet.json`,
      `--kubeconfig=${NODE_DIRECTORY}/config/kubelet.kubeconfig`,
      `--hostname-override=${node.name}`,
      `--node-ip=${node.ipv4},${node.ipv6}`,
      `--node-labels=weft.dev/segment=${node.segment}`,
      '--v=1',
    ]),
  );
  await parts.ensure(
    daemon(node, holder, 'kube-proxy', [`--config=${NODE_DIRECTORY}/config/kube-proxy.json`]),
  );
}

/**
 * The whole command line that runs `command` inside the node: its network, mounts, name and cgroup, with the
 * cluster's binaries on PATH. What it starts ends with the node.
 */
export async function nodeCommand(
  context: Pick<NodeContext, 'cgroup'>,
  nodeName: string,
  holder: ProcessRecord,
  command: readonly string[],
): Promise<[string, ...string[]]> {
  const environment = [`PATH=${NODE_BINARIES}:${process.env.PATH ?? ''}`, 'CNI_PATH=/opt/cni/bin'];
  const enter = entering(holder, NODE_NAMESPACES);
  return joining(join(context.cgroup, nodeName, DAEMONS), [...enter, 'env', ...environment, ...command]);
}

/** A node or its runtime does not come up. */
export class NodeError extends Error {
  override name = 'NodeError' as const;
  readonly node: string;
  constructor(node: string, reason: string, parts: Pick<Parts, 'logFile'>) {
    super(`${node}: ${reason}; logs are beside ${parts.logFile(`${node}.kubelet`)}`);
    this.node = node;
  }
}

const daemon = (node: NodePlan, holder: ProcessRecord, name: string, args: readonly string[]) => {
  const [command = 'nsenter', ...enter] = entering(holder, NODE_NAMESPACES);
  const path = `${NODE_BINARIES}:${process.env.PATH ?? ''}`;
  return {
    name: `${node.name}.${name}`,
    group: join(node.name, DAEMONS),
    command,
    args: [...enter, `${NODE_BINARIES}/${name}`, ...args],
    env: { PATH: path },
  };
};

/** The files of a node's own, below its folder; what it keeps over a reboot stays as it is. */
async function writeNodeFiles(context: NodeContext, node: NodePlan): Promise<void> {
  const { plan, credentials } = context;
  const directory = join(context.directory, 'nodes', node.name);
  const config = join(directory, 'config');
  for (const folder of [
    'config',
    'etc',
    'etc.work',
    'opt',
    'opt.work',
    'cni/config/net.d',
    'cni/plugins/bin',
    'lib',
    'log',
    'sys',
    'run',
  ]) {
    await mkdir(join(directory, folder), { recursive: true });
  }
  await copyFile(credentials.authority.certificateFile, join(config, 'ca.crt'));
  const server = `https://${plan.controlPlane.ipv4}:${plan.controlPlane.port}`;
  const users = {
    kubelet: { commonName: `system:node:${node.name}`, organizations: ['system:nodes'] },
    'kube-proxy': { commonName: 'system:kube-proxy', organizations: [] },
  };
  for (const [name, user] of Object.entries(users)) {
    const pair = await credentials.authority.issue({ name: `${node.name}-${name}`, ...user });
    await writeKubeconfig(join(config, `${name}.kubeconfig`), server, credentials.authority, pair);
  }
  const json = (name: string, content: object) =>
    writeFile(join(config, name), `${JSON.stringify(content, null, 2)}\n`);
  await json('kubelet.json', kubeletConfig(plan));
  await json('kube-proxy.json', kubeProxyConfig(plan, node));
  await writeFile(join(config, 'containerd.toml'), containerdConfig(await snapshotterFor(directory)));
  await writeFile(join(directory, 'etc', 'resolv.conf'), 'nameserver 203.0.113.1\n');
  await writeFile(join(directory, 'etc', 'hostname'), `${node.name}\n`);
  for (const plugin of REFERENCE_PLUGINS) {
    await cp(join(context.binaries, plugin), join(directory, 'cni/plugins/bin', plugin), {
      dereference: true,
    });
  }
}

/** overlayfs does not work on top of itself, as where the state lies in a container's file system. */
async function snapshotterFor(directory: string): Promise<string> {
  const OVERLAYFS = 0x794c7630;
  return (await statfs(directory)).type === OVERLAYFS ? 'native' : 'overlayfs';
}

/** What was there before the cable: a link made first has the lower index, and its address is preferred. */
const BEFORE_CABLE: Record<Quirk, readonly string[]> = {
  docker0: [
    'ip link add docker0 type bridge',
    'ip address add 172.17.0.1/16 dev docker0',
    'ip link set docker0 up',
  ],
  'strict-rp-filter': [
    'echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter',
    'echo 1 >/proc/sys/net/ipv4/conf/default/rp_filter',
  ],
  'forward-drop': ['iptables -P FORWARD DROP', 'ip6tables -P FORWARD DROP'],
  'router-advertisement': ['echo 1 >/proc/sys/net/ipv6/conf/default/accept_ra'],
};

function beforeCableScript(node: NodePlan): string[] {
  return [
    'ip link set lo up',
    // A new namespace has what the host has; here every node begins alike, forwarding nothing.
    'echo 0 >/proc/sys/net/ipv4/ip_forward',
    'echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter',
    'echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter',
    'echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra',
    ...node.quirks.flatMap((quirk) => BEFORE_CABLE[quirk]),
  ];
}

function addressScript(plan: Plan, node: NodePlan): string[] {
  const gateway = plan.segments[node.segment]?.gateway;
  if (gateway === undefined) return [];
  return [
    ...addressed('eth0', node),
    'ip link set eth0 up',
    `ip route add default via ${gateway.ipv4}`,
    ...(node.quirks.includes('router-advertisement') ? [] : [`ip -6 route add default via ${gateway.ipv6}`]),
  ];
}

/**
 * Gives the node its own /run, /etc, /opt, /var/lib, /var/log, /sys and boot ID, in its own mount namespace;
 * all mounts there are shared with the mount namespaces of its containers, as on a machine with systemd.
 */
async function mountOwnFolders(context: NodeContext, node: NodePlan, holder: ProcessRecord): Promise<void> {
  const directory = join(context.directory, 'nodes', node.name);
  const overlay = (name: string) =>
    `mount -n -t overlay overlay -o "lowerdir=/${name},upperdir=$node/${name},workdir=$node/${name}.work" /${name}`;
  const script = [
    `hostname ${node.name}`,
    // sysfs shows the network of whoever mounts it, and a new one lacks the cgroups: carry them over, of each
    // hierarchy only what is below the node's own. The holder itself moves to a leaf.
    'mount -n --rbind /sys/fs/cgroup "$directory/sys"',
    'mount -n -t sysfs sysfs /sys',
    'mount -n --rbind "$directory/sys" /sys/fs/cgroup',
    'umount -n --recursive --lazy "$directory/sys"',
    ...(await hierarchies()).map(
      (root) => `mount -n --bind ${join(root, context.cgroup, node.name)} ${root}`,
    ),
    // Filled before it hides the old one, in which our own folders may lie.
    'mount -n -t tmpfs -o mode=0755 tmpfs "$directory/run"',
    'mkdir -p "$directory/run/local-cluster/node" "$directory/run/local-cluster/bin" "$directory/run/lock"',
    'mount -n --bind "$directory" "$directory/run/local-cluster/node"',
    'mount -n --bind "$binaries" "$directory/run/local-cluster/bin"',
    'mount -n --move "$directory/run" /run',
    `node=${NODE_DIRECTORY}`,
    overlay('etc'),
    overlay('opt'),
    // Not merged with the host's: a network configuration there is not the node's.
    'mkdir -p /etc/cni /opt/cni',
    'mount -n --bind "$node/cni/config" /etc/cni',
    'mount -n --bind "$node/cni/plugins" /opt/cni',
    'mount -n --bind "$node/lib" /var/lib',
    'mount -n --bind "$node/log" /var/log',
    // Nodes share a kernel, not a boot: what asks for the boot ID gets the node's own.
    `echo ${randomUUID()} >/run/weft-boot-id`,
    'mount -n --bind /run/weft-boot-id /proc/sys/kernel/random/boot_id',
    'mount -n --make-rshared /',
  ];
  const [command = 'nsenter', ...enter] = entering(holder, NODE_NAMESPACES);
  await execa(command, [...enter, 'sh', '-eu'], {
    input: `${script.join('\n')}\n`,
    env: { directory, binaries: context.binaries },
  });
  await moveInto(join(context.cgroup, node.name, DAEMONS), holder.pid);
}

/** Waits for the router's first advertisement. */
async function defaultRouteLearnt(node: NodePlan, holder: ProcessRecord): Promise<void> {
  const [command = 'nsenter', ...enter] = entering(holder, ['net']);
  const deadline = performance.now() + 30_000;
  while ((await execa(command, [...enter, 'ip', '-6', 'route', 'show', 'default'])).stdout === '') {
    if (performance.now() > deadline) throw new RouterSilentError(node.name);
    await sleep(100);
  }
}

export class RouterSilentError extends Error {
  override name = 'RouterSilentError' as const;
  constructor(node: string) {
    super(`${node}: no router advertisement came within 30 s; logs/radvd.log says why`);
  }
}
