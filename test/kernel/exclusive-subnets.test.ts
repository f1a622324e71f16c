import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  IP_FAMILIES,
  makeFabric,
  makePod,
  pings,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricPod,
  type SyncProcess,
} from './fabric.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways } from './throwaway.ts';

/**
 * Addresses that lie in one node's subnet and belong to pods of others: one on the same segment, one behind the tunnel.
 * Node a has the subnet.
 */

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: SyncProcess[];
let guests: readonly FabricPod[];

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  syncs = fabric.nodes.map((node) => {
    const sync = startSync(node);
    sync.set(fabric.sources(node));
    return sync;
  });
  await Promise.all(syncs.map((sync) => sync.upToDate()));
  const [, b, c] = fabric.nodes;
  if (b === undefined || c === undefined) throw new Error('the fabric has three nodes');
  guests = [makePod(make, b, 0, 30), makePod(make, c, 0, 31)];
});

afterAll(async () => {
  await Promise.all(syncs.map((sync) => sync.kill()));
});

describe('an exclusive subnet', () => {
  test('without which the pod is reached from its own node alone', async () => {
    const [guest] = guests;
    const [host] = fabric.nodes[0]?.pods ?? [];
    if (guest === undefined || host === undefined) throw new Error('there are pods');
    for (const family of IP_FAMILIES) {
      expect(await pings(host.throwaway, guest.addresses[family])).toBe(false);
    }
  });

  test('leads to its pod from every pod and node, the subnet’s own among them, in both families', async () => {
    await tell(guests.flatMap(waysTo));
    const failed: string[] = [];
    for (const guest of guests) {
      for (const family of IP_FAMILIES) {
        for (const node of fabric.nodes) {
          for (const { name, throwaway } of [node, ...node.pods]) {
            const answered = await until(() => pings(throwaway, guest.addresses[family]), 3_000);
            if (answered === undefined) failed.push(`${name} to ${guest.name} (IPv${family})`);
          }
        }
        if (!(await pings(guest.throwaway, fabric.outside.addresses[family]))) {
          failed.push(`${guest.name} to outside (IPv${family})`);
        }
      }
    }
    expect(failed).toEqual([]);
  });

  test('that goes takes its routes with it, and leaves those of the subnet around it', async () => {
    await tell([]);
    const [a] = fabric.nodes;
    const routes = a?.throwaway.sh('ip route show proto 84') ?? '';
    expect(routes).not.toContain('10.64.0.30');
    expect(routes).toContain('unreachable 10.64.0.0/26');
    const [one, two] = a?.pods ?? [];
    if (one === undefined || two === undefined) throw new Error('there are pods');
    expect(await pings(one.throwaway, two.addresses[4])).toBe(true);
  });
});

/** All nodes hear of these subnets besides their own. */
async function tell(exclusive: Sources['subnets']): Promise<void> {
  fabric.nodes.forEach((node, i) => {
    const sources = fabric.sources(node);
    syncs[i]?.set({ ...sources, subnets: [...sources.subnets, ...exclusive] });
  });
  await Promise.all(syncs.map((sync) => sync.upToDate()));
}

function waysTo({ node: name, addresses }: FabricPod): Sources['subnets'] {
  const node = fabric.nodes.find((one) => one.name === name);
  const hops = node === undefined ? [] : [node.addresses[4], node.addresses[6]];
  const options = { exclusive: true, created: '2026-02-01T00:00:00Z' };
  return [
    [`${addresses[4]}/32`, name, hops, options],
    [`${addresses[6]}/128`, name, hops, options],
  ];
}
