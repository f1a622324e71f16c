import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { NODE_SUBNET, nodeSubnetName } from '../../src/api/index.ts';
import { AGENT_SOCKET, CALL_PATH, type CallAnswer } from '../../src/cni/index.ts';
import { createKubeClient, loadConnection, NODES, pathOf, type KubeClient } from '../../src/kube/index.ts';
import { parseCIDR } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { scrape } from '../metrics/scrape.ts';
import { makeBoundPod } from './bound-pod.ts';
import { ip } from './namespaces.ts';
import { CONFIG, eventually, pool, startNode, type TestNode } from './node.ts';
import type { Sample } from './sampler.ts';

/**
 * What agent and controller hold must not grow with what has come and gone: pods, other nodes and their subnets come
 * and go in rounds, and after each of them everything is counted. Calls go to the agent's socket without the
 * executable, which takes longer to start than the call.
 */

let node: TestNode;
let client: KubeClient;
let poolUID: string;
let dir: string;
const processes: { readonly name: string; readonly port: number; readonly pid: number }[] = [];
let controller: ReturnType<typeof startController> | undefined;

/** With WEFT_TEST_ROUNDS=67 ten thousand pods come and go, which takes about half an hour. */
const ROUNDS = Number(process.env.WEFT_TEST_ROUNDS ?? 4);
/** Caches fill, and the code is compiled. */
const WARM_UP_ROUNDS = 2;
const ATTACHMENTS = 150;
const OTHER_NODES = 125;
const AT_ONCE = 8;
/** Below the time after which an agent compares everything anyway. */
const SOON = { timeout: 10_000, interval: 250 };
/** One of each family. */
const OWN_SUBNETS = 2;

/**
 * By so much more may be held after the last round than after the warm-up. Connections to the apiserver come and go, some
 * things are remembered for minutes or up to a thousand of them, and code goes on to be compiled: in 16 rounds heaps grew by
 * 2 to 3 MB, less with each. In four rounds a leak of 10 kB for each pod or node is above this; in forty, of a few hundred bytes.
 */
const ROOM = { handles: 8, heapBytes: 3e6, bufferBytes: 2e6, residentBytes: 64e6 };

const SAMPLER = join(import.meta.dirname, 'sampler.ts');
const PORTS = { agent: 9144, controller: 9145 };

beforeAll(async () => {
  node = await startNode();
  dir = await mkdtemp(join(tmpdir(), 'weft-long-run-'));
  await node.apply(
    pool('long', {
      cidrs: ['10.45.0.0/16', 'fd00:45::/64'],
      nodeSubnetPrefixLength: { ipv4: 24, ipv6: 120 },
      reuseDelaySeconds: 0,
    }),
  );
  await node.makeNamespace('default');
  poolUID = await node.kubectl('get', 'ippool', 'long', '-o', 'jsonpath={.metadata.uid}');
  client = createKubeClient(
    await loadConnection({ kubeconfig: node.plane.kubeconfig, env: {}, clock: createSystemClock() }),
  );
  const agent = await node.startAgent({ env: samplingEnv('agent') });
  controller = startController();
  for (const [name, pid] of [
    ['agent', agent.pid],
    ['controller', controller.pid],
  ] as const) {
    if (pid === undefined) throw new Error(`no ${name}`);
    processes.push({ name, pid, port: PORTS[name] });
  }
  await eventually('the controller to lead', async () => {
    const told = await scrape(PORTS.controller).catch(() => undefined);
    return told?.value('weft_leader') === 1 ? true : undefined;
  });
  for (let i = 0; i < AT_ONCE; i++) await node.makeSandbox(`long-${i}`);
});

afterAll(async () => {
  controller?.kill('SIGKILL');
  await controller;
  await client.close();
  await node.stop();
  await rm(dir, { recursive: true });
});

test(
  'hundreds of pods and of nodes that come and go leave nothing (F45)',
  { timeout: ROUNDS * 60_000 },
  async () => {
    await eventually('the addresses of links, which the kernel first looks for elsewhere', async () =>
      (await ip('-6', 'address', 'show', 'tentative')) === '' ? true : undefined,
    );
    const before = await kernel();
    const rounds: Record<string, Held>[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      await Promise.all([podsComeAndGo(round), nodesComeAndGo()]);
      await nothingUnderWay();
      // The agent learns of the last deletion when the apiserver has answered it to others.
      await vi.waitFor(async () => expect(await kernel()).toEqual(before), SOON);
      const held = Object.fromEntries(
        await Promise.all(processes.map(async (one) => [one.name, await holds(one)] as const)),
      );
      rounds.push(held);
    }
    for (const { name } of processes) {
      const [first, ...later] = rounds.slice(WARM_UP_ROUNDS - 1).flatMap((held) => held[name] ?? []);
      const last = later.at(-1);
      if (first === undefined || last === undefined) throw new Error('too few rounds');
      const story = `${name}: ${JSON.stringify(rounds.map((held) => held[name]))}`;
      // The first answer with another status code makes a new one.
      expect(last.series - first.series, story).toBeLessThanOrEqual(ROOM.handles);
      expect(last.openFiles - first.openFiles, story).toBeLessThanOrEqual(ROOM.handles);
      for (const [kind, count] of Object.entries(last.resources)) {
        expect(count - (first.resources[kind] ?? 0), `${kind}, ${story}`).toBeLessThanOrEqual(ROOM.handles);
      }
      for (const kind of ['heapBytes', 'bufferBytes', 'residentBytes'] as const) {
        expect(last[kind] - first[kind], `${kind}, ${story}`).toBeLessThan(ROOM[kind]);
      }
    }
  },
);

/** A sample, and how many series are told. */
type Held = Sample & { readonly series: number };

async function holds({ name, pid, port }: (typeof processes)[number]): Promise<Held> {
  const { series } = await scrape(port);
  const file = join(dir, name);
  await rm(file, { force: true });
  process.kill(pid, 'SIGUSR2');
  const text = await eventually('a sample', () => readFile(file, 'utf8').catch(() => undefined));
  return { ...(JSON.parse(text) as Sample), series: series.size };
}

async function podsComeAndGo(round: number): Promise<void> {
  let begun = 0;
  const lane = async (_: unknown, index: number) => {
    while (begun < ATTACHMENTS) {
      const name = `pod-${round}-${begun++}`;
      const uid = await makeBoundPod(client, name);
      const call = {
        CNI_CONTAINERID: name,
        CNI_IFNAME: 'eth0',
        CNI_NETNS: `/run/netns/long-${index}`,
        CNI_PATH: '/opt/cni/bin',
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
      };
      for (const verb of ['ADD', 'DEL']) {
        const answer = await ask({ CNI_COMMAND: verb, ...call });
        expect(answer.exitCode, answer.stdout).toBe(0);
      }
      await client.request({
        method: 'DELETE',
        path: `/api/v1/namespaces/default/pods/${name}`,
        query: { gracePeriodSeconds: 0 },
      });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}

/**
 * Other nodes with a subnet of each family, every other one of them behind a router. The controller takes their
 * subnets back.
 */
async function nodesComeAndGo(): Promise<void> {
  // Not the piece that this node has drawn.
  const own = await node.subnets();
  const numbers = Array.from({ length: OTHER_NODES + 1 }, (_, i) => i + 1)
    .filter((number) => !own.includes(`10.45.${number}.0-24`))
    .slice(0, OTHER_NODES);
  await inLanes(numbers, async (number) => {
    const name = `other-${number}`;
    const { metadata } = (await client.request({
      method: 'POST',
      path: NODES,
      body: { metadata: { name } },
    })) as { metadata: { uid: string } };
    const net = number % 2 === 0 ? ['192.0.2', '2001:db8:2'] : ['198.51.100', '2001:db8:3'];
    const nextHops = [`${String(net[0])}.${100 + number}`, `${String(net[1])}::1:${number}`];
    for (const cidr of [`10.45.${number}.0/24`, `fd00:45::${number.toString(16)}:0/120`]) {
      await client.request({
        method: 'POST',
        path: pathOf(NODE_SUBNET),
        body: {
          apiVersion: 'ipam.weft.dev/v1alpha1',
          kind: 'NodeSubnet',
          metadata: { name: nodeSubnetName(parseCIDR(cidr)) },
          spec: { cidr, pool: 'long', poolUID, nodeName: name, nodeUID: metadata.uid, nextHops },
        },
      });
    }
  });
  await eventually('routes to all of them', async () => {
    const routes = await Promise.all(
      ['-4', '-6'].map((family) => ip(family, 'route', 'show', 'proto', '84')),
    );
    const found = routes.join('\n').match(/^(10\.45\.|fd00:45::)\S+ (nhid|via|encap|dev)/gm) ?? [];
    return found.length >= 2 * OTHER_NODES ? true : undefined;
  });
  await inLanes(numbers, async (number) => {
    await client.request({ method: 'DELETE', path: `${NODES}/other-${number}` });
  });
}

async function nothingUnderWay(): Promise<void> {
  await eventually('the subnets of this node alone', async () =>
    (await node.subnets()).length === OWN_SUBNETS ? true : undefined,
  );
  await eventually('no allocations', async () =>
    (await node.allocations()).length === 0 ? true : undefined,
  );
  await eventually('no release under way', async () => {
    const { value } = await scrape(PORTS.agent);
    const pending = ['releasing', 'resting', 'undoing'].map((state) =>
      value('weft_releases_pending', { state }),
    );
    return pending.every((count) => count === 0) ? true : undefined;
  });
}

/** All that weft has in the kernel, in words. */
async function kernel(): Promise<string[]> {
  const asked = [
    ['ip', '-4', 'route', 'show', 'table', 'all'],
    ['ip', '-6', 'route', 'show', 'table', 'all'],
    ['ip', 'rule'],
    ['ip', '-6', 'rule'],
    ['ip', '-brief', 'link'],
    ['ip', 'neigh', 'show', 'nud', 'permanent'],
    ['bridge', 'fdb', 'show', 'dev', 'vxlan.weft'],
    ['nft', '--stateless', 'list', 'table', 'inet', 'weft'],
  ] as const;
  return Promise.all(asked.map(async ([program, ...args]) => (await execa(program, args)).stdout));
}

/** One call, as the executable makes it. */
function ask(env: Readonly<Record<string, string>>): Promise<CallAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      // A connection of its own, as the executable has: one that is kept may be closed at the very moment.
      { socketPath: AGENT_SOCKET, path: CALL_PATH, method: 'POST', agent: false },
      (response) => {
        let answer = '';
        response.setEncoding('utf8');
        response.on('data', (piece: string) => (answer += piece));
        response.on('end', () => resolve(JSON.parse(answer) as CallAnswer));
      },
    );
    asked.on('error', reject);
    asked.end(JSON.stringify({ env, stdin: JSON.stringify(CONFIG) }));
  });
}

async function inLanes(numbers: readonly number[], work: (number: number) => Promise<void>): Promise<void> {
  const waiting = [...numbers];
  const lane = async () => {
    for (let number = waiting.shift(); number !== undefined; number = waiting.shift()) await work(number);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}

/** With what the manifests and the image say of memory, as far as the environment can say it. */
function samplingEnv(name: string): Record<string, string> {
  return {
    NODE_OPTIONS: `--import=${SAMPLER} --max-semi-space-size=1`,
    MALLOC_ARENA_MAX: '2',
    WEFT_TEST_SAMPLE: join(dir, name),
  };
}

function startController() {
  return execa(
    'node',
    [
      join(import.meta.dirname, '../../dist/controller.mjs'),
      ...['--identity=long-run', '--namespace=default', '--quarantine-seconds=1', '--status-seconds=0.5'],
      ...['--probe-socket=/run/weft/controller.sock', `--kubeconfig=${node.plane.kubeconfig}`],
    ],
    { reject: false, stdio: 'ignore', env: samplingEnv('controller') },
  );
}
