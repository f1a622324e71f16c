import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { writePages } from './images.ts';
import { entering, holderPart, namespacesReady, type Parts } from './parts.ts';
import type { DualStack, NodePlan, Plan } from './plan.ts';
import type { ProcessRecord } from './processes.ts';
import type { ClusterState } from './state.ts';

/** What stands between the nodes: the namespaces of bridges, router and control plane, by their holders. */
export type Fabric = {
  readonly bridges: ProcessRecord;
  readonly router: ProcessRecord;
  readonly controlPlane: ProcessRecord;
};

const HOLDERS = { bridges: 'fabric', router: 'router', controlPlane: 'control-plane' } as const;

/** The living and finished fabric, or undefined. */
export async function findFabric(parts: Parts): Promise<Fabric | undefined> {
  const [bridges, router, controlPlane] = await Promise.all([
    parts.find(HOLDERS.bridges),
    parts.find(HOLDERS.router),
    parts.find(HOLDERS.controlPlane),
  ]);
  if (bridges === undefined || router === undefined || controlPlane === undefined) return undefined;
  return (await parts.isSetUp(HOLDERS.bridges)) ? { bridges, router, controlPlane } : undefined;
}

/**
 * Makes one bridge per segment, the router between them and the control plane's link on segment 0, and the one
 * link to the host. Expects that nothing of it is there.
 */
export async function makeFabric(
  parts: Parts,
  plan: Plan,
  state: ClusterState,
  directory: string,
): Promise<Fabric> {
  const holder = async (name: string) => {
    const { record } = await parts.ensure(holderPart(name, 'fabric', ['net']));
    await namespacesReady(record, ['net']);
    return record;
  };
  const [bridges, router, controlPlane] = await Promise.all([
    holder(HOLDERS.bridges),
    holder(HOLDERS.router),
    holder(HOLDERS.controlPlane),
  ]);
  await runInside(bridges, bridgesScript(plan, router, controlPlane));
  await runInside(router, routerScript(plan));
  await runInside(controlPlane, controlPlaneScript(plan));
  await linkToHost(state, controlPlane);
  await parts.markSetUp(HOLDERS.bridges);
  await announceRouter(parts, plan, router, directory);
  return { bridges, router, controlPlane };
}

/** Router advertisements on segments where a node waits for them. Restarts a dead radvd. */
export async function announceRouter(
  parts: Parts,
  plan: Plan,
  router: ProcessRecord,
  directory: string,
): Promise<void> {
  const announced = plan.segments.filter((segment) => segment.advertised);
  if (announced.length === 0) return;
  await mkdir(directory, { recursive: true });
  const configuration = join(directory, 'radvd.conf');
  const blocks = announced.map(
    (segment) => `interface ${segment.bridge} {
  AdvSendAdvert on;
  MinRtrAdvInterval 3;
  MaxRtrAdvInterval 10;
  prefix ${segment.gateway.ipv6.replace(/::1$/, '::')}/64 { AdvOnLink on; AdvAutonomous off; };
};\n`,
  );
  await writeFile(configuration, blocks.join(''), { mode: 0o644 });
  const args = ['--nodaemon', `--config=${configuration}`, `--pidfile=${join(directory, 'radvd.pid')}`];
  const [command = 'nsenter', ...enter] = entering(router, ['net']);
  const logging = ['--logmethod=stderr', '--username=root'];
  await parts.ensure({
    name: 'radvd',
    group: 'fabric',
    command,
    args: [...enter, 'radvd', ...args, ...logging],
  });
}

/** HTTP on port 8080 of the outside address (and of the gateways): /cgi-bin/source shows who a packet says it is from. */
export async function serveOutside(parts: Parts, router: ProcessRecord, pages: string): Promise<void> {
  await writePages(pages);
  const [command = 'nsenter', ...enter] = entering(router, ['net']);
  const args = [...enter, 'busybox', 'httpd', '-f', '-p', '8080', '-h', pages];
  await parts.ensure({ name: 'outside', group: 'fabric', command, args });
}

/** Lays the node's cable: a veth from its segment's bridge to eth0 in the node's namespace. */
export async function connectNode(fabric: Fabric, node: NodePlan, holder: ProcessRecord): Promise<void> {
  await runInside(fabric.bridges, [
    // After a node's crash the kernel may not have removed the old cable yet.
    `ip link delete ${node.name} 2>/dev/null || true`,
    `ip link add ${node.name} type veth peer name eth0 netns ${holder.pid}`,
    ...plugged(node.name, node.segment),
  ]);
}

/** Runs a shell script, each line of it must succeed, in the network namespace of the holder. */
export async function runInside(holder: ProcessRecord, lines: readonly string[]): Promise<void> {
  const [command = 'nsenter', ...enter] = entering(holder, ['net']);
  await execa(command, [...enter, 'sh', '-eu'], { input: `${lines.join('\n')}\n` });
}

/** Sets an address of each family on a link, at once usable. */
export const addressed = (link: string, address: DualStack): string[] => [
  `ip address add ${address.ipv4}/24 dev ${link}`,
  `ip address add ${address.ipv6}/64 dev ${link} nodad`,
];

function bridgesScript(plan: Plan, router: ProcessRecord, controlPlane: ProcessRecord): string[] {
  return [
    'ip link set lo up',
    'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6',
    ...plan.segments.flatMap(({ bridge }, segment) => [
      `ip link add ${bridge} type bridge mcast_snooping 0`,
      `ip link set ${bridge} up`,
      `ip link add router${segment} type veth peer name ${bridge} netns ${router.pid}`,
      ...plugged(`router${segment}`, segment),
    ]),
    `ip link add control-plane type veth peer name eth0 netns ${controlPlane.pid}`,
    ...plugged('control-plane', 0),
  ];
}

const plugged = (link: string, segment: number): string[] => [`ip link set ${link} master seg${segment} up`];

function routerScript(plan: Plan): string[] {
  const drops = plan.poolCidrs.flatMap((cidr) => {
    const family = cidr.includes(':') ? 'ip6' : 'ip';
    return ['saddr', 'daddr'].map(
      (side) => `add rule inet underlay prerouting ${family} ${side} ${cidr} counter drop`,
    );
  });
  return [
    'ip link set lo up',
    'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad',
    'echo 1 >/proc/sys/net/ipv4/ip_forward',
    'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding',
    `ip address add ${plan.outside.ipv4}/32 dev lo`,
    `ip address add ${plan.outside.ipv6}/128 dev lo nodad`,
    ...plan.segments.flatMap(({ bridge, gateway }) => [
      `echo 0 >/proc/sys/net/ipv6/conf/${bridge}/accept_dad`,
      ...addressed(bridge, gateway),
      `ip link set ${bridge} up`,
    ]),
    // The fabric knows no pods: a packet with a pool's address on the underlay goes nowhere.
    "nft -f - <<'RULES'",
    'add table inet underlay',
    'add chain inet underlay prerouting { type filter hook prerouting priority raw; policy accept; }',
    ...drops,
    'RULES',
  ];
}

function controlPlaneScript(plan: Plan): string[] {
  const gateway = plan.segments[0]?.gateway;
  return [
    'ip link set lo up',
    'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra',
    ...addressed('eth0', plan.controlPlane),
    'ip link set eth0 up',
    ...(gateway === undefined
      ? []
      : [`ip route add default via ${gateway.ipv4}`, `ip -6 route add default via ${gateway.ipv6}`]),
  ];
}

/**
 * The only thing in the host's own namespace; its alias says whose it is, so that `down` takes no other. The kernel
 * names an alias to existing links only, so the link gets it inside and comes out with it: killed at any line,
 * nothing of ours is outside that does not say so.
 */
async function linkToHost(state: ClusterState, controlPlane: ProcessRecord): Promise<void> {
  const { name, alias, host, controlPlane: inside } = state.hostLink;
  await runInside(controlPlane, [
    `ip link add ${name} type veth peer name host`,
    `ip link set ${name} alias '${alias}'`,
    `ip link set ${name} netns ${process.pid}`,
    `ip address add ${inside}/30 dev host`,
    'ip link set host up',
  ]);
  await execa('ip', ['address', 'add', `${host}/30`, 'dev', name]);
  await execa('ip', ['link', 'set', name, 'up']);
}
