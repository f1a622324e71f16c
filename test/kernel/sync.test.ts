import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { IP_FAMILIES, makeFabric, pings, startSync, type Fabric, type SyncProcess } from './fabric.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: SyncProcess[];

beforeAll(async () => {
  fabric = makeFabric(make);
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

interface Path {
  readonly path: string;
  readonly from: Throwaway;
  readonly to: string;
}

function allPaths(): Path[] {
  const { nodes, outside } = fabric;
  const pods = nodes.flatMap((node) => node.pods);
  return IP_FAMILIES.flatMap((family) => [
    ...pods.flatMap((from) => [
      ...pods
        .filter((to) => to !== from)
        .map((to) => ({
          path: `pod ${from.name} to pod ${to.name}`,
          from: from.throwaway,
          to: to.addresses[family],
        })),
      ...nodes.map((to) => ({
        path: `pod ${from.name} to node ${to.name}`,
        from: from.throwaway,
        to: to.addresses[family],
      })),
      { path: `pod ${from.name} to outside`, from: from.throwaway, to: outside.addresses[family] },
    ]),
    ...nodes.flatMap((from) =>
      pods.map((to) => ({
        path: `node ${from.name} to pod ${to.name}`,
        from: from.throwaway,
        to: to.addresses[family],
      })),
    ),
  ]);
}

describe('a fabric that drops pods addresses, with docker0, FORWARD DROP and rp_filter', () => {
  test('carries every path in both families', async () => {
    const failed: string[] = [];
    const paths = allPaths();
    await inGroups(paths, 8, async ({ path, from, to }) => {
      if (!(await pings(from, to))) failed.push(`${path} (${to})`);
    });
    expect(failed).toEqual([]);
    expect(paths).toHaveLength(2 * (6 * (5 + 3 + 1) + 3 * 6));
  });

  test('has nothing to repair', async () => {
    for (const sync of syncs) {
      expect((await sync.status()).reason).toBeUndefined();
      expect(sync.drift()).toEqual([]);
    }
  });
});

async function inGroups<T>(items: readonly T[], size: number, work: (item: T) => Promise<void>): Promise<void> {
  for (let start = 0; start < items.length; start += size) {
    await Promise.all(items.slice(start, start + size).map(work));
  }
}
