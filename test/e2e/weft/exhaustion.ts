import { expect, it } from 'vitest';
import { z } from 'zod';
import { checkCluster } from './check.ts';
import { isReady, type Pod, type Stage } from './stage.ts';
import { list } from './tenants.ts';
import { pod, pool } from './workload.ts';

const NAME = 'scarce';
/** Four pieces of three addresses to hand out, two of which are reserved. */
const USABLE = 10;
const RESERVED = ['10.244.171.2', '10.244.171.6'];
/** Long enough that who waits is told of it: a kubelet asks again every ten seconds or so. */
const REUSE_DELAY_SECONDS = 12;

const Event = z.object({
  involvedObject: z.object({
    name: z.string().default(''),
    uid: z.string().default(''),
  }),
  reason: z.string().default(''),
  message: z.string().default(''),
});
type Event = z.output<typeof Event>;

/** A pool with fewer addresses than pods that want one. */
export function exhaustionTests(stage: () => Stage): void {
  it('tells people of a full pool, and serves who waits as soon as others end (B17, F25, F28)', async () => {
    const { cluster, eventually, pods } = stage();
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(tenant())));
    await eventually('nothing of it is in use', async () =>
      expect(await conditions(stage())).toMatchObject({ NearlyExhausted: 'False', Exhausted: 'False' }),
    );

    const ends = ['ends-0', 'ends-1'];
    const stays = Array.from({ length: USABLE - ends.length }, (_, i) => `stays-${i}`);
    const names = [...ends, ...stays];
    const manifests = [...ends.map(thatEnds), ...stays.map((name) => onNode(name))];
    // The last one is to fill it.
    await eventually('the first pods are taken', () =>
      cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(manifests.slice(0, -1)))),
    );
    const ready = async () =>
      (await pods('', NAME))
        .filter(isReady)
        .map(({ metadata }) => metadata.name)
        .sort();
    await eventually('all but one of its addresses are in use', async () =>
      expect(await ready()).toEqual(names.slice(0, -1).sort()),
    );
    await eventually('condition and Event say that few are left, and nothing that none is', async () => {
      expect(await conditions(stage())).toMatchObject({ NearlyExhausted: 'True', Exhausted: 'False' });
      const reasons = await told(stage());
      expect(reasons).toContain('NearlyExhausted');
      expect(reasons).not.toContain('Exhausted');
    });

    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(manifests.slice(-1))));
    await eventually('as many run as there are addresses', async () =>
      expect(await ready()).toEqual([...names].sort()),
    );
    await eventually('condition and Event say that it is full', async () => {
      expect(await conditions(stage())).toMatchObject({ NearlyExhausted: 'True', Exhausted: 'True' });
      expect(await told(stage())).toContain('Exhausted');
    });

    const waits = ['waits-0', 'waits-1', 'waits-2'];
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(waits.map((name) => onNode(name)))));
    await eventually('an Event on each that waits names the figures', async () => {
      for (const name of waits) {
        const messages = await exhaustionOf(stage(), name);
        expect(messages.join('\n')).toMatch(
          new RegExp(
            `IPPool ${NAME} has no free ipv4 address on this node: of ${USABLE} usable in .*, ${USABLE} are in use and ` +
              `0 rest after their release; ${RESERVED.length} more are reserved`,
          ),
        );
      }
    });

    // Two run to their end, one is deleted. The objects of the ended ones stay, with the addresses that they had.
    const had = (await pods('', NAME)).filter(({ metadata }) => ends.includes(metadata.name)).flatMap(ipv4Of);
    for (const name of ends) await cluster.kubectl(['-n', NAME, 'exec', name, '--', 'touch', '/tmp/end']);
    await cluster.kubectl(['-n', NAME, 'delete', 'pod', 'stays-0', '--wait=false']);
    await eventually('those who wait are told that addresses rest, and for how long', async () => {
      const messages = (await Promise.all(waits.map((name) => exhaustionOf(stage(), name)))).flat();
      expect(messages.join('\n')).toMatch(/[1-3] rest after their release, the next comes free in \d+ s/);
    });
    await eventually(
      'they start with nobody doing anything',
      async () => expect(await ready()).toEqual([...stays.slice(1), ...waits].sort()),
      90,
    );
    const after = await pods('', NAME);
    const ended = after.filter(({ metadata }) => ends.includes(metadata.name));
    expect(ended.map(({ status }) => status.phase)).toEqual(['Succeeded', 'Succeeded']);
    // By the apiserver an ended pod has its address still, and another one has it, too.
    expect(ended.flatMap(ipv4Of).sort()).toEqual(had.sort());
    const theirs = after.filter(({ metadata }) => waits.includes(metadata.name)).flatMap(ipv4Of);
    expect(theirs).toEqual(expect.arrayContaining(had));
    await eventually('a clean check', async () =>
      expect(await checkCluster(stage())).toEqual({ findings: [], unknownNodes: [] }),
    );

    await cluster.kubectl(['delete', 'namespace', NAME, '--timeout=60s']);
    await eventually('it has addresses again', async () =>
      expect(await conditions(stage())).toMatchObject({ Exhausted: 'False' }),
    );
    await cluster.kubectl(['delete', 'ippool', NAME, '--timeout=120s']);
  });
}

/** The range is among those that the cluster's router drops. */
function tenant(): object[] {
  const base = pool(NAME, ['10.244.171.0/28', 'fd00:10:244:171::/124']) as { spec: object };
  const spec = {
    ...base.spec,
    nodeSubnetPrefixLength: { ipv4: 30, ipv6: 126 },
    reserved: RESERVED,
    reuseDelaySeconds: REUSE_DELAY_SECONDS,
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': NAME } },
  };
  const annotations = { 'ipam.weft.dev/pools': NAME };
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAME, annotations } },
    { ...base, spec },
  ];
}

function onNode(name: string, container: object = {}): object {
  const base = pod(name, NAME) as { spec: { containers: object[] } };
  const containers = base.spec.containers.map((one) => ({ ...one, ...container }));
  const nodeSelector = { 'kubernetes.io/hostname': 'node-1' };
  return { ...base, spec: { ...base.spec, nodeSelector, restartPolicy: 'Never', containers } };
}

/** One that has done its work when somebody says so. */
function thatEnds(name: string): object {
  return onNode(name, { command: ['sh', '-c', 'until [ -e /tmp/end ]; do sleep 0.2; done'] });
}

/** The pool's conditions by their types. */
async function conditions({ pool: read }: Stage): Promise<Record<string, string>> {
  const found = (await read(NAME)).status?.conditions ?? [];
  return Object.fromEntries(found.map(({ type, status }) => [type, status]));
}

/** The reasons of the Events on the pool: on this one, not on an earlier one of its name. */
async function told(stage: Stage): Promise<string[]> {
  const { uid } = (await stage.pool(NAME)).metadata;
  const found = await events(stage, 'default');
  return found.filter(({ involvedObject }) => involvedObject.uid === uid).map(({ reason }) => reason);
}

async function exhaustionOf(stage: Stage, name: string): Promise<string[]> {
  const found = await events(stage, NAME);
  return found
    .filter(({ involvedObject, reason }) => involvedObject.name === name && reason === 'IPPoolExhausted')
    .map(({ message }) => message);
}

async function events({ client }: Stage, namespace: string): Promise<Event[]> {
  const path = `/api/v1/namespaces/${namespace}/events`;
  return z.object({ items: z.array(Event) }).parse(await client.request({ method: 'GET', path })).items;
}

const ipv4Of = ({ status }: Pod): string[] =>
  status.podIPs.map(({ ip }) => ip).filter((ip) => ip.includes('.'));
