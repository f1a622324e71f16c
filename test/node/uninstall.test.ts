import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askHealth, ProbeError } from '../../src/health.ts';
import { ip, UPLINK, weftLinks } from './namespaces.ts';
import { eventually, pool, startNode, type TestAgent, type TestNode } from './node.ts';

/** A node that has had weft, and is left as it was before: with what others have on it, and with nothing of weft's. */

const AGENT = new URL('../../dist/agent.mjs', import.meta.url).pathname;
const BIN = '/opt/cni/bin';
const CONF = '/etc/cni/net.d';
const FAR = '10.15.0.0/26';
const PODS = ['gone-a', 'gone-b'];

let node: TestNode;
let scratch: string;
let before: readonly string[];

beforeAll(async () => {
  node = await startNode();
  scratch = await mkdtemp(join(tmpdir(), 'weft-uninstall-'));
  await makePool();
  await makeForeignState();
  await settled();
  before = await nodeDump();
});

afterAll(async () => {
  await execa('nft', ['flush', 'ruleset']);
  await ip('link', 'delete', 'foreign0');
  await ip('address', 'delete', '198.51.100.9/32', 'dev', 'lo');
  await rm(scratch, { recursive: true });
  await node.stop();
});

describe('a node with pods', () => {
  let uninstaller: Uninstaller;

  test('is touched by nobody while an agent serves it', async () => {
    const agent = await serve();
    const serving = await nodeDump();
    // Else it would show little that weft leaves nothing of it.
    for (const trace of [
      'vxlan.weft',
      'unreachable 10.15.0.',
      '198.18.0.1',
      'table inet weft',
      'weft-accept',
      `${BIN}/weft-ipam`,
      `${CONF}/10-weft.conflist`,
      'net.ipv4.ip_forward = 1',
      'net.ipv6.conf.all.forwarding = 1',
    ]) {
      expect(serving.join('\n')).toContain(trace);
    }
    uninstaller = startUninstaller();
    const reason = await uninstaller.waitsFor('an agent of weft serves this node');
    expect(reason).toContain('kubectl delete -k config/weft');
    await sleep(2_500);
    expect(await nodeDump()).toEqual(serving);
    await agent.kill('SIGTERM');
  });

  test('keeps all of it while pods live there: they work, and they can be deleted (F34)', async () => {
    const reason = await uninstaller.waitsFor('2 interfaces of pods live on this node');
    const held = (await node.allocations()).map(({ name }) => name).filter((name) => name.startsWith('10.'));
    for (const address of held) expect(reason).toContain(address);
    await sleep(2_500);
    for (const id of PODS) await ping(id);
    expect((await nodeDump()).join('\n')).toContain(`${CONF}/10-weft.conflist`);

    const [first = '', second = ''] = PODS;
    expect(await del(first)).toBe(0);
    await node.removeSandbox(first);
    await uninstaller.waitsFor('1 interface of a pod lives on this node');
    await ping(second);
    // A runtime that has deleted it, whose namespace lives on: its interface is dead all the same.
    expect(await del(second)).toBe(0);
  });

  test('is left as it was when the last pod has gone, with all that others have there', async () => {
    await uninstaller.isDone();
    await node.removeSandbox('gone-b');
    expect(await weftLinks()).toEqual([]);
    expect(await nodeDump()).toEqual(before);
    await uninstaller.kill();
  });

  test('is not changed by a second uninstall', async () => {
    const again = startUninstaller();
    await again.isDone();
    expect(await nodeDump()).toEqual(before);
    expect(again.log()).not.toContain('/10-weft.conflist');
    await again.kill();
  });
});

test.each([1, 2, 3, 4])(
  'one that is killed after removing %i of its parts is carried on by the next',
  async (parts) => {
    await (await serve([])).kill();
    const killed = startUninstaller();
    await eventually('the uninstaller to be at work', () =>
      killed.log().split('\n').filter(isRemoval).length >= parts ? true : undefined,
    );
    await killed.kill();
    const next = startUninstaller();
    await next.isDone();
    expect(await nodeDump()).toEqual(before);
    await next.kill();
  },
);

test('what an ADD left half-made goes; a foreign link of a like name stays', async () => {
  const agent = await serve([]);
  await agent.kill();
  await ip('link', 'add', 'weft-half', 'address', MAC, 'type', 'veth', 'peer', 'name', 'half-peer');
  await ip('link', 'add', 'weft-foreign', 'type', 'veth', 'peer', 'name', 'foreign-peer');
  const uninstaller = startUninstaller();
  await uninstaller.isDone();
  expect((await weftLinks()).map(({ name }) => name)).toEqual(['weft-foreign']);
  await ip('link', 'delete', 'weft-foreign');
  expect(await nodeDump()).toEqual(before);
  await uninstaller.kill();
});

test('waits for a configuration of others that names its executables', async () => {
  const agent = await serve([]);
  await agent.kill();
  const path = `${CONF}/20-bridge.conflist`;
  const plugins = [{ type: 'bridge', ipam: { type: 'weft-ipam', pool: 'gone' } }];
  await writeFile(path, JSON.stringify({ cniVersion: '1.0.0', name: 'bridged', plugins }));
  const uninstaller = startUninstaller();
  const reason = await uninstaller.waitsFor('20-bridge.conflist');
  expect(reason).toContain("still names weft's executables");
  expect((await nodeDump()).join('\n')).toContain(`${BIN}/weft-ipam`);
  await rm(path);
  await uninstaller.isDone();
  expect(await nodeDump()).toEqual(before);
  await uninstaller.kill();
});

const MAC = 'ee:ee:ee:ee:ee:ee';

interface Uninstaller {
  /** Resolves with what its readiness says, once that holds the text. */
  waitsFor(text: string): Promise<string>;
  isDone(): Promise<void>;
  kill(): Promise<void>;
  log(): string;
}

let started = 0;

function startUninstaller(): Uninstaller {
  const probe = join(scratch, `probe-${started++}.sock`);
  const flags = ['--sysctl-net=/proc/sys/net', `--probe-socket=${probe}`];
  const child = execa('node', [AGENT, 'uninstall', ...flags], { reject: false, all: true });
  let text = '';
  child.all.on('data', (part: Buffer) => (text += part.toString()));
  const readiness = async () => {
    try {
      await askHealth(probe, '/readyz', 1_000);
      return 'ready';
    } catch (error) {
      if (error instanceof ProbeError) return error.message;
      throw error;
    }
  };
  const untilReadiness = (what: string) =>
    eventually(what, async () => {
      const said = await readiness();
      return said.includes(what) ? said : undefined;
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${text}`, { cause: error });
    });
  return {
    waitsFor: untilReadiness,
    isDone: async () => void (await untilReadiness('ready')),
    async kill() {
      child.kill('SIGKILL');
      await child;
    },
    log: () => text,
  };
}

const isRemoval = (line: string): boolean => line.includes('"removed"') || line.includes('earlier values');

/** Executables, an agent, and pods. */
async function serve(pods: readonly string[] = PODS): Promise<TestAgent> {
  await execa('node', [AGENT, 'install', `--cni-bin-dir=${BIN}`]);
  const agent = await node.startAgent();
  await eventually('the way to the other node', async () => {
    const [routes, files] = [await ip('route', 'show', 'dev', 'vxlan.weft'), await filesBelow([CONF])];
    return routes.includes(FAR) && files.join().includes('10-weft.conflist') ? true : undefined;
  });
  for (const id of pods) {
    const netns = await node.makeSandbox(id);
    expect((await node.cni({ command: 'ADD', containerID: id, netns })).exitCode).toBe(0);
    await ping(id);
  }
  await settled();
  return agent;
}

async function del(id: string): Promise<number | undefined> {
  const call = { command: 'DEL', containerID: id, netns: `/run/netns/${id}` };
  return (await node.cni(call)).exitCode;
}

async function ping(id: string): Promise<void> {
  await execa('ip', ['netns', 'exec', id, 'ping', '-c1', '-W2', UPLINK.addresses[0]]);
}

/** A pool, and another node beyond the link that holds a piece of it. */
async function makePool(): Promise<void> {
  await node.apply(
    pool('gone', {
      cidrs: ['10.15.0.0/24', 'fd00:15::/64'],
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      reuseDelaySeconds: 1,
    }),
  );
  const poolUID = await node.kubectl('get', 'ippool', 'gone', '-o', 'jsonpath={.metadata.uid}');
  await node.apply({
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'NodeSubnet',
    metadata: { name: FAR.replace('/', '-') },
    spec: { cidr: FAR, pool: 'gone', poolUID, nodeName: 'far', nodeUID: 'uid-far', nextHops: ['198.18.0.1'] },
  });
}

/** What others have, each beside something of weft's, and a machine that forwards nothing yet. */
async function makeForeignState(): Promise<void> {
  const script = `
    sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
    sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.fabric0.forwarding=1
    ip route add 198.51.100.0/24 via 192.0.2.77 proto static
    ip -6 route add 2001:db8:7::/64 via 2001:db8:2::77 proto static
    ip route add unreachable 203.0.113.0/24 metric 4096 proto static
    ip route add default via 192.0.2.1
    ip rule add from 203.0.113.7 lookup 77 priority 1000
    ip address add 198.51.100.9/32 dev lo
    ip link add foreign0 type vxlan id 77 dstport 8472 local 192.0.2.10 nolearning
    ip link set foreign0 address 02:00:00:00:00:77 up
    iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -s 203.0.113.0/24 -j ACCEPT
    ip6tables-nft -P FORWARD DROP
    iptables-nft -P INPUT DROP; iptables-nft -A INPUT -i lo -j ACCEPT; iptables-nft -A INPUT -i weft+ -j ACCEPT
    nft add table inet foreign; nft add chain inet foreign kept
    echo '{"cniVersion": "1.0.0", "name": "other", "type": "loopback"}' >${CONF}/99-other.conf
    echo other >${BIN}/bridge; echo other >${BIN}/bandwidth`;
  await execa('sh', ['-euc', script]);
}

/** Addresses that are being probed for duplicates are no state to compare with. */
async function settled(): Promise<void> {
  await eventually('links to settle', async () =>
    (await ip('-6', 'address', 'show', 'tentative')) === '' ? true : undefined,
  );
}

/** Everything on the node that weft could have changed, a line each. */
async function nodeDump(): Promise<string[]> {
  const commands: [string, ...string[]][] = [
    ['ip', '-d', 'link'],
    ['ip', 'address'],
    ['ip', 'route', 'show', 'table', 'all'],
    ['ip', '-6', 'route', 'show', 'table', 'all'],
    ['ip', 'rule'],
    ['ip', '-6', 'rule'],
    ['ip', 'neigh', 'show', 'nud', 'permanent'],
    ['nft', '-s', 'list', 'ruleset'],
    [
      'sysctl',
      '-a',
      '-e',
      '--pattern',
      '^net\\.ipv[46]\\.(ip_forward|conf\\..*(forwarding|redirects|accept_ra))$',
    ],
  ];
  const lines: string[] = [];
  for (const [file, ...args] of commands) {
    const { stdout } = await execa(file, args);
    lines.push(...stdout.split('\n').map((line) => line.replace(/(expires|valid_lft) \S+/g, '').trimEnd()));
  }
  return [...lines, ...(await filesBelow([BIN, CONF, '/run/weft']))];
}

async function filesBelow(directories: readonly string[]): Promise<string[]> {
  const { stdout } = await execa('find', [...directories, '-mindepth', '1', '-printf', '%p %s %m %U\n']);
  return stdout
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('/run/weft/probe.sock'))
    .sort();
}
