import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hostPortsOf, type PortMapping } from '../../src/dataplane/index.ts';
import { createCommandRunner, forgetHostPortFlows, getLink, recordPodRules } from '../../src/kernel/index.ts';
import { parseAddress, type IPAddress } from '../../src/net/index.ts';
import {
  IP_FAMILIES,
  makeFabric,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type FabricPod,
  type SyncProcess,
} from './fabric.ts';
import { ask, serve, type Transport } from './ports.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/** Ports of a node that lead to a pod, with real packets (S11). */

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: Map<string, SyncProcess>;
const servers: (() => void)[] = [];

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  const { pods } = node('a');
  record(node('a'), pods[0], [
    { protocol: 'tcp', hostPort: 8080, containerPort: 80, hostAddress: undefined },
    { protocol: 'udp', hostPort: 8080, containerPort: 80, hostAddress: undefined },
    { protocol: 'tcp', hostPort: 8081, containerPort: 80, hostAddress: parseAddress('192.168.1.10') },
    { protocol: 'tcp', hostPort: 8082, containerPort: 80, hostAddress: parseAddress('fd01::10') },
    { protocol: 'tcp', hostPort: 8083, containerPort: 80, hostAddress: parseAddress('0.0.0.0') },
  ]);
  node('a').throwaway.sh('ip addr add 192.168.1.110/24 dev eth0');
  syncs = new Map(fabric.nodes.map((one) => [one.name, startSync(one)]));
  for (const one of fabric.nodes) sync(one.name).set(fabric.sources(one));
  await Promise.all([...syncs.values()].map((one) => one.upToDate()));
  servers.push(await serve(pod('a', 0).throwaway, 'a1', 80));
});

afterAll(async () => {
  for (const stop of servers) stop();
  await Promise.all([...syncs.values()].map((one) => one.kill()));
});

const TRANSPORTS: readonly Transport[] = ['tcp', 'udp'];
const ALL = TRANSPORTS.flatMap((transport) => IP_FAMILIES.map((family) => ({ transport, family })));

describe.each(ALL)('a host port ($transport, IPv$family)', ({ transport, family }) => {
  const toPort = (from: Throwaway) => ask(from, transport, node('a').addresses[family], 8080);

  test('leads to the pod from another node, which the pod sees as it is', async () => {
    expect(await toPort(node('b').throwaway)).toBe(`a1 ${node('b').addresses[family]}`);
  });

  test('leads to the pod from a node behind a router, and from outside', async () => {
    expect(await toPort(node('c').throwaway)).toBe(`a1 ${node('c').addresses[family]}`);
    expect(await toPort(fabric.outside.throwaway)).toBe(`a1 ${fabric.outside.addresses[family]}`);
  });

  test('leads to the pod from the node itself', async () => {
    expect(await toPort(node('a').throwaway)).toMatch(/^a1 /);
  });

  test('leads to the pod from another pod of the node, which it sees as it is', async () => {
    expect(await toPort(pod('a', 1).throwaway)).toBe(`a1 ${pod('a', 1).addresses[family]}`);
  });

  test('leads to the pod from pods of other nodes', async () => {
    expect(await toPort(pod('b', 0).throwaway)).toBe(`a1 ${pod('b', 0).addresses[family]}`);
    expect(await toPort(pod('c', 0).throwaway)).toMatch(/^a1 /);
  });

  test('leads the pod back to itself', async () => {
    expect(await toPort(pod('a', 0).throwaway)).toMatch(/^a1 /);
  });

  test('is nobody’s elsewhere: the same port of another machine stays its own (CVE-2025-67499)', async () => {
    servers.push(
      ...(transport === 'tcp' && family === 4
        ? [await serve(fabric.outside.throwaway, 'outside', 8080)]
        : []),
    );
    for (const from of [pod('a', 1), pod('a', 0), node('a')]) {
      expect(await ask(from.throwaway, transport, fabric.outside.addresses[family], 8080)).toMatch(
        /^outside /,
      );
    }
  });

  test('leaves the node’s loopback to what listens there', async () => {
    const stop = await serve(node('a').throwaway, 'node', 8080);
    const loopback = { 4: '127.0.0.1', 6: '::1' }[family];
    expect(await ask(node('a').throwaway, transport, loopback, 8080)).toBe(`node ${loopback}`);
    stop();
  });
});

describe('a host port of one address', () => {
  test.each([
    { address: '192.168.1.10', port: 8081, answers: true },
    { address: '192.168.1.110', port: 8081, answers: false },
    { address: 'fd01::10', port: 8081, answers: false },
    { address: 'fd01::10', port: 8082, answers: true },
    { address: '192.168.1.10', port: 8082, answers: false },
    { address: '192.168.1.110', port: 8083, answers: true },
    { address: 'fd01::10', port: 8083, answers: false },
  ])('$address:$port answers: $answers', async ({ address, port, answers }) => {
    expect((await ask(node('b').throwaway, 'tcp', address, port)) !== undefined).toBe(answers);
  });
});

describe('a flow of UDP that is older than the port', () => {
  test.each(IP_FAMILIES)('is forgotten, so that its next packet reaches the pod (IPv%i)', async (family) => {
    const flow = () =>
      ask(node('b').throwaway, 'udp', node('a').addresses[family], 9090, { sourcePort: 5000 + family });
    expect(await flow()).toBeUndefined();
    const mapping: PortMapping = {
      protocol: 'udp',
      hostPort: 9090,
      containerPort: 80,
      hostAddress: parseAddress(node('a').addresses[family]),
    };
    record(node('a'), pod('a', 0), [mapping]);
    await sync('a').upToDate();
    expect(await flow()).toBeUndefined();
    const run = createCommandRunner({ prefix: ['nsenter', `--net=${node('a').throwaway.path}`] });
    await forgetHostPortFlows(
      node('a').throwaway.namespace.socket,
      run,
      hostPortsOf([mapping], addressesOf(pod('a', 0))),
    );
    expect(await flow()).toMatch(/^a1 /);
  });
});

describe('a port that a Service has, too', () => {
  test.each([
    {
      by: 'nft',
      lead: (to: string) =>
        "nft 'add table ip service; add chain ip service in { type nat hook prerouting priority -100; }; " +
        `add rule ip service in fib daddr type local tcp dport 8080 dnat to ${to}'`,
      end: 'nft delete table ip service',
    },
    ...['iptables-nft', 'iptables-legacy'].map((program) => ({
      by: program,
      lead: (to: string) =>
        `${program} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination ${to}`,
      end: `${program} -t nat -F PREROUTING`,
    })),
  ])(
    'is the Service’s, as kube-proxy leads there by $by, and the pod’s when that has gone',
    async ({ lead, end }) => {
      const other = pod('a', 1);
      const stop = await serve(other.throwaway, 'service', 80);
      node('a').throwaway.sh(lead(`${other.addresses[4]}:80`));
      expect(await fromB()).toMatch(/^service /);
      node('a').throwaway.sh(end);
      expect(await fromB()).toMatch(/^a1 /);
      stop();
    },
  );
});

describe('what leads to host ports', () => {
  test('is put back when somebody flushes it', async () => {
    node('a').throwaway.sh('nft flush ruleset');
    expect(await until(async () => (await fromB()) !== undefined, 10_000)).toBeDefined();
    expect(await until(() => sync('a').drift().includes('table inet weft'), 10_000)).toBeDefined();
  });

  test('is found by a process that starts anew, also where the rules have gone meanwhile', async () => {
    await sync('a').kill();
    expect(await fromB()).toMatch(/^a1 /);
    node('a').throwaway.sh('nft flush ruleset');
    expect(await fromB()).toBeUndefined();
    const anew = startSync(node('a'));
    syncs.set('a', anew);
    anew.set(fabric.sources(node('a')));
    await anew.upToDate();
    expect(await fromB()).toMatch(/^a1 /);
  });

  test('goes to the newer of two pods, and back when that one has gone', async () => {
    const second = pod('a', 1);
    record(node('a'), second, [
      { protocol: 'tcp', hostPort: 8080, containerPort: 80, hostAddress: undefined },
    ]);
    servers.push(await serve(second.throwaway, 'a2', 80));
    await sync('a').upToDate();
    expect(await fromB()).toMatch(/^a2 /);
    node('a').throwaway.sh(`ip link delete ${second.hostLink}`);
    await sync('a').upToDate();
    expect(await fromB()).toMatch(/^a1 /);
  });

  test('goes with the last pod that has one', async () => {
    node('a').throwaway.sh(`ip link delete ${pod('a', 0).hostLink}`);
    await sync('a').upToDate();
    expect(await fromB()).toBeUndefined();
    expect(node('a').throwaway.sh('nft list table inet weft')).not.toContain('host_port');
  });
});

function fromB(): Promise<string | undefined> {
  return ask(node('b').throwaway, 'tcp', node('a').addresses[4], 8080);
}

function record(
  { throwaway }: FabricNode,
  its: FabricPod | undefined,
  mappings: readonly PortMapping[],
): void {
  if (its === undefined) throw new Error('the fabric has no such pod');
  const { socket } = throwaway.namespace;
  const index = getLink(socket, { name: its.hostLink })?.index ?? 0;
  recordPodRules(socket, index, { hostPorts: hostPortsOf(mappings, addressesOf(its)), allowedSources: [] });
}

function addressesOf({ addresses }: FabricPod): Record<'ipv4' | 'ipv6', IPAddress> {
  return { ipv4: parseAddress(addresses[4]), ipv6: parseAddress(addresses[6]) };
}

function node(name: string): FabricNode {
  const found = fabric.nodes.find((one) => one.name === name);
  if (found === undefined) throw new Error(`the fabric has no node ${name}`);
  return found;
}

function pod(nodeName: string, index: number): FabricPod {
  const found = node(nodeName).pods[index];
  if (found === undefined) throw new Error(`node ${nodeName} has no pod ${index}`);
  return found;
}

function sync(name: string): SyncProcess {
  const found = syncs.get(name);
  if (found === undefined) throw new Error(`node ${name} has no sync`);
  return found;
}
