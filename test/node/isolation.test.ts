import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { breakNft } from './broken-nft.ts';
import {
  CONFIG,
  eventually,
  pool,
  startNode,
  type CallResult,
  type TestAgent,
  type TestNode,
} from './node.ts';

/** Isolation from a pool's object to what pods notice: agent, executable, apiserver and kernel of one node (S12). */

let node: TestNode;
let agent: TestAgent;

beforeAll(async () => {
  node = await startNode();
  for (const name of ['blue', 'green']) {
    await node.makeNamespace(name, { labels: { tenant: name } });
    await node.apply(tenantPool(name, name === 'blue' ? '10.1.0.0/24' : '10.2.0.0/24'));
  }
  await node.apply(dnsSlice('10.2.0.53'));
  agent = await node.startAgent();
  for (const name of ['blue', 'green']) await add(`${name}-1`, name);
});

afterAll(async () => {
  await node.stop();
});

describe('a pool that turns Isolated', () => {
  test('is none of the filters’ business before', async () => {
    expect(await table()).not.toContain('tenant');
    expect(agent.log()).not.toContain('endpointslices');
    expect(await pings('blue-1', await addressOf('green-1'))).toBe(true);
  });

  test('cuts its running pods off from others at once, new ones too, and not from each other', async () => {
    await isolate('blue', { mode: 'Isolated' });
    const target = await addressOf('green-1');
    await eventually('the running pod to be cut off', async () =>
      (await pings('blue-1', target)) ? undefined : true,
    );
    await add('blue-2', 'blue');
    expect(await pings('blue-2', target)).toBe(false);
    expect(await pings('green-1', await addressOf('blue-2'))).toBe(false);
    expect(await pings('blue-1', await addressOf('blue-2'))).toBe(true);
  });

  test('lets its pods reach the cluster’s DNS, wherever that moves', async () => {
    await eventually('the rules to know it', async () =>
      (await servers()).includes('10.2.0.53') ? true : undefined,
    );
    await node.apply(dnsSlice('10.2.0.54'));
    await eventually('the rules to follow', async () =>
      (await servers()).includes('10.2.0.54') ? true : undefined,
    );
    expect(await servers()).not.toContain('10.2.0.53');
  });

  test('stays isolated, and DNS allowed, while the agent is killed and another one starts', async () => {
    let isOver = false;
    const gaps: string[] = [];
    const looking = (async () => {
      while (!isOver) {
        const rules = await table();
        if (!rules.includes('tenant1') || !rules.includes('10.2.0.54')) gaps.push(rules);
        await sleep(10);
      }
    })();
    await agent.kill();
    agent = await node.startAgent();
    await sleep(500);
    isOver = true;
    await looking;
    expect(gaps).toEqual([]);
    expect(await pings('blue-1', await addressOf('green-1'))).toBe(false);
  });

  test('that is so no more lets all pass again, and nobody watches where DNS is', async () => {
    await isolate('blue', { mode: 'None' });
    const target = await addressOf('green-1');
    await eventually('the way to be free', async () => ((await pings('blue-1', target)) ? true : undefined));
    expect(await table()).not.toContain('tenant');
  });
});

test('a pod whose Isolated pool is full gets no address of another, and an Event says why', async () => {
  await node.makeNamespace('small', { labels: { tenant: 'small' } });
  const spec = { nodeSubnetPrefixLength: { ipv4: 30 }, priority: 5, isolation: { mode: 'Isolated' } };
  await node.apply(tenantPool('small', '10.3.0.0/30', spec));
  await node.apply(pool('everybody', { cidrs: ['10.4.0.0/24'] }));
  for (let i = 1; i <= 3; i++) expect((await add(`small-${i}`, 'small')).exitCode).toBe(0);
  const full = await add('small-4', 'small');
  expect(full.answer?.code).toBe(11);
  expect(full.answer?.msg).toMatch(
    /^IPPool small has no free .* No other pool is tried, since IPPool small is Isolated$/,
  );
  const event = await eventually('the Event', async () => (await node.podEvents('small-4'))[0]);
  expect(event).toMatchObject({ type: 'Warning', reason: 'IPPoolExhausted', message: full.answer?.msg });
  await isolate('small', { mode: 'None' });
  const served = await eventually('the next pool', async () => {
    const again = await call('ADD', 'small-4', await node.makePod('small-4', { namespace: 'small' }));
    return again.exitCode === 0 ? again : undefined;
  });
  expect(served.answer?.ips?.[0]?.address).toMatch(/^10\.4\./);
});

test('a pod is not wired before the rules of its pool are in force', async () => {
  const nft = await breakNft();
  // Before the pool for everybody.
  const patch = JSON.stringify({ spec: { priority: 5, isolation: { mode: 'Isolated' } } });
  await node.kubectl('patch', 'ippool', 'green', '--type=merge', '-p', patch);
  await eventually('nft to fail', () => (agent.log().includes('nft is broken') ? true : undefined));
  const args = await node.makePod('green-late', { namespace: 'green' });
  await node.makeSandbox('green-late');
  const refused = await call('ADD', 'green-late', args);
  expect(refused.answer).toMatchObject({
    code: 11,
    msg: expect.stringContaining("this node's filters have not followed yet") as string,
  });
  await nft.mend();
  expect((await call('ADD', 'green-late', args)).exitCode).toBe(0);
  expect(await table()).toContain('tenant');
  expect(await pings('green-late', await addressOf('blue-1'))).toBe(false);
  await isolate('green', { mode: 'None' });
});

async function add(name: string, namespace: string): Promise<CallResult> {
  const args = await node.makePod(name, { namespace });
  await node.makeSandbox(name);
  return eventually('an answer', async () => {
    const result = await call('ADD', name, args);
    // A namespace or pool that has just been made may not be in the agent's cache yet.
    return result.answer?.msg?.startsWith('no IPPool') === true ? undefined : result;
  });
}

const call = (command: string, containerID: string, args: string) =>
  node.cni({ command, containerID, netns: `/run/netns/${containerID}`, config: CONFIG, args });

async function addressOf(containerID: string): Promise<string> {
  const [held] = await node.allocations(containerID);
  if (held === undefined) throw new Error(`${containerID} has no address`);
  return held.name;
}

async function pings(from: string, to: string): Promise<boolean> {
  const { exitCode } = await execa(
    'ip',
    ['netns', 'exec', from, 'ping', '-n', '-q', '-c', '1', '-W', '1', to],
    {
      reject: false,
    },
  );
  return exitCode === 0;
}

const table = async () => (await execa('nft', ['list', 'table', 'inet', 'weft'])).stdout;

const servers = async () =>
  (await execa('nft', ['list', 'set', 'inet', 'weft', 'dns_servers4'], { reject: false })).stdout;

const isolate = (name: string, isolation: object) =>
  node.kubectl('patch', 'ippool', name, '--type=merge', '-p', JSON.stringify({ spec: { isolation } }));

function tenantPool(name: string, cidr: string, spec: object = {}): object {
  return pool(name, { cidrs: [cidr], namespaceSelector: { matchLabels: { tenant: name } }, ...spec });
}

function dnsSlice(address: string): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: 'kube-dns-1',
      namespace: 'kube-system',
      labels: { 'kubernetes.io/service-name': 'kube-dns' },
    },
    addressType: 'IPv4',
    endpoints: [{ addresses: [address] }],
    ports: [{ name: 'dns', port: 53, protocol: 'UDP' }],
  };
}
