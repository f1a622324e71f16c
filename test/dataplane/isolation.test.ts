import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { IPPool, NodeSubnet } from '../../src/api/index.ts';
import {
  desiredNodeState,
  renderFilter,
  type DNSServer,
  type NftDocument,
} from '../../src/dataplane/index.ts';
import { FAMILIES, formatAddress, parseAddress, type Family, type IPAddress } from '../../src/net/index.ts';
import { input, pool, subnet } from './objects.ts';
import { mayPass, type World } from './isolation-model.ts';
import { verdictOf, type Packet } from './packets.ts';

type Isolation = Partial<IPPool['spec']['isolation']>;

const isolated = (...peers: string[]): Isolation => ({ mode: 'Isolated', peers });

/** Pool number `n` has 10.n.0.0/16 and fd00:n::/64. */
function tenant(
  name: string,
  n: number,
  isolation: Isolation = {},
  spec: Partial<IPPool['spec']> = {},
): IPPool {
  return pool(name, [`10.${n}.0.0/16`, `fd00:${n}::/64`], {
    isolation: { mode: 'None', peers: [], dns: true, ...isolation },
    ...spec,
  });
}

/** One of the node's subnets, of each family, in the ranges of number `n`. */
function pieces(poolName: string, n: number, nodeName = 'b'): NodeSubnet[] {
  const hops = [`192.168.1.${nodeName.charCodeAt(0)}`, `fd01::${nodeName.charCodeAt(0)}`];
  return [
    subnet(`10.${n}.0.0/26`, nodeName, hops, { pool: poolName }),
    subnet(`fd00:${n}::/122`, nodeName, hops, { pool: poolName }),
  ];
}

const pod = (family: Family, n: number, host = 5): IPAddress =>
  parseAddress(family === 'ipv4' ? `10.${n}.0.${host}` : `fd00:${n}::${host === 0 ? '' : host.toString(16)}`);

const OUTSIDE = { ipv4: parseAddress('203.0.113.7'), ipv6: parseAddress('2001:db8::7') };

function rendered({ pools, subnets, dnsServers = [] }: World): NftDocument {
  return renderFilter(desiredNodeState(input({ pools, subnets, dnsServers })).filter);
}

function tcp(from: IPAddress, to: IPAddress, change: Partial<Packet> = {}): Packet {
  return { from, to, protocol: 'tcp', ports: [40_000, 8080], isReply: false, ...change };
}

function passes(document: NftDocument, packet: Packet): boolean {
  return verdictOf(document, 'isolation', packet) === 'accept';
}

/** Whether a connection from one pool's pod to the other's works: both ways, and whoever begins. */
function talk(document: NftDocument, from: IPAddress, to: IPAddress): boolean | 'one way only' {
  const ways = [
    tcp(from, to),
    tcp(to, from, { ports: [8080, 40_000], isReply: true }),
    tcp(to, from),
    tcp(from, to, { ports: [8080, 40_000], isReply: true }),
    { ...tcp(from, to), protocol: 'icmp' as const },
  ].map((packet) => passes(document, packet));
  return ways.every(Boolean) || (ways.some(Boolean) ? 'one way only' : false);
}

describe('between two pools', () => {
  const none: Isolation = {};
  it.each<[string, Isolation, Isolation, boolean]>([
    ['none is isolated', none, none, true],
    ['none is isolated, and they name each other', { peers: ['b'] }, { peers: ['a'] }, true],
    ['one is isolated, and names nobody', isolated(), none, false],
    ['one is isolated, and the other names it', isolated(), { peers: ['a'] }, false],
    ['one is isolated, and names the other', isolated('b'), none, true],
    ['both are isolated', isolated(), isolated(), false],
    ['both are isolated, and the first names the other', isolated('b'), isolated(), false],
    ['both are isolated, and the other names the first', isolated(), isolated('a'), false],
    ['both are isolated, and name each other', isolated('b'), isolated('a'), true],
    ['both are isolated, and name a third', isolated('c'), isolated('c'), false],
    ['both are isolated, and name others besides each other', isolated('c', 'b'), isolated('a', 'd'), true],
  ])('where %s', (_, ofA, ofB, expected) => {
    const pools = [tenant('a', 1, ofA), tenant('b', 2, ofB), tenant('c', 3), tenant('d', 4)];
    const subnets = [...pieces('a', 1, 'a'), ...pieces('b', 2), ...pieces('c', 3), ...pieces('d', 4)];
    const document = rendered({ pools, subnets });
    for (const family of FAMILIES) {
      expect(talk(document, pod(family, 1), pod(family, 2))).toBe(expected);
      expect(talk(document, pod(family, 1), pod(family, 1, 6))).toBe(true);
      expect(talk(document, pod(family, 2), pod(family, 2, 6))).toBe(true);
    }
  });

  it('that no rule speaks of when none is isolated', () => {
    const document = rendered({ pools: [tenant('a', 1), tenant('b', 2, { peers: ['a'] })], subnets: [] });
    expect(JSON.stringify(document)).not.toContain('tenant');
  });
});

describe('a pod of an isolated pool', () => {
  const pools = [tenant('a', 1, isolated()), tenant('b', 2, isolated())];
  const subnets = [...pieces('a', 1, 'a'), ...pieces('b', 2, 'b')];
  const document = rendered({ pools, subnets });

  it.each(FAMILIES)('talks to nodes, by each of their addresses, and to the outside (%s)', (family) => {
    const hops = { ipv4: '192.168.1.98', ipv6: 'fd01::98' };
    const own = { ipv4: '10.2.0.0', ipv6: 'fd00:2::' };
    for (const other of [hops[family], own[family], formatAddress(OUTSIDE[family])]) {
      expect(talk(document, pod(family, 1), parseAddress(other))).toBe(true);
    }
  });

  it.each(FAMILIES)('does not reach addresses of the other that nobody has yet (%s)', (family) => {
    expect(talk(document, pod(family, 1), pod(family, 2, 0x7777 % 251))).toBe(false);
    // Of a part of the pool that no node holds.
    const far = family === 'ipv4' ? '10.2.200.1' : 'fd00:2::ffff:1';
    expect(talk(document, pod(family, 1), parseAddress(far))).toBe(false);
  });
});

describe('whose an address is', () => {
  it('is said by its subnet, wherever that lies now', () => {
    // a's subnet lies in what b lists today, with a piece of b inside of it.
    const pools = [tenant('a', 1, isolated()), tenant('b', 2, isolated())];
    const subnets = [
      subnet('10.2.3.0/24', 'b', ['192.168.1.2'], { pool: 'a' }),
      subnet('10.2.3.64/26', 'b', ['192.168.1.2'], { pool: 'b' }),
    ];
    const document = rendered({ pools, subnets });
    const at = (text: string) => parseAddress(text);
    expect(talk(document, at('10.2.3.5'), at('10.1.0.5'))).toBe(true);
    expect(talk(document, at('10.2.3.5'), at('10.2.4.5'))).toBe(false);
    expect(talk(document, at('10.2.3.70'), at('10.2.4.5'))).toBe(true);
    expect(talk(document, at('10.2.3.70'), at('10.2.3.5'))).toBe(false);
  });

  it('is said by its subnet also in a CIDR that is drained', () => {
    const pools = [tenant('a', 1, isolated()), tenant('b', 2, isolated())];
    const drained = pieces('a', 9);
    const document = rendered({ pools, subnets: drained });
    for (const family of FAMILIES) {
      expect(talk(document, pod(family, 9), pod(family, 1))).toBe(true);
      expect(talk(document, pod(family, 9), pod(family, 2))).toBe(false);
    }
  });

  it('is said by the one address of an exclusive subnet, which is no node’s own', () => {
    const pools = [tenant('a', 1, isolated()), tenant('b', 2, isolated())];
    const held = subnet('10.2.0.9/32', 'a', ['192.168.1.1'], { pool: 'a', exclusive: true });
    const document = rendered({ pools, subnets: [...pieces('b', 2), held] });
    expect(talk(document, parseAddress('10.2.0.9'), parseAddress('10.2.0.8'))).toBe(false);
    expect(talk(document, parseAddress('10.2.0.9'), parseAddress('10.1.0.8'))).toBe(true);
    expect(talk(document, parseAddress('10.2.0.10'), parseAddress('10.2.0.8'))).toBe(true);
  });

  it('a pool that is not there admits nobody but its own and DNS, also where no pool is isolated', () => {
    const server = { address: parseAddress('10.1.0.53'), protocol: 'udp', port: 53 } as const;
    const subnets = [...pieces('gone', 7), ...pieces('gone-too', 8), ...pieces('a', 1)];
    for (const isolation of [{}, isolated('gone')]) {
      const document = rendered({ pools: [tenant('a', 1, isolation)], subnets, dnsServers: [server] });
      for (const family of FAMILIES) {
        expect(talk(document, pod(family, 7), pod(family, 1))).toBe(false);
        expect(talk(document, pod(family, 7), pod(family, 8))).toBe(false);
        expect(talk(document, pod(family, 7), pod(family, 7, 6))).toBe(true);
        expect(talk(document, pod(family, 7), OUTSIDE[family])).toBe(true);
      }
      const question = {
        ...tcp(pod('ipv4', 7), server.address),
        protocol: 'udp',
        ports: [40_000, 53],
      } as const;
      expect(passes(document, question)).toBe(true);
    }
  });

  it('a pool made anew under the name of one that is gone is another', () => {
    const anew = tenant('a', 1);
    const pools = [{ ...anew, metadata: { ...anew.metadata, uid: 'uid-anew' } }];
    const document = rendered({ pools, subnets: pieces('a', 9) });
    expect(talk(document, pod('ipv4', 9), pod('ipv4', 1))).toBe(false);
  });

  it('is not said by the subnet of another node that lies in an older one, whoever wrote it', () => {
    const pools = [tenant('a', 1, isolated()), tenant('b', 2, isolated())];
    const older = pieces('b', 2, 'b');
    const created = '2026-01-02T00:00:00Z';
    const thief = subnet('10.2.0.4/30', 'c', ['192.168.2.3'], { pool: 'a', created });
    const document = rendered({ pools, subnets: [...older, thief] });
    // Neither its pods, nor that which would be the thief's own address there.
    for (const host of [4, 5, 6]) {
      expect(talk(document, pod('ipv4', 1), pod('ipv4', 2, host))).toBe(false);
      expect(talk(document, pod('ipv4', 2, 9), pod('ipv4', 2, host))).toBe(true);
    }
  });

  it('is no node’s because another node names it as its next hop', () => {
    const pools = [tenant('a', 1, isolated()), tenant('b', 2, isolated())];
    const named = [formatAddress(pod('ipv4', 2)), formatAddress(pod('ipv6', 2)), '192.168.2.3'];
    const thief = subnet('10.1.0.64/26', 'c', named, { pool: 'a', created: '2026-01-02T00:00:00Z' });
    const document = rendered({ pools, subnets: [...pieces('a', 1, 'a'), ...pieces('b', 2, 'b'), thief] });
    for (const family of FAMILIES) {
      expect(talk(document, pod(family, 1), pod(family, 2))).toBe(false);
      expect(talk(document, pod(family, 2), pod(family, 1))).toBe(false);
    }
    expect(talk(document, pod('ipv4', 1), parseAddress('192.168.2.3'))).toBe(true);
  });

  it('pools of use Bridge are like those of pods, and what lies on a LAN is outside', () => {
    const gateway = { ipv4: parseAddress('10.3.0.1'), ipv6: parseAddress('fd00:3::1') };
    const pools = [
      tenant('a', 1, isolated('lan')),
      tenant('b', 2, isolated(), { use: 'Bridge' }),
      tenant('lan', 3, {}, { use: 'Lan', gateway }),
    ];
    const document = rendered({ pools, subnets: [...pieces('b', 2), ...pieces('lan', 3)] });
    for (const family of FAMILIES) {
      expect(talk(document, pod(family, 1), pod(family, 2))).toBe(false);
      expect(talk(document, pod(family, 1), pod(family, 3))).toBe(true);
      expect(talk(document, pod(family, 2), pod(family, 3))).toBe(true);
      // A bridge's gateway is its node's.
      expect(talk(document, pod(family, 1), pod(family, 2, 1))).toBe(true);
    }
  });
});

describe('the DNS of the cluster', () => {
  const servers = (port = 53): DNSServer[] =>
    FAMILIES.flatMap((family) =>
      (['udp', 'tcp'] as const).map((protocol) => ({ address: pod(family, 5, 53), protocol, port })),
    );
  const ask = (family: Family, protocol: 'udp' | 'tcp', port = 53): Packet => ({
    ...tcp(pod(family, 1), pod(family, 5, 53)),
    protocol,
    ports: [40_000, port],
  });
  const answer = ({ from, to, ports: [source, destination], ...packet }: Packet): Packet => ({
    ...packet,
    from: to,
    to: from,
    ports: [destination, source],
    isReply: true,
  });
  const world = (ofClient: Isolation, ofDNS: Isolation = {}, dnsServers = servers()) =>
    rendered({
      pools: [tenant('a', 1, ofClient), tenant('system', 5, ofDNS)],
      subnets: [...pieces('a', 1), ...pieces('system', 5)],
      dnsServers,
    });
  const cases = FAMILIES.flatMap((family) =>
    (['udp', 'tcp'] as const).map((protocol) => [family, protocol] as const),
  );

  it.each(cases)('answers those who are isolated, and those from whom it is (%s, %s)', (family, protocol) => {
    for (const document of [world(isolated()), world({}, isolated()), world(isolated(), isolated())]) {
      const question = ask(family, protocol);
      expect(passes(document, question)).toBe(true);
      expect(passes(document, answer(question))).toBe(true);
      expect(passes(document, ask(family, protocol, 54))).toBe(false);
      expect(passes(document, answer(ask(family, protocol, 54)))).toBe(false);
    }
  });

  it.each(cases)('is not asked by pools that say so (%s, %s)', (family, protocol) => {
    const document = world({ ...isolated(), dns: false });
    expect(passes(document, ask(family, protocol))).toBe(false);
    expect(passes(document, answer(ask(family, protocol)))).toBe(false);
    // Who is allowed to talk to it anyhow is so still.
    expect(passes(world({ ...isolated('system'), dns: false }), ask(family, protocol))).toBe(true);
  });

  it.each(cases)('opens no connection to pods, from whatever port (%s, %s)', (family, protocol) => {
    const document = world(isolated());
    expect(passes(document, { ...answer(ask(family, protocol)), isReply: false })).toBe(false);
  });

  it('is where its endpoints are, at the port that they have', () => {
    const other = { ...ask('ipv4', 'udp'), to: pod('ipv4', 5, 54) };
    expect(passes(world(isolated()), other)).toBe(false);
    expect(passes(world(isolated(), {}, []), ask('ipv4', 'udp'))).toBe(false);
    const moved = world(isolated(), {}, servers(5353));
    expect(passes(moved, ask('ipv4', 'udp', 5353))).toBe(true);
    expect(passes(moved, ask('ipv4', 'udp', 53))).toBe(false);
  });
});

describe('any objects', () => {
  // Few numbers, so that everything meets everything.
  const number = fc.integer({ min: 1, max: 5 });
  const names = ['a', 'b', 'c', 'd'] as const;
  const anyPool = (name: string) =>
    fc
      .record({
        cidrs: fc.uniqueArray(number, { minLength: 1, maxLength: 2 }),
        narrow: fc.boolean(),
        mode: fc.constantFrom('None' as const, 'Isolated' as const),
        peers: fc.uniqueArray(fc.constantFrom(...names)),
        dns: fc.boolean(),
        use: fc.constantFrom('Pods' as const, 'Bridge' as const),
        day: fc.integer({ min: 1, max: 3 }),
      })
      .map(({ cidrs, narrow, mode, peers, dns, use, day }) => {
        const listed = cidrs.flatMap((n) =>
          narrow ? [`10.${n}.0.0/24`, `fd00:${n}::/112`] : [`10.${n}.0.0/16`, `fd00:${n}::/64`],
        );
        const made = pool(name, listed, { isolation: { mode, peers, dns }, use });
        const creationTimestamp = `2026-01-0${day}T00:00:00Z`;
        return { ...made, metadata: { ...made.metadata, creationTimestamp } };
      });
  const anySubnet = fc
    .record({
      n: number,
      shape: fc.constantFrom(
        ['10.N.0.0/22', 'fd00:N::/110', false] as const,
        ['10.N.0.0/26', 'fd00:N::/122', false] as const,
        ['10.N.0.4/30', 'fd00:N::4/126', false] as const,
        ['10.N.0.5/32', 'fd00:N::5/128', true] as const,
      ),
      family: fc.constantFrom(0, 1),
      owner: fc.constantFrom(...names, 'gone'),
      node: fc.constantFrom('a', 'b'),
      day: fc.integer({ min: 1, max: 3 }),
      // Another's address among its own ones.
      alsoHop: fc.option(fc.constantFrom('10.1.0.5', '10.2.0.6', 'fd00:3::9'), { freq: 3 }),
    })
    .map(({ n, shape, family, owner, node, day, alsoHop }) =>
      subnet(
        String(shape[family]).replace('N', String(n)),
        node,
        [
          `192.168.1.${node === 'a' ? 1 : 2}`,
          `fd01::${node === 'a' ? 1 : 2}`,
          ...(alsoHop === null ? [] : [alsoHop]),
        ],
        { pool: owner, exclusive: shape[2], created: `2026-01-0${day}T00:00:00Z` },
      ),
    );
  const anyWorld = fc
    .record({
      pools: fc.tuple(...names.map(anyPool)).chain((all) => fc.subarray(all, { minLength: 1 })),
      subnets: fc.uniqueArray(anySubnet, { selector: ({ metadata }) => metadata.name, maxLength: 8 }),
      dns: fc.array(number, { maxLength: 2 }),
    })
    .map(({ pools, subnets, dns }): World => ({
      pools,
      subnets,
      ownAddresses: input().node.addresses,
      dnsServers: dns.flatMap((n) =>
        FAMILIES.map((family) => ({ address: pod(family, n, 6), protocol: 'udp' as const, port: 53 })),
      ),
    }));
  const anyEnd = fc.record({ n: number, host: fc.constantFrom(0, 1, 4, 5, 6, 9, 250), isOutside: fc.nat(9) });
  const addressOf = (
    family: Family,
    { n, host, isOutside }: { n: number; host: number; isOutside: number },
  ) => (isOutside === 0 ? OUTSIDE[family] : pod(family, n, host));

  it('are obeyed as the sentence in the design says it', () => {
    const ends = fc.array(fc.tuple(anyEnd, anyEnd), { minLength: 12, maxLength: 12 });
    fc.assert(
      fc.property(anyWorld, ends, (world, pairs) => {
        const document = rendered(world);
        for (const family of FAMILIES) {
          for (const [one, other] of pairs) {
            const [from, to] = [addressOf(family, one), addressOf(family, other)];
            for (const packet of [
              tcp(from, to),
              { ...tcp(from, to), protocol: 'udp' as const, ports: [40_000, 53] as const },
              { ...tcp(from, to), protocol: 'udp' as const, ports: [53, 40_000] as const, isReply: true },
            ]) {
              const { protocol, ports } = packet;
              expect(
                passes(document, packet),
                `${formatAddress(from)} > ${formatAddress(to)} ${protocol} ${ports.join(' > ')}`,
              ).toBe(mayPass(world, packet));
            }
          }
        }
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});
