import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startLossyProxy, type LossyProxy, type ProxiedRequest } from '../apiserver/lossy-proxy.ts';
import {
  CONFIG,
  eventually,
  pool,
  startNode,
  type CallResult,
  type TestAgent,
  type TestNode,
} from './node.ts';
import { ip } from './namespaces.ts';

/** An address between two owners: how long it rests, and that nobody but its next owner decides about it then. */

const REST_SECONDS = 5;
/** For so long a release is on its way. */
const DELAY_MS = 4_000;
/** The only addresses of their pools. */
const RESTING = '10.16.0.2';
const AT_ONCE = '10.17.0.2';

let node: TestNode;
let agent: TestAgent;
let proxy: LossyProxy;
let dir: string;

beforeAll(async () => {
  node = await startNode();
  dir = await mkdtemp(join(tmpdir(), 'weft-proxy-'));
  proxy = await startLossyProxy(node.plane, dir);
  await node.apply(poolOfOne('rest', '10.16.0', REST_SECONDS));
  await node.apply(poolOfOne('at-once', '10.17.0', 0));
  agent = await startAgent();
  await eventually('both subnets', async () => ((await node.subnets()).length === 2 ? true : undefined));
});

afterAll(async () => {
  await node.stop();
  await proxy.stop();
  await rm(dir, { recursive: true });
});

describe('an address that rests while agents are killed', () => {
  test('comes free when its delay is over, and not before', async () => {
    expect(addressOf(await add('rest-1', 'rest'))).toBe(RESTING);
    await del('rest-1');
    const releasedAtMs = await eventually('the mark', () => releasedAt(RESTING));
    for (let kill = 0; kill < 3; kill++) {
      await agent.kill();
      agent = await startAgent();
      const early = await add('rest-2', 'rest');
      if (Date.now() < releasedAtMs + REST_SECONDS * 1_000) expect(early.answer?.code).toBe(11);
      if (early.exitCode === 0) break;
      expect(early.answer?.msg).toMatch(/0 are in use and 1 rest/);
    }
    await served('rest-2', 'rest');
    expect(await createdAt(RESTING)).toBeGreaterThan(releasedAtMs + (REST_SECONDS - 1) * 1_000);
    await end('rest-2');
  });

  test('rests as long where the agent is killed before it could mark it', async () => {
    await served('unmarked-1', 'rest');
    // The release does not get through, so that the agent dies with it.
    proxy.setFault(({ method }) => (method === 'PATCH' ? 'lose-request' : 'none'));
    const goneAtMs = Date.now();
    await del('unmarked-1');
    await agent.kill();
    proxy.setFault(() => 'none');
    expect(await releasedAt(RESTING)).toBeUndefined();
    agent = await startAgent();
    await served('unmarked-2', 'rest');
    expect(await createdAt(RESTING)).toBeGreaterThan(goneAtMs + (REST_SECONDS - 1) * 1_000);
    await end('unmarked-2');
  });
});

describe('a release that is said again when the address has its next owner (F7)', () => {
  test('is refused by the apiserver, and the owner keeps it', async () => {
    expect(addressOf(await add('former', 'at-once'))).toBe(AT_ONCE);
    const formerUID = (await node.allocations('former'))[0]?.uid;
    const isRelease = ({ method, path }: ProxiedRequest) =>
      method === 'DELETE' && path.endsWith(`/ipallocations/${AT_ONCE}`);
    let said = 0;
    // Carried out the first time, but the agent is not told; the second time it comes when the next owner is there.
    proxy.setFault((request) => {
      if (!isRelease(request)) return 'none';
      return ++said === 1 ? 'lose-answer' : { delayMs: DELAY_MS };
    });
    await del('former');
    await eventually('the release to be said again', () => (said === 2 ? true : undefined));
    await served('owner', 'at-once');
    const [owners] = await node.allocations('owner');
    expect(owners).toMatchObject({ name: AT_ONCE, released: false });
    expect(owners?.uid).not.toBe(formerUID);
    // By then the second one has been carried out, or refused, and so has whatever follows from it.
    await sleep(DELAY_MS + 1_500);
    proxy.setFault(() => 'none');
    expect(await node.allocations('owner')).toEqual([owners]);
  });

  test('nor does the former owner’s DEL, said late, take anything from it', async () => {
    const before = await node.allocations('owner');
    await del('former');
    await agent.kill();
    // This one is noted down, and worked off by the next agent.
    expect((await node.cni({ command: 'DEL', containerID: 'former' })).exitCode).toBe(0);
    agent = await startAgent();
    expect(await node.allocations('owner')).toEqual(before);
    expect(await ip('-n', 'owner', 'address', 'show', 'dev', 'eth0')).toContain(`${AT_ONCE}/32`);
    await end('owner');
  });
});

function startAgent(): Promise<TestAgent> {
  return node.startAgent({ kubeconfig: proxy.kubeconfig });
}

async function add(containerID: string, poolName: string): Promise<CallResult> {
  if (!(await ip('netns', 'list')).split(/\s/).includes(containerID)) await node.makeSandbox(containerID);
  const netns = `/run/netns/${containerID}`;
  return node.cni({ command: 'ADD', containerID, netns, config: { ...CONFIG, pool: poolName } });
}

/** Says ADD until it is answered with an address. */
async function served(containerID: string, poolName: string): Promise<CallResult> {
  return eventually(`an address for ${containerID}`, async () => {
    const result = await add(containerID, poolName);
    return result.exitCode === 0 ? result : undefined;
  });
}

async function del(containerID: string): Promise<void> {
  const netns = `/run/netns/${containerID}`;
  expect((await node.cni({ command: 'DEL', containerID, netns })).exitCode).toBe(0);
}

async function end(containerID: string): Promise<void> {
  await del(containerID);
  await node.removeSandbox(containerID);
}

function addressOf({ answer, stdout }: CallResult): string {
  return answer?.ips?.[0]?.address.split('/')[0] ?? stdout;
}

async function releasedAt(name: string): Promise<number | undefined> {
  const text = await field(name, '{.status.releasedAt}');
  return text === '' ? undefined : Date.parse(text);
}

/** By the apiserver's clock, which leaves out what is less than a second. */
async function createdAt(name: string): Promise<number> {
  return Date.parse(await field(name, '{.metadata.creationTimestamp}'));
}

function field(name: string, path: string): Promise<string> {
  return node.kubectl('get', 'ipallocation', name, '--ignore-not-found', '-o', `jsonpath=${path}`);
}

/** A pool of one piece, in which there is one address that is neither the node's own nor reserved. */
function poolOfOne(name: string, prefix: string, reuseDelaySeconds: number): object {
  const reserved = [`${prefix}.1`, `${prefix}.3`];
  const spec = { cidrs: [`${prefix}.0/30`], nodeSubnetPrefixLength: { ipv4: 30 }, reserved };
  return pool(name, { ...spec, reuseDelaySeconds });
}
