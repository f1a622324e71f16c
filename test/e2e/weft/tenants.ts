import { expect, it } from 'vitest';
import { addressesOf, askPage } from './paths.ts';
import { isReady, type Pod, type Stage } from './stage.ts';
import { pod, pool, service, WEB } from './workload.ts';

const TENANTS = { blue: 160, green: 161 } as const;
type Tenant = keyof typeof TENANTS;
const BOTH: readonly Tenant[] = ['blue', 'green'];

/** Two tenants on a cluster, each with a pod on every node, and with a Service. */
export function tenantTests(stage: () => Stage): void {
  it('keeps tenants apart, and neither from nodes nor from DNS', { timeout: 240_000 }, async () => {
    const { cluster, eventually, pods } = stage();
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(BOTH.flatMap(ownedBy))));
    const placed = BOTH.flatMap((tenant) => cluster.nodes.map((node) => podOn(tenant, node)));
    // A new namespace has no account for its pods yet.
    await eventually('the pods are taken', () =>
      cluster.kubectl(['apply', '-f', '-'], JSON.stringify(list(placed))),
    );
    for (const tenant of BOTH) {
      await cluster.kubectl([
        '-n',
        tenant,
        'wait',
        'pods',
        '--all',
        '--for=condition=Ready',
        '--timeout=90s',
      ]);
    }
    const [blue, green] = await Promise.all(BOTH.map((tenant) => pods('', tenant)));
    if (blue === undefined || green === undefined) throw new Error('there are two tenants');
    const others = (await pods(`app=${WEB}`)).filter(isReady);
    expect([...blue, ...green].flatMap(addressesOf)).toHaveLength(12);

    const services = { blue: await serviceIPs(stage(), 'blue'), green: await serviceIPs(stage(), 'green') };
    for (const node of cluster.nodes) {
      await eventually(`${node} reaches both by Services`, async () => {
        for (const [tenant, own] of [['blue', blue] as const, ['green', green] as const]) {
          const script = askMany(services[tenant]);
          const answers = linesOf(await cluster.execOnNode(node, ['busybox', 'sh', '-c', script]));
          expectAllFrom(own, answers, `${node} by the Service of ${tenant}`);
        }
      });
    }
    const strangers = { blue: [...green, ...others], green: [...blue, ...others] };
    for (const [tenant, own] of [['blue', blue] as const, ['green', green] as const]) {
      for (const from of own) {
        const name = from.metadata.name;
        expect(await answering(stage(), from, own), `${name} within its tenant`).toEqual(
          own.flatMap(addressesOf),
        );
        expect(await answering(stage(), from, strangers[tenant]), `${name} elsewhere`).toEqual([]);
        expect(await resolves(stage(), from), `${name} asks DNS`).toBe(true);
        const byService = async (other: Tenant) =>
          linesOf(await cluster.kubectl([...inside(from), askMany(services[other])]));
        expectAllFrom(own, await byService(tenant), `${name} by the Service of its tenant`);
        const stranger = tenant === 'blue' ? 'green' : 'blue';
        for (const answer of await byService(stranger)) expect(answer).toMatch(/^no answer/);
      }
      // Nor does anybody else reach them, but the nodes.
      const [other] = others;
      if (other !== undefined) expect(await answering(stage(), other, own)).toEqual([]);
      for (const node of cluster.nodes) {
        const script = pings(own.flatMap(addressesOf));
        expect(linesOf(await cluster.execOnNode(node, ['sh', '-c', script])), `from ${node}`).toEqual(
          own.flatMap(addressesOf).sort(),
        );
      }
    }

    // What changes is in force on running pods.
    const [first] = blue;
    if (first === undefined) throw new Error('blue has two pods');
    const isolate = (tenant: Tenant, isolation: object) =>
      cluster.kubectl([
        'patch',
        'ippool',
        tenant,
        '--type=merge',
        '-p',
        JSON.stringify({ spec: { isolation } }),
      ]);
    await isolate('blue', { peers: ['green'], dns: false });
    await eventually(
      'blue pods ask no DNS',
      async () => expect(await resolves(stage(), first)).toBe(false),
      20,
    );
    expect(await answering(stage(), first, green), 'one names the other').toEqual([]);
    await eventually('the pool says that its peer does not match', async () => {
      const { status } = await stage().pool('blue');
      const found = status?.conditions?.find(({ type }) => type === 'PeersUnmatched');
      expect(found).toMatchObject({ status: 'True', reason: 'NotNamedBack' });
    });
    await isolate('green', { peers: ['blue'] });
    await eventually(
      'those who name each other reach each other',
      async () => expect(await answering(stage(), first, green)).toEqual(green.flatMap(addressesOf)),
      20,
    );

    await cluster.kubectl(['delete', 'namespace', ...BOTH, '--timeout=60s']);
    await cluster.kubectl(['delete', 'ippool', ...BOTH, '--timeout=120s']);
  });
}

/** The tenant's namespace and pool. Its ranges are among those that the cluster's router drops. */
function ownedBy(tenant: Tenant): object[] {
  const number = TENANTS[tenant];
  const base = pool(tenant, [`10.244.${number}.0/24`, `fd00:10:244:${number}::/64`]) as { spec: object };
  const spec = {
    ...base.spec,
    reuseDelaySeconds: 1,
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': tenant } },
    isolation: { mode: 'Isolated' },
  };
  const annotations = { 'ipam.weft.dev/pools': tenant };
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: tenant, annotations } },
    { ...base, spec },
    service(tenant, tenant),
  ];
}

function podOn(tenant: Tenant, node: string): object {
  const base = pod(`${tenant}-${node}`, tenant, { app: tenant }) as { spec: object };
  return { ...base, spec: { ...base.spec, nodeSelector: { 'kubernetes.io/hostname': node } } };
}

/** What `kubectl apply` takes as one. */
export const list = (items: readonly object[]) => ({ apiVersion: 'v1', kind: 'List', items });

/** Which addresses of these pods answer the pod, in the order of the pods. */
export async function answering({ cluster }: Stage, from: Pod, to: readonly Pod[]): Promise<string[]> {
  const addresses = to.flatMap(addressesOf);
  const answered = linesOf(await cluster.kubectl([...inside(from), pings(addresses)]));
  return addresses.filter((address) => answered.includes(address));
}

async function serviceIPs({ cluster }: Stage, tenant: Tenant): Promise<string[]> {
  const path = 'jsonpath={.spec.clusterIPs[*]}';
  return (await cluster.kubectl(['-n', tenant, 'get', 'service', tenant, '-o', path])).split(' ');
}

/** Every question was answered, and by these pods alone. */
function expectAllFrom(own: readonly Pod[], answers: readonly string[], what: string): void {
  expect(answers, what).toHaveLength(2 * TIMES);
  const names = own.map(({ metadata }) => metadata.name);
  for (const answer of answers) expect(names, what).toContain(answer);
}

/** How often each address of a Service is asked: which of its pods answers is chance. */
const TIMES = 5;

/** All at once, since what is dropped answers nothing for as long as it is waited for. */
function askMany(addresses: readonly string[]): string {
  const each = addresses.map((address) => `{ ${askPage(address, 80, 'name')}; } &`);
  return `${Array.from({ length: TIMES }, () => each.join('\n')).join('\n')}\nwait`;
}

async function resolves({ cluster }: Stage, from: Pod): Promise<boolean> {
  const script = 'timeout 4 nslookup -type=a kubernetes.default.svc.cluster.local || true';
  return (await cluster.kubectl([...inside(from), script])).includes(cluster.plan.apiService.ipv4);
}

const inside = ({ metadata: { namespace, name } }: Pod) => ['-n', namespace, 'exec', name, '--', 'sh', '-c'];

/** All at once; each that answers prints its address. */
function pings(targets: readonly string[]): string {
  const lines = targets.map((address) => `ping -q -c 1 -W 2 ${address} >/dev/null 2>&1 && echo ${address} &`);
  return `${lines.join('\n')}\nwait`;
}

const linesOf = (output: string) => output.split('\n').filter(Boolean).sort();
