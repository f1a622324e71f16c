import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Encapsulation } from '../../src/api/index.ts';
import { startFlow, startPings } from './flow.ts';
import {
  IP_FAMILIES,
  makeFabric,
  pings,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type IPFamily,
  type SyncProcess,
} from './fabric.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways } from './throwaway.ts';

/** What the encapsulation of a pool means for packets, on nodes that take none whose way back is another (rp_filter). */

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: ReadonlyMap<FabricNode, SyncProcess>;

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  for (const { throwaway } of fabric.nodes) throwaway.sh('sysctl -qw net.ipv4.conf.all.rp_filter=1');
  syncs = new Map(fabric.nodes.map((node) => [node, startSync(node)]));
});

afterAll(async () => {
  await Promise.all([...syncs.values()].map((sync) => sync.kill()));
});

function sourcesOf(node: FabricNode, encapsulation: Encapsulation): Sources {
  return { ...fabric.sources(node), pools: [['main', ['10.64.0.0/16', 'fd64::/64'], { encapsulation }]] };
}

async function apply(encapsulation: Encapsulation, nodes = fabric.nodes): Promise<void> {
  await Promise.all(
    nodes.map(async (node) => {
      syncs.get(node)?.set(sourcesOf(node, encapsulation));
      await syncs.get(node)?.upToDate();
    }),
  );
}

function byName(): Record<'a' | 'b' | 'c', FabricNode> {
  const [a, b, c] = fabric.nodes;
  if (a === undefined || b === undefined || c === undefined) throw new Error('the fabric has three nodes');
  return { a, b, c };
}

/** What does not get through of pod to pod, pod to node, node to pod, and pod to outside. */
async function failedPaths(families: readonly IPFamily[] = IP_FAMILIES): Promise<string[]> {
  const { nodes, outside } = fabric;
  const pods = nodes.flatMap((node) => node.pods);
  const paths = families.flatMap((family) => [
    ...[...pods, ...nodes].flatMap((from) =>
      pods.filter((to) => to !== from).map((to) => ({ from, to: to.addresses[family] })),
    ),
    ...pods.flatMap((from) => [...nodes, outside].map((to) => ({ from, to: to.addresses[family] }))),
  ]);
  const failed: string[] = [];
  for (let start = 0; start < paths.length; start += 8) {
    await Promise.all(
      paths.slice(start, start + 8).map(async ({ from, to }) => {
        if (!(await pings(from.throwaway, to))) failed.push(`${from.name} to ${to}`);
      }),
    );
  }
  return failed;
}

async function expectNothingUnmet(): Promise<void> {
  for (const sync of syncs.values()) {
    const { reason, differences } = await sync.status();
    expect(reason).toBeUndefined();
    expect(differences).toEqual([]);
    expect(sync.drift()).toEqual([]);
    expect(sync.reports.filter(({ kind }) => kind === 'unmet')).toEqual([]);
  }
}

/** No segment lets a pod's address pass, not even between neighbours. */
function dropPodsOnSegments(): void {
  fabric.router.sh(`nft -f - <<END
table bridge segments {
  chain forward {
    type filter hook forward priority 0;
    ip saddr 10.64.0.0/16 drop
    ip daddr 10.64.0.0/16 drop
    ip6 saddr fd64::/64 drop
    ip6 daddr fd64::/64 drop
  }
}
END`);
}

/** The router learns the way to every node's pods, as from a cloud's route table. */
function letTheFabricRoute(): void {
  fabric.router.sh('nft delete table inet fabric');
  for (const { subnets, addresses } of fabric.nodes) {
    const [subnet4, subnet6] = subnets;
    fabric.router.sh(`ip route add ${subnet4?.[0]} via ${addresses[4]}`);
    fabric.router.sh(`ip -6 route add ${subnet6?.[0]} via ${addresses[6]}`);
  }
}

describe('Always', () => {
  test('carries every path over a fabric that drops the addresses of pods, between neighbours too', async () => {
    dropPodsOnSegments();
    await apply('Always');
    expect(await failedPaths()).toEqual([]);
    await expectNothingUnmet();
    // Between neighbours no other encapsulation would.
    await apply('CrossSubnet');
    expect(await failedPaths([4])).not.toEqual([]);
    fabric.router.sh('nft delete table bridge segments');
  });
});

describe('CrossSubnet', () => {
  test('carries every path where the segments let pods pass and the router does not', async () => {
    await apply('CrossSubnet');
    expect(await failedPaths()).toEqual([]);
    await expectNothingUnmet();
  });
});

describe('changes of a living pool, the nodes one after the other', () => {
  /** How much later the second node hears of it. */
  const SKEW_MS = 300;

  beforeEach(() => apply('CrossSubnet'));

  test.each([
    { what: 'with', filter: 1 },
    { what: 'without', filter: 0 },
  ])(
    'keep what flows between neighbours $what strict reverse path filters',
    async ({ filter }) => {
      const { a, b } = byName();
      for (const { throwaway } of [a, b]) {
        throwaway.sh(
          `sysctl -qw net.ipv4.conf.all.rp_filter=${filter} net.ipv4.conf.default.rp_filter=${filter}`,
        );
      }
      const [podA, podB] = [a.pods[0], b.pods[0]];
      if (podA === undefined || podB === undefined) throw new Error('the fabric has pods');
      const flows = await Promise.all(
        IP_FAMILIES.flatMap((family) => [
          startFlow(podA.throwaway, podB.throwaway, { address: podB.addresses[family] }),
          startFlow(podB.throwaway, podA.throwaway, { address: podA.addresses[family] }),
          // From the node's own address among the pods', which moves from link to link.
          startFlow(a.throwaway, podB.throwaway, { address: podB.addresses[family] }),
        ]),
      );
      for (const [from, to, order] of [
        ['CrossSubnet', 'Always', [a, b]],
        ['Always', 'Never', [a, b]],
        ['Never', 'CrossSubnet', [b, a]],
        ['CrossSubnet', 'Never', [b, a]],
        ['Never', 'Always', [b, a]],
        ['Always', 'CrossSubnet', [a, b]],
      ] as const) {
        await apply(from);
        await sleep(300);
        const streams = IP_FAMILIES.flatMap((family) => [
          startPings(podA.throwaway, podB.addresses[family]),
          startPings(b.throwaway, podA.addresses[family]),
        ]);
        await sleep(200);
        const startMs = performance.now();
        await apply(to, order.slice(0, 1));
        const firstMs = performance.now() - startMs;
        await sleep(Math.max(0, SKEW_MS - firstMs));
        await apply(to, order.slice(1));
        const apartMs = performance.now() - startMs;
        await sleep(300);
        const lost = await Promise.all(streams.map((stream) => stream.end()));
        console.log(`${from} to ${to}: apart for ${Math.round(apartMs)} ms, lost for ${lost.join(', ')} ms`);
        // Lost is at most what was sent while the two nodes went different ways.
        for (const ms of lost) expect(ms).toBeLessThanOrEqual(apartMs);
        if (filter === 0 && from !== 'Never') expect(lost, `${from} to ${to}`).toEqual([0, 0, 0, 0]);
      }
      const outcomes = await Promise.all(flows.map((flow) => flow.end()));
      expect(outcomes.map(({ lost, error }) => [lost, error])).toEqual(flows.map(() => [0, undefined]));
      await expectNothingUnmet();
    },
    120_000,
  );
});

describe('Never', () => {
  beforeAll(async () => {
    letTheFabricRoute();
    await apply('Never');
  });

  test('carries every path where the fabric routes pods, without a device of ours', async () => {
    expect(await failedPaths()).toEqual([]);
    for (const { throwaway, first } of fabric.nodes) {
      const gone = () => !throwaway.sh('ip -o link show').includes('vxlan.weft');
      // It lingers for what others still send, and goes with the next comparison after that.
      expect(await until(gone, 45_000)).toBeDefined();
      expect(throwaway.sh('ip -o addr show dev lo')).toContain(` ${first[4]}/32 `);
      expect(throwaway.sh('ip -o addr show dev lo')).toContain(` ${first[6]}/128 `);
    }
    await expectNothingUnmet();
  }, 60_000);

  test('leaves nothing on lo when the pool may encapsulate again, nor when the subnet goes', async () => {
    const { a } = byName();
    a.throwaway.sh('ip addr add 10.64.77.1/32 dev lo');
    await apply('CrossSubnet');
    for (const { throwaway, first } of fabric.nodes) {
      expect(throwaway.sh('ip -o addr show dev lo')).not.toContain(first[4]);
      expect(throwaway.sh('ip -o addr show dev vxlan.weft')).toContain(` ${first[4]}/32 `);
    }
    await apply('Never');
    expect(a.throwaway.sh('ip -o addr show dev lo')).toContain(` ${a.first[4]}/32 `);
    const sources = sourcesOf(a, 'Never');
    syncs.get(a)?.set({ ...sources, subnets: sources.subnets.filter(([, node]) => node !== 'a') });
    await syncs.get(a)?.upToDate();
    expect(a.throwaway.sh('ip -o addr show dev lo')).not.toContain(a.first[4]);
    expect(a.throwaway.sh('ip route show type unreachable proto 84')).toBe('');
    // Somebody else's of the same range.
    expect(a.throwaway.sh('ip -o addr show dev lo')).toContain('10.64.77.1/32');
    a.throwaway.sh('ip addr del 10.64.77.1/32 dev lo');
    await apply('Never');
  });
});
