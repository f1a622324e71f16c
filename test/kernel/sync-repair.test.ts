import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  makeFabric,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type SyncProcess,
} from './fabric.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

const { make } = useThrowaways();
let fabric: Fabric;
let a: FabricNode;
let c: FabricNode;
let syncs: SyncProcess[];

beforeAll(async () => {
  fabric = makeFabric(make);
  const [first, , third] = fabric.nodes;
  if (first === undefined || third === undefined) throw new Error('the fabric has three nodes');
  a = first;
  c = third;
  await settled(fabric);
  syncs = fabric.nodes.map((node) => startSync(node));
  fabric.nodes.forEach((node, i) => syncs[i]?.set(fabric.sources(node)));
  await Promise.all(syncs.map((sync) => sync.upToDate()));
  makeForeignState(a.throwaway);
});

afterAll(async () => {
  await Promise.all(syncs.map((sync) => sync.kill()));
});

/** How long each repair took. */
const repairsMs: number[] = [];

const POD_LINK = '$(ip -br link | grep -o "^weft[^@]*" | head -1)';

describe('what someone else takes away or changes is put back', () => {
  test.each<readonly [what: string, sabotage: string]>([
    ['all of nft', 'nft flush ruleset'],
    ['our table', 'nft delete table inet weft'],
    ['the rules of one chain', 'nft flush chain inet weft from_pods'],
    ['one element of a set', 'nft delete element inet weft nodes4 { 192.168.2.12 }'],
    ['our IPv4 routes', 'ip route flush proto 84'],
    ['our IPv6 routes', 'ip -6 route flush proto 84'],
    ['one unreachable route', 'ip route del unreachable 10.64.0.0/26 metric 4096'],
    ['the next hop of a route', 'ip route replace 10.64.0.64/26 via 192.168.1.254 proto 84 src 10.64.0.0'],
    ['the pods IPv4 routes', 'ip route flush proto 85'],
    ['the pods IPv6 routes', 'ip -6 route flush proto 85'],
    ['neighbours behind the tunnel', 'ip neigh flush nud permanent dev vxlan.weft'],
    [
      'the MAC of a neighbour',
      'ip neigh replace 10.64.0.128 lladdr 02:00:00:00:00:99 dev vxlan.weft nud permanent',
    ],
    [
      'the FDB',
      'bridge fdb show dev vxlan.weft | while read mac rest; do bridge fdb del $mac dev vxlan.weft; done',
    ],
    ['the FDB, from zero', 'bridge fdb add 02:00:00:00:00:77 dev vxlan.weft dst 192.168.1.77 self permanent'],
    ['the tunnel', 'ip link del vxlan.weft'],
    ['the tunnel, set down', 'ip link set vxlan.weft down'],
    ["the tunnel's MTU", 'ip link set vxlan.weft mtu 1300'],
    ["the tunnel's MAC", 'ip link set vxlan.weft address 02:00:00:00:00:55'],
    ["the node's own addresses", 'ip addr flush dev vxlan.weft scope global'],
    ['forwarding of IPv4', 'sysctl -qw net.ipv4.ip_forward=0'],
    ['forwarding of IPv6', 'sysctl -qw net.ipv6.conf.all.forwarding=0'],
    ['a route with our mark that is not ours', 'ip route add 10.64.9.0/26 via 192.168.1.254 proto 84'],
    [
      "a pod's link, down and up",
      'L=$(ip -br link | grep -o "^weft[^@]*" | head -1); ip link set $L down; ip link set $L up',
    ],
    ["the MAC of a pod's host end", `ip link set ${POD_LINK} address 02:00:00:00:00:44`],
    ["the MTU of a pod's host end", `ip link set ${POD_LINK} mtu 1400`],
    [
      "a pod's neighbour",
      `A=$(ip neigh show dev ${POD_LINK} nud permanent | cut -d' ' -f1 | head -1); ip neigh del $A dev ${POD_LINK}`,
    ],
    ["a pod's link, left down", 'ip link set $(ip -br link | grep -o "^weft[^@]*" | head -1) down'],
  ])('%s', async (_, sabotage) => {
    const before = ownState(a.throwaway);
    const sync = syncs[0];
    const drifts = sync?.drift().length ?? 0;
    // Else it might be repaired before it has been seen.
    sync?.pause();
    a.throwaway.sh(sabotage);
    expect(ownState(a.throwaway)).not.toEqual(before);
    sync?.resume();
    // What one repair upsets, the next may have to put back.
    const tookMs = await until(
      () => (sync?.drift().length ?? 0) > drifts && isDeepStrictEqual(ownState(a.throwaway), before),
      10_000,
    );
    expect(sync?.drift().length).toBeGreaterThan(drifts);
    expect(ownState(a.throwaway)).toEqual(before);
    repairsMs.push(tookMs ?? Infinity);
  });

  // Of each alone a busy machine decides, which may let a process stand for a second.
  test('within two seconds, most of it', () => {
    repairsMs.sort((a, b) => a - b);
    expect(repairsMs.length).toBeGreaterThan(20);
    expect(repairsMs[Math.floor(repairsMs.length * 0.8)]).toBeLessThan(2_000);
  });

  test('the way through a foreign FORWARD chain that drops', async () => {
    const [, b] = fabric.nodes;
    if (b === undefined) throw new Error('the fabric has three nodes');
    const rules = () =>
      b.throwaway.sh('iptables -S FORWARD; ip6tables -S FORWARD').match(/-j ACCEPT/g)?.length;
    // By two kinds of links and one range, each as source and as destination, in both families.
    const all = 12;
    expect(rules()).toBe(all);
    b.throwaway.sh('iptables -F FORWARD; ip6tables -F FORWARD');
    expect(rules()).toBeUndefined();
    expect(await until(() => rules() === all, 10_000)).toBeDefined();
  });
});

describe('foreign things', () => {
  test('survive all of that, but for the table that flushing nft itself removed', () => {
    expect(a.throwaway.sh('ip route show 198.51.100.0/24')).toContain('via 192.168.1.254');
    expect(a.throwaway.sh('ip -6 route show 2001:db8:7::/64')).toContain('via fd01::ff');
    expect(a.throwaway.sh('ip route show 203.0.113.0/24')).toContain('unreachable');
    expect(a.throwaway.sh('ip neigh show 192.168.1.200')).toContain('02:00:00:00:02:00');
    expect(a.throwaway.sh('bridge fdb show dev foreign0')).toContain('02:00:00:00:00:66 dst 192.168.1.66');
    expect(a.throwaway.sh('ip addr show dev lo')).toContain('198.51.100.9/32');
    a.throwaway.sh('nft add table inet foreign');
    a.throwaway.sh('nft delete table inet weft');
    expect(a.throwaway.sh('nft list tables')).toContain('table inet foreign');
  });
});

describe('a sync that is killed and started again', () => {
  test('loses no packet of a stream through the tunnel and resets no connection, 10 times over', async () => {
    const [from] = a.pods;
    const [to] = c.pods;
    if (from === undefined || to === undefined) throw new Error('the fabric has no pods');
    const stream = startPings(from.throwaway, to.addresses[4]);
    const stream6 = startPings(from.throwaway, to.addresses[6]);
    const connection = startConnection(from.throwaway, to.throwaway, to.addresses[4]);
    for (let i = 0; i < 10; i++) {
      for (const [index, node] of fabric.nodes.entries()) {
        if (index === 1) continue;
        await syncs[index]?.kill();
        const sync = startSync(node);
        syncs[index] = sync;
        sync.set(fabric.sources(node));
      }
      await Promise.all(syncs.map((sync) => sync.upToDate()));
    }
    expect(await stream.lost()).toBe(0);
    expect(await stream6.lost()).toBe(0);
    expect(await connection.echoed()).toEqual({ sent: connection.sent(), reset: false });
    expect(connection.sent()).toBeGreaterThan(50);
  }, 180_000);
});

/** What others have on the node: each beside something of ours. */
function makeForeignState(node: Throwaway): void {
  node.sh('ip route add 198.51.100.0/24 via 192.168.1.254 proto static');
  node.sh('ip -6 route add 2001:db8:7::/64 via fd01::ff proto static');
  node.sh('ip route add unreachable 203.0.113.0/24 metric 4096 proto static');
  node.sh('ip neigh add 192.168.1.200 lladdr 02:00:00:00:02:00 dev eth0 nud permanent');
  node.sh('ip link add foreign0 type vxlan id 77 dstport 8472 local 192.168.1.10 && ip link set foreign0 up');
  node.sh('bridge fdb append 02:00:00:00:00:66 dev foreign0 dst 192.168.1.66 self permanent');
  node.sh('ip addr add 198.51.100.9/32 dev lo');
}

/** All that carries our mark on the node, as the usual tools show it. */
function ownState(node: Throwaway): Record<string, string[]> {
  const listings = {
    routes:
      'ip route show proto 84; ip route show proto 85; ip -6 route show proto 84; ip -6 route show proto 85',
    neighbours: 'ip neigh show nud permanent; ip -6 neigh show nud permanent',
    fdb: 'bridge fdb show dev vxlan.weft',
    addresses: 'ip -o addr show dev vxlan.weft scope global',
    tunnel: 'ip -o -d link show dev vxlan.weft',
    links: 'ip -br link | grep ^weft; ip -o link | grep ": weft" | grep -o "mtu [0-9]*"',
    filter: 'nft -s list table inet weft',
    forwarding: 'sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding',
  };
  const script = Object.entries(listings).map(
    ([what, command]) => `echo '== ${what}'; { ${command}; } 2>&1 || true`,
  );
  const sections = node.sh(script.join('\n')).split('== ').slice(1);
  return Object.fromEntries(
    sections.map((section) => {
      const [what = '', ...said] = section.split('\n');
      // So says `ip` of names of namespaces that are just being removed, which are other tests'.
      const lines = said.filter((line) => !line.includes('Peer netns reference is invalid'));
      // A device made anew has another index; addresses and routes are listed in the order of their making.
      const plain = lines.map((line) =>
        line
          .replace(/^\d+: /, '')
          .replace(/ifindex \d+|numtxqueues.*|min_mtu.*/g, '')
          .trim(),
      );
      return [what, plain.sort()];
    }),
  );
}

/** A hundred pings a second until asked how many were not answered. */
function startPings(from: Throwaway, to: string): { lost(): Promise<number> } {
  const child = spawn('nsenter', [`--net=${from.path}`, 'ping', '-n', '-q', '-i', '0.01', to], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  return {
    async lost() {
      child.kill('SIGINT');
      await ended;
      const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(output) ?? [];
      // What was sent last may still have been on its way.
      return Math.max(0, Number(sent) - Number(received) - 1);
    },
  };
}

/** A TCP connection over which a line goes there and back every 50 ms. */
function startConnection(
  from: Throwaway,
  to: Throwaway,
  address: string,
): { sent(): number; echoed(): Promise<{ sent: number; reset: boolean }> } {
  const server = spawn('nsenter', [`--net=${to.path}`, 'socat', 'TCP-LISTEN:7000,reuseaddr', 'EXEC:cat'], {
    stdio: 'ignore',
  });
  const client = spawn(
    'nsenter',
    [`--net=${from.path}`, 'socat', '-', `TCP:${address}:7000,retry=20,interval=0.1`],
    {
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  let sent = 0;
  let echoed = 0;
  let errors = '';
  createInterface({ input: client.stdout }).on('line', () => echoed++);
  client.stderr.on('data', (data: Buffer) => (errors += data.toString()));
  const timer = setInterval(() => client.stdin.write(`${sent++}\n`), 50);
  return {
    sent: () => sent,
    async echoed() {
      clearInterval(timer);
      await until(() => echoed === sent, 5000);
      client.kill();
      server.kill();
      await sleep(100);
      return { sent: echoed, reset: /reset|refused/i.test(errors.replaceAll(/.*Connection refused.*/g, '')) };
    },
  };
}
