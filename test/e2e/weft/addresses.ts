import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { STATIC_PODS } from '../../../hack/cluster/node-config.ts';
import type { IPAllocation } from '../../../src/api/index.ts';
import { formatAddress } from '../../../src/net/index.ts';
import { GRACE_SECONDS } from './bring-up.ts';
import { checkCluster } from './check.ts';
import { isReady, type Pod, type Stage } from './stage.ts';
import { deployment, pod, WEB } from './workload.ts';
import { addressesOf } from './paths.ts';

/** One object per address, from the pod's start to after its end. */
export function addressTests(stage: () => Stage): void {
  it('names in exactly one IPAllocation per family the sandbox that has the address', async () => {
    const { allocations, pods } = stage();
    const running = (await pods(`app=${WEB}`)).filter(isReady);
    const all = await allocations();
    for (const one of running) {
      const own = all.filter(({ spec }) => spec.pod?.uid === one.metadata.uid);
      expect(own.map(({ spec }) => formatAddress(spec.address)).sort()).toEqual(addressesOf(one).sort());
      const sandbox = await sandboxOf(stage(), one);
      for (const { spec, status } of own) {
        expect(spec.attachment?.containerID).toBe(sandbox);
        expect(spec.nodeName).toBe(one.spec.nodeName);
        expect(status?.releasedAt).toBeUndefined();
      }
    }
    expect(running.length).toBeGreaterThan(0);
  });

  it('keeps those of a static pod, whose mirror has another UID than the runtime tells (F24)', async () => {
    const { cluster, eventually, allocations, pods } = stage();
    const [node = ''] = cluster.nodes;
    const file = `${STATIC_PODS}/still.json`;
    const manifest = JSON.stringify(pod('still', 'default', { app: 'still' }));
    await cluster.execOnNode(node, ['sh', '-euc', `mkdir -p ${STATIC_PODS}; cat >${file}`], manifest);
    const [mirror] = await eventually('the mirror is Ready', async () => {
      const found = (await pods('app=still')).filter(isReady);
      expect(found).toHaveLength(1);
      return found;
    });
    if (mirror === undefined) throw new Error('there is no mirror');
    const own = async () =>
      (await allocations()).filter(({ spec }) => spec.pod?.name === mirror.metadata.name);
    const before = await own();
    expect(before.map(({ spec }) => formatAddress(spec.address)).sort()).toEqual(addressesOf(mirror).sort());
    // The runtime knows it by another one, as it told weft.
    expect(await sandboxOf(stage(), mirror)).toBe('');

    // Longer than the grace: whoever did not know it again would have freed them.
    await sleep(2_000 * GRACE_SECONDS);
    expect(await own()).toEqual(before);
    await expectAgreement(stage());
    expect((await checkCluster(stage())).findings).toEqual([]);

    await cluster.execOnNode(node, ['rm', file]);
    await eventually('its addresses are released', async () => {
      expect(await pods('app=still')).toEqual([]);
      expect((await own()).filter(isHeld)).toEqual([]);
    });
  });

  it('are those of the sandbox that lives in the status of a pod that got a second one (F26)', async () => {
    const { cluster, eventually, allocations, pods } = stage();
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(pod('twice', 'default', { app: 'twice' })));
    await cluster.kubectl(['wait', 'pod', 'twice', '--for=condition=Ready', '--timeout=90s']);
    const [before] = await pods('app=twice');
    if (before === undefined) throw new Error('there is no pod');
    const own = async () => (await allocations()).filter(({ spec }) => spec.pod?.uid === before.metadata.uid);
    const first = await sandboxOf(stage(), before);
    expect((await own()).map(({ spec }) => spec.attachment?.containerID)).toEqual([first, first]);

    // Its containers run on; the kubelet makes the pod another sandbox.
    const kill = ['tasks', 'kill', '--signal', 'SIGKILL', first];
    await cluster.execOnNode(before.spec.nodeName ?? '', ['ctr', '--namespace', 'k8s.io', ...kill]);
    await eventually(
      'the pod is the same, and its addresses are those of its other sandbox',
      async () => {
        const living = (await own()).filter(isHeld);
        const [second, ...others] = new Set(living.map(({ spec }) => spec.attachment?.containerID));
        expect(second).toBeDefined();
        expect(second).not.toBe(first);
        expect(others).toEqual([]);
        const [now] = (await pods('app=twice')).filter(isReady);
        expect(now?.metadata.uid).toBe(before.metadata.uid);
        expect(addressesOf(now).sort()).toEqual(living.map(({ spec }) => formatAddress(spec.address)).sort());
        expect(living).toHaveLength(2);
      },
      120,
    );
    await eventually('those of the first have rested and are free', async () => {
      const containers = (await own()).map(({ spec }) => spec.attachment?.containerID);
      expect(containers).toHaveLength(2);
      expect(containers).not.toContain(first);
    });
    await eventually('links, sandboxes and allocations agree', () => expectAgreement(stage()));
    expect((await checkCluster(stage())).findings).toEqual([]);
    await cluster.kubectl(['delete', 'pod', 'twice']);
  });

  it('releases them when the Deployment goes, and deletes them after the delay', async () => {
    const { cluster, eventually, allocations, pods } = stage();
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(deployment('short-lived', 3)));
    await cluster.kubectl(['rollout', 'status', 'deployment/short-lived', '--timeout=90s']);
    const uids = (await pods('app=short-lived')).map(({ metadata }) => metadata.uid);
    const own = async () => (await allocations()).filter(({ spec }) => uids.includes(spec.pod?.uid ?? ''));
    expect(await own()).toHaveLength(6);
    await cluster.kubectl(['delete', 'deployment', 'short-lived']);
    const resting = await eventually('all six rest', async () => {
      const found = await own();
      expect(found.filter(isHeld).map(({ metadata }) => metadata.name)).toEqual([]);
      return found;
    });
    // They are seen at rest, not only gone: a name is locked for the delay.
    expect(resting.length).toBeGreaterThan(0);
    await eventually('all six are deleted', async () => expect(await own()).toHaveLength(0), 30);
  });

  it('leaves nothing of 30 pods that were created and forcibly deleted in a burst', async () => {
    const { cluster, eventually, allocations, pods } = stage();
    const names = Array.from({ length: 30 }, (_, index) => `burst-${index}`);
    const items = names.map((name) => pod(name, 'default', { app: 'burst' }));
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
    const own = async () => (await allocations()).filter(({ spec }) => spec.pod?.name.startsWith('burst-'));
    // Some run, some are being wired, some have not begun.
    await eventually('10 have addresses', async () => expect((await own()).length).toBeGreaterThan(20));
    const force = ['--force', '--grace-period=0', '--wait=false'];
    await cluster.kubectl(['delete', 'pods', '-l', 'app=burst', ...force]);
    await eventually(
      'their pods and addresses are gone',
      async () => {
        expect(await pods('app=burst')).toHaveLength(0);
        expect(await own()).toHaveLength(0);
      },
      120,
    );
    await eventually('links, sandboxes and allocations agree on every node', () => expectAgreement(stage()));
  });
}

/** On each node the runtime's sandboxes, the kernel's links and the held allocations are the same. */
export async function expectAgreement(stage: Stage): Promise<void> {
  const { cluster, allocations } = stage;
  const held = (await allocations()).filter(isHeld);
  for (const node of cluster.nodes) {
    const own = held.filter(({ spec }) => spec.nodeName === node && spec.attachment?.network === 'weft');
    const byAllocation = new Set(own.map(({ spec }) => spec.attachment?.containerID ?? ''));
    const links = await linkAliases(stage, node);
    expect(links.map((alias) => alias.split(' ')[2]).sort(), `links of ${node}`).toEqual(
      [...byAllocation].sort(),
    );
    // One of each family for each attachment.
    expect(own, `allocations of ${node}`).toHaveLength(byAllocation.size * 2);
  }
}

/** The aliases of all links of weft's attachments; a link without one answers its name. */
async function linkAliases({ cluster }: Stage, node: string): Promise<string[]> {
  const links = JSON.parse(await cluster.execOnNode(node, ['ip', '-json', 'link', 'show'])) as Link[];
  return links
    .filter(({ ifname }) => /^x?weft/.test(ifname))
    .map(({ ifname, ifalias }) => ifalias ?? `${ifname} has no alias`);
}

type Link = { readonly ifname: string; readonly ifalias?: string };

export const isHeld = ({ status }: IPAllocation): boolean => status?.releasedAt === undefined;

/** The ID that containerd knows the pod's sandbox by. */
async function sandboxOf({ cluster }: Stage, { metadata, spec }: Pod): Promise<string> {
  const filter = `labels."io.kubernetes.pod.uid"==${metadata.uid},labels."io.cri-containerd.kind"==sandbox`;
  return cluster.execOnNode(spec.nodeName ?? '', [
    ...['ctr', '--namespace', 'k8s.io', 'containers', 'list', '--quiet', filter],
  ]);
}
