import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { knownDNSServers } from '../../src/agent/dns-servers.ts';
import type { IPPool } from '../../src/api/index.ts';
import { hostPortsOf } from '../../src/dataplane/index.ts';
import { getLink, recordPodRules } from '../../src/kernel/index.ts';
import { formatAddress, parseAddress } from '../../src/net/index.ts';
import { mayPass } from '../dataplane/isolation-model.ts';
import { pool, subnet } from '../dataplane/objects.ts';
import {
  IP_FAMILIES,
  makeFabric,
  makePod,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type FabricPod,
  type IPFamily,
  type SyncProcess,
} from './fabric.ts';
import { ask, serve } from './ports.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/**
 * Tenants on three nodes: `a` and `b` on one link, `c` behind the tunnel. Each node has a piece of every tenant, all
 * of them in CIDRs that `blue` lists: whose an address is, is said by the pieces alone. `gone` has no pool.
 */
const TENANTS = ['blue', 'green', 'red', 'gone'] as const;
type Tenant = (typeof TENANTS)[number];
type Isolation = Partial<IPPool['spec']['isolation']>;
type Modes = Partial<Record<Tenant, Isolation>>;

const { make } = useThrowaways();
let fabric: Fabric;
let pods: (FabricPod & { readonly tenant: Tenant })[];
const syncs = new Map<FabricNode, SyncProcess>();

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  pods = fabric.nodes.flatMap((node, index) => [
    ...node.pods.map((one) => ({ ...one, tenant: 'blue' as const })),
    ...TENANTS.slice(1, node.name === 'b' ? 2 : 4).map((tenant) => ({
      ...makePod(make, node, index, 16 * TENANTS.indexOf(tenant) + 1),
      tenant,
    })),
  ]);
  for (const node of fabric.nodes) syncs.set(node, startSync(node));
});

beforeEach(() => apply({}));

afterAll(async () => {
  await Promise.all([...syncs.values()].map((sync) => sync.kill()));
});

/** What a node knows of the tenants. */
function sources(node: FabricNode, modes: Modes, dnsServers: readonly string[] = []): Sources {
  const cidrs = { blue: ['10.64.0.0/16', 'fd64::/64'], green: ['10.65.0.0/16'], red: ['10.66.0.0/16'] };
  const isolation = (tenant: Tenant) => ({ mode: 'None' as const, peers: [], dns: true, ...modes[tenant] });
  return {
    ...fabric.sources(node),
    pools: (['blue', 'green', 'red'] as const).map(
      (tenant) => [tenant, cidrs[tenant], { isolation: isolation(tenant) }] as const,
    ),
    subnets: fabric.nodes.flatMap(({ name, addresses }, index) =>
      TENANTS.flatMap((tenant, place) => {
        const [offset, hops] = [64 * index + 16 * place, [addresses[4], addresses[6]]];
        return [`10.64.0.${offset}/28`, `fd64::${offset === 0 ? '' : offset.toString(16)}/124`].map(
          (cidr) => [cidr, name, hops, { pool: tenant }] as const,
        );
      }),
    ),
    dnsServers,
  };
}

async function apply(modes: Modes, dnsServers?: readonly string[], nodes = fabric.nodes): Promise<void> {
  await Promise.all(
    nodes.map(async (node) => {
      syncOf(node).set(sources(node, modes, dnsServers));
      await syncOf(node).upToDate();
    }),
  );
}

function syncOf(node: FabricNode): SyncProcess {
  const sync = syncs.get(node);
  if (sync === undefined) throw new Error(`no sync runs on ${node.name}`);
  return sync;
}

/** What the design says of a packet from one to the other. */
function expected(modes: Modes, from: string, to: string): boolean {
  const [node] = fabric.nodes;
  if (node === undefined) throw new Error('the fabric has three nodes');
  const known = sources(node, modes);
  return mayPass(
    { pools: known.pools.map((one) => pool(...one)), subnets: known.subnets.map((one) => subnet(...one)) },
    {
      from: parseAddress(from),
      to: parseAddress(to),
      protocol: 'icmp',
      ports: [0, 0],
      isReply: false,
    },
  );
}

function podOf(tenant: Tenant, nodeName: string): FabricPod {
  const found = pods.find((one) => one.tenant === tenant && one.node === nodeName);
  if (found === undefined) throw new Error(`${tenant} has no pod on ${nodeName}`);
  return found;
}

function nodeNamed(name: string): FabricNode {
  const found = fabric.nodes.find((node) => node.name === name);
  if (found === undefined) throw new Error(`no node ${name}`);
  return found;
}

/** Whether an echo comes back. What is expected to come gets the time of a busy machine. */
async function echoes(from: Throwaway, to: string, isExpected: boolean): Promise<boolean> {
  for (let attempt = 0; attempt < (isExpected ? 3 : 1); attempt++) {
    try {
      await from.run('ping', ['-n', '-q', '-c', '1', '-W', isExpected ? '1' : '0.4', to]);
      return true;
    } catch {
      // Not this time.
    }
  }
  return false;
}

/** All pairs of pods, and of pods and nodes, against the model; answers what is not as it should be. */
async function wrongPaths(modes: Modes): Promise<string[]> {
  const paths = IP_FAMILIES.flatMap((family) => [
    ...pods.flatMap((from) => pods.filter((to) => to !== from).map((to) => ({ family, from, to }))),
    ...pods.flatMap((to) => fabric.nodes.map((from) => ({ family, from, to }))),
    ...pods.flatMap((from) =>
      [...fabric.nodes, { name: 'outside', ...fabric.outside }].map((to) => ({ family, from, to })),
    ),
  ]);
  const wrong: string[] = [];
  const left = paths.values();
  const walkers = Array.from({ length: 16 }, async () => {
    for (const { family, from, to } of left) {
      const should = expected(modes, from.addresses[family], to.addresses[family]);
      const does = await echoes(from.throwaway, to.addresses[family], should);
      if (does !== should) wrong.push(`${from.name} to ${to.name} ${family}: ${does ? 'passes' : 'is cut'}`);
    }
  });
  await Promise.all(walkers);
  return wrong;
}

const isolated = (...peers: string[]): Isolation => ({ mode: 'Isolated', peers });

describe('every pair of pods, and of pods and nodes, on one node and across nodes', () => {
  test.each<{ name: string; modes: Modes }>([
    { name: 'nobody is isolated but from what has no pool', modes: {} },
    { name: 'one names nobody', modes: { blue: isolated() } },
    { name: 'one names another that is not isolated', modes: { blue: isolated('green'), red: isolated() } },
    {
      name: 'one names another that does not name it',
      modes: { blue: isolated('green'), green: isolated('red') },
    },
    {
      name: 'two name each other',
      modes: { blue: isolated('green'), green: isolated('blue'), red: isolated('blue') },
    },
  ])('where $name', async ({ modes }) => {
    await apply(modes);
    expect(await wrongPaths(modes)).toEqual([]);
  });
});

describe('isolation is enforced by each of the two nodes alone', () => {
  test.each([
    { knows: 'a', name: 'where only one node knows of it yet, and it is near' },
    { knows: 'c', name: 'where only one node knows of it yet, and it is far' },
  ])('$name', async ({ knows }) => {
    await apply({ blue: isolated() }, [], [nodeNamed(knows)]);
    for (const family of IP_FAMILIES) {
      for (const [from, to] of [
        [podOf('blue', 'a'), podOf('green', 'c')],
        [podOf('green', 'a'), podOf('blue', 'c')],
      ] as const) {
        expect(await echoes(from.throwaway, to.addresses[family], false)).toBe(false);
        expect(await echoes(to.throwaway, from.addresses[family], false)).toBe(false);
      }
      expect(await echoes(podOf('blue', 'a').throwaway, podOf('blue', 'c').addresses[family], true)).toBe(
        true,
      );
    }
  });
});

describe('flows that are open when isolation is switched on', () => {
  test.each([
    { name: 'on one node', from: 'a', to: 'a' },
    { name: 'across nodes on one link', from: 'a', to: 'b' },
    { name: 'through the tunnel', from: 'a', to: 'c' },
  ])('are cut in both directions: $name', async ({ from, to }) => {
    for (const family of IP_FAMILIES) {
      await apply({});
      const server = podOf('green', to);
      const port = 7000 + family;
      // Says the time for as long as somebody listens, and reads what it is told.
      const listening = inPod(server, [
        'socat',
        `TCP${family}-LISTEN:${port},reuseaddr`,
        'SYSTEM:while date; do sleep 0.1; done',
      ]);
      await until(() => server.throwaway.sh(`ss -Htln${family}`).includes(`:${port}`), 5000);
      const address = family === 4 ? server.addresses[4] : `[${server.addresses[6]}]`;
      const flow = inPod(podOf('blue', from), ['socat', '-u', `TCP${family}:${address}:${port}`, '-']);
      let lines = 0;
      createInterface({ input: flow.stdout }).on('line', () => lines++);
      expect(await until(() => lines > 5, 10_000)).toBeDefined();
      await apply({ blue: isolated() });
      await sleep(100);
      const before = lines;
      await sleep(1500);
      expect(lines).toBe(before);
      await apply({});
      expect(await until(() => lines > before, 20_000)).toBeDefined();
      flow.kill();
      listening.kill();
    }
  });
});

test('a Service leads no tenant to the pods of another', async () => {
  const service = serveOn(nodeNamed('a'), podOf('green', 'c'));
  await apply({ blue: isolated() });
  for (const family of IP_FAMILIES) {
    expect(await echoes(podOf('green', 'a').throwaway, service.addresses[family], true)).toBe(true);
    expect(await echoes(podOf('blue', 'a').throwaway, service.addresses[family], false)).toBe(false);
  }
  await apply({});
  for (const family of IP_FAMILIES) {
    expect(await echoes(podOf('blue', 'a').throwaway, service.addresses[family], true)).toBe(true);
  }
  service.end();
});

describe('a host port of a tenant on node a', () => {
  const modes = { blue: isolated(), green: isolated('red'), red: isolated('green') };
  const port = 9000;
  const server = () => podOf('green', 'a');
  let stop: () => void;

  beforeAll(async () => {
    const { throwaway } = nodeNamed('a');
    const { hostLink, addresses, throwaway: inside } = server();
    const { socket } = throwaway.namespace;
    const mapping = { protocol: 'tcp', hostPort: port, containerPort: 80, hostAddress: undefined } as const;
    recordPodRules(socket, getLink(socket, { name: hostLink })?.index ?? 0, {
      hostPorts: hostPortsOf([mapping], {
        ipv4: parseAddress(addresses[4]),
        ipv6: parseAddress(addresses[6]),
      }),
      allowedSources: [],
    });
    stop = await serve(inside, 'green', 80);
  });

  afterAll(() => {
    const { throwaway } = nodeNamed('a');
    const { socket } = throwaway.namespace;
    stop();
    recordPodRules(socket, getLink(socket, { name: server().hostLink })?.index ?? 0, {
      hostPorts: [],
      allowedSources: [],
    });
  });

  const asked = (from: Throwaway, family: IPFamily) =>
    ask(from, 'tcp', nodeNamed('a').addresses[family], port);

  test.each(IP_FAMILIES)(
    'leads there whom the pools let through, and nobody else (IPv%i)',
    async (family) => {
      await apply(modes);
      // The server itself is masqueraded on its way back.
      for (const from of pods.filter(({ node, name }) => node !== 'c' && name !== server().name)) {
        // Seen as it is: the filters know whose it is.
        const may = expected(modes, from.addresses[family], server().addresses[family]);
        const answer = await asked(from.throwaway, family);
        expect(answer, `${from.name} as ${from.tenant}`).toBe(
          may ? `green ${from.addresses[family]}` : undefined,
        );
      }
    },
  );

  test.each(IP_FAMILIES)('leads there who is seen as a node, as from outside (IPv%i)', async (family) => {
    await apply(modes);
    for (const { throwaway, addresses } of [nodeNamed('b'), nodeNamed('c'), fabric.outside]) {
      expect(await asked(throwaway, family)).toBe(`green ${addresses[family]}`);
    }
    // Behind the router node a does not answer a pod's own address: the pod's node takes its place.
    expect(await asked(podOf('blue', 'c').throwaway, family)).toBe(
      `green ${nodeNamed('c').addresses[family]}`,
    );
  });
});

/** What leads pods of that node to the other pod, by another address, as kube-proxy does. */
function serveOn(
  node: FabricNode,
  pod: FabricPod,
): { readonly addresses: Readonly<Record<IPFamily, string>>; end(): void } {
  const addresses = { 4: '10.96.0.9', 6: 'fd96::9' };
  for (const family of IP_FAMILIES) {
    const ip = family === 4 ? 'ip' : 'ip6';
    node.throwaway.sh(
      `nft 'add table ${ip} service; add chain ${ip} service in { type nat hook prerouting priority -100; }; ` +
        `add rule ${ip} service in ${ip} daddr ${addresses[family]} dnat to ${pod.addresses[family]}'`,
    );
  }
  return {
    addresses,
    end: () => void node.throwaway.sh('nft delete table ip service; nft delete table ip6 service'),
  };
}

describe('the DNS of the cluster', () => {
  const asks = async (
    from: FabricPod,
    server: FabricPod,
    family: IPFamily,
    port: number,
  ): Promise<boolean> => {
    const answering = inPod(server, ['socat', `UDP${family}-RECVFROM:${port},fork`, 'EXEC:cat']);
    await until(() => server.throwaway.sh(`ss -Hlun${family}`).includes(`:${port}`), 5000);
    const address = family === 4 ? server.addresses[4] : `[${server.addresses[6]}]`;
    let answer = '';
    const client = inPod(from, ['socat', '-t0.5', '-', `UDP${family}:${address}:${port}`]);
    client.stdout.on('data', (data: Buffer) => (answer += data.toString()));
    client.stdin.end('where?\n');
    await new Promise((resolve) => client.once('exit', resolve));
    answering.kill();
    return answer === 'where?\n';
  };

  test.each(['a', 'c'])(
    'answers isolated pods of node %s, at its port, unless their pool says no',
    async (node) => {
      const server = podOf('red', 'c');
      const servers = [server.addresses[4], server.addresses[6]];
      const from = podOf('green', node);
      for (const family of IP_FAMILIES) {
        await apply({ green: isolated() }, servers);
        expect(await asks(from, server, family, 53)).toBe(true);
        expect(await asks(from, server, family, 54)).toBe(false);
        expect(await echoes(from.throwaway, server.addresses[family], false)).toBe(false);
        await apply({ green: { ...isolated(), dns: false } }, servers);
        expect(await asks(from, server, family, 53)).toBe(false);
        // Where it is served is not known.
        await apply({ green: isolated() }, []);
        expect(await asks(from, server, family, 53)).toBe(false);
      }
    },
  );

  test('sends nothing but answers to isolated pods', async () => {
    const server = podOf('red', 'c');
    await apply({ green: isolated() }, [server.addresses[4], server.addresses[6]]);
    const target = podOf('green', 'a');
    const arrivals = countArrivals(target.throwaway, ['udp dport 9999']);
    for (const family of IP_FAMILIES) {
      const address = family === 4 ? target.addresses[4] : `[${target.addresses[6]}]`;
      send(server, `UDP${family}:${address}:9999,sourceport=53`);
    }
    await sleep(300);
    expect(arrivals()).toBe(0);
    await apply({});
    for (const family of IP_FAMILIES) {
      const address = family === 4 ? target.addresses[4] : `[${target.addresses[6]}]`;
      send(server, `UDP${family}:${address}:9999,sourceport=53`);
    }
    expect(await until(() => arrivals() === 2, 3000)).toBeDefined();
    stopCounting(target.throwaway);
  });
});

describe('before a new pod may send', () => {
  test('the filters are those of the pools that the agent knows by then', async () => {
    const node = nodeNamed('a');
    const rules = () => node.throwaway.sh('nft list table inet weft');
    for (const modes of [{ blue: isolated() }, {}, { blue: isolated() }]) {
      await syncOf(node).upToDate();
      syncOf(node).set(sources(node, modes));
      expect(await syncOf(node).isolationInForce()).toBeUndefined();
      // Blue is a tenant of its own, or one with green and red; gone is always one.
      expect(rules().includes('chain tenant3')).toBe(modes.blue !== undefined);
    }
  });

  test('and where they cannot be set, it is refused with the reason', async () => {
    const node = nodeNamed('a');
    // Another's set of that name cannot be in our table; a table that is somebody's alone cannot be ours.
    const owner = spawn('nsenter', [`--net=${node.throwaway.path}`, 'nft', '-i'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    await syncOf(node).upToDate();
    syncOf(node).pause();
    node.throwaway.sh('nft delete table inet weft');
    owner.stdin.write('add table inet weft { flags owner; }\n');
    expect(await until(() => node.throwaway.sh('nft list tables').includes('inet weft'), 5000)).toBeDefined();
    syncOf(node).resume();
    syncOf(node).set(sources(node, { blue: isolated() }));
    expect(await syncOf(node).isolationInForce()).toMatch(
      /filters have not followed yet: .*Operation not permitted/s,
    );
    owner.stdin.end();
    await syncOf(node).upToDate();
    expect(await syncOf(node).isolationInForce()).toBeUndefined();
  });
});

test('where DNS is served, the next agent reads from the rules that the last one has left', async () => {
  const addresses = ['10.64.0.133', 'fd64::85'];
  await apply({ blue: isolated() }, addresses);
  const known = await knownDNSServers(nodeNamed('c').throwaway.run);
  expect(
    known.map(({ address, protocol, port }) => `${formatAddress(address)} ${protocol} ${port}`).sort(),
  ).toEqual(addresses.flatMap((address) => [`${address} tcp 53`, `${address} udp 53`]).sort());
  await apply({}, []);
});

describe('at no moment', () => {
  const modes = { blue: isolated() };

  test('does a packet pass between tenants, or get lost within one, while agents are killed and started', async () => {
    await apply(modes);
    const targets = [podOf('green', 'a'), podOf('green', 'b'), podOf('green', 'c')];
    const arrivals = targets.map(({ throwaway }) => countArrivals(throwaway, ECHO_REQUESTS));
    const blue = podOf('blue', 'a');
    const service = serveOn(nodeNamed('a'), podOf('green', 'c'));
    const probes = [...targets, service].flatMap(({ addresses }) =>
      IP_FAMILIES.map((family) => inPod(blue, ['ping', '-n', '-q', '-i', '0.01', addresses[family]])),
    );
    const friends = IP_FAMILIES.map((family) =>
      inPod(blue, ['ping', '-n', '-q', '-i', '0.02', podOf('blue', 'c').addresses[family]]),
    );
    const summaries = friends.map(outputOf);
    for (let round = 0; round < 6; round++) {
      for (const node of fabric.nodes) {
        await syncOf(node).kill();
        const next = startSync(node);
        syncs.set(node, next);
        next.set(sources(node, modes));
        // Every other one is killed on its way.
        if (round % 2 === 0) await next.upToDate();
        else await sleep(60 * round);
      }
    }
    for (const ping of [...probes, ...friends]) ping.kill('SIGINT');
    service.end();
    await apply(modes);
    expect(arrivals.map((count) => count())).toEqual([0, 0, 0]);
    for (const summary of summaries) expect(await summary).toMatch(/ 0% packet loss/);
    targets.forEach(({ throwaway }) => stopCounting(throwaway));
  });

  test('of its life does a new pod reach another tenant', async () => {
    await apply(modes);
    const target = podOf('green', 'c');
    const friend = podOf('blue', 'c');
    const arrivals = countArrivals(target.throwaway, ECHO_REQUESTS);
    const friendly = countArrivals(friend.throwaway, ECHO_REQUESTS);
    const node = nodeNamed('a');
    for (let number = 8; number < 12; number++) {
      const made = makeTalkative(node, number, [target, friend]);
      await sleep(300);
      made.forEach((child) => child.kill());
    }
    expect(arrivals()).toBe(0);
    expect(friendly()).toBeGreaterThan(0);
    stopCounting(target.throwaway);
    stopCounting(friend.throwaway);
  });

  /** A new pod in which pings had begun before its link came. */
  function makeTalkative(node: FabricNode, number: number, targets: readonly FabricPod[]): ChildProcess[] {
    const talking: ChildProcess[] = [];
    const makeTalking: typeof make = (label) => {
      const throwaway = make(label);
      for (const { addresses } of targets) {
        for (const family of IP_FAMILIES) {
          const script = `while :; do ping -n -q -c 1 -W 0.01 ${addresses[family]} >/dev/null 2>&1; done`;
          talking.push(spawn('ip', ['netns', 'exec', throwaway.name, 'timeout', '10', 'sh', '-c', script]));
        }
      }
      return throwaway;
    };
    makePod(makeTalking, node, 0, number);
    return talking;
  }
});

const ECHO_REQUESTS = ['icmp type echo-request', 'icmpv6 type echo-request'];

/** Counts what arrives at the machine from now on. */
function countArrivals(machine: Throwaway, matches: readonly string[]): () => number {
  machine.sh(
    `nft 'add table inet arrivals; add chain inet arrivals input { type filter hook input priority 0; }; ` +
      `${matches.map((match) => `add rule inet arrivals input ${match} counter`).join('; ')}'`,
  );
  return () =>
    [...machine.sh('nft list table inet arrivals').matchAll(/packets (\d+)/g)].reduce(
      (sum, [, packets]) => sum + Number(packets),
      0,
    );
}

function stopCounting(machine: Throwaway): void {
  machine.sh('nft delete table inet arrivals');
}

/** One packet, whatever the answer. */
function send({ throwaway }: FabricPod, to: string): void {
  throwaway.sh(`echo x | socat -t0 - ${to} 2>/dev/null || true`);
}

function inPod({ throwaway }: FabricPod, command: readonly string[]) {
  return spawn('nsenter', [`--net=${throwaway.path}`, ...command], { stdio: ['pipe', 'pipe', 'ignore'] });
}

async function outputOf(child: ReturnType<typeof inPod>): Promise<string> {
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  // Not at its exit: what it said last may still be in the pipe then.
  await new Promise((resolve) => child.once('close', resolve));
  return output;
}
