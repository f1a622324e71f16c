import { afterEach, describe, expect, test } from 'vitest';
import {
  AliasTooLongError,
  configurePodLink,
  createPodLink,
  deleteLink,
  deleteLinkGroup,
  DYING_LINK_GROUP,
  dyingPodLink,
  findPodLinks,
  formatAlias,
  getLink,
  hostLinkName,
  inspectPodLink,
  LinkExistsError,
  listLinks,
  listNeighbours,
  listRoutes,
  openNamespaceSocket,
  podAddressesSettled,
  podMac,
  repairPodLinks,
  ROUTE_PROTOCOL,
  routeTo,
  type AttachmentAlias,
  type NetlinkSocket,
  type PodLink,
  type PodLinkWiring,
} from '../../src/kernel/index.ts';
import { formatCIDR, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

const { own, make } = useThrowaways();
const host = make('host');
const podA = make('pod-a');
const podB = make('pod-b');
const hostSocket = host.namespace.socket;
const hostSources = { ipv4: parseAddress('10.244.1.0'), ipv6: parseAddress('fd00:1::') };
host.sh('ip addr add 10.244.1.0/32 dev lo; ip addr add fd00:1::/128 dev lo nodad');
host.sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');

afterEach(async () => {
  for (const { link } of findPodLinks(hostSocket)) deleteLink(hostSocket, link.index);
  await deleteLinkGroup(hostSocket, DYING_LINK_GROUP);
});

describe('a wired pod', () => {
  test('is reached from its node and reaches another pod, with real packets of both families', () => {
    podA.sh('ip link set lo down');
    wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    wire(podB, 'b', '10.244.1.6', 'fd00:1::6');
    for (const [from, to] of [
      [host, '10.244.1.5'],
      [host, 'fd00:1::5'],
      [podA, '10.244.1.6'],
      [podA, 'fd00:1::6'],
      [podB, '10.244.1.5'],
      [podB, 'fd00:1::5'],
      [podA, '10.244.1.0'],
      [podA, 'fd00:1::'],
      [podA, '127.0.0.1'],
    ] as const) {
      expect(from.sh(`ping -c 2 -i 0.1 -W 2 ${to}`)).toContain(' 0% packet loss');
    }
  });

  test("the node's traffic to it leaves with the preferred source", () => {
    host.sh('ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up');
    wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    expect(host.sh('ip route get 10.244.1.5')).toContain('src 10.244.1.0');
    expect(host.sh('ip route get fd00:1::5')).toContain('src fd00:1::');
    host.sh('ip link del docker0');
  });

  test('the first IPv6 packet right after the wiring is answered', () => {
    wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    expect(host.sh('ping -c 1 -W 1 fd00:1::5')).toContain(' 0% packet loss');
    expect(podA.sh('ip -6 addr show dev eth0 scope global')).toContain('fd00:1::5/128 scope global nodad');
  });

  test("the host's end has its carrier when the wiring returns, so the first packet is not lost", async () => {
    let waiting = 0;
    for (let i = 0; i < 100; i++) {
      const link = wire(podA, `carrier-${i}`, '10.244.1.5');
      // A listing does not make the kernel catch up, as asking for one link does.
      const found = listLinks(hostSocket).find(({ index }) => index === link.hostIndex);
      if (found?.operState !== 'up') waiting++;
      dyingPodLink(hostSocket, podA.namespace, link.hostName);
      if (i % 10 === 9) await deleteLinkGroup(hostSocket, DYING_LINK_GROUP);
    }
    expect(waiting).toBe(0);
  });

  test('is recorded by the kernel: links, alias, MACs, routes, neighbours', () => {
    const link = wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    expect(findPodLinks(hostSocket)).toMatchObject([
      {
        link: {
          name: hostLinkName('a', 'eth0'),
          index: link.hostIndex,
          mac: 'ee:ee:ee:ee:ee:ee',
          mtu: 1450,
          up: true,
        },
        attachment: attachment('a', '10.244.1.5', 'fd00:1::5'),
      },
    ]);
    const inside = inspectPodLink(hostSocket, podA.namespace, link.hostName);
    expect(inside?.podLink).toMatchObject({ name: 'eth0', mac: podMac('a', 'eth0'), mtu: 1450, up: true });
    expect(
      inside?.routes
        .filter((route) => route.protocol === ROUTE_PROTOCOL.weftPod)
        .map((route) => formatCIDR(route.dst)),
    ).toEqual(['0.0.0.0/0', '::/0']);
    expect(
      listRoutes(hostSocket, { protocol: ROUTE_PROTOCOL.weftPod }).map((route) => formatCIDR(route.dst)),
    ).toEqual(['10.244.1.5/32', 'fd00:1::5/128']);
    expect(
      listNeighbours(hostSocket, { linkIndex: link.hostIndex }).filter((entry) => entry.permanent),
    ).toHaveLength(2);
    for (const [where, name] of [
      [host, link.hostName],
      [podA, 'eth0'],
    ] as const) {
      expect(where.sh(`cat /sys/class/net/${name}/addr_assign_type`)).toBe('3\n');
      expect(where.sh(`ip -d link show ${name}`)).toContain('numtxqueues 1 numrxqueues 1 ');
    }
  });

  test('of one family gets nothing of the other', () => {
    wire(podA, 'a', '10.244.1.5');
    expect(podA.sh('ip -6 route show default')).toBe('');
    expect(listRoutes(hostSocket, { protocol: ROUTE_PROTOCOL.weftPod, family: 'ipv6' })).toEqual([]);
    wire(podB, 'b', undefined, 'fd00:1::6');
    expect(podB.sh('ip -4 route show default')).toBe('');
    expect(host.sh('ping -c 1 -W 1 fd00:1::6')).toContain(' 0% packet loss');
  });

  test('a second interface leads only to the given destinations', () => {
    wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    const wiring = { ...wiringOf('a', '10.244.1.15', undefined), destinations: [parseCIDR('10.200.0.0/16')] };
    const link = createPodLink(hostSocket, podA.namespace, { containerID: 'a', ifName: 'net1', mtu: 1450 });
    configurePodLink(hostSocket, podA.namespace.socket, link, wiring);
    expect(podA.sh('ip route get 10.200.0.1')).toContain('dev net1');
    expect(podA.sh('ip route get 10.201.0.1')).toContain('dev eth0');
  });
});

describe('what stands in the way', () => {
  test('a link of that name in the pod stays as it was, and nothing is left on the host', () => {
    podA.addLink('eth0', '02:00:00:00:00:77');
    const refusal = refusalOf(() => createPodLink(hostSocket, podA.namespace, spec('a')));
    expect(refusal).toBeInstanceOf(LinkExistsError);
    expect(refusal).toMatchObject({ linkName: 'eth0', where: 'pod' });
    expect(podA.sh('cat /sys/class/net/eth0/address')).toBe('02:00:00:00:00:77\n');
    expect(findPodLinks(hostSocket)).toEqual([]);
    podA.sh('ip link del eth0');
  });

  test('the host end of an earlier ADD', () => {
    createPodLink(hostSocket, podA.namespace, spec('a'));
    const refusal = refusalOf(() => createPodLink(hostSocket, podB.namespace, spec('a')));
    expect(refusal).toMatchObject({
      name: 'LinkExistsError',
      linkName: hostLinkName('a', 'eth0'),
      where: 'host',
    });
  });

  test('a foreign route to the address: the ADD fails and says which', () => {
    host.sh('ip route add 10.244.1.5/32 dev lo proto static');
    const link = createPodLink(hostSocket, podA.namespace, spec('a'));
    const refusal = refusalOf(() => {
      configurePodLink(hostSocket, podA.namespace.socket, link, wiringOf('a', '10.244.1.5'));
    });
    expect(String(refusal)).toContain('add route 10.244.1.5/32 dev');
    expect(String(refusal)).toContain('EEXIST');
    expect(host.sh('ip route show 10.244.1.5')).toContain('dev lo proto static');
    host.sh('ip route del 10.244.1.5/32');
  });

  test('an alias that is too long is refused before anything is changed', () => {
    const link = createPodLink(hostSocket, podA.namespace, spec('a'));
    const refusal = refusalOf(() => {
      const wiring = { ...wiringOf('a', '10.244.1.5'), alias: `w1 ${'x'.repeat(260)}` };
      configurePodLink(hostSocket, podA.namespace.socket, link, wiring);
    });
    expect(refusal).toBeInstanceOf(AliasTooLongError);
    expect(getLink(hostSocket, { index: link.hostIndex })?.up).toBe(false);
  });

  test('a link without complete alias is half-made, no attachment', () => {
    createPodLink(hostSocket, podA.namespace, spec('a'));
    expect(findPodLinks(hostSocket)).toMatchObject([{ attachment: undefined }]);
  });
});

describe('a dying pod link', () => {
  test('is down on both ends at once, frees both names, and is no attachment', async () => {
    const link = wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    expect(dyingPodLink(hostSocket, podA.namespace, link.hostName)).toBe(true);
    expect(findPodLinks(hostSocket)).toEqual([]);
    expect(getLink(podA.namespace.socket, { name: 'eth0' })).toBeUndefined();
    expect(getLink(hostSocket, { index: link.hostIndex })).toMatchObject({
      name: `xweft${link.hostIndex}`,
      alias: 'dying',
      group: DYING_LINK_GROUP,
      up: false,
    });
    expect(getLink(podA.namespace.socket, { index: link.podIndex })).toMatchObject({ up: false });
    expect(listRoutes(hostSocket, { protocol: ROUTE_PROTOCOL.weftPod })).toEqual([]);
    // The same names and addresses right after, before the first pair is gone, and that twice.
    for (let i = 0; i < 2; i++) {
      const again = wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
      expect(host.sh('ping -c 1 -W 1 10.244.1.5')).toContain(' 0% packet loss');
      expect(dyingPodLink(hostSocket, podA.namespace, again.hostName)).toBe(true);
    }
    await deleteLinkGroup(hostSocket, DYING_LINK_GROUP);
    expect(listLinks(podA.namespace.socket).map((left) => left.name)).toEqual(['lo']);
  });

  test('that is not there is false', () => {
    expect(dyingPodLink(hostSocket, podA.namespace, hostLinkName('nobody', 'eth0'))).toBe(false);
  });

  test('goes without its namespace too', () => {
    const link = wire(podA, 'a', '10.244.1.5');
    expect(dyingPodLink(hostSocket, undefined, link.hostName)).toBe(true);
    expect(getLink(podA.namespace.socket, { name: 'eth0' })).toBeDefined();
    expect(host.sh('ip route show 10.244.1.5')).toBe('');
  });

  test("another pod's link under the path is left alone, also with the same index and name", () => {
    const link = wire(podA, 'a', '10.244.1.5');
    const foreign = wire(podB, 'b', '10.244.1.6');
    expect(dyingPodLink(hostSocket, podB.namespace, link.hostName)).toBe(true);
    expect(getLink(podB.namespace.socket, { index: foreign.podIndex })).toMatchObject({
      name: 'eth0',
      up: true,
    });
    expect(host.sh('ping -c 1 -W 1 10.244.1.6')).toContain(' 0% packet loss');
  });

  test("another node's pod under the path is left alone, also where every index agrees", () => {
    const link = wire(podA, 'a', '10.244.1.5');
    const [elsewhere, foreign] = [make('elsewhere'), make('foreign')];
    elsewhere.sh(
      `ip link add x index ${link.hostIndex} type veth peer name eth0 index ${link.podIndex} netns ${foreign.name}`,
    );
    foreign.sh('ip link set eth0 up');
    expect(getLink(foreign.namespace.socket, { name: 'eth0' })).toMatchObject({
      index: link.podIndex,
      peerIndex: link.hostIndex,
    });
    expect(dyingPodLink(hostSocket, foreign.namespace, link.hostName)).toBe(true);
    expect(getLink(foreign.namespace.socket, { name: 'eth0' })).toMatchObject({ up: true });
    expect(inspectPodLink(hostSocket, foreign.namespace, link.hostName)).toBeUndefined();
  });

  test('a foreign link that took the place of ours in the namespace is left alone', () => {
    const link = wire(podA, 'a', '10.244.1.5');
    // The runtime moved our end away and put another under its name.
    podA.sh('ip link set eth0 down && ip link set eth0 name moved');
    podA.addLink('eth0', '02:00:00:00:00:77');
    expect(dyingPodLink(hostSocket, podA.namespace, link.hostName)).toBe(true);
    expect(getLink(podA.namespace.socket, { name: 'eth0' })).toMatchObject({
      mac: '02:00:00:00:00:77',
      up: true,
    });
    expect(getLink(podA.namespace.socket, { index: link.podIndex })?.name).toBe(`xweft${link.podIndex}`);
    podA.sh('ip link del eth0');
  });

  test('our end moved to a third namespace: what now has its index is left alone', () => {
    const link = wire(podA, 'a', '10.244.1.5');
    podA.sh(`ip link set eth0 netns ${podB.name}`);
    const index = podA.addLink('eth0', '02:00:00:00:00:78');
    expect(dyingPodLink(hostSocket, podA.namespace, link.hostName)).toBe(true);
    expect(getLink(podA.namespace.socket, { index })).toMatchObject({ name: 'eth0', up: true });
    podA.sh('ip link del eth0');
  });
});

describe('repair', () => {
  const lost: [string, (link: PodLink) => string][] = [
    ['routes flushed', () => 'ip route flush proto 85; ip -6 route flush proto 85'],
    ['neighbours flushed', (link) => `ip neigh flush dev ${link.hostName} nud permanent`],
    ['host end set down', (link) => `ip link set ${link.hostName} down`],
    [
      'host end set down and up',
      (link) => `ip link set ${link.hostName} down; ip link set ${link.hostName} up`,
    ],
    [
      'preferred source gone and back',
      () => 'ip addr del 10.244.1.0/32 dev lo; ip addr add 10.244.1.0/32 dev lo',
    ],
  ];
  test.each(lost)('%s', (_, command) => {
    const link = wire(podA, 'a', '10.244.1.5', 'fd00:1::5');
    expect(repairPodLinks(hostSocket, hostSources)).toEqual([]);
    host.sh(command(link));
    expect(repairPodLinks(hostSocket, hostSources).length).toBeGreaterThan(0);
    expect(host.sh('ping -c 1 -W 2 10.244.1.5')).toContain(' 0% packet loss');
    expect(host.sh('ping -c 1 -W 2 fd00:1::5')).toContain(' 0% packet loss');
    expect(repairPodLinks(hostSocket, hostSources)).toEqual([]);
  });

  test('a changed preferred source is followed', () => {
    wire(podA, 'a', '10.244.1.5');
    host.sh('ip addr add 10.244.1.1/32 dev lo');
    const repaired = repairPodLinks(hostSocket, { ipv4: parseAddress('10.244.1.1') });
    expect(repaired).toEqual([expect.stringContaining('replace route 10.244.1.5/32')]);
    expect(host.sh('ip route get 10.244.1.5')).toContain('src 10.244.1.1');
  });

  test('half-made and dying links get nothing', () => {
    createPodLink(hostSocket, podA.namespace, spec('a'));
    const dying = wire(podB, 'b', '10.244.1.6');
    dyingPodLink(hostSocket, podB.namespace, dying.hostName);
    expect(repairPodLinks(hostSocket, hostSources)).toEqual([]);
  });

  test('routes of pods that are gone, and foreign ones, stay', () => {
    host.sh('ip route add 10.244.1.99/32 dev lo proto 85; ip route add 10.244.1.98/32 dev lo proto static');
    wire(podA, 'a', '10.244.1.5');
    repairPodLinks(hostSocket, hostSources);
    expect(host.sh('ip route show')).toMatch(/10\.244\.1\.98 .*\n10\.244\.1\.99 /);
    host.sh('ip route del 10.244.1.99; ip route del 10.244.1.98');
  });
});

test('the first packet to each address finds the pod, however busy the kernel is', async () => {
  const rounds = 200;
  const wiring = wiringOf('a', '10.244.1.5', 'fd00:1::5');
  const isLocal = (pod: NetlinkSocket) =>
    Object.values(wiring.addresses).every((address) => routeTo(pod, address)?.type === 'local');
  let early = 0;
  for (let i = 0; i < rounds; i++) {
    using pod = openNamespaceSocket(own, podA.path);
    const link = createPodLink(hostSocket, pod, spec('a'));
    configurePodLink(hostSocket, pod.socket, link, wiring);
    if (!isLocal(pod.socket)) early++;
    expect(await podAddressesSettled(pod.socket, wiring.addresses)).toBe(true);
    expect(isLocal(pod.socket)).toBe(true);
    dyingPodLink(hostSocket, pod, link.hostName);
    if (i % 20 === 0) await deleteLinkGroup(hostSocket, DYING_LINK_GROUP);
  }
  console.log(`${early} of ${rounds} times a packet right after the wiring would have been lost`);
});

test('addresses that the pod does not have do not settle, and nobody waits for ever', async () => {
  using pod = openNamespaceSocket(own, podA.path);
  expect(await podAddressesSettled(pod.socket, { ipv6: parseAddress('fd00:1::77') })).toBe(false);
});

test('how long a whole interface takes', async () => {
  const rounds = 200;
  const times: Record<'wired' | 'dying', number[]> = { wired: [], dying: [] };
  for (let i = 0; i < rounds; i++) {
    const started = performance.now();
    using pod = openNamespaceSocket(own, podA.path);
    const link = createPodLink(hostSocket, pod, spec('a'));
    configurePodLink(hostSocket, pod.socket, link, wiringOf('a', '10.244.1.5', 'fd00:1::5'));
    const wired = performance.now();
    dyingPodLink(hostSocket, pod, link.hostName);
    times.wired.push(wired - started);
    times.dying.push(performance.now() - wired);
    if (i % 20 === 0) await deleteLinkGroup(hostSocket, DYING_LINK_GROUP);
  }
  for (const [what, values] of Object.entries(times)) {
    const sorted = values.sort((a, b) => a - b);
    const at = (share: number) => (sorted[Math.floor(share * rounds)] ?? 0).toFixed(2);
    console.log(`${what}, both families: best ${at(0)} ms, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`);
  }
});

function attachment(containerID: string, ipv4?: string, ipv6?: string): AttachmentAlias {
  return {
    network: 'weft',
    containerID,
    ifName: 'eth0',
    addresses: {
      ...(ipv4 === undefined ? {} : { ipv4: parseAddress(ipv4) }),
      ...(ipv6 === undefined ? {} : { ipv6: parseAddress(ipv6) }),
    },
    podUID: undefined,
  };
}

function spec(containerID: string) {
  return { containerID, ifName: 'eth0', mtu: 1450 };
}

function wiringOf(containerID: string, ipv4?: string, ipv6?: string): PodLinkWiring {
  const record = attachment(containerID, ipv4, ipv6);
  return { addresses: record.addresses, destinations: 'default', hostSources, alias: formatAlias(record) };
}

function wire(pod: Throwaway, containerID: string, ipv4?: string, ipv6?: string): PodLink {
  const link = createPodLink(hostSocket, pod.namespace, spec(containerID));
  configurePodLink(hostSocket, pod.namespace.socket, link, wiringOf(containerID, ipv4, ipv6));
  return link;
}

function refusalOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('it was accepted');
}
