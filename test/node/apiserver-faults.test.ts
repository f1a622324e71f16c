import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  startLossyProxy,
  type Fault,
  type LossyProxy,
  type ProxiedRequest,
} from '../apiserver/lossy-proxy.ts';
import { eventually, pool, startNode, type Call, type TestAgent, type TestNode } from './node.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';

/** One node whose way to the apiserver loses answers, refuses, or is cut. */

let node: TestNode;
let agent: TestAgent;
let proxy: LossyProxy;
let dir: string;

const ADD_SECONDS = 6;
const GRACE_SECONDS = 3;

beforeAll(async () => {
  node = await startNode({ flags: [`--add-seconds=${ADD_SECONDS}`, `--grace-seconds=${GRACE_SECONDS}`] });
  dir = await mkdtemp(join(tmpdir(), 'weft-proxy-'));
  proxy = await startLossyProxy(node.plane, dir);
  await node.apply(
    pool('faults', {
      cidrs: ['10.11.0.0/24', 'fd00:11::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
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

afterEach(async () => {
  proxy.setFault(() => 'none');
  await proxy.setDown(false);
  // What a test that failed has left is not the next one's business.
  for (const name of await sandboxes()) {
    await node.cni({ command: 'DEL', containerID: name, netns: `/run/netns/${name}` });
    await noObjects(name);
    await node.removeSandbox(name);
  }
  await eventually('no link to be left', async () => ((await weftLinks()).length === 0 ? true : undefined));
});

describe('what an ADD asks of the apiserver', () => {
  // Whatever else an agent asks by itself now and then, it does not ask meanwhile: all that it asks is the ADD's.
  beforeAll(async () => {
    await agent.kill();
    agent = await startAgent(['--sweep-seconds=600', '--audit-seconds=600']);
  });

  afterAll(async () => {
    await agent.kill();
    agent = await startAgent();
  });

  test('is one write for each address, and no read', async () => {
    await untilQuiet();
    for (let i = 0; i < 5; i++) {
      const id = `cost-${i}`;
      const netns = await node.makeSandbox(id);
      const cost = await requestsDuring(async () => {
        const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns });
        expect(answer?.ips, stdout).toHaveLength(2);
      });
      expect(cost).toEqual(['POST ipallocations', 'POST ipallocations']);
    }
  });

  test('is no more for a pod whose namespace and annotations choose the pool', async () => {
    const annotations = { 'ipam.weft.dev/pools': 'faults' };
    await node.makeNamespace('shop', { annotations: { 'ipam.weft.dev/pools': 'faults,elsewhere' } });
    const pods: { readonly id: string; readonly args: string }[] = [];
    for (let i = 0; i < 3; i++) {
      const id = `cost-of-pod-${i}`;
      pods.push({ id, args: await node.makePod(id, { namespace: 'shop', annotations }) });
    }
    // A kubelet knows of a pod by a watch, too: the agent's has delivered it by then.
    await untilQuiet();
    for (const { id, args } of pods) {
      const netns = await node.makeSandbox(id);
      const cost = await requestsDuring(async () => {
        const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns, args });
        expect(answer?.ips, stdout).toHaveLength(2);
      });
      expect(cost).toEqual(['POST ipallocations', 'POST ipallocations']);
    }
  });

  test('is no more for one of weft-ipam, whose pool the configuration names', async () => {
    await node.apply(
      pool('bridged', {
        use: 'Bridge',
        cidrs: ['10.35.0.0/24', 'fd00:35::/64'],
        nodeSubnetPrefixLength: { ipv4: 28, ipv6: 124 },
        namespaceSelector: { matchLabels: { tenant: 'bridged' } },
        reuseDelaySeconds: 1,
      }),
    );
    await node.makeNamespace('bridged', { labels: { tenant: 'bridged' } });
    // What the executable is asked for it tells by this alone, whatever its name.
    const ipam = { type: 'weft-ipam', pool: 'bridged' };
    const config = { cniVersion: '1.0.0', name: 'bridged', type: 'bridge', ipam };
    const calls: Call[] = [];
    for (let i = 0; i < 4; i++) {
      const containerID = `cost-of-ipam-${i}`;
      const args = await node.makePod(containerID, { namespace: 'bridged' });
      const netns = await node.makeSandbox(containerID);
      calls.push({ command: 'ADD', containerID, netns, args, config });
    }
    const add = async (call: Call) => {
      const { answer, stdout } = await node.cni(call);
      expect(answer?.ips, stdout).toHaveLength(2);
    };
    const [first, ...others] = calls;
    if (first === undefined) throw new Error('there is no call');
    try {
      // Nothing is claimed ahead for other plugins: the first one waits for its subnets, and keeps them here.
      await add(first);
      await untilQuiet();
      for (const call of others) {
        const cost = await requestsDuring(() => add(call));
        expect(cost).toEqual(['POST ipallocations', 'POST ipallocations']);
      }
    } finally {
      // The DEL that is sent after each test is weft's own.
      for (const call of calls) await node.cni({ ...call, command: 'DEL' });
    }
  });
});

describe('an ADD', () => {
  test('whose creates are committed and whose answers are lost keeps those very addresses (F3)', async () => {
    const id = 'lost-answer';
    const netns = await node.makeSandbox(id);
    let losses = 0;
    proxy.setFault((request) => (isClaim(request) && losses++ < 2 ? 'lose-answer' : 'none'));
    const before = proxy.requests.length;
    const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(answer?.ips, stdout).toHaveLength(2);
    expect(losses).toBe(4);
    // It asked for the very names that it had tried to create.
    const asked = proxy.requests
      .slice(before)
      .filter(({ method, path }) => method === 'GET' && /\/ipallocations\/[^?]/.test(path))
      .map(({ path }) => path.replace(/^.*\/|\?.*$/g, ''));
    const objects = await node.allocations(id);
    expect(objects.map(({ name }) => name).sort()).toEqual(asked.sort());
    expect(objects).toHaveLength(2);
    expect(await addressesIn(id)).toEqual(answer?.ips?.map(({ address }) => address.split('/')[0]).sort());
  });

  test('that never learns whether its creates were committed leaves nothing behind (F3)', async () => {
    const id = 'never-told';
    const netns = await node.makeSandbox(id);
    proxy.setFault((request) => (isWatch(request) ? 'none' : 'lose-answer'));
    const { answer } = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(answer?.code).toBe(11);
    expect(await weftLinks()).toEqual([]);
    expect(await node.allocations(id)).toHaveLength(2);
    proxy.setFault(() => 'none');
    await noObjects(id);
  });

  test.each([500, 429, 503] as const)(
    'that the apiserver refuses with %i for a while succeeds all the same',
    async (status) => {
      const id = `refused-${status}`;
      const netns = await node.makeSandbox(id);
      const untilMs = performance.now() + 1_000;
      proxy.setFault((request) => (isClaim(request) && performance.now() < untilMs ? { status } : 'none'));
      const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns });
      expect(answer?.ips, stdout).toHaveLength(2);
      expect(await node.allocations(id)).toHaveLength(2);
    },
  );

  test('that waits for its creates for longer than the grace is not taken for one that has ended half-way', async () => {
    const id = 'slow-create';
    const netns = await node.makeSandbox(id);
    // Sweeps look at its interface all the while.
    proxy.setFault((request) => (isClaim(request) ? { delayMs: GRACE_SECONDS * 1_000 + 1_500 } : 'none'));
    const { answer, stdout } = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(answer?.ips, stdout).toHaveLength(2);
    expect(await addressesIn(id)).toEqual(answer?.ips?.map(({ address }) => address.split('/')[0]).sort());
  });

  test('whose creates all fail, in whatever way, answers 11 in time, skips no address and leaves nothing (F4)', async () => {
    const ways: readonly { readonly id: string; readonly fault: Fault; readonly said: string }[] = [
      { id: 'always-429', fault: { status: 429, retryAfterSeconds: 1 }, said: 'the proxy says so' },
      { id: 'always-500', fault: { status: 500 }, said: 'the proxy says so' },
      { id: 'always-503', fault: { status: 503 }, said: 'the proxy says so' },
      { id: 'always-silent', fault: 'no-answer', said: 'no answer came' },
    ];
    // Beside each other: each of them waits for its end.
    proxy.setFault((request) => {
      const container = claimOf(request)?.containerID;
      return ways.find(({ id }) => id === container)?.fault ?? 'none';
    });
    const before = proxy.requests.length;
    const add = (containerID: string, netns: string) => node.cni({ command: 'ADD', containerID, netns });
    const begun = await Promise.all(
      ways.map(async (way) => ({ ...way, netns: await node.makeSandbox(way.id) })),
    );
    const startedMs = performance.now();
    const failed = await Promise.all(
      begun.map(async (way) => ({ ...way, ...(await add(way.id, way.netns)) })),
    );
    expect(performance.now() - startedMs).toBeLessThan(ADD_SECONDS * 1000 + 5_000);
    expect(await weftLinks()).toEqual([]);
    for (const { id, said, answer } of failed) {
      expect(answer, id).toMatchObject({ code: 11, msg: expect.stringContaining(said) as string });
      expect(await node.allocations(id), id).toEqual([]);
      // One name for each family, however often it was tried.
      const tried = proxy.requests.slice(before).flatMap((request) => {
        const claim = claimOf(request);
        return claim?.containerID === id ? [claim.name] : [];
      });
      expect(new Set(tried).size, id).toBe(2);
    }

    proxy.setFault(() => 'none');
    for (const { id, netns } of failed) {
      const { answer, stdout } = await add(id, netns);
      expect(answer?.ips, stdout).toHaveLength(2);
      expect(await node.allocations(id), id).toHaveLength(2);
    }
  });

  test('while the apiserver is away answers 11, and works again when it is back', async () => {
    const id = 'away';
    const netns = await node.makeSandbox(id);
    await proxy.setDown(true);
    const { answer } = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(answer?.code).toBe(11);
    expect(await weftLinks()).toEqual([]);
    expect((await node.cni({ command: 'STATUS' })).exitCode).toBe(0);
    await proxy.setDown(false);
    const again = await node.cni({ command: 'ADD', containerID: id, netns });
    expect(again.answer?.ips, again.stdout).toHaveLength(2);
    expect((await node.allocations(id)).length).toBe(2);
  });
});

describe('a runtime that loses its patience while the create is on its way (F2)', () => {
  test('and sends a DEL: nothing is left, although the create commits after it', async () => {
    const id = 'late-create';
    const netns = await node.makeSandbox(id);
    proxy.setFault((request) => (isClaim(request) ? { delayMs: 5_000 } : 'none'));
    const before = proxy.requests.length;
    const call = node.beginCni({ command: 'ADD', containerID: id, netns });
    await eventually('both creates to be sent', () =>
      proxy.requests.slice(before).filter(isClaim).length === 2 ? true : undefined,
    );
    call.kill();
    await call.result;
    const startedMs = performance.now();
    expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    expect(await node.allocations(id)).toEqual([]);
    await sleep(6_000); // the creates have been carried out by now
    await noObjects(id);
    expect(await weftLinks()).toEqual([]);
  });

  test('and sends a DEL beside the ADD: the ADD is ended and says why', async () => {
    const id = 'overtaken';
    const netns = await node.makeSandbox(id);
    proxy.setFault((request) => (isClaim(request) ? { delayMs: 2_500 } : 'none'));
    const before = proxy.requests.length;
    const adding = node.cni({ command: 'ADD', containerID: id, netns });
    await eventually('both creates to be sent', () =>
      proxy.requests.slice(before).filter(isClaim).length === 2 ? true : undefined,
    );
    const startedMs = performance.now();
    expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
    const { answer } = await adding;
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toContain(`the attachment ${id}/eth0 is being deleted`);
    await sleep(3_000); // the creates have been carried out by now
    await noObjects(id);
  });

  test('and sends the ADD again beside the first: one attachment comes of it', async () => {
    const id = 'twice-at-once';
    const netns = await node.makeSandbox(id);
    proxy.setFault((request) => (isClaim(request) ? { delayMs: 1_000 } : 'none'));
    const calls = await Promise.all([0, 1].map(() => node.cni({ command: 'ADD', containerID: id, netns })));
    expect(calls.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(calls[1]?.answer).toEqual(calls[0]?.answer);
    expect(await node.allocations(id)).toHaveLength(2);
    expect(await weftLinks()).toHaveLength(1);
  });
});

describe('a DEL while the apiserver is away (F6)', () => {
  test('takes the interface down and succeeds; the addresses come free when the apiserver is back', async () => {
    const id = 'del-away';
    const netns = await node.makeSandbox(id);
    await node.cni({ command: 'ADD', containerID: id, netns });
    await proxy.setDown(true);
    const startedMs = performance.now();
    expect(await node.cni({ command: 'DEL', containerID: id, netns })).toMatchObject({
      exitCode: 0,
      stdout: '',
    });
    expect(performance.now() - startedMs).toBeLessThan(3_000);
    await eventually('the link to be gone', async () =>
      (await weftLinks()).length === 0 ? true : undefined,
    );
    expect(await addressesIn(id)).toEqual([]);
    expect((await node.allocations(id)).map(({ released }) => released)).toEqual([false, false]);
    await proxy.setDown(false);
    await noObjects(id);
  });

  test('is finished by the sweep of the next agent, if this one dies before the apiserver is back', async () => {
    const id = 'del-and-death';
    const netns = await node.makeSandbox(id);
    await node.cni({ command: 'ADD', containerID: id, netns });
    await proxy.setDown(true);
    expect((await node.cni({ command: 'DEL', containerID: id, netns })).exitCode).toBe(0);
    await agent.kill();
    await proxy.setDown(false);
    expect(await node.allocations(id)).toHaveLength(2);
    agent = await startAgent();
    await noObjects(id);
  });
});

describe('behind a wall that drops every packet (F13)', () => {
  afterEach(async () => {
    await execa('nft', ['delete', 'table', 'inet', 'wall'], { reject: false });
  });

  test('pods keep their network, DELs succeed, ADDs answer 11, and all is well when it falls', async () => {
    for (const id of ['walled-in', 'walled-off']) {
      const netns = await node.makeSandbox(id);
      expect((await node.cni({ command: 'ADD', containerID: id, netns })).exitCode).toBe(0);
    }
    const { port } = new URL(proxy.url);
    await execa('nft', ['-f', '-'], {
      input: `table inet wall { chain out { type filter hook output priority 0; tcp dport ${port} drop; }; }`,
    });
    const startedMs = performance.now();
    const del = { command: 'DEL', containerID: 'walled-off', netns: '/run/netns/walled-off' };
    expect((await node.cni(del)).exitCode).toBe(0);
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    const netns = await node.makeSandbox('walled-out');
    const { answer } = await node.cni({ command: 'ADD', containerID: 'walled-out', netns });
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toContain('Look at the apiserver and at the path from this node to it');
    expect((await node.cni({ command: 'STATUS' })).exitCode).toBe(0);
    await execa('ip', ['netns', 'exec', 'walled-in', 'ping', '-c1', '-W2', UPLINK.addresses[0]]);

    await execa('nft', ['delete', 'table', 'inet', 'wall']);
    await noObjects('walled-off');
    await noObjects('walled-out');
    expect((await node.allocations('walled-in')).map(({ released }) => released)).toEqual([false, false]);
    expect((await node.cni({ command: 'ADD', containerID: 'walled-out', netns })).exitCode).toBe(0);
  });
});

describe('behind a wall that lets requests pass and drops every answer (F14)', () => {
  afterEach(async () => {
    await execa('nft', ['delete', 'table', 'inet', 'wall'], { reject: false });
  });

  test('what is carried out unseen is taken back or kept, pods keep their network, and all is well when it falls', async () => {
    for (const id of ['unheard-in', 'unheard-off']) {
      const netns = await node.makeSandbox(id);
      expect((await node.cni({ command: 'ADD', containerID: id, netns })).exitCode).toBe(0);
    }
    const { port } = new URL(proxy.url);
    await execa('nft', ['-f', '-'], {
      input: `table inet wall { chain out { type filter hook output priority 0; tcp sport ${port} drop; }; }`,
    });
    const before = proxy.requests.length;
    const netns = await node.makeSandbox('unheard-out');
    const adding = node.cni({ command: 'ADD', containerID: 'unheard-out', netns });
    await eventually('the claims to be carried out unseen', async () =>
      (await node.allocations('unheard-out')).length > 0 ? true : undefined,
    );
    const { answer } = await adding;
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toContain('Look at the apiserver and at the path from this node to it');
    expect(await addressesIn('unheard-out')).toEqual([]);
    // However often it was said: one name for each family, and no other is tried.
    const claims = proxy.requests.slice(before).filter(isClaim);
    expect(claims.length).toBeGreaterThan(0);
    expect((await node.allocations('unheard-out')).length).toBeLessThanOrEqual(2);
    const startedMs = performance.now();
    const del = { command: 'DEL', containerID: 'unheard-off', netns: '/run/netns/unheard-off' };
    expect((await node.cni(del)).exitCode).toBe(0);
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    expect((await node.cni({ command: 'STATUS' })).exitCode).toBe(0);
    await execa('ip', ['netns', 'exec', 'unheard-in', 'ping', '-c1', '-W2', UPLINK.addresses[0]]);

    await execa('nft', ['delete', 'table', 'inet', 'wall']);
    await noObjects('unheard-off');
    await noObjects('unheard-out');
    expect((await node.allocations('unheard-in')).map(({ released }) => released)).toEqual([false, false]);
    expect((await node.cni({ command: 'ADD', containerID: 'unheard-out', netns })).exitCode).toBe(0);
    expect(await node.allocations('unheard-out')).toHaveLength(2);
  });
});

test('SIGTERM does not wait for an ADD that waits for the apiserver; the next agent serves it', async () => {
  const id = 'interrupted';
  const netns = await node.makeSandbox(id);
  proxy.setFault((request) => (isClaim(request) ? { delayMs: 30_000 } : 'none'));
  const before = proxy.requests.length;
  const call = node.cni({ command: 'ADD', containerID: id, netns });
  await eventually('the creates to be sent', () =>
    proxy.requests.slice(before).filter(isClaim).length === 2 ? true : undefined,
  );
  const startedMs = performance.now();
  await agent.kill('SIGTERM');
  expect(performance.now() - startedMs).toBeLessThan(3_000);
  expect(await agent.exitCode()).toBe(0);
  proxy.setFault(() => 'none');
  agent = await startAgent();
  const { answer, stdout } = await call;
  expect(answer?.ips, stdout).toHaveLength(2);
  expect((await node.allocations(id)).filter(({ released }) => !released)).toHaveLength(2);
});

test('nothing is freed while the watch is dead, however dead the sandbox looks', async () => {
  const id = 'blind';
  const netns = await node.makeSandbox(id);
  await node.cni({ command: 'ADD', containerID: id, netns });
  proxy.setFault((request) => (isWatch(request) ? 'lose-request' : 'none'));
  proxy.resetConnections();
  await node.removeSandbox(id);
  await sleep(8_000); // more than twice the grace, eight sweeps
  expect((await node.allocations(id)).map(({ released }) => released)).toEqual([false, false]);
  proxy.setFault(() => 'none');
  await noObjects(id);
});

async function startAgent(flags: readonly string[] = []): Promise<TestAgent> {
  const started = await node.startAgent({ kubeconfig: proxy.kubeconfig, flags });
  // Warm: the first subnets are there.
  await eventually('the first subnets', async () =>
    (await node.subnets('faults')).length === 2 ? true : undefined,
  );
  return started;
}

/** Waits until the agent has asked for nothing for a second: what it does at its start costs no ADD anything. */
async function untilQuiet(): Promise<void> {
  await eventually('the agent to ask for nothing', async () =>
    (await requestsDuring(() => sleep(1_000))).length === 0 ? true : undefined,
  );
}

/** All that the agent asks of the apiserver meanwhile and right after it; only its watches do not count. */
async function requestsDuring(work: () => Promise<void>): Promise<string[]> {
  const before = proxy.requests.length;
  await work();
  // What would be asked behind the answer has its cost, too.
  await sleep(200);
  return proxy.requests
    .slice(before)
    .filter((request) => !isWatch(request))
    .map(({ method, path }) => `${method} ${resource(path)}`);
}

function isWatch({ path }: ProxiedRequest): boolean {
  return path.includes('watch=true');
}

function isClaim({ method, path }: ProxiedRequest): boolean {
  return method === 'POST' && path.includes('/ipallocations');
}

/** What a claim asks for; undefined for any other request. */
function claimOf(
  request: ProxiedRequest,
): { readonly name: string; readonly containerID: string | undefined } | undefined {
  if (!isClaim(request)) return undefined;
  const { metadata, spec } = JSON.parse(request.body) as {
    metadata: { name: string };
    spec: { attachment?: { containerID: string } };
  };
  return { name: metadata.name, containerID: spec.attachment?.containerID };
}

/** The last part of a request's path. */
function resource(path: string): string {
  return path.replace(/\?.*$/, '').replace(/^.*\//, '');
}

async function noObjects(containerID: string): Promise<void> {
  await eventually(`no allocation of ${containerID}`, async () =>
    (await node.allocations(containerID)).length === 0 ? true : undefined,
  );
}

async function sandboxes(): Promise<string[]> {
  const listed = await ip('netns', 'list');
  return listed
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name !== '');
}

/** The global addresses inside a sandbox, sorted. */
async function addressesIn(sandbox: string): Promise<string[]> {
  const links = JSON.parse(await ip('-n', sandbox, '-json', 'address', 'show', 'scope', 'global')) as {
    addr_info?: { local?: string }[];
  }[];
  return links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => local ?? [])).sort();
}
