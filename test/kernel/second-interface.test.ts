import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  configurePodLink,
  createPodLink,
  dyingPodLink,
  familiesRoutedOtherwise,
  formatAlias,
  hostLinkName,
  openNamespaceSocket,
  routeBySource,
} from '../../src/kernel/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';
import {
  IP_FAMILIES,
  makeFabric,
  pings,
  settled,
  startSync,
  type Fabric,
  type FabricNode,
  type FabricPod,
  type IPFamily,
  type SyncProcess,
} from './fabric.ts';
import { ask, serve } from './ports.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/** Pods with two interfaces of weft's, each of its own pool, with real packets. */

const { make, own } = useThrowaways();
const SECOND = ['10.65.0.0/16', 'fd65::/64'];
/** By node and family: the address of its first pod's second interface. */
const SECONDS: Readonly<Record<string, Readonly<Record<IPFamily, string>>>> = {
  a: { 4: '10.65.0.1', 6: 'fd65::1' },
  b: { 4: '10.65.0.65', 6: 'fd65::41' },
};

let fabric: Fabric;
let syncs: SyncProcess[];
const servers: (() => void)[] = [];

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  for (const name of ['a', 'b']) addSecond(node(name), pod(name, 0));
  syncs = fabric.nodes.map((one) => {
    const sync = startSync(one);
    const { pools, subnets, ...sources } = fabric.sources(one);
    sync.set({
      ...sources,
      pools: [...pools, ['second', SECOND]],
      subnets: [...subnets, ...secondSubnets('a', 0), ...secondSubnets('b', 64)],
    });
    return sync;
  });
  await Promise.all(syncs.map((sync) => sync.upToDate()));
  for (const name of ['a', 'b']) servers.push(await serve(pod(name, 0).throwaway, name, 80));
});

afterAll(async () => {
  for (const stop of servers) stop();
  await Promise.all(syncs.map((sync) => sync.kill()));
});

describe.each(IP_FAMILIES)('a pod with two interfaces (IPv%i)', (family) => {
  const first = (name: string) => pod(name, 0).addresses[family];
  const second = (name: string) => SECONDS[name]?.[family] ?? '';

  test('answers on both, whoever asks: pods and nodes, near, far and behind a router', async () => {
    const asking: [string, Throwaway][] = [
      ['pod a2', pod('a', 1).throwaway],
      ['pod b2', pod('b', 1).throwaway],
      ['pod c1', pod('c', 0).throwaway],
      ['node a', node('a').throwaway],
      ['node b', node('b').throwaway],
      ['node c', node('c').throwaway],
      ['pod b1 by its own choice', pod('b', 0).throwaway],
    ];
    const silent: string[] = [];
    for (const [who, from] of asking) {
      for (const to of [first('a'), second('a')]) {
        if (!(await pings(from, to))) silent.push(`${who} to ${to}`);
        if ((await ask(from, 'tcp', to, 80)) === undefined) silent.push(`${who} to ${to}, TCP`);
      }
    }
    expect(silent).toEqual([]);
  });

  test('speaks to the second pool by its second interface, and to all else by its first', async () => {
    const from = pod('a', 0).throwaway;
    expect(await ask(from, 'tcp', second('b'), 80)).toBe(`b ${second('a')}`);
    expect(await ask(from, 'tcp', first('b'), 80)).toBe(`b ${first('a')}`);
    const stop = await serve(fabric.outside.throwaway, 'outside', 80);
    expect(await ask(from, 'tcp', fabric.outside.addresses[family], 80)).toMatch(/^outside /);
    stop();
  });

  test('speaks from the address that it chooses, wherever to', async () => {
    const from = pod('a', 0).throwaway;
    for (const source of [first('a'), second('a')]) {
      for (const to of [first('b'), second('b')]) {
        expect(await ask(from, 'tcp', to, 80, { source })).toBe(`b ${source}`);
      }
    }
  });

  test('has its second interface checked like its first: no other source gets out', async () => {
    const { throwaway } = pod('a', 0);
    const [via, flag] = { 4: ['169.254.1.1', ''] as const, 6: ['fe80::1', '-6'] as const }[family];
    // The first address by the second interface.
    throwaway.sh(`ip ${flag} route add ${node('b').addresses[family]} via ${via} dev net1 onlink table 9`);
    throwaway.sh(`ip ${flag} rule add priority 9 to ${node('b').addresses[family]} lookup 9`);
    expect(await pings(throwaway, node('b').addresses[family], '-I', second('a'))).toBe(true);
    expect(await pings(throwaway, node('b').addresses[family], '-I', first('a'))).toBe(false);
    throwaway.sh(`ip ${flag} rule delete priority 9`);
  });
});

test('the second interface goes alone, with all that it has brought, and comes again', async () => {
  const { throwaway } = pod('a', 0);
  const sandbox = openNamespaceSocket(own, throwaway.path);
  try {
    for (let round = 0; round < 2; round++) {
      dyingPodLink(node('a').throwaway.namespace.socket, sandbox, hostLinkName('container-a1', 'net1'));
      expect(throwaway.sh('ip rule; ip -6 rule')).not.toContain('65');
      expect(throwaway.sh('ip route; ip -6 route')).not.toContain('65');
      expect(await ask(throwaway, 'tcp', pod('b', 0).addresses[4], 80)).toBe(`b ${pod('a', 0).addresses[4]}`);
      addSecond(node('a'), pod('a', 0));
      expect(await ask(throwaway, 'tcp', SECONDS.b?.[4] ?? '', 80)).toBe(`b ${SECONDS.a?.[4] ?? ''}`);
    }
  } finally {
    sandbox.close();
  }
});

/** As an ADD does it. */
function addSecond({ name, throwaway }: FabricNode, { throwaway: pod }: FabricPod): void {
  const host = throwaway.namespace.socket;
  const sandbox = openNamespaceSocket(own, pod.path);
  try {
    const containerID = `container-${name}1`;
    const link = createPodLink(host, sandbox, { containerID, ifName: 'net1', mtu: 1450 });
    const bySource = familiesRoutedOtherwise(sandbox, 'net1');
    expect(bySource).toEqual(['ipv4', 'ipv6']);
    routeBySource(host, sandbox, containerID);
    const addresses = {
      ipv4: parseAddress(SECONDS[name]?.[4] ?? ''),
      ipv6: parseAddress(SECONDS[name]?.[6] ?? ''),
    };
    configurePodLink(host, sandbox.socket, link, {
      addresses,
      destinations: SECOND.map(parseCIDR),
      bySource,
      hostSources: {},
      alias: formatAlias({ network: 'second', containerID, ifName: 'net1', addresses, podUID: undefined }),
    });
  } finally {
    sandbox.close();
  }
}

function secondSubnets(name: string, offset: number): ReturnType<Fabric['sources']>['subnets'] {
  const { addresses } = node(name);
  const hops = [addresses[4], addresses[6]];
  return [
    [`10.65.0.${offset}/26`, name, hops, { pool: 'second' }],
    [`fd65::${offset === 0 ? '' : offset.toString(16)}/122`, name, hops, { pool: 'second' }],
  ];
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
