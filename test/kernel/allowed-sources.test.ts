import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { getLink, recordPodRules } from '../../src/kernel/index.ts';
import { parseCIDR } from '../../src/net/index.ts';
import {
  IP_FAMILIES,
  makeFabric,
  pings,
  settled,
  startSync,
  type Fabric,
  type FabricPod,
  type IPFamily,
  type SyncProcess,
} from './fabric.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/** A pod that routes for others: which foreign sources it may send from, with real packets (S8). */

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: SyncProcess[];

/** Of these, most lie in what the pod is allowed. */
const ALLOWED = ['203.0.113.0/24', '10.0.0.0/8', '192.168.0.0/16', '2001:db8::/32', 'fd00::/8'];

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  const a = fabric.nodes[0]?.throwaway.namespace.socket;
  if (a === undefined) throw new Error('the fabric has no nodes');
  recordPodRules(a, getLink(a, { name: pod('a', 0).hostLink })?.index ?? 0, {
    hostPorts: [],
    allowedSources: ALLOWED.map(parseCIDR),
  });
  syncs = fabric.nodes.map((node) => {
    const sync = startSync(node);
    sync.set(fabric.sources(node));
    return sync;
  });
  await Promise.all(syncs.map((sync) => sync.upToDate()));
});

afterAll(async () => {
  await Promise.all(syncs.map((sync) => sync.kill()));
});

describe.each(IP_FAMILIES)('a pod that may send from others’ addresses (IPv%i)', (family) => {
  test.each([
    { whose: 'in what is allowed', source: { 4: '203.0.113.7', 6: '2001:db8::7' }, arrives: true },
    { whose: 'in what is allowed, also', source: { 4: '10.9.0.1', 6: 'fd09::1' }, arrives: true },
    { whose: 'outside of it', source: { 4: '198.51.100.7', 6: '2001:db9::7' }, arrives: false },
    { whose: "another pod's on the node", source: { 4: '10.64.0.2', 6: 'fd64::2' }, arrives: false },
    { whose: "another node's pod's", source: { 4: '10.64.0.129', 6: 'fd64::81' }, arrives: false },
    { whose: "the node's own", source: { 4: '192.168.1.10', 6: 'fd01::10' }, arrives: false },
    { whose: "another node's", source: { 4: '192.168.1.11', 6: 'fd01::11' }, arrives: false },
  ])('a source $whose: arrives $arrives', async ({ source, arrives }) => {
    expect(await arrivesFrom(pod('a', 0), source[family], family)).toBe(arrives);
  });

  test('is the only one that may', async () => {
    const source = { 4: '203.0.113.8', 6: '2001:db8::8' }[family];
    expect(await arrivesFrom(pod('a', 1), source, family)).toBe(false);
  });

  test('may after a flush, too, as soon as the rules are back', async () => {
    fabric.nodes[0]?.throwaway.sh('nft flush ruleset');
    await syncs[0]?.upToDate();
    const source = { 4: '203.0.113.9', 6: '2001:db8::9' }[family];
    expect(await arrivesFrom(pod('a', 0), source, family)).toBe(true);
    expect(await arrivesFrom(pod('a', 1), source, family)).toBe(false);
  });
});

async function arrivesFrom({ throwaway }: FabricPod, source: string, family: IPFamily): Promise<boolean> {
  const to = pod('b', 0);
  throwaway.sh(`ip addr add ${source}/${family === 4 ? 32 : 128} dev lo${family === 4 ? '' : ' nodad'}`);
  const counted = countArrivals(to.throwaway, source, family);
  await pings(throwaway, to.addresses[family], '-I', source);
  const arrived = counted();
  throwaway.sh(`ip addr del ${source}/${family === 4 ? 32 : 128} dev lo`);
  to.throwaway.sh('nft delete table inet arrivals');
  return arrived > 0;
}

function countArrivals(machine: Throwaway, source: string, family: IPFamily): () => number {
  machine.sh(
    `nft 'add table inet arrivals; add chain inet arrivals input { type filter hook prerouting priority -400; }; ` +
      `add rule inet arrivals input ${family === 4 ? 'ip' : 'ip6'} saddr ${source} counter'`,
  );
  return () => Number(/packets (\d+)/.exec(machine.sh('nft list table inet arrivals'))?.[1]);
}

function pod(nodeName: string, index: number): FabricPod {
  const found = fabric.nodes.find(({ name }) => name === nodeName)?.pods[index];
  if (found === undefined) throw new Error(`node ${nodeName} has no pod ${index}`);
  return found;
}
