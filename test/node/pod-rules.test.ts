import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ensureBinaries } from '../../hack/cluster/binaries.ts';
import { ip, UPLINK } from './namespaces.ts';
import {
  CONFIG,
  eventually,
  pool,
  startNode,
  type CallResult,
  type TestAgent,
  type TestNode,
} from './node.ts';

/** What single attachments have beyond what all have: host ports, foreign sources, a second interface, limits. */

let node: TestNode;
let agent: TestAgent;

const SINK = 81;
const SOURCE = 82;

const FATAL_STEP = '/run/weft/fatal-step';
const MORTAL = {
  program: new URL('./kill-at-step.ts', import.meta.url).pathname,
  env: { WEFT_TEST_FATAL_STEP: FATAL_STEP },
};

beforeAll(async () => {
  node = await startNode();
  await node.makeNamespace('default');
  await node.apply(pool('pods', { cidrs: ['10.30.0.0/16', 'fd30::/64'], reuseDelaySeconds: 0, priority: 1 }));
  await node.apply(
    pool('second', { cidrs: ['10.31.0.0/16', 'fd31::/64'], reuseDelaySeconds: 0, priority: -1 }),
  );
  await node.apply(
    pool('routers', {
      cidrs: ['10.32.0.0/16'],
      reuseDelaySeconds: 0,
      priority: -2,
      allowedSources: ['203.0.113.0/24', 'fd99::/48'],
    }),
  );
  agent = await node.startAgent(MORTAL);
});

afterAll(async () => {
  await node.stop();
});

describe('host ports', () => {
  test('lead to the pod while it lives, in both families, and CHECK looks for them', async () => {
    const added = await add('web', { portMappings: [{ hostPort: 8080, containerPort: 80 }] });
    expect(added.exitCode, added.stdout).toBe(0);
    const server = await serve('web', 80);
    for (const address of UPLINK.addresses) expect(await connects(address, 8080)).toBe(true);

    const config = { ...withPorts([{ hostPort: 8080, containerPort: 80 }]), prevResult: parsed(added) };
    const check = { command: 'CHECK', containerID: 'web', netns: '/run/netns/web', config };
    expect((await node.cni(check)).stdout).toBe('');
    const other = { ...config, ...withPorts([{ hostPort: 8081, containerPort: 80 }]) };
    expect((await node.cni({ ...check, config: other })).answer).toMatchObject({
      code: 107,
      msg: expect.stringContaining('host port 8081/tcp does not lead to it') as string,
    });

    await del('web');
    for (const address of UPLINK.addresses) expect(await connects(address, 8080)).toBe(false);
    expect(await rules()).not.toContain('host_port');
    server();
  });

  test('are back after a flush, and after a flush while no agent was there', async () => {
    await add('flushed', { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] });
    const server = await serve('flushed', 80);
    await execa('nft', ['flush', 'ruleset']);
    await eventually('the port to lead there again', async () =>
      (await connects(UPLINK.addresses[0], 8080)) ? true : undefined,
    );
    await agent.kill();
    await execa('nft', ['flush', 'ruleset']);
    expect(await connects(UPLINK.addresses[0], 8080)).toBe(false);
    agent = await node.startAgent(MORTAL);
    expect(await connects(UPLINK.addresses[0], 8080)).toBe(true);
    await del('flushed');
    server();
  });

  test('that lead to another pod are an error that names it, and leave nothing behind', async () => {
    const port = { portMappings: [{ hostPort: 8443, containerPort: 443, protocol: 'tcp' }] };
    const owner = await node.makePod('owner');
    await add('owner', port, { args: owner });
    const rival = await node.makePod('rival');
    const refused = await add('rival', port, { args: rival });
    expect(refused.answer).toMatchObject({
      code: 11,
      msg: expect.stringMatching(/host port 8443\/tcp of this node leads to pod default\/owner/) as string,
    });
    await eventually('an Event on the pod', async () =>
      (await node.podEvents('rival')).find(({ reason }) => reason === 'HostPortTaken'),
    );
    await eventually('nothing to be left of it', async () =>
      (await node.allocations('rival')).length === 0 ? true : undefined,
    );
    expect(await rules()).toContain('host_port');
    // The scheduler counts pods that have ended no more.
    const ended = JSON.stringify({ status: { phase: 'Succeeded' } });
    await node.kubectl('patch', 'pod', 'owner', '--subresource=status', '--type=merge', '-p', ended);
    const after = await eventually('the port to be the newer pod’s', async () => {
      const again = await node.cni({
        command: 'ADD',
        containerID: 'rival',
        netns: '/run/netns/rival',
        args: rival,
        config: { ...CONFIG, runtimeConfig: port },
      });
      return again.exitCode === 0 ? again : undefined;
    });
    const address = after.answer?.ips?.[0]?.address.split('/')[0] ?? '';
    expect(await rules()).toContain(`tcp . 8443 : ${address}`);
    await del('rival');
    expect(await rules()).toContain('tcp . 8443');
    await del('owner');
    expect(await rules()).not.toContain('8443');
  });

  test('of a new sandbox of the same pod are its own, although the old one has not been deleted', async () => {
    const port = { portMappings: [{ hostPort: 8444, containerPort: 443, protocol: 'tcp' }] };
    const args = await node.makePod('again');
    await add('again-1', port, { args });
    const second = await add('again-2', port, { args });
    expect(second.exitCode, second.stdout).toBe(0);
    const address = second.answer?.ips?.[0]?.address.split('/')[0] ?? '';
    expect(await rules()).toContain(`tcp . 8444 : ${address}`);
    await del('again-1');
    expect(await rules()).toContain(`tcp . 8444 : ${address}`);
    await del('again-2');
  });

  test.each([
    { what: 'an address of a family that the pod lacks', hostIP: '2001:db8:2::10', pool: 'routers', code: 7 },
    { what: 'no address', hostIP: 'x', pool: 'pods', code: 7 },
  ])('of $what are refused (B8)', async ({ hostIP, pool: poolName, code }) => {
    const refused = await add('refused', {
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIP }],
      pool: poolName,
    });
    expect(refused.answer?.code, refused.stdout).toBe(code);
    await node.removeSandbox('refused');
  });

  test('go with a half-made interface whose agent was killed', async () => {
    await writeFile(FATAL_STEP, 'add:rules-set');
    const netns = await node.makeSandbox('halfway');
    const config = { ...CONFIG, runtimeConfig: { portMappings: [{ hostPort: 8446, containerPort: 80 }] } };
    const call = node.beginCni({ command: 'ADD', containerID: 'halfway', netns, config });
    await agent.ended;
    await rm(FATAL_STEP);
    call.kill();
    await call.result;
    expect(await rules()).toContain('8446');
    agent = await node.startAgent(MORTAL);
    await eventually('the interface to be swept and the rules with it', async () =>
      (await rules()).includes('8446') ? undefined : true,
    );
    await del('halfway');
  });
});

describe('foreign sources', () => {
  test('are accepted from a pod that its pool allows them, and by the annotation alone', async () => {
    const args = await node.makePod('vpn', {
      annotations: {
        'ipam.weft.dev/pools': 'routers',
        'ipam.weft.dev/allowed-sources': '203.0.113.0/25, fd99::/48',
      },
    });
    const added = await add('vpn', {}, { args });
    expect(added.exitCode, added.stdout).toBe(0);
    expect(await rules()).toContain('routes for others');
    expect(await rules()).toContain('203.0.113.0/25');
    await del('vpn');
    expect(await rules()).not.toContain('routes for others');
  });

  test.each([
    {
      what: 'no pool allows them',
      annotations: { 'ipam.weft.dev/pools': 'pods' },
      sources: '203.0.113.0/24',
      reason: 'SourcesRefused',
    },
    {
      what: 'they are more than it allows',
      annotations: { 'ipam.weft.dev/pools': 'routers' },
      sources: '203.0.112.0/23',
      reason: 'SourcesRefused',
    },
    { what: 'they are no CIDRs', annotations: {}, sources: 'true', reason: 'InvalidIPAnnotation' },
  ])('are an error and an Event where $what', async ({ annotations, sources, reason }) => {
    const name = `refused-${reason.toLowerCase()}-${sources.length}`;
    const args = await node.makePod(name, {
      annotations: { ...annotations, 'ipam.weft.dev/allowed-sources': sources },
    });
    const refused = await add(name, {}, { args });
    expect(refused.answer?.code, refused.stdout).toBe(105);
    await eventually('the Event', async () =>
      (await node.podEvents(name)).find((event) => event.reason === reason),
    );
    expect(await node.allocations(name)).toEqual([]);
    await node.removeSandbox(name);
  });
});

describe('a second interface', () => {
  const SECOND = { ...CONFIG, name: 'second', pool: 'second' };

  test('has its pool’s routes and no default, says so, and says it again', async () => {
    const first = await add('multi', {});
    const call = {
      command: 'ADD',
      containerID: 'multi',
      ifName: 'net1',
      netns: '/run/netns/multi',
      config: SECOND,
    };
    const second = await node.cni(call);
    expect(second.exitCode, second.stdout).toBe(0);
    expect(parsed(second)).toMatchObject({
      routes: [
        { dst: '10.31.0.0/16', gw: '169.254.1.1' },
        { dst: 'fd31::/64', gw: 'fe80::1' },
      ],
    });
    expect((await node.cni(call)).answer).toEqual(second.answer);
    for (const result of [first, second]) {
      for (const { address } of result.answer?.ips ?? []) {
        await execa('ping', ['-c1', '-W2', address.split('/')[0] ?? '']);
      }
    }
    const config = { ...SECOND, prevResult: parsed(second) };
    expect((await node.cni({ ...call, command: 'CHECK', config })).stdout).toBe('');

    // Another pod reaches both, and is answered from the address that it has asked.
    await add('asks', {});
    for (const { address } of [...(first.answer?.ips ?? []), ...(second.answer?.ips ?? [])]) {
      await ip('netns', 'exec', 'asks', 'ping', '-c1', '-W2', address.split('/')[0] ?? '');
    }

    expect((await node.cni({ ...call, command: 'DEL' })).exitCode).toBe(0);
    expect(await ip('-n', 'multi', '-brief', 'link')).not.toContain('net1');
    for (const { address } of first.answer?.ips ?? []) {
      await execa('ping', ['-c1', '-W2', address.split('/')[0] ?? '']);
    }
    for (const name of ['multi', 'asks']) await del(name);
  });

  test('comes first or second: who has no default route yet gets one', async () => {
    await node.makeSandbox('reverse');
    const call = { command: 'ADD', containerID: 'reverse', netns: '/run/netns/reverse' };
    const only = await node.cni({ ...call, ifName: 'net1', config: SECOND });
    expect(parsed(only)).toMatchObject({ routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }] });
    const later = await node.cni(call);
    expect(parsed(later)).toMatchObject({ routes: [{ dst: '10.30.0.0/16' }, { dst: 'fd30::/64' }] });
    await node.cni({ ...call, command: 'DEL', ifName: 'net1', config: SECOND });
    await del('reverse');
  });
});

describe('limits of bandwidth', () => {
  test('are kept by the plugin that is chained behind weft', async () => {
    await agent.kill();
    agent = await node.startAgent({ ...MORTAL, flags: ['--bandwidth'] });
    const conflist = await eventually('the conflist to chain the plugin', async () => {
      const text = await readFile('/etc/cni/net.d/10-weft.conflist', 'utf8').catch(() => '');
      return text.includes('bandwidth') ? (JSON.parse(text) as { plugins: { type: string }[] }) : undefined;
    });
    expect(conflist.plugins.map(({ type }) => type)).toEqual(['weft', 'bandwidth']);

    const added = await add('limited', {});
    const bandwidth = async (command: string) => {
      const limits = {
        ingressRate: 8_000_000,
        ingressBurst: 400_000,
        egressRate: 8_000_000,
        egressBurst: 400_000,
      };
      const config = {
        ...CONFIG,
        type: 'bandwidth',
        runtimeConfig: { bandwidth: limits },
        prevResult: parsed(added),
      };
      const env = { CNI_COMMAND: command, CNI_CONTAINERID: 'limited', CNI_IFNAME: 'eth0' };
      await execa(join(await ensureBinaries(['bandwidth']), 'bandwidth'), [], {
        input: JSON.stringify(config),
        env: { ...env, CNI_NETNS: '/run/netns/limited', CNI_PATH: '/opt/cni/bin', PATH: '/usr/sbin:/sbin' },
        extendEnv: false,
      });
    };
    await bandwidth('ADD');
    const stop = await exchange('limited');
    for (const address of added.answer?.ips ?? []) {
      const ip = address.address.split('/')[0] ?? '';
      // 2 MB at 1 MB/s. A busy machine is only slower.
      expect(await secondsFor(ip, SINK)).toBeGreaterThan(1.4);
      expect(await secondsFor(ip, SOURCE)).toBeGreaterThan(1.4);
    }
    stop();
    await bandwidth('DEL');
    await del('limited');
    expect(await ip('-json', 'link', 'show', 'type', 'ifb')).toBe('[]');
  });
});

beforeEach(async () => {
  await eventually('the sandbox of the test before to be gone', async () =>
    (await node.allocations()).length === 0 ? true : undefined,
  );
});

async function add(
  name: string,
  { portMappings, ...config }: { readonly portMappings?: readonly object[]; readonly pool?: string },
  { args }: { readonly args?: string } = {},
): Promise<CallResult> {
  const netns = await node.makeSandbox(name);
  return node.cni({
    command: 'ADD',
    containerID: name,
    netns,
    ...(args === undefined ? {} : { args }),
    config: { ...withPorts(portMappings ?? []), ...config },
  });
}

/** As a runtime hands them over for a plugin that declares the capability. */
function withPorts(portMappings: readonly object[]): object {
  return { ...CONFIG, capabilities: { portMappings: true }, runtimeConfig: { portMappings } };
}

async function del(name: string): Promise<void> {
  const deleted = await node.cni({ command: 'DEL', containerID: name, netns: `/run/netns/${name}` });
  expect(deleted, deleted.stdout).toMatchObject({ exitCode: 0 });
  await node.removeSandbox(name);
}

/** Takes 2 MB on one port, and gives 2 MB on another. */
async function exchange(sandbox: string): Promise<() => void> {
  const program = `const net = require('node:net');
    net.createServer({ allowHalfOpen: true }, (s) => s.on('data', () => {}).on('end', () => s.end())).listen(${SINK}, '::', () =>
      net.createServer((s) => s.on('error', () => {}).end(Buffer.alloc(2e6))).listen(${SOURCE}, '::', () => console.log('up')))`;
  const server = execa('ip', ['netns', 'exec', sandbox, process.execPath, '-e', program], { reject: false });
  await new Promise((resolve) => server.stdout.once('data', resolve));
  return () => void server.kill('SIGKILL');
}

/** How long a transfer of 2 MB takes, from its start to the end of the other side. */
async function secondsFor(address: string, port: number): Promise<number> {
  const program = `const start = performance.now();
    const s = require('node:net').connect({ host: '${address}', port: ${port}, allowHalfOpen: true });
    if (${port} === ${SINK}) s.end(Buffer.alloc(2e6));
    s.on('data', () => {}).on('end', () => { console.log((performance.now() - start) / 1000); process.exit(0); })`;
  return Number((await execa(process.execPath, ['-e', program], { timeout: 30_000 })).stdout);
}

async function rules(): Promise<string> {
  return (await execa('nft', ['list', 'table', 'inet', 'weft'])).stdout;
}

function parsed({ stdout }: CallResult): object {
  return JSON.parse(stdout) as object;
}

/** A server in that sandbox; what it returns ends it. */
async function serve(sandbox: string, port: number): Promise<() => void> {
  const program = `require('node:net').createServer((s) => s.end('here')).listen(${port}, '::', () => console.log('up'))`;
  const server = execa('ip', ['netns', 'exec', sandbox, process.execPath, '-e', program], { reject: false });
  await new Promise((resolve) => server.stdout.once('data', resolve));
  return () => void server.kill('SIGKILL');
}

async function connects(address: string, port: number): Promise<boolean> {
  const program = `const s = require('node:net').connect(${port}, '${address}');
    s.on('data', () => process.exit(0)).on('error', () => process.exit(1)); setTimeout(() => process.exit(2), 2000)`;
  return (await execa(process.execPath, ['-e', program], { reject: false })).exitCode === 0;
}
