import { expect, it } from 'vitest';
import { z } from 'zod';
import { rebootNode } from '../../../hack/cluster/cluster.ts';
import { turnOffNode } from '../../../hack/cluster/node.ts';
import { readState } from '../../../hack/cluster/state.ts';
import { cidrSize, FAMILIES } from '../../../src/net/index.ts';
import { isHeld } from './addresses.ts';
import { CLUSTER_NAME } from './bring-up.ts';
import { lostPaths } from './paths.ts';
import { isReady, readiness, type Pod, type Stage } from './stage.ts';
import { deployment, pool, POOL_NAME, WEB, WEB_PODS } from './workload.ts';

const Lease = z.object({ spec: z.object({ holderIdentity: z.string() }) });
const LEASE_PATH = '/apis/coordination.k8s.io/v1/namespaces/weft-system/leases/weft-controller';

export function controllerTests(stage: () => Stage): void {
  it('has a second controller that takes over where the leader stops', async () => {
    const { client, cluster, eventually, pods, pool: read } = stage();
    const leader = async () =>
      Lease.parse(await client.request({ method: 'GET', path: LEASE_PATH })).spec.holderIdentity;
    const first = await leader();
    const replicas = await pods('app.kubernetes.io/name=weft-controller', 'weft-system');
    const holder = replicas.find(({ metadata }) => first.includes(metadata.name));
    expect(holder, `${first} holds the Lease`).toBeDefined();
    // Stopped, not killed: a container that is started again at once may lead again, it has the same name.
    await signalContainer(stage(), holder, 'controller', 'SIGSTOP');
    try {
      await eventually(
        'another holds the Lease',
        async () => {
          const now = await leader();
          expect(now).not.toBe(first);
          expect(replicas.some(({ metadata }) => now.includes(metadata.name))).toBe(true);
        },
        40,
      );
    } finally {
      await signalContainer(stage(), holder, 'controller', 'SIGKILL');
    }
    // And it works: what changes now is counted.
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(deployment('counted', 3)));
    await cluster.kubectl(['rollout', 'status', 'deployment/counted', '--timeout=90s']);
    await eventually('the status equals the objects', () => expectFigures(stage()), 30);
    const before = (await read(POOL_NAME)).status?.ipv4?.allocated ?? 0;
    await cluster.kubectl(['delete', 'deployment', 'counted']);
    await eventually(
      'the status follows',
      async () => {
        expect((await read(POOL_NAME)).status?.ipv4?.allocated).toBe(before - 3);
        await expectFigures(stage());
      },
      30,
    );
  });

  it('keeps a deleted pool until its last pod is gone, and no longer', async () => {
    const { cluster, eventually, allocations, pods, pool: read, subnets } = stage();
    // By its name it is the first to be drawn from.
    const name = 'a-temporary-pool';
    const manifest = pool(name, ['10.244.128.0/24', 'fd00:10:244:128::/64']);
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(manifest));
    const pieces = async () => (await subnets()).filter(({ spec }) => spec.pool === name);
    await eventually(
      'every node has a subnet of it',
      async () => {
        expect(new Set((await pieces()).map(({ spec }) => spec.nodeName)).size).toBe(cluster.nodes.length);
      },
      30,
    );
    await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(deployment('tenant', 1)));
    await cluster.kubectl(['rollout', 'status', 'deployment/tenant', '--timeout=60s']);
    const [tenant] = await pods('app=tenant');
    const own = async () => (await allocations()).filter(({ spec }) => spec.pool === name);
    expect((await own()).map(({ spec }) => spec.pod?.uid)).toEqual([
      tenant?.metadata.uid,
      tenant?.metadata.uid,
    ]);

    await cluster.kubectl(['delete', 'ippool', name, '--wait=false']);
    await eventually(
      'only the node of the tenant keeps its subnets',
      async () => {
        expect(new Set((await pieces()).map(({ spec }) => spec.nodeName))).toEqual(
          new Set([tenant?.spec.nodeName]),
        );
      },
      60,
    );
    // Long after the shortest time that a deleted pool is kept.
    expect((await read(name)).metadata.deletionTimestamp).toBeDefined();
    expect((await own()).filter(isHeld)).toHaveLength(2);

    await cluster.kubectl(['delete', 'deployment', 'tenant']);
    await eventually(
      'the pool is gone',
      async () => {
        const left = await cluster.kubectl(['get', 'ippools', '-o', 'name']);
        expect(left).not.toContain(name);
        expect(await pieces()).toHaveLength(0);
      },
      90,
    );
  });

  it('frees what a node held that is gone, and gives it to the node that comes back', async () => {
    const { cluster, eventually, allocations, node, pods, subnets } = stage();
    const gone = 'node-3';
    const state = await readState(CLUSTER_NAME);
    const heldBefore = (await allocations()).filter(({ spec }) => spec.nodeName === gone);
    expect(heldBefore.length).toBeGreaterThan(0);
    const uid = (await node(gone)).metadata.uid;
    await turnOffNode({ cgroup: state?.cgroup ?? '' }, gone);
    await cluster.kubectl(['delete', 'node', gone]);
    await eventually(
      'nothing is held in its name',
      async () => {
        expect((await allocations()).filter(({ spec }) => spec.nodeName === gone)).toHaveLength(0);
        expect((await subnets()).filter(({ spec }) => spec.nodeName === gone)).toHaveLength(0);
      },
      60,
    );

    await rebootNode(CLUSTER_NAME, gone);
    await eventually(
      'it is back as another Node, with a subnet of its own',
      async () => {
        const now = await node(gone);
        expect(now.metadata.uid).not.toBe(uid);
        expect(readiness(now).status).toBe('True');
        const own = (await subnets()).filter(({ spec }) => spec.nodeName === gone);
        expect(own.length).toBeGreaterThan(0);
        expect(own.map(({ spec }) => spec.nodeUID)).toEqual(own.map(() => now.metadata.uid));
      },
      120,
    );
    // Its pods were moved meanwhile: spread them again, so that every path has two ends.
    await cluster.kubectl(['rollout', 'restart', `deployment/${WEB}`]);
    await cluster.kubectl(['rollout', 'status', `deployment/${WEB}`, '--timeout=120s']);
    await eventually('every path works', async () => {
      expect((await pods(`app=${WEB}`)).filter(isReady)).toHaveLength(WEB_PODS);
      expect(await lostPaths(stage())).toEqual([]);
    });
  });
}

/** Both readings of the objects agree with the status between them. */
async function expectFigures({ allocations, pool: read, subnets }: Stage): Promise<void> {
  const all = (await allocations()).filter(({ spec }) => spec.pool === POOL_NAME);
  const pieces = (await subnets()).filter(({ spec }) => spec.pool === POOL_NAME);
  const { spec, status } = await read(POOL_NAME);
  for (const family of FAMILIES) {
    const own = all.filter(({ spec: { address } }) => address.family === family);
    const allocated = own.filter(isHeld).length;
    const resting = own.length - allocated;
    const cidrs = spec.cidrs.filter((cidr) => cidr.family === family);
    const capacity = cidrs.reduce((sum, cidr) => sum + cidrSize(cidr), 0n);
    const nodeSubnets = pieces.filter(({ spec: { cidr } }) => cidr.family === family).length;
    const shown = status?.[family];
    expect(shown).toMatchObject({ allocated, resting, nodeSubnets, capacity: String(capacity) });
    expect(BigInt(shown?.free ?? -1) + BigInt(shown?.reserved ?? 0) + BigInt(own.length)).toBe(capacity);
  }
}

/** Sends a signal to the process of a pod's container. */
async function signalContainer(
  { cluster }: Stage,
  pod: Pod | undefined,
  name: string,
  signal: 'SIGSTOP' | 'SIGKILL',
): Promise<void> {
  const filter = [
    `labels."io.kubernetes.pod.uid"==${pod?.metadata.uid}`,
    `labels."io.kubernetes.container.name"==${name}`,
  ].join(',');
  // What ended earlier is listed too, and has no task.
  const script = `for id in $(ctr --namespace k8s.io containers list --quiet "$1"); do
      if ctr --namespace k8s.io tasks list | grep -q "^$id .* RUNNING"; then
        ctr --namespace k8s.io tasks kill --signal ${signal} "$id"
      fi
    done`;
  await cluster.execOnNode(pod?.spec.nodeName ?? '', ['sh', '-euc', script, 'sh', filter]);
}
