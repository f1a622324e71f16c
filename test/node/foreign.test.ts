import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ip } from './namespaces.ts';
import { CONFIG, eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';

/** What others have on a node, each beside something of weft's, is the same after whatever weft does there. */

const POOL = { v4: '10.46.0.0/16', v6: 'fd00:46::/64' };
const FOREIGN_LINKS = ['eth0', 'lo', 'dum0', 'br0', 'vx0', 've0', 've1'];
const FOREIGN_TABLES = [
  'inet other',
  'ip other',
  'ip6 other',
  'bridge other',
  'netdev other',
  'inet weftish',
];

let node: TestNode;
let agent: TestAgent | undefined;
let before: readonly string[];

beforeAll(async () => {
  node = await startNode();
  await execa('sh', ['-euc', FOREIGN]);
  await execa('sh', ['-euc', LEFT_OVER]);
  await eventually('the addresses of links', async () =>
    (await ip('-6', 'address', 'show', 'tentative')) === '' ? true : undefined,
  );
  before = await foreignState();
  await setPool('CrossSubnet');
});

afterAll(async () => {
  await agent?.kill();
  await execa('sh', ['-c', 'nft flush ruleset; for link in dum0 br0 vx0 ve0; do ip link delete $link; done']);
  await node.stop();
});

test('there is something of every kind', () => {
  for (const trace of [
    'via 192.0.2.77 dev eth0 proto static',
    'unreachable 203.0.113.0/24 proto 77',
    'table 84 proto static',
    'lookup 84',
    '198.51.100.9/32',
    'vxlan id 4098',
    'lladdr 02:00:00:00:00:77 PERMANENT',
    '02:00:00:00:00:78 dst 192.0.2.78 self permanent',
    'chain forward',
    '-A FORWARD -s 203.0.113.0/24 -j ACCEPT',
    'qdisc pfifo',
  ]) {
    expect(before.join('\n')).toContain(trace);
  }
});

test('outlives the start of an agent that finds what another one has left', async () => {
  agent = await node.startAgent();
  await eventually('what was left over to go', async () =>
    (await ip('route', 'show', 'proto', '84')).includes('10.46.77.0/26') ? undefined : true,
  );
  expect(await foreignState()).toEqual(before);
});

test('outlives pods, of each way between nodes, and a GC that collects', async () => {
  for (const encapsulation of ['Always', 'Never', 'CrossSubnet'] as const) {
    await setPool(encapsulation);
    const id = `foreign-${encapsulation.toLowerCase()}`;
    const netns = await node.makeSandbox(id);
    const added = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(added.exitCode, added.stdout).toBe(0);
    // A link of others may take the pod's rules for its own: seen as long as the pod lives.
    expect(await foreignState(), encapsulation).toEqual(before);
    const none = { ...CONFIG, 'cni.dev/valid-attachments': [] };
    if (encapsulation === 'Never') {
      await eventually('the GC of what is old enough', async () => {
        await node.cni({ command: 'GC', config: none });
        return (await node.allocations(id)).some(({ released }) => !released) ? undefined : true;
      });
    } else {
      await node.cni({ command: 'DEL', containerID: id, netns });
    }
    await node.removeSandbox(id);
    expect(await foreignState(), encapsulation).toEqual(before);
  }
});

test('outlives a kill, what others then take from weft, the next agent, and its stop', async () => {
  await agent?.kill();
  await execa('sh', ['-c', 'nft delete table inet weft; ip link delete vxlan.weft; ip route flush proto 84']);
  expect(await foreignState()).toEqual(before);
  agent = await node.startAgent();
  await eventually('the tunnel to be back', async () =>
    (await ip('link', 'show')).includes('vxlan.weft') ? true : undefined,
  );
  expect(await foreignState()).toEqual(before);
  await agent?.kill('SIGTERM');
  expect(await foreignState()).toEqual(before);
});

/** Beside what weft has: its tunnel's port, its kinds of routes and neighbours, the chains that it looks at. */
const FOREIGN = `
  sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip link add dum0 type veth peer name dum1; ip link set dum1 up; ip link set dum0 up; ip address add 198.51.100.1/24 dev dum0
  ip address add 198.51.100.9/32 dev lo
  ip link add br0 type bridge; ip link set br0 up; ip address add 172.20.0.1/16 dev br0
  ip link add vx0 type vxlan id 4098 dstport 4788 local 192.0.2.10 nolearning; ip link set vx0 up
  ip link add ve0 type veth peer name ve1; ip link set ve0 master br0 up; ip link set ve1 up
  tc qdisc add dev ve0 root pfifo limit 77
  ip route add 198.18.7.0/24 via 192.0.2.77 proto static
  ip -6 route add 2001:db8:7::/64 via 2001:db8:2::77 proto static
  ip route add unreachable 203.0.113.0/24 proto 77 metric 4096
  ip route add 198.18.8.0/24 via 192.0.2.77 proto static table 84
  ip rule add from 203.0.113.7 lookup 84 priority 84; ip -6 rule add from 2001:db8:9::/64 lookup 84 priority 84
  ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
  ip neigh add 2001:db8:2::77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
  ip neigh add 198.51.100.7 lladdr 02:00:00:00:00:79 dev vx0 nud permanent
  bridge fdb add 02:00:00:00:00:78 dst 192.0.2.78 dev vx0
  for family in inet ip ip6; do
    nft add table $family other
    nft "add chain $family other forward { type filter hook forward priority 0; policy accept; }"
    nft "add rule $family other forward meta mark 77 counter accept comment \\"weft-accept\\""
  done
  nft add table bridge other; nft add table inet weftish; nft add chain inet weftish vxlan
  nft 'add table netdev other; add chain netdev other in { type filter hook ingress device "ve1" priority 0; }'
  iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 203.0.113.0/24 -j ACCEPT
  ip6tables-nft -P FORWARD DROP; ip6tables-nft -A FORWARD -i ve1 -j DROP
  iptables-nft -t nat -A POSTROUTING -s 172.20.0.0/16 -j MASQUERADE`;

/** What an agent of another version, or of another cluster's pools, may have left. */
const LEFT_OVER = `
  nft add table inet weft; nft add chain inet weft stale
  ip route add unreachable 10.46.77.0/26 proto 84 metric 4096
  ip route add 10.46.78.0/26 via 192.0.2.78 proto 84
  ip link add vxlan.weft address 02:00:00:00:00:80 type vxlan id 4097 dstport 4789 local 192.0.2.10 nolearning`;

async function setPool(encapsulation: 'Always' | 'Never' | 'CrossSubnet'): Promise<void> {
  await node.apply(
    pool('pods', {
      cidrs: [POOL.v4, POOL.v6],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      encapsulation,
      reuseDelaySeconds: 1,
    }),
  );
}

/** Everything that is not weft's by its marks (protocols, link names, table, comment in FORWARD and INPUT) or its pool's addresses. */
async function foreignState(): Promise<string[]> {
  const lines: string[] = [];
  const add = async (file: string, ...args: string[]) => {
    const { stdout } = await execa(file, args);
    lines.push(`$ ${[file, ...args].join(' ')}`, ...stdout.split('\n').filter((line) => !OURS.test(line)));
  };
  for (const link of FOREIGN_LINKS) {
    // In its details a bridge has timers.
    const details = link === 'br0' || link === 've0' ? [] : ['-d'];
    await add('ip', ...details, 'address', 'show', 'dev', link);
    await add('tc', 'qdisc', 'show', 'dev', link);
  }
  for (const family of ['-4', '-6']) {
    await add('ip', family, 'route', 'show', 'table', 'all');
    await add('ip', family, 'rule', 'show');
    await add('ip', family, 'neigh', 'show', 'nud', 'permanent');
  }
  await add('bridge', 'fdb', 'show', 'dev', 'vx0');
  for (const table of FOREIGN_TABLES) await add('nft', '-s', 'list', 'table', ...table.split(' '));
  for (const program of ['iptables-nft-save', 'ip6tables-nft-save']) await add(program);
  // Counters and times, and what programs print of when they were called.
  return lines
    .map((line) => line.replaceAll(/(expires|valid_lft|preferred_lft) \S+|\[\d+:\d+\]/g, '').trimEnd())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

const OURS =
  /\bproto 8[45]\b|\bdev (vxlan\.weft|weft\S+)\b|\b10\.46\.|\bfd00:46:|^-[AI] (FORWARD|INPUT) .*"?weft-accept"?/;
