import { readdir, stat, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askHealth } from '../../src/health.ts';
import { eventually, pool, startNode, type CallResult, type TestAgent, type TestNode } from './node.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';

/** One agent after another on a node: the first on a fresh machine, restarts, a rollout, and the end. */

let node: TestNode;
let agent: TestAgent;
const PODS = ['life-a', 'life-b', 'life-c'];

beforeAll(async () => {
  node = await startNode();
  agent = await node.startAgent();
});

afterAll(async () => {
  await node.stop();
});

describe('on a node that has never served', () => {
  test('the agent is ready, STATUS fails with 50, no conflist is there, and an ADD is told what is missing', async () => {
    const status = await node.cni({ command: 'STATUS' });
    expect(status.answer?.code).toBe(50);
    expect(status.answer?.msg).toContain('is there an IPPool?');
    expect(await readdir('/etc/cni/net.d')).toEqual([]);
    const netns = await node.makeSandbox('early');
    const { answer } = await node.cni({ command: 'ADD', containerID: 'early', netns });
    expect(answer?.code).toBe(11);
    expect(answer?.msg).toContain('there is no IPPool in the cluster');
    await node.removeSandbox('early');
  });

  test('a DEL succeeds', async () => {
    expect((await node.cni({ command: 'DEL', containerID: 'early' })).exitCode).toBe(0);
  });

  test('from the first pool on it serves, and only then the conflist is there', async () => {
    await node.apply(
      pool('life', {
        cidrs: ['10.14.0.0/24', 'fd00:14::/64'],
        nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
        reuseDelaySeconds: 1,
      }),
    );
    await eventually('the conflist', async () => {
      const files = await readdir('/etc/cni/net.d');
      return files.includes('10-weft.conflist') ? true : undefined;
    });
    // What a runtime does as soon as it sees the file.
    for (const id of PODS) {
      await node.makeSandbox(id);
      expect((await add(id)).exitCode).toBe(0);
    }
    expect(await node.cni({ command: 'STATUS' })).toMatchObject({ exitCode: 0, stdout: '' });
    const [mark, conflist] = [await stat('/run/weft/serving'), await stat('/etc/cni/net.d/10-weft.conflist')];
    expect(mark.birthtimeMs).toBeLessThanOrEqual(conflist.birthtimeMs);
  });
});

test('only root reaches what the agent opens: files, sockets of its own directory, and ports on loopback (S13)', async () => {
  const run = async (file: string, ...args: string[]) => (await execa(file, args)).stdout;
  // To connect to a socket is to write to it.
  const open = await run('find', '/run/weft', '/etc/cni/net.d', '-perm', '/022');
  expect(open).toBe('');
  expect(await run('find', '/run/weft', '-maxdepth', '0', '-perm', '0700', '-user', 'root')).toBe(
    '/run/weft',
  );
  expect(await run('find', '/run/weft/agent.sock', '-type', 's', '-perm', '0600', '-user', 'root')).not.toBe(
    '',
  );

  const listening = async (...kinds: string[]) =>
    (await run('ss', ...kinds, '--listening', '--processes', '--numeric', '--no-header'))
      .split('\n')
      .filter((line) => line.includes(`pid=${agent.pid},`))
      // Kind, state and two lengths of queues come before the address.
      .map((line) => line.trim().split(/\s+/)[4] ?? line);
  const ports = await listening('--tcp', '--udp', '--raw');
  expect(ports.length).toBeGreaterThan(0);
  expect(ports.filter((port) => !/^(127\.0\.0\.1|\[::1\]):\d+$/.test(port))).toEqual([]);
  // Abstract ones begin with @ and belong to the network namespace, which pods on the host's network share.
  const names = await listening('--unix');
  expect(names.length).toBeGreaterThan(1);
  expect(names.filter((name) => !name.startsWith('/run/weft/'))).toEqual([]);
});

describe('pods outlive their agent', () => {
  test('killed five times in a row: the same links, the same addresses, STATUS always content', async () => {
    const before = await state();
    expect(before.links).toHaveLength(PODS.length);
    expect(before.allocations).toHaveLength(2 * PODS.length);
    const failures: CallResult[] = [];
    let over = false;
    const asking = (async () => {
      while (!over) {
        const answer = await node.cni({ command: 'STATUS' });
        if (answer.exitCode !== 0) failures.push(answer);
        await sleep(100);
      }
    })();
    for (let i = 0; i < 5; i++) {
      await agent.kill();
      agent = await node.startAgent();
      await ping(PODS[i % PODS.length] ?? '', UPLINK.addresses[0]);
    }
    // Longer than the grace: whoever did not recognize them would have taken them away.
    await sleep(5_000);
    over = true;
    await asking;
    expect(failures).toEqual([]);
    expect(await state()).toEqual(before);
    for (const id of PODS) await ping(id, UPLINK.addresses[0]);
  }, 120_000);

  test('a conflist that somebody changed is put right by the next agent', async () => {
    await agent.kill();
    await writeFile('/etc/cni/net.d/10-weft.conflist', '{}');
    agent = await node.startAgent();
    await eventually('the conflist', async () =>
      (await stat('/etc/cni/net.d/10-weft.conflist')).size > 100 ? true : undefined,
    );
  });
});

test('SIGTERM ends the agent within 3 s and takes nothing out of the kernel', async () => {
  const before = await kernelState();
  expect(before.routes).toContain('unreachable 10.14.0.');
  expect(before.tables).toContain('weft');
  const startedMs = performance.now();
  await agent.kill('SIGTERM');
  expect(performance.now() - startedMs).toBeLessThan(3_000);
  expect(await agent.exitCode()).toBe(0);
  expect(await kernelState()).toEqual(before);
  for (const id of PODS) await ping(id, UPLINK.addresses[0]);
  agent = await node.startAgent();
});

describe('a rollout', () => {
  const NEXT_PROBE = '/run/weft/next-probe.sock';

  test('the next agent stands by, Ready, while the first one serves, and follows it: no ADD fails', async () => {
    const next = await node.startAgent({ probe: NEXT_PROBE });
    await eventually('the next one to stand by', () =>
      next.log().includes('standing by') ? true : undefined,
    );
    await askHealth(NEXT_PROBE, '/readyz', 1_000);
    await askHealth(node.probe, '/readyz', 1_000);
    expect(await node.subnets()).toHaveLength(2);

    const ids = Array.from({ length: 8 }, (_, i) => `rollout-${i}`);
    for (const id of ids) await node.makeSandbox(id);
    const results: CallResult[] = [];
    const adding = (async () => {
      for (const id of ids) results.push(await add(id));
    })();
    await eventually('the first ADD', () => (results.length > 0 ? true : undefined));
    await agent.kill('SIGTERM');
    await adding;
    expect(results.filter(({ exitCode }) => exitCode !== 0).map(({ stdout }) => stdout)).toEqual([]);
    agent = next;

    // What the first one had claimed for a call that it could not end, the sweep frees.
    await eventually('two addresses for each', async () => {
      const live = (await node.allocations()).filter(({ released }) => !released);
      return live.length === 2 * (ids.length + PODS.length) ? true : undefined;
    });
    for (const id of ids) await ping(id, UPLINK.addresses[0]);
    for (const id of ids) {
      expect((await node.cni({ command: 'DEL', containerID: id })).exitCode).toBe(0);
      await node.removeSandbox(id);
    }
  });

  test('a first agent that is killed is followed as well', async () => {
    const next = await node.startAgent();
    await eventually('the next one to stand by', () =>
      next.log().includes('standing by') ? true : undefined,
    );
    await node.makeSandbox('after-kill');
    const [result] = await Promise.all([add('after-kill'), agent.kill()]);
    expect(result.exitCode, result.stdout).toBe(0);
    agent = next;
    await ping('after-kill', UPLINK.addresses[0]);
    await node.cni({ command: 'DEL', containerID: 'after-kill' });
    await node.removeSandbox('after-kill');
  });
});

test('at the end every pod goes, and so do its link and its addresses', async () => {
  for (const id of PODS) {
    expect((await node.cni({ command: 'DEL', containerID: id, netns: `/run/netns/${id}` })).exitCode).toBe(0);
  }
  await eventually('nothing to be left', async () => {
    const { links, allocations } = await state();
    return links.length + allocations.length === 0 ? true : undefined;
  });
  for (const id of PODS) await node.removeSandbox(id);
});

function add(containerID: string): Promise<CallResult> {
  return node.cni({ command: 'ADD', containerID, netns: `/run/netns/${containerID}` });
}

async function state() {
  const allocations = await node.allocations();
  return {
    links: await weftLinks(),
    allocations: allocations.map(({ name, uid, released }) => `${name} ${uid} ${String(released)}`).sort(),
  };
}

async function kernelState() {
  return {
    links: await weftLinks(),
    routes: `${await ip('route', 'show', 'table', 'all')}\n${await ip('-6', 'route', 'show', 'table', 'all')}`
      .split('\n')
      .map((line) => line.replace(/ expires \S+/, ''))
      .sort()
      .join('\n'),
    addresses: await ip('-brief', 'address'),
    tables: (await execa('nft', ['list', 'ruleset'])).stdout.replace(/packets \d+ bytes \d+/g, ''),
  };
}

async function ping(from: string, to: string): Promise<void> {
  await execa('ip', ['netns', 'exec', from, 'ping', '-c1', '-W2', to]);
}
