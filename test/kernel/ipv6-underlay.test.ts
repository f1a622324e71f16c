import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  IP_FAMILIES,
  makeFabric,
  pings,
  settled,
  startSync,
  type Fabric,
  type FabricNode,
  type SyncProcess,
} from './fabric.ts';
import { expectNotBelieved } from './forged-tunnel.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways } from './throwaway.ts';

/** Nodes whose InternalIPs are IPv6 alone, or IPv6 first: the tunnel runs over that, and carries both families. */

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: ReadonlyMap<FabricNode, SyncProcess>;

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  syncs = new Map(fabric.nodes.map((node) => [node, startSync(node)]));
});

afterAll(async () => {
  await Promise.all([...syncs.values()].map((sync) => sync.kill()));
});

function sourcesOf(
  node: FabricNode,
  families: readonly (4 | 6)[],
  encapsulation: 'CrossSubnet' | 'Always' | 'Never',
): Sources {
  const given = fabric.sources(node);
  const hopsOf = (name: string) => {
    const found = fabric.nodes.find((one) => one.name === name);
    return found === undefined ? [] : families.map((family) => found.addresses[family]);
  };
  return {
    node: { ...given.node, addresses: families.map((family) => node.addresses[family]) },
    pools: [['main', ['10.64.0.0/16', 'fd64::/64'], { encapsulation }]],
    subnets: given.subnets.map(([cidr, name]) => [cidr, name, hopsOf(name)] as const),
  };
}

async function applyToAll(
  families: readonly (4 | 6)[],
  encapsulation: Parameters<typeof sourcesOf>[2],
): Promise<void> {
  for (const [node, sync] of syncs) {
    sync.set(sourcesOf(node, families, encapsulation));
    await sync.upToDate();
  }
}

/** Which pods cannot be reached, by nodes and by other pods. */
async function lostPaths(): Promise<string[]> {
  const failed: string[] = [];
  const pods = fabric.nodes.flatMap((node) => node.pods);
  for (const family of IP_FAMILIES) {
    for (const from of [...fabric.nodes, ...pods]) {
      const answers = pods
        .filter((to) => to !== from)
        .map(async (to) => {
          const address = to.addresses[family];
          if (!(await pings(from.throwaway, address))) failed.push(`${from.name} to ${address}`);
        });
      await Promise.all(answers);
    }
  }
  return failed;
}

describe.each([
  { underlay: 'IPv6 alone', families: [6] as const },
  { underlay: 'IPv6 first', families: [6, 4] as const },
])('an underlay of $underlay', ({ families }) => {
  test.each(['CrossSubnet', 'Always'] as const)('carries both families (%s)', async (encapsulation) => {
    await applyToAll(families, encapsulation);
    expect(await lostPaths()).toEqual([]);
    const [a, , c] = fabric.nodes;
    expect(a?.throwaway.sh('ip -d link show vxlan.weft')).toContain(`local ${a?.addresses[6]} `);
    expect(a?.throwaway.sh('ip link show vxlan.weft')).toContain('mtu 1430');
    expect(a?.throwaway.sh('bridge fdb show dev vxlan.weft')).toContain(`dst ${c?.addresses[6]} `);
    for (const sync of syncs.values()) {
      const { reason, differences } = await sync.status();
      expect([reason, differences]).toEqual([undefined, []]);
      expect(sync.reports.filter(({ kind }) => kind === 'unmet')).toEqual([]);
    }
  });

  test.each([
    { who: 'a pod of another node', machine: () => fabric.nodes[0]?.pods[0]?.throwaway },
    { who: 'a pod of the very node', machine: () => fabric.nodes[2]?.pods[0]?.throwaway },
    { who: 'a stranger on the same link', machine: () => fabric.stranger.throwaway },
  ])('believes no packet of our VXLAN from $who', async ({ machine }) => {
    await applyToAll(families, 'CrossSubnet');
    await expectNotBelieved(machine(), { fabric, syncs: syncs.values(), underlay: 6 });
  });
});

test('an underlay of IPv6 first without a tunnel carries both families where the fabric routes pods (Never)', async () => {
  const { router, nodes } = fabric;
  await applyToAll([6, 4], 'Never');
  router.sh('nft flush chain inet fabric forward');
  for (const { addresses, subnets } of nodes) {
    for (const [cidr] of subnets) {
      const family = cidr.includes(':') ? 6 : 4;
      router.sh(`ip -${family} route add ${cidr} via ${addresses[family]}`);
    }
  }
  expect(await lostPaths()).toEqual([]);
  for (const { throwaway } of nodes)
    expect(throwaway.sh('ip route show dev vxlan.weft; ip -6 route show dev vxlan.weft proto 84')).toBe('');
});
