import { spawn } from 'node:child_process';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { deleteConnections, NetlinkSocket, openSocketInside } from '../../src/kernel/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { until, type IPFamily } from './fabric.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/** Stale connections: a client, a node that translates a Service's address, and two pods behind it (F36). */

const NETLINK_NETFILTER = 12;
const { own, make } = useThrowaways();
const children: { kill(): unknown }[] = [];
let node: Throwaway;
let client: Throwaway;
let connections: NetlinkSocket;

const FAMILIES: readonly IPFamily[] = [4, 6];
const SERVICE = { 4: '10.96.0.1', 6: 'fd96::1' };
const PODS = { first: { 4: '10.64.0.2', 6: 'fd64::2' }, second: { 4: '10.64.0.3', 6: 'fd64::3' } };
const pods: Partial<Record<keyof typeof PODS, Throwaway>> = {};
const GATEWAY = { 4: '10.64.0.1', 6: 'fd64::1' };

beforeAll(async () => {
  node = make('node');
  client = make('client');
  node.sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
  plug(client, 'client', { 4: '192.168.50.2/24', 6: 'fd50::2/64' }, { 4: '192.168.50.1', 6: 'fd50::1' });
  for (const name of ['first', 'second'] as const) {
    const pod = (pods[name] = make(name));
    const { 4: ipv4, 6: ipv6 } = PODS[name];
    plug(pod, name, { 4: `${ipv4}/32`, 6: `${ipv6}/128` }, GATEWAY);
    node.sh(`ip route add ${ipv4} dev ${name} && ip -6 route add ${ipv6} dev ${name}`);
    for (const family of FAMILIES) serve(pod, name, family);
  }
  for (const family of FAMILIES) {
    for (const { [family]: address } of Object.values(PODS)) {
      const answers = () => ask(address, family, 999) !== '';
      expect(await until(answers, 10_000), `${address} answers`).toBeDefined();
    }
  }
  connections = new NetlinkSocket(openSocketInside(own, node.namespace, NETLINK_NETFILTER));
});

afterAll(() => {
  children.forEach((child) => child.kill());
  connections.close();
});

beforeEach(() => {
  node.sh('conntrack -F 2>/dev/null');
});

describe.each(FAMILIES)('IPv%i', (family) => {
  test('a flow through a Service stays with the address that its pod had, until its connection is ended', async () => {
    leadTo('first', family);
    expect(ask(SERVICE[family], family)).toBe('first');
    // Its pod is gone, and by the rules others answer for the Service; the kernel still goes by what it tracks.
    leadTo('second', family);
    expect(ask(SERVICE[family], family)).toBe('first');
    expect(await end(PODS.first[family])).toBe(1);
    expect(ask(SERVICE[family], family)).toBe('second');
  });

  test('connections of others are left alone', async () => {
    leadTo('first', family);
    ask(SERVICE[family], family, 4001);
    ask(PODS.second[family], family, 4002);
    ask(PODS.first[family], family, 4003);
    expect(tracked(family)).toHaveLength(3);
    expect(await end(PODS.first[family])).toBe(2);
    expect(tracked(family)).toHaveLength(1);
    expect(tracked(family)[0]).toContain('sport=4002');
    expect(await end(PODS.first[family])).toBe(0);
  });

  test('those that the address itself began are ended, too, translated or not', async () => {
    const table = family === 4 ? 'ip' : 'ip6';
    const pool = family === 4 ? '10.64.0.0/16' : 'fd64::/64';
    node.sh(
      `nft 'add table ${table} out; add chain ${table} out post { type nat hook postrouting priority 100; }; ` +
        `add rule ${table} out post ${table} saddr ${pool} oifname client masquerade'`,
    );
    const to = family === 4 ? '192.168.50.2' : 'fd50::2';
    pods.first?.sh(`echo hi | socat -t0.2 - UDP${family}:${bracketed(to)}:9999 2>/dev/null || true`);
    expect(tracked(family).join()).toContain('dport=9999');
    expect(await end(PODS.first[family])).toBe(1);
    expect(tracked(family)).toEqual([]);
    node.sh(`nft delete table ${table} out`);
  });

  test('many addresses and many connections are one walk, and the loop goes on meanwhile', async () => {
    const [source, other] = family === 4 ? ['10.70.0.1', '10.71.0.1'] : ['fd70::1', 'fd71::1'];
    const lines = Array.from(
      { length: 1500 },
      (_, i) =>
        `-I -p udp -s ${i % 2 === 0 ? source : other} -d ${PODS.second[family]} --sport ${i + 1} --dport 53 -t 300`,
    );
    node.sh(
      `cat > /tmp/${node.name} <<'END'\n${lines.join('\n')}\nEND\nconntrack -R /tmp/${node.name}; rm /tmp/${node.name}`,
    );
    expect(tracked(family)).toHaveLength(1500);
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    expect(await end(source, PODS.first[family], '10.99.0.1', 'fd99::1')).toBe(750);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(0);
    expect(tracked(family)).toHaveLength(750);
  });
});

function end(...addresses: string[]): Promise<number> {
  return deleteConnections(connections, addresses.map(parseAddress));
}

function tracked(family: IPFamily): string[] {
  const text = node.sh(`conntrack -L -f ipv${family} 2>/dev/null`);
  return text.split('\n').filter((line) => line.includes('udp'));
}

/** As kube-proxy does it. */
function leadTo(name: keyof typeof PODS, family: IPFamily): void {
  const table = family === 4 ? 'ip' : 'ip6';
  node.sh(`nft -f - <<END
table ${table} service
delete table ${table} service
table ${table} service {
  chain pre {
    type nat hook prerouting priority -100
    ${table} daddr ${SERVICE[family]} udp dport 9000 dnat to ${PODS[name][family]}
  }
}
END`);
}

/** Of a pod: its name and spaces. */
const ANSWER_BYTES = 7;

/**
 * A datagram from a port that stays the same; answers who has answered. Sent again where nobody has: socat, which starts
 * a process for each, may miss one on a busy machine. Of all of them the kernel makes one connection.
 */
function ask(to: string, family: IPFamily, port = 5555): string {
  const options = `sourceport=${port},readbytes=${ANSWER_BYTES}`;
  const once = `echo hi | socat -t2 - UDP${family}:${bracketed(to)}:9000,${options} || true`;
  for (let attempt = 0; attempt < 5; attempt++) {
    const answer = client.sh(once).trim();
    if (answer !== '') return answer;
  }
  return '';
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

function serve(pod: Throwaway, name: string, family: IPFamily): void {
  const args = [
    `UDP${family}-RECVFROM:9000,fork,reuseaddr${family === 6 ? ',ipv6only=1' : ''}`,
    `SYSTEM:printf %-${ANSWER_BYTES}s ${name}`,
  ];
  children.push(spawn('nsenter', [`--net=${pod.path}`, 'socat', ...args], { stdio: 'ignore' }));
}

/** A link to the node, by that name there and `eth0` here. */
function plug(
  machine: Throwaway,
  name: string,
  addresses: Readonly<Record<IPFamily, string>>,
  gateway: Readonly<Record<IPFamily, string>>,
): void {
  node.sh(
    `ip link add ${name} type veth peer name eth0 netns ${machine.name} && ` +
      `ip addr add ${gateway[4]}/24 dev ${name} && ip addr add ${gateway[6]}/64 dev ${name} nodad && ip link set ${name} up`,
  );
  machine.sh(
    `ip addr add ${addresses[4]} dev eth0 && ip addr add ${addresses[6]} dev eth0 nodad && ip link set eth0 up && ` +
      `ip route add default via ${gateway[4]} dev eth0 onlink && ip -6 route add default via ${gateway[6]} dev eth0 onlink`,
  );
}
