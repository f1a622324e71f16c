import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { seededRandom } from '../../hack/simulation/seeded-random.ts';
import { allocationName } from '../../src/api/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { startLossyProxy, type Fault, type LossyProxy } from '../apiserver/lossy-proxy.ts';
import { eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';

/**
 * Pods come and go at random while the agent is killed and the apiserver loses, refuses and delays. Whatever the
 * order: no address is on two pods, each has its object, and at the end nothing is left.
 */

let node: TestNode;
let agent: TestAgent;
let proxy: LossyProxy;
let dir: string;

/** Say WEFT_TEST_SEED=… to play a run again, as far as processes can be made to. */
const SEED = Number(process.env.WEFT_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const CHURN_MS = 25_000;
const SANDBOXES = 12;

beforeAll(async () => {
  node = await startNode({ flags: ['--add-seconds=6', '--sweep-seconds=0.5'] });
  dir = await mkdtemp(join(tmpdir(), 'weft-proxy-'));
  proxy = await startLossyProxy(node.plane, dir);
  await node.apply(
    pool('churn', {
      // Not many more addresses than pods: what is lost is missed.
      cidrs: ['10.17.0.0/27', 'fd00:17::/123'],
      nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
      reuseDelaySeconds: 1,
    }),
  );
  agent = await startAgent();
});

afterAll(async () => {
  await node.stop();
  await proxy.stop();
  await rm(dir, { recursive: true });
});

test(`no address is lost and none is given twice (seed ${SEED})`, { timeout: 240_000 }, async () => {
  const random = seededRandom(SEED);
  const names = Array.from({ length: SANDBOXES }, (_, i) => `churn-${i}`);
  const endMs = performance.now() + CHURN_MS;
  let serial = 0;
  let answers = 0;

  /** One sandbox after another under the same path, each with a container of its own, as a runtime makes them. */
  const live = async (name: string): Promise<{ name: string; containerID: string } | undefined> => {
    for (;;) {
      const containerID = `${name}-${serial++}`;
      const netns = await node.makeSandbox(name);
      const call = node.beginCni({ command: 'ADD', containerID, netns });
      if (random() < 0.15) setTimeout(() => call.kill(), random() * 100);
      const added = await call.result;
      answers++;
      const isUp = added.exitCode === 0;
      if (isUp) expect(await addressesIn(name), added.stdout).toHaveLength(2);
      await sleep(random() * 400);
      if (isUp && performance.now() > endMs) return { name, containerID };
      // Some runtimes forget the DEL; others say it twice.
      const deletes = random() < 0.15 ? 0 : random() < 0.2 ? 2 : 1;
      for (let i = 0; i < deletes; i++) await node.cni({ command: 'DEL', containerID, netns });
      await node.removeSandbox(name);
      if (performance.now() > endMs) return undefined;
    }
  };

  const trouble = (async () => {
    while (performance.now() < endMs) {
      const faults = randomFault(random);
      proxy.setFault(({ path }) => (path.includes('watch=true') ? 'none' : faults()));
      await sleep(500 + random() * 2_000);
      if (random() < 0.2) proxy.resetConnections();
      if (random() < 0.15) {
        await agent.kill(random() < 0.5 ? 'SIGKILL' : 'SIGTERM');
        proxy.setFault(() => 'none');
        agent = await startAgent();
      }
    }
    proxy.setFault(() => 'none');
  })();

  const living = (await Promise.all(names.map(live))).filter((pod) => pod !== undefined);
  await trouble;
  expect(answers).toBeGreaterThan(SANDBOXES);

  // Who lives has its two addresses, nobody else has them, and the book says so.
  const held = new Map<string, string>();
  for (const { name, containerID } of living) {
    for (const address of await addressesIn(name)) {
      expect(held.has(address), `${address} is on ${name} and on ${String(held.get(address))}`).toBe(false);
      held.set(address, containerID);
    }
    await execa('ip', ['netns', 'exec', name, 'ping', '-c1', '-W2', UPLINK.addresses[0]]);
  }
  await eventually('the book to hold the living pods and nobody else', async () => {
    const book = (await node.allocations()).map(({ name, containerID }) => `${name} ${String(containerID)}`);
    const wanted = [...held].map(
      ([address, containerID]) => `${allocationName(parseAddress(address))} ${containerID}`,
    );
    return book.sort().join() === wanted.sort().join() ? true : undefined;
  });
  expect(await weftLinks()).toHaveLength(living.length);

  for (const { name, containerID } of living) {
    expect((await node.cni({ command: 'DEL', containerID, netns: `/run/netns/${name}` })).exitCode).toBe(0);
    await node.removeSandbox(name);
  }
  await eventually('the book to be empty', async () =>
    (await node.allocations()).length === 0 ? true : undefined,
  );
  expect(await weftLinks()).toEqual([]);
  expect(await ip('route', 'show', 'proto', '85')).toBe('');
});

test('an agent that has served many pods holds no more open files than before', async () => {
  const netns = await node.makeSandbox('files');
  const serve = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const containerID = `files-${i}`;
      expect((await node.cni({ command: 'ADD', containerID, netns })).exitCode).toBe(0);
      await node.cni({ command: 'DEL', containerID, netns });
    }
    return (await readdir(`/proc/${String(agent.pid)}/fd`)).length;
  };
  const before = await serve(5);
  // Connections to the apiserver and to callers come and go; a leak would be one of forty.
  expect(await serve(40)).toBeLessThan(before + 10);
  await node.removeSandbox('files');
});

async function startAgent(): Promise<TestAgent> {
  return node.startAgent({ kubeconfig: proxy.kubeconfig });
}

/** A kind of trouble that lasts for a while: answers what becomes of each request. */
function randomFault(random: () => number): () => Fault {
  const kind = random();
  if (kind < 0.3) return () => 'none';
  if (kind < 0.5) return () => (random() < 0.5 ? 'lose-answer' : 'none');
  if (kind < 0.65) return () => (random() < 0.5 ? 'lose-request' : 'none');
  if (kind < 0.8) return () => (random() < 0.5 ? { status: 500 } : 'none');
  return () => ({ delayMs: random() * 1_500 });
}

/** The global addresses inside a sandbox. */
async function addressesIn(sandbox: string): Promise<string[]> {
  const links = JSON.parse(await ip('-n', sandbox, '-json', 'address', 'show', 'scope', 'global')) as {
    addr_info?: { local?: string }[];
  }[];
  return links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => local ?? []));
}
