import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Encapsulation } from '../../src/api/index.ts';
import { startFlow } from './flow.ts';
import {
  IP_FAMILIES,
  makeFabric,
  makePod,
  pings,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type FabricPod,
  type SyncProcess,
} from './fabric.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/** The MTU of links follows that of the uplink, also where pods live. Nodes `a` and `b` are on one segment. */

const { make } = useThrowaways();
let fabric: Fabric;
let a: FabricNode;
let b: FabricNode;
let fixed: FabricPod;
let syncs: ReadonlyMap<FabricNode, SyncProcess>;

beforeAll(async () => {
  fabric = makeFabric(make);
  await settled(fabric);
  const [first, second] = fabric.nodes;
  if (first === undefined || second === undefined) throw new Error('the fabric has three nodes');
  [a, b] = [first, second];
  // Its network configuration names an MTU.
  fixed = makePod(make, a, 0, 3, { mtu: 1420, fixedMTU: true });
  syncs = new Map([a, b].map((node) => [node, startSync(node)]));
});

afterAll(async () => {
  await Promise.all([...syncs.values()].map((sync) => sync.kill()));
});

async function apply(encapsulation: Encapsulation): Promise<void> {
  for (const [node, sync] of syncs) {
    const sources: Sources = {
      ...fabric.sources(node),
      pools: [['main', ['10.64.0.0/16', 'fd64::/64'], { encapsulation }]],
    };
    sync.set(sources);
    await sync.upToDate();
  }
}

function setUplinks(mtu: number): void {
  for (const [index, { throwaway }] of [a, b].entries()) {
    fabric.router.sh(`ip link set p1-${10 + index} mtu ${mtu}`);
    throwaway.sh(`ip link set eth0 mtu ${mtu}`);
  }
}

function mtuOf({ sh }: Throwaway, link: string): number | undefined {
  const text = / mtu (\d+) /.exec(sh(`ip -o link show ${link}`))?.[1];
  return text === undefined ? undefined : Number(text);
}

/** Both ends of all pods of both nodes, but for the one with an MTU of its own. */
function podMTUs(): number[] {
  const ends = [a, b].flatMap(({ throwaway, pods }) =>
    pods.flatMap((pod) => [mtuOf(throwaway, pod.hostLink), mtuOf(pod.throwaway, 'eth0')]),
  );
  return [...new Set(ends.map((mtu) => mtu ?? 0))];
}

async function expectPodMTU(mtu: number): Promise<void> {
  expect(
    await until(() => podMTUs().join() === String(mtu), 10_000),
    `${podMTUs().join()} became ${mtu}`,
  ).toBeDefined();
}

test('an uplink of 1500, then 9000, then 1400: links of living pods follow, and what flows goes on', async () => {
  await apply('CrossSubnet');
  await expectPodMTU(1450);
  const [podA, podB] = [a.pods[0], b.pods[0]];
  if (podA === undefined || podB === undefined) throw new Error('the fabric has pods');
  const flows = await Promise.all(
    IP_FAMILIES.map((family) =>
      startFlow(podA.throwaway, podB.throwaway, { address: podB.addresses[family] }),
    ),
  );
  const passes = (bytes: number) =>
    pings(podA.throwaway, podB.addresses[4], '-M', 'do', '-s', String(bytes - 28));

  setUplinks(9000);
  await expectPodMTU(8950);
  expect(mtuOf(a.throwaway, 'vxlan.weft')).toBe(8950);
  expect(await passes(8950)).toBe(true);

  setUplinks(1400);
  await expectPodMTU(1350);
  expect(mtuOf(a.throwaway, 'vxlan.weft')).toBe(1350);
  expect(await passes(1350)).toBe(true);
  expect(await passes(1351)).toBe(false);

  const outcomes = await Promise.all(flows.map((flow) => flow.end()));
  expect(outcomes).toMatchObject(flows.map(() => ({ lost: 0 })));
  for (const sync of syncs.values()) {
    const { differences, podMTU } = await sync.status();
    expect(differences).toEqual([]);
    expect(podMTU).toBe(1350);
    expect(sync.drift()).toEqual([]);
  }
  setUplinks(1500);
  await expectPodMTU(1450);
});

test('a pool that never encapsulates has the whole uplink, as soon as it says so', async () => {
  await apply('Never');
  await expectPodMTU(1500);
  await apply('Always');
  await expectPodMTU(1450);
});

test('an MTU that the network configuration names stays', async () => {
  await apply('Never');
  await expectPodMTU(1500);
  expect(mtuOf(a.throwaway, fixed.hostLink)).toBe(1420);
  expect(mtuOf(fixed.throwaway, 'eth0')).toBe(1420);
  await apply('CrossSubnet');
  await expectPodMTU(1450);
});

describe('what somebody else has set', () => {
  test("on the host's end is put back on both", async () => {
    const [pod] = a.pods;
    a.throwaway.sh(`ip link set ${pod?.hostLink} mtu 1200`);
    await syncs.get(a)?.upToDate();
    await expectPodMTU(1450);
  });

  test("on the pod's own end is the pod's affair", async () => {
    const [pod] = a.pods;
    pod?.throwaway.sh('ip link set eth0 mtu 1300');
    await syncs.get(a)?.upToDate();
    expect(podMTUs()).toEqual([1450, 1300]);
    pod?.throwaway.sh('ip link set eth0 mtu 1450');
  });
});

test('a pod whose namespace is nowhere to be found keeps its MTU, which is said, until it is found', async () => {
  const [pod] = a.pods;
  if (pod === undefined) throw new Error('the fabric has pods');
  const { path, namespace, sh } = pod.throwaway;
  const sync = syncs.get(a);
  // Lazily: this process has it open.
  execFileSync('umount', ['-l', path]);
  setUplinks(1400);
  const said = () =>
    sync?.reports.some(
      (report) =>
        report.kind === 'unmet' && report.refused.some((text) => text.includes(`${pod.hostLink} stays 1450`)),
    ) === true;
  expect(await until(said, 10_000)).toBeDefined();
  expect(mtuOf(a.throwaway, pod.hostLink)).toBe(1450);
  execFileSync('mount', ['--no-canonicalize', '--bind', `/proc/${process.pid}/fd/${namespace.fd}`, path]);
  await expectPodMTU(1350);
  expect(sh('ip -o link show eth0')).toContain(' mtu 1350 ');
  const last = () => sync?.reports.findLast(({ kind }) => kind === 'unmet');
  expect(await until(() => JSON.stringify(last()).includes('"refused":[]'), 10_000)).toBeDefined();
  setUplinks(1500);
  await expectPodMTU(1450);
});
