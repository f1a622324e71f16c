import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { countArrivals } from './arrivals.ts';
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
import { expectNotBelieved } from './forged-tunnel.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: SyncProcess[];

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
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

describe("a node's packet that a Service's address has turned into the tunnel", () => {
  test.each(IP_FAMILIES)('is answered through the tunnel (IPv%i)', async (family) => {
    const { a, c } = byName();
    const service = { 4: '10.96.0.1', 6: 'fd96::1' }[family];
    const [target] = c.pods;
    a.throwaway.sh(`nft -f - <<END
table ${family === 4 ? 'ip' : 'ip6'} service {
  chain out {
    type nat hook output priority -100
    ${family === 4 ? 'ip' : 'ip6'} daddr ${service} dnat to ${target?.addresses[family]}
  }
}
END`);
    expect(await pings(a.throwaway, service)).toBe(true);
  });
});

describe("a source that is not the pod's own", () => {
  test.each([
    { whose: "another pod's on the same node", spoofed: { 4: '10.64.0.2', 6: 'fd64::2' } },
    { whose: "another pod's on another node", spoofed: { 4: '10.64.0.129', 6: 'fd64::81' } },
    { whose: "nobody's of the node's subnet", spoofed: { 4: '10.64.0.30', 6: 'fd64::1e' } },
    { whose: "the node's own", spoofed: { 4: '192.168.1.10', 6: 'fd01::10' } },
    { whose: "the node's own among the pods'", spoofed: { 4: '10.64.0.0', 6: 'fd64::' } },
    { whose: "another node's", spoofed: { 4: '192.168.1.11', 6: 'fd01::11' } },
    { whose: 'outside', spoofed: { 4: '203.0.113.7', 6: '2001:db8::7' } },
  ])('is dropped on its node: $whose', async ({ spoofed }) => {
    const { a, b } = byName();
    const [from] = a.pods;
    const [to] = b.pods;
    if (from === undefined || to === undefined) throw new Error('the fabric has no pods');
    for (const family of IP_FAMILIES) {
      const source = spoofed[family];
      const host = `${source}/${family === 4 ? 32 : 128}`;
      from.throwaway.sh(`ip addr add ${host} dev lo${family === 4 ? '' : ' nodad'}`);
      const counter = countArrivals(to.throwaway, family);
      await pings(from.throwaway, to.addresses[family], '-I', from.addresses[family]);
      expect(counter()).toBe(1);
      await pings(from.throwaway, to.addresses[family], '-I', source);
      expect(counter()).toBe(1);
      from.throwaway.sh(`ip addr del ${host} dev lo`);
      to.throwaway.sh('nft delete table inet arrivals');
    }
  });
});

describe("a redirect, which would lead the node's or a pod's traffic elsewhere (S9)", () => {
  test.each<{ family: IPFamily; to: 'its own node' | 'another pod' }>([
    { family: 4, to: 'its own node' },
    { family: 6, to: 'its own node' },
    { family: 4, to: 'another pod' },
    { family: 6, to: 'another pod' },
  ])('from a pod to $to is dropped (IPv$family)', async ({ family, to }) => {
    const { a, b } = byName();
    const [from] = a.pods;
    const target = to === 'its own node' ? a : b.pods[0];
    if (from === undefined || target === undefined) throw new Error('the fabric has no pods');
    const { protocol, type, code } = {
      4: { protocol: 1, type: 5, code: 1 },
      6: { protocol: 58, type: 137, code: 0 },
    }[family];
    const octet = (value: number) => `\\0${value.toString(8)}`;
    const packet = `${octet(type)}${octet(code)}${octet(0).repeat(62)}`;
    const address = family === 4 ? target.addresses[4] : `[${target.addresses[6]}]`;
    const send = () =>
      from.throwaway.sh(`printf '%b' '${packet}' | socat -u - IP${family}-SENDTO:${address}:${protocol}`);
    const counter = countArrivals(
      target.throwaway,
      family,
      family === 4 ? 'icmp type redirect' : 'icmpv6 type nd-redirect',
    );
    send();
    await sleep(300);
    expect(counter()).toBe(0);

    // Without the rule it does arrive: nothing else stops it.
    syncs.forEach((sync) => sync.pause());
    a.throwaway.sh('nft flush chain inet weft from_pods');
    send();
    expect(await until(() => counter() === 1, 5000)).toBeDefined();
    syncs.forEach((sync) => sync.resume());
    target.throwaway.sh('nft delete table inet arrivals');
    const guarded = () => a.throwaway.sh('nft list table inet weft').includes('no routers');
    expect(await until(guarded, 5000)).toBeDefined();
  });
});

describe('packets of our VXLAN', () => {
  test.each([
    { who: 'a pod of another node', machine: () => byName().a.pods[0]?.throwaway },
    { who: 'a pod of the very node', machine: () => byName().c.pods[0]?.throwaway },
    { who: 'a stranger on the same link', machine: () => fabric.stranger.throwaway },
  ])('from $who are not believed', async ({ machine }) => {
    await expectNotBelieved(machine(), { fabric, syncs, underlay: 4 });
  });
});

function byName(): Record<'a' | 'b' | 'c', FabricNode> {
  const [a, b, c] = fabric.nodes;
  if (a === undefined || b === undefined || c === undefined) throw new Error('the fabric has three nodes');
  return { a, b, c };
}

async function inGroups<T>(
  items: readonly T[],
  size: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  for (let start = 0; start < items.length; start += size) {
    await Promise.all(items.slice(start, start + size).map(work));
  }
}
