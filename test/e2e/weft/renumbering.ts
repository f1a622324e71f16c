import { expect, it } from 'vitest';
import { cidrHasAddress, parseAddress, parseCIDR } from '../../../src/net/index.ts';
import { checkCluster } from './check.ts';
import { addressesOf } from './paths.ts';
import type { Pod, Stage } from './stage.ts';
import { answering, list } from './tenants.ts';
import { pod, pool } from './workload.ts';

const NAME = 'renumbered';
/** Among the ranges that the cluster's router drops. */
const OLD = ['10.244.180.0/24', 'fd00:10:244:180::/64'];
const NEW = ['10.244.181.0/24', 'fd00:10:244:181::/64'];

/** What a person does who gives running pods other addresses: two lines of a pool in git, and restarts at leisure. */
export function renumberingTests(stage: () => Stage): void {
  it(
    'moves pods to other ranges: new ones, restarted ones, and the old range is gone with its last pod',
    { timeout: 300_000 },
    async () => {
      const { cluster, eventually, subnets } = stage();
      const apply = (objects: readonly object[]) =>
        cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(objects)));
      await apply(namespaceAndPool());
      await eventually('the pods are taken', () => apply([onNode('one', 'node-1'), onNode('two', 'node-2')]));
      expect(rangesOf(await ready(stage(), ['one', 'two']))).toEqual({ one: OLD, two: OLD });

      const patch = JSON.stringify({ spec: { cidrs: NEW } });
      await cluster.kubectl(['patch', 'ippool', NAME, '--type=merge', '-p', patch]);
      await eventually('the pool says who is left, and where', async () => {
        const said = await draining(stage());
        expect(said).toMatchObject({ status: 'True', reason: 'RangeRemoved' });
        expect(said?.message).toMatch(/4 addresses are left.* of node-1 \(1\)/);
      });
      await apply([onNode('three', 'node-3')]);
      const mixed = await ready(stage(), ['one', 'two', 'three']);
      expect(rangesOf(mixed)).toEqual({ one: OLD, two: OLD, three: NEW });
      await expectAllReachAll(stage(), mixed);

      // One after the other is started anew.
      await cluster.kubectl(['-n', NAME, 'delete', 'pod', 'one', '--timeout=60s']);
      await apply([onNode('one', 'node-1')]);
      const half = await ready(stage(), ['one', 'two', 'three']);
      expect(rangesOf(half)).toEqual({ one: NEW, two: OLD, three: NEW });
      await expectAllReachAll(stage(), half);
      await eventually('the count falls', async () =>
        expect((await draining(stage()))?.message).toMatch(/2 addresses are left.* of node-2 \(1\)/),
      );
      await cluster.kubectl(['-n', NAME, 'delete', 'pod', 'two', '--timeout=60s']);
      await apply([onNode('two', 'node-2')]);
      const all = await ready(stage(), ['one', 'two', 'three']);
      expect(rangesOf(all)).toEqual({ one: NEW, two: NEW, three: NEW });
      await expectAllReachAll(stage(), all);
      await eventually('nothing is left of the old range', async () => {
        expect(await draining(stage())).toMatchObject({ status: 'False', reason: 'NothingLeft' });
        const old = OLD.map(parseCIDR);
        const pieces = (await subnets()).filter(({ spec }) => spec.pool === NAME);
        expect(pieces.length).toBeGreaterThan(0);
        for (const { spec } of pieces) {
          const address = { family: spec.cidr.family, value: spec.cidr.first };
          expect(old.some((cidr) => cidrHasAddress(cidr, address))).toBe(false);
        }
      });
      await eventually('a clean check', async () =>
        expect(await checkCluster(stage())).toEqual({ findings: [], unknownNodes: [] }),
      );

      await cluster.kubectl(['delete', 'namespace', NAME, '--timeout=60s']);
      await cluster.kubectl(['delete', 'ippool', NAME, '--timeout=120s']);
    },
  );
}

function namespaceAndPool(): object[] {
  const base = pool(NAME, OLD) as { spec: object };
  const namespaceSelector = { matchLabels: { 'kubernetes.io/metadata.name': NAME } };
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAME } },
    { ...base, spec: { ...base.spec, priority: 10, namespaceSelector } },
  ];
}

function onNode(name: string, node: string): object {
  const base = pod(name, NAME) as { spec: object };
  return { ...base, spec: { ...base.spec, nodeSelector: { 'kubernetes.io/hostname': node } } };
}

/** The pods of these names, Ready. */
async function ready({ cluster, pods }: Stage, names: readonly string[]): Promise<Pod[]> {
  const wait = ['wait', ...names.map((name) => `pod/${name}`), '--for=condition=Ready', '--timeout=60s'];
  await cluster.kubectl(['-n', NAME, ...wait]);
  return pods('', NAME);
}

/** The ranges in which the addresses of each pod lie. */
function rangesOf(pods: readonly Pod[]): Record<string, string[]> {
  const rangeOf = (address: string) =>
    [...OLD, ...NEW].find((cidr) => cidrHasAddress(parseCIDR(cidr), parseAddress(address))) ?? 'another';
  return Object.fromEntries(pods.map((one) => [one.metadata.name, addressesOf(one).map(rangeOf)]));
}

/**
 * Soon: a pod may be Ready while another node still compares all it has with what the pool says now, which takes up to a
 * second where three nodes do so on two cores.
 */
async function expectAllReachAll(stage: Stage, pods: readonly Pod[]): Promise<void> {
  for (const from of pods) {
    const reachesAll = async () =>
      expect(await answering(stage, from, pods), from.metadata.name).toEqual(pods.flatMap(addressesOf));
    await stage.eventually(`${from.metadata.name} reaches all`, reachesAll, REACHED_SECONDS);
  }
}

const REACHED_SECONDS = 3;

async function draining({ pool: read }: Stage) {
  return (await read(NAME)).status?.conditions?.find(({ type }) => type === 'Draining');
}
