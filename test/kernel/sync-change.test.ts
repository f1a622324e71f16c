import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { vxlanMAC } from '../../src/api/index.ts';
import { linkLocalOfMAC } from '../../src/dataplane/index.ts';
import { formatAddress } from '../../src/net/index.ts';
import {
  IP_FAMILIES,
  makeFabric,
  pings,
  POOLS,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type SyncProcess,
} from './fabric.ts';
import { ask, serve } from './ports.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/** One node, `a`, and what its sync does while objects, links and other people change. */
const { make } = useThrowaways();
let fabric: Fabric;
let a: FabricNode;
let host: Throwaway;
const running: { kill(): Promise<void> }[] = [];

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  const [first] = fabric.nodes;
  if (first === undefined) throw new Error('the fabric has three nodes');
  a = first;
  host = a.throwaway;
});

beforeEach(() => {
  host.sh(
    'ip link del vxlan.weft 2>/dev/null; ip route flush proto 84; ip -6 route flush proto 84; ' +
      'nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0; true',
  );
});

afterEach(async () => {
  await Promise.all(running.splice(0).map((process) => process.kill()));
});

function start(options: Parameters<typeof startSync>[1] = {}): SyncProcess {
  const sync = startSync(a, options);
  running.push(sync);
  return sync;
}

/** What `a` knows, with other subnets than the fabric's. */
function sourcesWith(subnets: Sources['subnets'], changes: Partial<Sources> = {}): Sources {
  return { ...fabric.sources(a), subnets, ...changes };
}

/** How often routes and the like of the kernel were listed so far. */
async function apply(sync: SyncProcess, sources: Sources): Promise<number> {
  sync.set(sources);
  return (await sync.upToDate()).dumps;
}

/** When nothing that the kernel has told is still to be looked at. */
async function settledDumps(sync: SyncProcess): Promise<number> {
  for (let last = -1; ;) {
    const { dumps } = await sync.upToDate();
    if (dumps === last) return dumps;
    last = dumps;
    await sleep(1000);
  }
}

async function untilHeld(sync: SyncProcess, times: number): Promise<void> {
  const held = () => sync.reports.filter(({ kind }) => kind === 'listingHeld').length;
  expect(await until(() => held() >= times, 10_000)).toBeDefined();
}

/** A sync whose filters somebody has touched: it has begun to list them, and waits. */
async function touchedAndHeld(subnets: Sources['subnets']): Promise<SyncProcess> {
  const sync = start();
  await apply(sync, sourcesWith(subnets));
  await settledDumps(sync);
  sync.letListingsBe('held');
  host.sh('nft flush chain inet weft from_pods');
  await untilHeld(sync, 1);
  return sync;
}

const repairs = (sync: SyncProcess) => sync.drift().filter((object) => object === 'table inet weft').length;

const OWN = ['10.64.0.0/26', 'a', ['192.168.1.10', 'fd01::10']] as const;
const FAR = ['10.64.0.128/26', 'c', ['192.168.2.12', 'fd02::12']] as const;

describe('before every kind has been listed once', () => {
  test('nothing is touched; then what nothing names is asked about and removed, or kept', async () => {
    host.sh('ip route add unreachable 10.64.7.0/26 metric 4096 proto 84');
    host.sh('ip route add unreachable 10.64.8.0/26 metric 4096 proto 84');
    host.sh('ip route add 10.64.9.0/26 via 192.168.1.254 proto 84');
    const sync = start({ keep: ['10.64.8.0/26'] });
    // Its answer shows that it runs.
    await sync.status();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(host.sh('ip route show proto 84').trim().split('\n')).toHaveLength(3);
    expect(host.sh('nft list tables')).not.toContain('weft');

    await apply(sync, fabric.sources(a));
    const routes = host.sh('ip route show proto 84');
    expect(routes).not.toContain('10.64.7.0/26');
    expect(routes).not.toContain('10.64.9.0/26');
    expect(routes).toContain('unreachable 10.64.8.0/26');
    const asked = sync.reports.flatMap((report) => (report.kind === 'removal' ? [report.cidr] : []));
    expect(new Set(asked)).toEqual(new Set(['10.64.7.0/26', '10.64.8.0/26']));
    expect(sync.drift()).toEqual([]);
  });
});

describe('what has gone while no agent ran', () => {
  test('is gone from routes, neighbours, FDB and filters of both families after its start', async () => {
    const near = ['10.64.0.64/26', 'b', ['192.168.1.11', 'fd01::11']] as const;
    const others = [near, ['fd64::40/122', 'b', near[2]], FAR, ['fd64::80/122', 'c', FAR[2]]] as const;
    const own = [OWN, ['fd64::/122', 'a', OWN[2]]] as const;
    const seen = () =>
      host
        .sh(
          'ip route show proto 84; ip -6 route show proto 84; ip neigh show dev vxlan.weft nud permanent; ' +
            'bridge fdb show dev vxlan.weft; nft list table inet weft',
        )
        .match(
          /\b(10\.64\.0\.(64|128)|fd64::[48]0|192\.168\.(1\.11|2\.12)|fd0(1::11|2::12)|fe80::\S+|lladdr)\b/g,
        ) ?? [];
    const before = start();
    await apply(before, sourcesWith([...own, ...others]));
    for (const trace of [
      '10.64.0.64',
      '10.64.0.128',
      'fd64::40',
      'fd64::80',
      '192.168.1.11',
      'fd01::11',
      'lladdr',
    ])
      expect(seen()).toContain(trace);
    await before.kill();

    const sync = start();
    await apply(sync, sourcesWith(own));
    expect(seen()).toEqual([]);
    expect((await sync.status()).differences).toEqual([]);
    // Whom nobody has taken away by hand is no drift.
    expect(sync.drift()).toEqual([]);
  });
});

describe('when the objects change', () => {
  test('a far node joins, moves to another address, and leaves', async () => {
    const sync = start();
    await apply(sync, sourcesWith([OWN]));
    expect(host.sh('bridge fdb show dev vxlan.weft')).toBe('');
    await apply(sync, sourcesWith([OWN, FAR]));
    expect(host.sh('ip route show 10.64.0.128/26')).toContain(
      'via 10.64.0.128 dev vxlan.weft proto 84 src 10.64.0.0 onlink',
    );
    expect(host.sh('bridge fdb show dev vxlan.weft')).toContain('dst 192.168.2.12');
    await apply(sync, sourcesWith([OWN, [FAR[0], 'c', ['192.168.2.99']]]));
    expect(host.sh('bridge fdb show dev vxlan.weft')).toContain('dst 192.168.2.99');
    expect(host.sh('bridge fdb show dev vxlan.weft').trim().split('\n')).toHaveLength(1);
    await apply(sync, sourcesWith([OWN, [FAR[0], 'c', ['192.168.1.77']]]));
    expect(host.sh('ip route show 10.64.0.128/26')).toContain('via 192.168.1.77 dev eth0');
    await apply(sync, sourcesWith([OWN]));
    expect(host.sh('ip route show 10.64.0.128/26')).toBe('');
    expect(host.sh('bridge fdb show dev vxlan.weft; ip neigh show dev vxlan.weft nud permanent')).toBe('');
    expect(sync.drift()).toEqual([]);
  });

  test('what single nodes need is done by itself, without a look at what all others have', async () => {
    const sync = start();
    const near = ['10.64.0.64/26', 'b', ['192.168.1.11', 'fd01::11']] as const;
    const far6 = ['fd64::80/122', 'c', FAR[2]] as const;
    await apply(sync, sourcesWith([OWN, near]));
    const before = await settledDumps(sync);
    expect(await apply(sync, sourcesWith([OWN, near, FAR, far6]))).toBe(before);
    expect(
      host.sh('ip route show 10.64.0.128/26; ip -6 route show fd64::80/122').match(/vxlan\.weft/g),
    ).toHaveLength(2);
    expect(host.sh('bridge fdb show dev vxlan.weft')).toContain('dst 192.168.2.12');
    expect(host.sh('nft list set inet weft nodes4')).toContain('192.168.2.12');
    expect(await apply(sync, sourcesWith([OWN, near, [FAR[0], 'c', ['192.168.2.99']]]))).toBe(before);
    expect(host.sh('bridge fdb show dev vxlan.weft').match(/dst \S+/g)).toEqual(['dst 192.168.2.99']);
    expect(await apply(sync, sourcesWith([OWN, FAR]))).toBe(before);
    expect(host.sh('ip route show 10.64.0.64/26; ip -6 route show fd64::80/122')).toBe('');
    expect(host.sh('nft list set inet weft nodes4')).not.toContain('192.168.1.11');
    // Nor is it looked at for what the kernel then tells of these changes.
    expect(await settledDumps(sync)).toBe(before);
    expect((await sync.status()).differences).toEqual([]);
    expect(sync.drift()).toEqual([]);

    // Where the node itself has another subnet, all is looked at.
    const more = await apply(sync, sourcesWith([OWN, FAR, ['10.64.1.0/26', 'a', OWN[2]]]));
    expect(more).toBeGreaterThan(before);
  });

  test('others are led to while the filters are still being looked at', async () => {
    const sync = await touchedAndHeld([OWN, FAR]);

    // One more subnet of a node that is known, then a node that is not: its address is among the filters.
    sync.set(sourcesWith([OWN, FAR, ['10.64.0.192/26', 'c', FAR[2]]]));
    const isLedTo = () => host.sh('ip route show 10.64.0.192/26').includes('vxlan.weft');
    expect(await until(isLedTo, 10_000)).toBeDefined();
    const near = ['10.64.0.64/26', 'b', ['192.168.1.11', 'fd01::11']] as const;
    sync.set(sourcesWith([OWN, near, FAR]));
    const isKnown = () => host.sh('nft list set inet weft nodes4').includes('192.168.1.11');
    expect(await until(isKnown, 10_000)).toBeDefined();
    expect(host.sh('ip route show 10.64.0.192/26')).toBe('');
    expect(sync.drift()).toEqual([]);

    sync.letListingsBe('done');
    expect(await until(() => repairs(sync) === 1, 10_000)).toBeDefined();
    expect(host.sh('nft list chain inet weft from_pods').split('\n').length).toBeGreaterThan(5);
  });

  test('what is done to the filters while they are looked at is found by another look', async () => {
    const sync = await touchedAndHeld([OWN]);
    sync.letListingsBe('held');
    await untilHeld(sync, 2);
    // They have been set again and listed: what is held from now on are those of others.
    sync.letListingsBe('held');
    await untilHeld(sync, 3);
    host.sh('nft flush chain inet weft from_pods');
    await sleep(2_000);
    sync.letListingsBe('done');
    expect(await until(() => repairs(sync) === 2, 10_000)).toBeDefined();
  });

  test('that filters cannot be looked at is told', async () => {
    const sync = start();
    await apply(sync, sourcesWith([OWN]));
    await settledDumps(sync);
    sync.letListingsBe('failing');
    host.sh('nft flush chain inet weft from_pods');
    const isTold = () =>
      sync.reports.some(
        (one) => one.kind === 'log' && one.level === 'error' && one.message.includes('as the test says'),
      );
    expect(await until(isTold, 10_000)).toBeDefined();
    sync.letListingsBe('done');
    const isBack = () => host.sh('nft list chain inet weft from_pods').split('\n').length > 5;
    expect(await until(isBack, 20_000)).toBeDefined();
  });

  test('what stands in the way of a single node is met, and said as ever', async () => {
    const sync = start();
    await apply(sync, sourcesWith([OWN]));
    host.sh('ip route add 10.64.0.128/26 via 192.168.1.254 proto static');
    await apply(sync, sourcesWith([OWN, FAR]));
    expect(host.sh('ip route show 10.64.0.128/26')).toContain('proto static');
    const unmet = sync.reports.findLast((report) => report.kind === 'unmet');
    expect(unmet?.refused.join()).toMatch(/route 10\.64\.0\.128\/26.*EEXIST/);
    host.sh('ip route del 10.64.0.128/26');
    const ours = () => host.sh('ip route show 10.64.0.128/26').includes('proto 84');
    expect(await until(ours, 20_000)).toBeDefined();
  });

  test('a far node registers under another UID: the same moment its other MAC is known (F37)', async () => {
    const sync = start();
    const far = (nodeUID: string) =>
      sourcesWith([OWN, [...FAR, { nodeUID }], ['fd64::80/122', 'c', FAR[2], { nodeUID }]]);
    await apply(sync, far('before'));
    const known = () =>
      host
        .sh('ip neigh show dev vxlan.weft nud permanent; bridge fdb show dev vxlan.weft')
        .trim()
        .split('\n');
    const [before, after] = [vxlanMAC('before'), vxlanMAC('after')];
    expect(known().filter((line) => line.includes(before))).toHaveLength(3);
    await apply(sync, far('after'));
    expect(known().filter((line) => line.includes(before))).toEqual([]);
    expect(known().filter((line) => line.includes(after))).toHaveLength(3);
    expect(host.sh('ip -6 route show fd64::80/122')).toContain(formatAddress(linkLocalOfMAC(after)));
    expect(sync.drift()).toEqual([]);
  });

  test("another node's address changes: what it is sent goes to the new one at once (F37)", async () => {
    const c = fabric.nodes[2];
    const pod = c?.pods[0];
    if (c === undefined || pod === undefined) throw new Error('the fabric has three nodes');
    const others = startSync(c);
    running.push(others);
    const given = fabric.sources(c);
    await apply(others, given);
    const sync = start();
    await apply(sync, fabric.sources(a));
    expect(await pings(host, pod.addresses[4])).toBe(true);
    c.throwaway.sh(
      'ip addr add 192.168.2.99/24 dev eth0 && ip addr del 192.168.2.12/24 dev eth0 && ' +
        'ip addr add 192.168.2.99/24 dev eth0 2>/dev/null; ip route replace default via 192.168.2.254',
    );
    const moved = given.subnets.map(
      ([cidr, node, hops]) => [cidr, node, node === 'c' ? ['192.168.2.99', 'fd02::12'] : hops] as const,
    );
    await apply(others, {
      ...given,
      node: { ...given.node, addresses: ['192.168.2.99', c.addresses[6]] },
      subnets: moved,
    });
    await apply(sync, { ...fabric.sources(a), subnets: moved });
    for (const address of Object.values(pod.addresses)) expect(await pings(host, address)).toBe(true);
    expect(host.sh('bridge fdb show dev vxlan.weft')).not.toContain('192.168.2.12 ');
    c.throwaway.sh(
      'ip addr add 192.168.2.12/24 dev eth0 && ip addr del 192.168.2.99/24 dev eth0; ' +
        'ip addr add 192.168.2.12/24 dev eth0 2>/dev/null; ip route replace default via 192.168.2.254',
    );
    expect(sync.drift()).toEqual([]);
  });

  test("the node's oldest subnet is given back: its pods' routes take the next source without a gap", async () => {
    const second = ['10.64.1.0/26', 'a', OWN[2], { created: '2026-02-01T00:00:00Z' }] as const;
    const [pod] = a.pods;
    const sync = start();
    await apply(sync, sourcesWith([OWN, second]));
    expect(host.sh(`ip route show ${pod?.addresses[4]}`)).toContain('src 10.64.0.0');
    const monitor = spawn('nsenter', [`--net=${host.path}`, 'ip', '-o', 'monitor', 'route'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let deleted = '';
    monitor.stdout.on('data', (data: Buffer) => (deleted += data.toString()));
    await apply(sync, sourcesWith([second]));
    expect(host.sh(`ip route show ${pod?.addresses[4]}`)).toContain('src 10.64.1.0');
    expect(host.sh('ip -o addr show dev vxlan.weft scope global')).not.toContain('10.64.0.0/32');
    monitor.kill();
    expect(
      deleted.split('\n').filter((line) => line.startsWith('Deleted') && line.includes('dev weft')),
    ).toEqual([]);
    expect(sync.drift()).toEqual([]);
  });

  test('a pool of IPv4 alone leaves IPv6 as it is', async () => {
    const sync = start();
    await apply(sync, sourcesWith([OWN, FAR], { pools: [['main', ['10.64.0.0/16']]] }));
    expect(host.sh('sysctl -n net.ipv4.ip_forward').trim()).toBe('1');
    expect(host.sh('sysctl -n net.ipv6.conf.all.forwarding').trim()).toBe('0');
    expect(host.sh('ip -6 route show proto 84')).toBe('');
    expect((await sync.status()).reason).toBeUndefined();
  });

  test('links of pods are told the MTU that fits through the tunnel', async () => {
    const sync = start();
    await apply(sync, fabric.sources(a));
    expect((await sync.status()).podMTU).toBe(1450);
    host.sh('ip link set eth0 mtu 1400');
    expect(await until(() => host.sh('ip link show vxlan.weft').includes('mtu 1350'), 3000)).toBeDefined();
    expect((await sync.status()).podMTU).toBe(1350);
    host.sh('ip link set eth0 mtu 1500');
  });
});

describe('what stands in the way', () => {
  test('a foreign route in the place of ours is named, the rest applied, and ours set when it goes', async () => {
    host.sh('ip route add 10.64.0.128/26 via 192.168.1.254 proto static');
    const sync = start();
    sync.set(fabric.sources(a));
    const named = () =>
      sync.reports.some(
        (report) => report.kind === 'log' && /route 10\.64\.0\.128\/26.*EEXIST/.test(report.message),
      );
    expect(await until(named, 10_000)).toBeDefined();
    // One peer that cannot be reached takes neither the node out of service nor its subnets out of use.
    await sync.upToDate();
    expect((await sync.status()).reason).toBeUndefined();
    expect(host.sh('ip route show 10.64.0.128/26')).toContain('proto static');
    expect(host.sh('ip route show 10.64.0.64/26')).toContain('proto 84');
    host.sh('ip route del 10.64.0.128/26');
    const ours = () => host.sh('ip route show 10.64.0.128/26').includes('proto 84');
    expect(await until(ours, 20_000)).toBeDefined();
  });

  test("a foreign link of our device's name is named and left alone", async () => {
    host.sh('ip link add vxlan.weft type bridge');
    const sync = start();
    sync.set(fabric.sources(a));
    const named = () =>
      sync.reports.some(
        ({ kind, ...rest }) => kind === 'log' && JSON.stringify(rest).includes('is bridge and not'),
      );
    expect(await until(named, 10_000)).toBeDefined();
    expect(host.sh('ip -d link show vxlan.weft')).toContain('bridge');
    expect(host.sh('ip route show 10.64.0.64/26')).toContain('proto 84');
    host.sh('ip link del vxlan.weft');
    await sync.upToDate();
    expect(host.sh('ip -d link show vxlan.weft')).toContain('vxlan id 4097');
  });

  test('an InternalIP that no link has is said, and the filters stand nevertheless', async () => {
    const sync = start();
    const sources = fabric.sources(a);
    sync.set({ ...sources, node: { ...sources.node, addresses: ['192.168.1.200'] } });
    const named = () =>
      sync.reports.some(
        (report) => report.kind === 'log' && report.message.includes('192.168.1.200 of node "a"'),
      );
    expect(await until(named, 10_000)).toBeDefined();
    expect(host.sh('nft list tables')).toContain('inet weft');
    expect((await sync.status()).reason).toContain('192.168.1.200');
    await apply(sync, sources);
    expect((await sync.status()).reason).toBeUndefined();
  });

  test('an uplink whose address is away for a moment takes no route with it', async () => {
    const sync = start();
    await apply(sync, fabric.sources(a));
    host.sh('ip addr del 192.168.1.10/24 dev eth0');
    await sync.upToDate();
    expect(host.sh('ip route show 10.64.0.128/26')).toContain('dev vxlan.weft');
    expect(host.sh('ip link show vxlan.weft')).toContain('UP');
    host.sh('ip addr add 192.168.1.10/24 dev eth0 && ip route add default via 192.168.1.254');
    const direct = () => host.sh('ip route show 10.64.0.64/26').includes('via 192.168.1.11');
    expect(await until(direct, 2000)).toBeDefined();
    expect((await sync.status()).reason).toBeUndefined();
  });
});

describe('a table of the kernel that is full (F44)', () => {
  test('is said with the peer that has no place in it, which gets one as soon as there is', async () => {
    // Everything as weft makes it, but for one entry and no more.
    host.sh(
      'ip link add vxlan.weft type vxlan id 4097 dstport 4789 local 192.168.1.10 nolearning maxaddress 1 && ' +
        'ip link set vxlan.weft up',
    );
    const sync = start();
    const also = ['10.64.1.0/26', 'd', ['192.168.2.13']] as const;
    sync.set(sourcesWith([OWN, FAR, also]));
    const unmet = () => sync.reports.flatMap((report) => (report.kind === 'unmet' ? [report.refused] : []));
    expect(await until(() => unmet().length > 0, 10_000)).toBeDefined();
    expect(unmet()[0]?.join()).toMatch(
      /^set FDB entry [0-9a-f:]+ behind 192\.168\.2\.1[23] on link \d+: ENOSPC/,
    );
    // The other peer is reached, and the node is not taken out of service.
    await sync.upToDate();
    expect((await sync.status()).reason).toBeUndefined();
    expect(host.sh('bridge fdb show dev vxlan.weft').trim().split('\n')).toHaveLength(1);
    expect((await sync.status()).differences.join()).toContain('missing FDB entry');

    host.sh('ip link del vxlan.weft');
    expect(await until(() => unmet().at(-1)?.length === 0, 20_000)).toBeDefined();
    expect(host.sh('bridge fdb show dev vxlan.weft').trim().split('\n')).toHaveLength(2);
  });
});

describe('two nodes with one MAC (F37)', () => {
  test('are said, and one of them is reached, never now the one and now the other', async () => {
    const sync = start();
    const twin = [
      '10.64.1.0/26',
      'd',
      ['192.168.2.13'],
      { nodeUID: 'uid-c', created: '2026-03-01T00:00:00Z' },
    ] as const;
    await apply(sync, sourcesWith([OWN, twin, FAR]));
    const notes = sync.reports.flatMap((report) => (report.kind === 'unmet' ? report.notes : []));
    expect(notes.join()).toMatch(
      /^no route to 10\.64\.1\.0\/26 of node "d": its VXLAN MAC .* is that of node "c", too/,
    );
    expect(host.sh('bridge fdb show dev vxlan.weft')).toContain('dst 192.168.2.12 ');
    expect(host.sh('ip route show 10.64.1.0/26')).toBe('');
    await apply(sync, sourcesWith([OWN, [twin[0], twin[1], twin[2], { nodeUID: 'another' }], FAR]));
    expect(sync.reports.findLast(({ kind }) => kind === 'unmet')).toMatchObject({ notes: [] });
    expect(host.sh('ip route show 10.64.1.0/26')).toContain('dev vxlan.weft');
  });
});

describe('router advertisements', () => {
  test('still bring the default route after forwarding is on', async () => {
    const node = make('advertised');
    const gateway = make('gateway');
    node.sh(
      `ip link add eth0 type veth peer name eth0 netns ${gateway.name} && sysctl -qw net.ipv6.conf.eth0.accept_ra=1`,
    );
    gateway.sh(
      'ip link set eth0 up && sysctl -qw net.ipv6.conf.all.forwarding=1 && ip addr add fd01::ff/64 dev eth0 nodad',
    );
    node.sh(
      'ip link set eth0 up && ip addr add 192.168.1.10/24 dev eth0 && ip addr add fd01::10/64 dev eth0 nodad',
    );
    const radvd = startAdvertising(gateway, 'eth0');
    const defaultRoute = () => node.sh('ip -6 route show default').includes('proto ra');
    expect(await until(defaultRoute, 15_000)).toBeDefined();

    const sync = startSync({ ...a, throwaway: node });
    running.push(sync);
    await apply(sync, { ...fabric.sources(a), subnets: [['fd64::/122', 'a', OWN[2]]] });
    expect(node.sh('sysctl -n net.ipv6.conf.all.forwarding net.ipv6.conf.eth0.accept_ra')).toBe('1\n2\n');
    expect(defaultRoute()).toBe(true);
    node.sh('ip -6 route del default');
    expect(await until(defaultRoute, 15_000)).toBeDefined();
    radvd.kill();
  });

  test('of a pod are dropped, even where new links listen', async () => {
    const sync = start();
    await apply(sync, fabric.sources(a));
    const [pod] = a.pods;
    if (pod === undefined) throw new Error('the fabric has no pods');
    host.sh(`sysctl -qw net.ipv6.conf.${pod.hostLink}.accept_ra=2`);
    pod.throwaway.sh('sysctl -qw net.ipv6.conf.all.forwarding=1');
    const radvd = startAdvertising(pod.throwaway, 'eth0');
    const dropped = () =>
      /nd-router-advert.*packets [1-9]/.test(host.sh('nft list chain inet weft from_pods'));
    expect(await until(dropped, 15_000)).toBeDefined();
    expect(host.sh(`ip -6 route show default dev ${pod.hostLink}`)).toBe('');
    // Where the rule is missing, they are taken for true.
    sync.pause();
    host.sh('nft flush chain inet weft from_pods');
    const taken = () => host.sh(`ip -6 route show default dev ${pod.hostLink}`) !== '';
    expect(await until(taken, 15_000)).toBeDefined();
    sync.resume();
    radvd.kill();
    host.sh(`ip -6 route flush default dev ${pod.hostLink} || true`);
  });
});

describe('the way out of the pools', () => {
  test('is masqueraded for pools that say so, and not for others', async () => {
    const [pod] = a.pods;
    const { outside } = fabric;
    if (pod === undefined) throw new Error('the fabric has no pods');
    const sync = start();
    await apply(sync, fabric.sources(a));
    expect(await pings(pod.throwaway, outside.addresses[4])).toBe(true);
    expect(await pings(pod.throwaway, outside.addresses[6])).toBe(true);
    const [[name, cidrs] = ['main', []]] = POOLS;
    await apply(sync, { ...fabric.sources(a), pools: [[name, cidrs, { natOutgoing: false }]] });
    // Another peer than before: a connection that is known keeps its translation.
    expect(await pings(pod.throwaway, '192.168.9.254')).toBe(false);
  });
});

describe.each(IP_FAMILIES)('whose address a machine sees (IPv%i)', (family) => {
  const at = { 4: { link: '192.168.1.254', far: '192.168.9.254' }, 6: { link: 'fd01::ff', far: 'fd09::ff' } }[
    family
  ];
  const flag = `-${family}`;

  test("is the node's outside, and the pod's on nodes of its link and in exempted networks", async () => {
    const [pod] = a.pods;
    const [, b] = fabric.nodes;
    if (pod === undefined || b === undefined) throw new Error('the fabric has three nodes with pods');
    // The router forwards no pod's address; what is for itself it takes, and here it knows the way back.
    fabric.router.sh(`ip ${flag} route add ${pod.addresses[family]} via ${a.addresses[family]}`);
    const ends = [await serve(fabric.router, 'router', 7300), await serve(b.throwaway, 'b', 7300)];
    try {
      const exempt = start({ natExempt: [`${at.link}/${family === 4 ? 32 : 128}`] });
      await apply(exempt, fabric.sources(a));
      // b's own routes are its agent's, which does not run here.
      b.throwaway.sh(`ip ${flag} route replace ${pod.addresses[family]} via ${a.addresses[family]}`);
      expect(await ask(pod.throwaway, 'tcp', at.link, 7300)).toBe(`router ${pod.addresses[family]}`);
      expect(await ask(pod.throwaway, 'tcp', at.far, 7300)).toBe(`router ${a.addresses[family]}`);
      expect(await ask(pod.throwaway, 'tcp', b.addresses[family], 7300)).toBe(`b ${pod.addresses[family]}`);
      await exempt.kill();

      await apply(start(), fabric.sources(a));
      // Another port than before: a connection that is known keeps its translation.
      expect(await ask(pod.throwaway, 'tcp', at.link, 7300)).toBe(`router ${a.addresses[family]}`);
    } finally {
      for (const end of ends) end();
      for (const machine of [fabric.router, b.throwaway])
        machine.sh(`ip ${flag} route del ${pod.addresses[family]} || true`);
    }
  });

  test('comes with a port that nobody can guess', async () => {
    const [pod] = a.pods;
    if (pod === undefined) throw new Error('the fabric has no pods');
    await apply(start(), fabric.sources(a));
    const end = await serve(fabric.outside.throwaway, 'outside', 7301);
    const sourcePorts = Array.from({ length: 12 }, (_, i) => 40_000 + i);
    for (const sourcePort of sourcePorts) {
      const seen = await ask(pod.throwaway, 'udp', fabric.outside.addresses[family], 7301, { sourcePort });
      expect(seen).toBe(`outside ${a.addresses[family]}`);
    }
    end();
    const tracked = host.sh(`conntrack -L -f ipv${family} -p udp --orig-port-dst 7301 2>/dev/null`);
    const ports = sourcePorts.map((sourcePort) =>
      Number(new RegExp(` sport=${sourcePort} .* sport=7301 dport=(\\d+)`).exec(tracked)?.[1]),
    );
    // One of 64,000 may be the same, or the next, by chance.
    const kept = ports.filter((port, i) => port === sourcePorts[i]);
    const counted = ports.filter((port, i) => port === (ports[i - 1] ?? NaN) + 1);
    expect(
      ports.every((port) => port > 0),
      tracked,
    ).toBe(true);
    expect(kept.length, ports.join()).toBeLessThanOrEqual(1);
    expect(counted.length, ports.join()).toBeLessThanOrEqual(1);
  });
});

/** radvd in that namespace, advertising itself as a router every few seconds. */
function startAdvertising(machine: Throwaway, link: string): ChildProcess {
  const directory = mkdtempSync(join(tmpdir(), 'weft-radvd-'));
  const config = join(directory, 'radvd.conf');
  writeFileSync(
    config,
    `interface ${link} { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; };\n`,
  );
  const child = spawn(
    'nsenter',
    [`--net=${machine.path}`, 'radvd', '-n', '-m', 'stderr', '-C', config, '-p', join(directory, 'pid')],
    { stdio: 'ignore' },
  );
  child.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return child;
}
