import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { isResting } from '../../src/ipam/index.ts';
import { allocationStore, createKubeClient, loadConnection, type KubeClient } from '../../src/kube/index.ts';
import { formatAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { makeBoundPod } from './bound-pod.ts';
import { eventually, pool, startNode, type TestNode, type TestProcess } from './node.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';

/**
 * Agents and controllers are killed, again and again, between what an ADD answers and the IPs in the pod's status, which
 * a kubelet writes later and here nobody ever does (F43). No next one may take that for a reason to free an address, nor
 * give it to another pod.
 */

let node: TestNode;
let agent: TestProcess;
let controller: TestProcess;
let client: KubeClient;

/** So often an agent is killed. 200 take seven to nine minutes on two busy cores; fewer will do for whoever writes tests. */
const KILLS = Number(process.env.WEFT_TEST_KILLS ?? 200);
/** One in so many times the controller is killed with it. */
const CONTROLLER_EVERY = 3;
/** Of each kill; all but the last begin before it. */
const PODS_PER_KILL = 3;
/** So many live at once, the others are deleted again, so that there are always addresses that come free. */
const LIVING = 30;
/** An ADD that is cut off by the kill has begun so long before it at the most. */
const HEAD_START_MS = 60;
const GRACE_SECONDS = 1.5;
/** So often an agent lives for long enough to believe what it sees. */
const RESTS = 3;
const POOL = 'early';

/** The addresses of the pods that live, by what ADD answered and DEL was told. */
const living = new Map<string, readonly string[]>();

beforeAll(async () => {
  node = await startNode({ flags: ['--sweep-seconds=0.2', `--grace-seconds=${GRACE_SECONDS}`] });
  const { kubeconfig } = node.plane;
  client = createKubeClient(await loadConnection({ kubeconfig, env: {}, clock: createSystemClock() }));
  await node.makeNamespace('default');
  await node.makeNamespace('weft-system');
  await node.apply(
    pool(POOL, {
      cidrs: ['10.47.0.0/22', 'fd00:47::/112'],
      // A node needs several, so that claims of subnets are cut off, too.
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      reuseDelaySeconds: 1,
    }),
  );
  controller = startController();
  agent = await node.startAgent();
});

afterAll(async () => {
  await client.close();
  await node.stop();
});

test(
  `agents and controllers, killed ${KILLS} times while pods start whose status has no IP yet: each pod has its own addresses, and keeps them (F43)`,
  { timeout: KILLS * 5_000 },
  async () => {
    let coming = await makePods(1);
    let cutOff = 0;
    for (let kill = 1; kill <= KILLS; kill++) {
      const early = coming.slice(0, -1);
      const starting = early.map(add);
      const leaving = [...living.keys()].slice(0, Math.max(0, living.size - LIVING)).map(remove);
      // Right behind their answers, and in the midst of them.
      if (kill % 2 === 0) await Promise.all(starting);
      else await sleep((kill * 37) % HEAD_START_MS);
      cutOff += early.filter(({ name }) => !living.has(name)).length;
      await agent.kill();
      if (kill % CONTROLLER_EVERY === 0) await replaceController();
      agent = await node.startAgent({ unready: true });
      // Nobody but the new agent can serve this one.
      starting.push(...coming.slice(-1).map(add));
      const making = kill < KILLS ? makePods(kill + 1) : [];
      await Promise.all([...starting, ...leaving]);
      if (kill % Math.ceil(KILLS / RESTS) === 0) await sleep(2 * GRACE_SECONDS * 1_000);
      await expectKept();
      coming = await making;
    }
    expect(cutOff, 'ADDs that were cut off').toBeGreaterThan(0);

    for (const name of living.keys()) {
      await execa('ip', ['netns', 'exec', name, 'ping', '-c1', '-W2', UPLINK.addresses[0]]);
    }
    expect(await node.kubectl('get', 'pods', '-o', 'jsonpath={.items[*].status.podIPs}')).toBe('');
    for (const name of [...living.keys()]) await remove(name);
    await eventually('nothing to be left', async () => {
      const left = [...(await node.allocations()), ...(await weftLinks())];
      return left.length === 0 ? true : undefined;
    });
  },
);

interface Pod {
  readonly name: string;
  readonly args: string;
}

/** Bound to the node, each with a sandbox. */
async function makePods(kill: number): Promise<Pod[]> {
  return Promise.all(
    Array.from({ length: PODS_PER_KILL }, async (_, i) => {
      const name = `early-${kill}-${i}`;
      const uid = await makeBoundPod(client, name);
      await node.makeSandbox(name);
      const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name};K8S_POD_UID=${uid}`;
      return { name, args };
    }),
  );
}

/** As often as it takes, as a runtime does. */
async function add({ name, args }: Pod): Promise<void> {
  const netns = `/run/netns/${name}`;
  let last = '';
  const { answer } = await eventually(`${name} to be added`, async () => {
    const result = await node.cni({ command: 'ADD', containerID: name, netns, args });
    last = result.stdout;
    return result.exitCode === 0 ? result : undefined;
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${last}\n${agent.log().slice(-3000)}`, { cause: error });
  });
  const addresses = (answer?.ips ?? []).map(({ address }) => address.split('/')[0] ?? '').sort();
  expect(addresses, name).toHaveLength(2);
  for (const address of addresses) {
    const owner = [...living].find(([, theirs]) => theirs.includes(address))?.[0];
    expect(owner, `who has ${address}, which ${name} was given`).toBeUndefined();
  }
  living.set(name, addresses);
}

async function remove(name: string): Promise<void> {
  expect(await addressesIn(name), name).toEqual(living.get(name));
  living.delete(name);
  const netns = `/run/netns/${name}`;
  expect((await node.cni({ command: 'DEL', containerID: name, netns })).exitCode).toBe(0);
  await node.removeSandbox(name);
  const path = `/api/v1/namespaces/default/pods/${name}`;
  await client.request({ method: 'DELETE', path, query: { gracePeriodSeconds: 0 } });
}

/** Each address of a pod that lives is that pod's by the book. */
async function expectKept(): Promise<void> {
  const book = (await allocationStore(client).listMatching({ pool: POOL })).filter((one) => !isResting(one));
  const owners = new Map(book.map(({ spec }) => [formatAddress(spec.address), spec.attachment?.containerID]));
  const byBook = [...living].map(([name, addresses]) => [name, ...addresses.map((one) => owners.get(one))]);
  expect(byBook).toEqual([...living.keys()].map((name) => [name, name, name]));
}

async function replaceController(): Promise<void> {
  // One that had not come to lead would have done nothing.
  await eventually('the controller to lead', () =>
    controller.log().includes('elected: this process leads') ? true : undefined,
  );
  await controller.kill();
  controller = startController();
}

/** Under the same name each time, as a container that is started again in its pod: nobody waits for its Lease's end. */
function startController(): TestProcess {
  return node.startController([
    '--identity=weft-controller-0',
    ...['--quarantine-seconds=1', '--status-seconds=0.5', '--audit-seconds=1'],
  ]);
}

/** The global addresses inside a sandbox, sorted. */
async function addressesIn(sandbox: string): Promise<string[]> {
  const links = JSON.parse(await ip('-n', sandbox, '-json', 'address', 'show', 'scope', 'global')) as {
    addr_info?: { local?: string }[];
  }[];
  return links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => local ?? [])).sort();
}
