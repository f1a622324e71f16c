import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { configurePodLink, createPodLink, formatAlias, hostLinkName } from '../../src/kernel/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import type { Command, Report, Listings, Sources } from './sync-process.ts';
import type { Throwaway, useThrowaways } from './throwaway.ts';

export type IPFamily = 4 | 6;
export const IP_FAMILIES: readonly IPFamily[] = [4, 6];

export const POOLS: Sources['pools'] = [['main', ['10.64.0.0/16', 'fd64::/64']]];

/** The three nodes: `a` and `b` on one segment, `c` behind a router that drops pods' addresses. */
export interface Fabric {
  readonly nodes: readonly FabricNode[];
  /** A machine beyond the router that is no node and knows no pods. */
  readonly outside: { readonly throwaway: Throwaway; readonly addresses: Readonly<Record<IPFamily, string>> };
  /** A machine on c's segment that is no node. */
  readonly stranger: {
    readonly throwaway: Throwaway;
    readonly addresses: Readonly<Record<IPFamily, string>>;
  };
  readonly router: Throwaway;
  sources(node: FabricNode): Sources;
}

export interface FabricNode {
  readonly name: string;
  readonly throwaway: Throwaway;
  readonly addresses: Readonly<Record<IPFamily, string>>;
  /** Its own addresses among the pods'. */
  readonly first: Readonly<Record<IPFamily, string>>;
  readonly subnets: Sources['subnets'];
  readonly pods: readonly FabricPod[];
}

export interface FabricPod {
  readonly name: string;
  readonly node: string;
  readonly throwaway: Throwaway;
  readonly addresses: Readonly<Record<IPFamily, string>>;
  readonly hostLink: string;
}

/** A sync process in a node's namespace. */
export interface SyncProcess {
  readonly reports: readonly Report[];
  set(sources: Sources): void;
  /** Resolves when the kernel is as the last sources say. `dumps`: how often its routes and the like were listed. */
  upToDate(): Promise<{ readonly dumps: number }>;
  /** Resolves when pods are isolated as the last sources say; with the reason why they are not, if so. */
  isolationInForce(): Promise<string | undefined>;
  status(): Promise<Extract<Report, { kind: 'status' }>>;
  drift(): string[];
  /** What comes of the listings of filters from now on; one that is held goes on. */
  letListingsBe(are: Listings): void;
  kill(): Promise<void>;
  /** Stops it in the middle of whatever it does, until `resume`. */
  pause(): void;
  resume(): void;
}

const SEGMENTS = { a: 1, b: 1, c: 2 } as const;

/** Unkind as real fabrics are: a has an addressed bridge made first, b drops what it would forward, c filters by path. */
export function makeFabric(make: ReturnType<typeof useThrowaways>['make']): Fabric {
  const router = make('router');
  router.sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
  // With br_netfilter loaded, the rules for what is routed would be asked about what is bridged, too.
  router.sh('sysctl -qwe net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0');
  for (const segment of [1, 2, 9]) {
    router.sh(
      `ip link add seg${segment} type bridge && ip link set seg${segment} up && ` +
        `ip addr add 192.168.${segment}.254/24 dev seg${segment} && ` +
        `ip addr add fd0${segment}::ff/64 dev seg${segment} nodad`,
    );
  }
  router.sh(`nft -f - <<END
table inet fabric {
  chain forward {
    type filter hook forward priority 0;
    ip saddr 10.64.0.0/16 drop
    ip daddr 10.64.0.0/16 drop
    ip6 saddr fd64::/64 drop
    ip6 daddr fd64::/64 drop
  }
}
END`);

  const nodes = (['a', 'b', 'c'] as const).map((name, index) => makeNode(make, router, name, index));
  const [b, c] = [nodes[1], nodes[2]];
  b?.throwaway.sh('iptables -P FORWARD DROP && ip6tables -P FORWARD DROP');
  c?.throwaway.sh('sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1');
  return {
    nodes,
    router,
    outside: { throwaway: plug(make('outside'), router, 9, 5), addresses: addresses(9, 5) },
    stranger: { throwaway: plug(make('stranger'), router, 2, 66), addresses: addresses(2, 66) },
    sources: ({ name, addresses: own }) => ({
      node: { name, uid: `uid-${name}`, addresses: [own[4], own[6]] },
      pools: POOLS,
      subnets: nodes.flatMap((node) => [...node.subnets]),
    }),
  };
}

function makeNode(
  make: ReturnType<typeof useThrowaways>['make'],
  router: Throwaway,
  name: keyof typeof SEGMENTS,
  index: number,
): FabricNode {
  const segment = SEGMENTS[name];
  const throwaway = make(name);
  if (name === 'a') {
    throwaway.sh(
      'ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up',
    );
  }
  plug(throwaway, router, segment, 10 + index);
  const own = addresses(segment, 10 + index);
  const hops = [own[4], own[6]];
  const first = poolAddresses(64 * index);
  const node = { name, throwaway, addresses: own, first };
  return {
    ...node,
    subnets: [
      [`${first[4]}/26`, name, hops],
      [`${first[6]}/122`, name, hops],
    ],
    pods: [1, 2].map((number) => makePod(make, node, index, number)),
  };
}

export function makePod(
  make: ReturnType<typeof useThrowaways>['make'],
  node: Pick<FabricNode, 'name' | 'throwaway' | 'first'>,
  index: number,
  number: number,
  options: { readonly mtu?: number; readonly fixedMTU?: boolean } = {},
): FabricPod {
  const name = `${node.name}${number}`;
  const throwaway = make(name);
  const own = poolAddresses(64 * index + number);
  const containerID = `container-${name}`;
  const host = node.throwaway.namespace.socket;
  const link = createPodLink(host, throwaway.namespace, {
    containerID,
    ifName: 'eth0',
    mtu: 1450,
    ...options,
  });
  const parsed = { ipv4: parseAddress(own[4]), ipv6: parseAddress(own[6]) };
  configurePodLink(host, throwaway.namespace.socket, link, {
    addresses: parsed,
    destinations: 'default',
    // The node's own addresses come with its sync, which completes the routes.
    hostSources: {},
    alias: formatAlias({
      network: 'weft',
      containerID,
      ifName: 'eth0',
      addresses: parsed,
      podUID: undefined,
    }),
  });
  return { name, node: node.name, throwaway, addresses: own, hostLink: hostLinkName(containerID, 'eth0') };
}

/** Puts a machine on a segment, as `eth0`, with both families and the router as its way out. */
function plug(machine: Throwaway, router: Throwaway, segment: number, number: number): Throwaway {
  const own = addresses(segment, number);
  const port = `p${segment}-${number}`;
  router.sh(
    `ip link add ${port} type veth peer name eth0 netns ${machine.name} && ` +
      `ip link set ${port} master seg${segment} up`,
  );
  machine.sh(
    `ip addr add ${own[4]}/24 dev eth0 && ip addr add ${own[6]}/64 dev eth0 nodad && ip link set eth0 up && ` +
      `ip route add default via 192.168.${segment}.254 && ip -6 route add default via fd0${segment}::ff`,
  );
  return machine;
}

function addresses(segment: number, number: number): Record<IPFamily, string> {
  return { 4: `192.168.${segment}.${number}`, 6: `fd0${segment}::${number}` };
}

function poolAddresses(offset: number): Record<IPFamily, string> {
  return { 4: `10.64.0.${offset}`, 6: `fd64::${offset === 0 ? '' : offset.toString(16)}` };
}

export interface SyncOptions {
  /** Subnets that keep their marked route. */
  readonly keep?: readonly string[];
  /** CIDRs to which pods are not masqueraded. */
  readonly natExempt?: readonly string[];
}

/** Starts a sync in the node's namespace. */
export function startSync(node: FabricNode, { keep = [], natExempt = [] }: SyncOptions = {}): SyncProcess {
  const program = new URL('sync-process.ts', import.meta.url).pathname;
  const words = [program, ...keep, ...natExempt.map((cidr) => `--nat-exempt=${cidr}`)];
  const child = spawn('nsenter', [`--net=${node.throwaway.path}`, process.execPath, ...words], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
  });
  const reports: Report[] = [];
  const answers = new Map<number, (report: Report) => void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    const report = JSON.parse(line) as Report;
    reports.push(report);
    if ('id' in report) answers.get(report.id)?.(report);
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let lastID = 0;
  const send = (command: Command) => void child.stdin.write(`${JSON.stringify(command)}\n`);
  const ask = (op: 'upToDate' | 'isolationInForce' | 'status') => {
    const id = ++lastID;
    const answer = new Promise<Report>((resolve) => answers.set(id, resolve));
    send({ op, id });
    return Promise.race([
      answer,
      sleep(20_000).then(() => {
        throw new Error(
          `${node.name} did not answer "${op}" in 20 s:\n${reports.map((r) => JSON.stringify(r)).join('\n')}`,
        );
      }),
    ]);
  };
  return {
    reports,
    set: (sources) => send({ op: 'sources', sources }),
    upToDate: async () => (await ask('upToDate')) as Extract<Report, { kind: 'upToDate' }>,
    isolationInForce: async () =>
      ((await ask('isolationInForce')) as Extract<Report, { kind: 'isolationInForce' }>).error,
    status: async () => (await ask('status')) as Extract<Report, { kind: 'status' }>,
    drift: () => reports.flatMap((report) => (report.kind === 'drift' ? report.objects : [])),
    letListingsBe: (are) => send({ op: 'listings', are }),
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** Waits until all machines answer each other: an address that is being probed for duplicates does not yet. */
export async function settled({ nodes, outside, stranger }: Fabric): Promise<void> {
  const machines = [...nodes, outside, stranger];
  for (const from of machines) {
    for (const to of machines) {
      for (const family of IP_FAMILIES) {
        const answered = await until(() => pings(from.throwaway, to.addresses[family]), 15_000);
        if (answered === undefined)
          throw new Error(`${to.addresses[family]} does not answer on the bare fabric`);
      }
    }
  }
}

/** Whether an answer comes back, for one packet. */
export async function pings(from: Throwaway, to: string, ...options: string[]): Promise<boolean> {
  try {
    await from.run('ping', ['-n', '-q', '-c', '1', '-W', '1', ...options, to]);
    return true;
  } catch {
    return false;
  }
}

/** Waits until it holds, and returns after how many milliseconds; undefined if it did not in time. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  withinMs: number,
): Promise<number | undefined> {
  const start = performance.now();
  while (performance.now() - start < withinMs) {
    if (await holds()) return performance.now() - start;
    await sleep(50);
  }
  return undefined;
}
