import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { createCommandRunner, ensureAccepted, type AcceptedTraffic } from '../../src/kernel/index.ts';
import { parseCIDR } from '../../src/net/index.ts';
import { useThrowaways } from './throwaway.ts';

const { make } = useThrowaways();
const host = make('host');
const traffic: AcceptedTraffic = {
  vxlan: { port: 4789, underlay: 'ipv4' },
  families: ['ipv4', 'ipv6'],
  forwarded: [],
};
/** Of pods' links, and of the tunnel. */
const BY_LINKS = ['-i weft+', '-o weft+', '-i vxlan.weft', '-o vxlan.weft'];
const MARKED = '-m comment --comment weft-accept -j ACCEPT';
const noLegacy = () => Promise.resolve([]);
const options = { run: host.run, ownTable: 'weft', legacyTables: noLegacy };

beforeEach(() => {
  host.sh('nft flush ruleset');
});

describe('by nft', () => {
  test('nothing is done where nothing drops', async () => {
    host.sh('iptables-nft -A FORWARD -s 10.0.0.0/8 -j DROP; iptables-nft -A INPUT -j ACCEPT');
    expect(await ensureAccepted(traffic, options)).toEqual({ inserted: [], removed: [], unhandled: [] });
    expect(await ensureAccepted(traffic, { ...options, run: host.run })).toEqual({
      inserted: [],
      removed: [],
      unhandled: [],
    });
  });

  test.each([
    ['iptables-nft', 'ip', '-j REJECT'],
    ['ip6tables-nft', 'ip6', '-j DROP'],
  ])('%s: a policy of DROP gets our rules at its head, and once', async (program, family, lastRule) => {
    host.sh(
      `${program} -P FORWARD DROP; ${program} -A FORWARD -s ${family === 'ip' ? '10.0.0.1' : 'fd00::1'} -j DROP`,
    );
    const { inserted } = await ensureAccepted(traffic, options);
    expect(inserted).toEqual(BY_LINKS.map((link) => `${family} filter FORWARD ${link} -j ACCEPT`));
    expect((await ensureAccepted(traffic, options)).inserted).toEqual([]);
    const rules = host.sh(`${program} -S FORWARD`).trim().split('\n');
    expect(rules.slice(1, 5).sort()).toEqual(BY_LINKS.map((link) => `-A FORWARD ${link} ${MARKED}`).sort());
    expect(rules).toHaveLength(6);
    host.sh(`${program} -F FORWARD`);
    expect((await ensureAccepted(traffic, options)).inserted).toHaveLength(BY_LINKS.length);
    host.sh(`${program} -P FORWARD ACCEPT; ${program} -F FORWARD; ${program} -A FORWARD ${lastRule}`);
    expect((await ensureAccepted(traffic, options)).inserted).toHaveLength(BY_LINKS.length);
  });

  test.each([
    ['iptables-nft', 'ip', '10.65.0.0/16'],
    ['ip6tables-nft', 'ip6', 'fd65::/64'],
  ])(
    '%s: what bears no name of our links is let through by its addresses, and once',
    async (program, family, cidr) => {
      host.sh(`${program} -P FORWARD DROP`);
      const routed = { ...traffic, forwarded: ['10.65.0.0/16', 'fd65::/64'].map(parseCIDR) };
      const { inserted } = await ensureAccepted(routed, options);
      expect(inserted).toEqual([
        ...BY_LINKS.map((link) => `${family} filter FORWARD ${link} -j ACCEPT`),
        `${family} filter FORWARD -s ${cidr} -j ACCEPT`,
        `${family} filter FORWARD -d ${cidr} -j ACCEPT`,
      ]);
      expect((await ensureAccepted(routed, options)).inserted).toEqual([]);
      expect(host.sh(`${program} -S FORWARD`)).toContain(`-A FORWARD -d ${cidr} ${MARKED}`);
    },
  );

  test.each([
    ['iptables-nft', 'ip', '10.65.0'],
    ['ip6tables-nft', 'ip6', 'fd65:'],
  ])('%s: what nothing asks for any more goes, and what is foreign stays', async (program, family, net) => {
    const [mine, more] = family === 'ip' ? [`${net}.0/26`, `${net}.64/26`] : [`${net}:/122`, `${net}:40/122`];
    host.sh(
      `${program} -P FORWARD DROP; ${program} -P INPUT DROP; ` +
        `${program} -A FORWARD -s ${mine} -j ACCEPT; ${program} -A FORWARD -d ${more} -j ACCEPT; ` +
        `${program} -A FORWARD -s ${more} -m comment --comment ours -j ACCEPT`,
    );
    const foreign = host.sh(`${program} -S`);
    await ensureAccepted({ ...traffic, forwarded: [mine, more].map(parseCIDR) }, options);
    const { inserted, removed } = await ensureAccepted(
      { ...traffic, forwarded: [mine].map(parseCIDR) },
      options,
    );
    expect(inserted).toEqual([]);
    expect(removed).toHaveLength(1);
    expect(host.sh(`${program} -S FORWARD`)).toContain(`-A FORWARD -d ${mine} ${MARKED}`);
    expect(host.sh(`${program} -S FORWARD`)).not.toContain(`-A FORWARD -s ${more} ${MARKED}`);
    await ensureAccepted({ families: [], forwarded: [], vxlan: undefined }, options);
    expect(host.sh(`${program} -S`)).toBe(foreign);
  });

  test('our rules go with the drop that asked for them', async () => {
    host.sh('iptables-nft -P FORWARD DROP');
    await ensureAccepted(traffic, options);
    host.sh('iptables-nft -P FORWARD ACCEPT');
    const before = '-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n';
    expect((await ensureAccepted(traffic, options)).removed).toHaveLength(BY_LINKS.length);
    expect(host.sh('iptables-nft -S')).toBe(before);
  });

  test('INPUT that drops lets VXLAN in', async () => {
    host.sh('iptables-nft -P INPUT DROP');
    expect((await ensureAccepted(traffic, options)).inserted).toEqual([
      'ip filter INPUT -p udp -m udp --dport 4789 -j ACCEPT',
    ]);
    expect((await ensureAccepted(traffic, options)).inserted).toEqual([]);
    expect(host.sh('iptables-nft -S INPUT')).toMatch(/udp .*dport 4789 .*-j ACCEPT/);
    host.sh('iptables-nft -F INPUT');
    expect((await ensureAccepted({ ...traffic, vxlan: undefined }, options)).inserted).toEqual([]);
  });

  test('VXLAN over IPv6 is let in there, whatever families pods have', async () => {
    host.sh('ip6tables-nft -P INPUT DROP; ip6tables-nft -P FORWARD DROP');
    const over6: AcceptedTraffic = {
      ...traffic,
      vxlan: { port: 4789, underlay: 'ipv6' },
      families: ['ipv4'],
    };
    expect((await ensureAccepted(over6, options)).inserted).toEqual([
      'ip6 filter INPUT -p udp -m udp --dport 4789 -j ACCEPT',
    ]);
    expect((await ensureAccepted(traffic, options)).removed).toHaveLength(1);
    host.sh('ip6tables-nft -P INPUT ACCEPT; ip6tables-nft -P FORWARD ACCEPT; ip6tables-nft -F');
  });

  test('a family without pods is left alone', async () => {
    host.sh('ip6tables-nft -P FORWARD DROP');
    expect((await ensureAccepted({ ...traffic, families: ['ipv4'] }, options)).inserted).toEqual([]);
  });

  test('rules that iptables itself wrote count', async () => {
    host.sh(
      [
        'iptables-nft -P FORWARD DROP',
        ...BY_LINKS.map((link) => `iptables-nft -A FORWARD ${link} -j ACCEPT`),
      ].join('; '),
    );
    expect((await ensureAccepted(traffic, options)).inserted).toEqual([]);
  });

  test('other tables that drop are told and left alone, our own is not foreign', async () => {
    const chain = (table: string, name: string, end: string) =>
      host.sh(
        `nft 'add table inet ${table}; add chain inet ${table} ${name} { type filter hook forward priority 10; ${end}'`,
      );
    chain('firewalld', 'filter_FORWARD', 'policy accept; }; add rule inet firewalld filter_FORWARD reject');
    chain('mine', 'forward', 'policy drop; }');
    chain('weft', 'forward', 'policy drop; }');
    chain('open', 'forward', 'policy accept; }; add rule inet open forward ip saddr 10.0.0.1 drop');
    const { inserted, unhandled } = await ensureAccepted(traffic, options);
    expect(inserted).toEqual([]);
    expect([...unhandled].sort()).toEqual(['inet firewalld filter_FORWARD', 'inet mine forward']);
  });
});

test.each(['iptables-nft', 'iptables-legacy'])(
  'real packets pass a FORWARD that %s drops',
  async (program) => {
    const router = make(`router-${program}`);
    const [podA, podB] = [make(`${program}-a`), make(`${program}-b`)];
    for (const [pod, name, address] of [
      [podA, 'wefta', '10.1.0.1'],
      [podB, 'weftb', '10.1.0.2'],
    ] as const) {
      router.sh(`ip link add ${name} type veth peer name eth0 netns ${pod.name}; ip link set ${name} up`);
      router.sh(
        `ip route add ${address} dev ${name}; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.${name}.proxy_arp=1`,
      );
      pod.sh(`ip addr add ${address}/32 dev eth0; ip link set eth0 up; ip route add default dev eth0`);
    }
    router.sh(`${program} -P FORWARD DROP`);
    expect(() => podA.sh('ping -c 1 -W 1 10.1.0.2')).toThrow();
    const loaded = program === 'iptables-legacy' ? ['filter'] : [];
    await ensureAccepted(
      { vxlan: undefined, families: ['ipv4'], forwarded: [] },
      { ...options, run: router.run, legacyTables: () => Promise.resolve(loaded) },
    );
    expect(podA.sh('ping -c 2 -i 0.2 -W 2 10.1.0.2')).toContain(' 0% packet loss');
  },
);

describe('by xtables-legacy', () => {
  const legacyTables = async (family: string) =>
    (await host.run('cat', [`/proc/net/${family === 'ipv4' ? 'ip' : 'ip6'}_tables_names`]))
      .trim()
      .split('\n');
  const legacyOptions = { ...options, legacyTables };

  test("works with the capabilities that the agent's container has", async () => {
    const manifest = await readFile(join(import.meta.dirname, '../../config/agent/daemonset.yaml'), 'utf8');
    const [names = ''] = /add: \[([^\]]*'SYS_ADMIN'[^\]]*)\]/.exec(manifest)?.slice(1) ?? [];
    const capabilities = names.split(', ').map((name) => `+${name.replaceAll("'", '').toLowerCase()}`);
    const limited = (bounding: readonly string[]) =>
      createCommandRunner({
        prefix: ['ip', 'netns', 'exec', host.name, 'setpriv', `--bounding-set=-all,${bounding.join()}`],
      });
    const run = limited(capabilities);
    host.sh('iptables-legacy -P FORWARD DROP');
    const only: AcceptedTraffic = { vxlan: undefined, families: ['ipv4'], forwarded: [] };
    expect((await ensureAccepted(only, { ...legacyOptions, run })).inserted).toHaveLength(2);
    // With less it refuses to start.
    const less = limited(capabilities.filter((name) => name !== '+net_raw'));
    await expect(ensureAccepted(only, { ...legacyOptions, run: less })).rejects.toThrow('Permission denied');
    host.sh('iptables-legacy -F; iptables-legacy -P FORWARD ACCEPT');
  });

  test.each([
    ['iptables-legacy', 'ipv4'],
    ['ip6tables-legacy', 'ipv6'],
  ] as const)('%s: what drops there is answered there, once, and put back', async (program, family) => {
    host.sh(
      `${program} -P FORWARD DROP; ${program} -A INPUT -j REJECT; ${program} -A FORWARD -o weft+ -j ACCEPT`,
    );
    const vxlan = { port: 4789, underlay: family };
    const only: AcceptedTraffic = { vxlan, families: [family], forwarded: [] };
    expect((await ensureAccepted(only, legacyOptions)).inserted).toEqual([
      ...BY_LINKS.filter((link) => link !== '-o weft+').map((link) => `${program} FORWARD ${link} -j ACCEPT`),
      `${program} INPUT -p udp -m udp --dport 4789 -j ACCEPT`,
    ]);
    expect((await ensureAccepted(only, legacyOptions)).inserted).toEqual([]);
    expect(host.sh(`${program} -S FORWARD`)).toContain(
      `-A FORWARD -i weft+ ${MARKED}\n-A FORWARD -o weft+ -j ACCEPT\n`,
    );
    expect(host.sh(`${program} -S INPUT`)).toMatch(/--dport 4789 .*-j ACCEPT\n-A INPUT -j REJECT/);
    host.sh(`${program} -F`);
    expect((await ensureAccepted(only, legacyOptions)).inserted).toHaveLength(BY_LINKS.length);
    host.sh(
      `${program} -P FORWARD ACCEPT; ${program} -F; ${program} -A FORWARD -s ${family === 'ipv4' ? '10.0.0.1' : 'fd00::1'} -j DROP`,
    );
    expect((await ensureAccepted(only, legacyOptions)).inserted).toEqual([]);
  });

  test.each([
    ['iptables-legacy', 'ipv4', '10.65.0.0/26'],
    ['ip6tables-legacy', 'ipv6', 'fd65::/122'],
  ] as const)(
    '%s: what nothing asks for any more goes, and what is foreign stays',
    async (program, family, cidr) => {
      host.sh(
        `${program} -F; ${program} -P FORWARD DROP; ${program} -P INPUT DROP; ` +
          `${program} -A FORWARD -d ${cidr} -j ACCEPT; ` +
          `${program} -A FORWARD -s ${cidr} -m comment --comment "by hand" -j ACCEPT`,
      );
      const foreign = host.sh(`${program} -S`);
      const vxlan = { port: 4789, underlay: family };
      const only: AcceptedTraffic = { vxlan, families: [family], forwarded: [parseCIDR(cidr)] };
      expect((await ensureAccepted(only, legacyOptions)).inserted).toHaveLength(BY_LINKS.length + 2);
      const { removed } = await ensureAccepted({ ...only, vxlan: undefined, forwarded: [] }, legacyOptions);
      expect([...removed].sort()).toEqual([
        `${program} FORWARD -i vxlan.weft ${MARKED}`,
        `${program} FORWARD -o vxlan.weft ${MARKED}`,
        `${program} FORWARD -s ${cidr} ${MARKED}`,
        `${program} INPUT -p udp -m udp --dport 4789 ${MARKED}`,
      ]);
      await ensureAccepted({ vxlan: undefined, families: [], forwarded: [] }, legacyOptions);
      expect(host.sh(`${program} -S`)).toBe(foreign);
      host.sh(`${program} -P FORWARD ACCEPT; ${program} -P INPUT ACCEPT; ${program} -F`);
    },
  );

  test('where no filter table is loaded no program is asked, since that would load it', async () => {
    const fresh = make('fresh');
    const asked: string[] = [];
    const run = (file: string, args: readonly string[]) => {
      asked.push(file);
      return fresh.run(file, args);
    };
    await ensureAccepted(traffic, { ...options, run, legacyTables: () => Promise.resolve(['nat']) });
    expect(asked).not.toContain('iptables-legacy');
  });
});
