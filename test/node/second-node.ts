import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { execa } from 'execa';
import { ip } from './namespaces.ts';
import type { Call, CallResult, TestNode } from './node.ts';

/** Another node beside the test's own, with a real agent: namespaces of its own, on one link with it, one apiserver. */
export interface SecondNode {
  readonly name: string;
  /** Runs the executable there, as a runtime would. */
  cni(call: Call): Promise<CallResult>;
  /** A network namespace there, as a runtime makes one, by its path. */
  makeSandbox(name: string): Promise<string>;
  removeSandbox(name: string): Promise<void>;
  /** Runs a command in its namespaces. */
  run(file: string, ...args: string[]): Promise<string>;
  stop(): Promise<void>;
}

const NAME = 'second-node';
const ADDRESSES = ['192.0.2.20', '2001:db8:2::20'] as const;
const PREFIXES = ['192.0.2.20/24', '2001:db8:2::20/64'] as const;
/** Each with files of its own. */
const COVERED = ['/run/weft', '/run/netns', '/etc/cni', '/opt/cni'];

/** Its uplink is the other end of the first one's. */
export async function startSecondNode(node: TestNode): Promise<SecondNode> {
  const dir = await mkdtemp(join(tmpdir(), 'weft-second-'));
  await ip('netns', 'add', NAME);
  const prepare = [
    ...COVERED.map((directory) => `mount -t tmpfs -o mode=0755 weft-test ${directory}`),
    'mkdir -p /etc/cni/net.d /opt/cni/bin',
    'echo ready',
    'exec sleep infinity',
  ].join(' && ');
  // For as long as it lives its namespaces can be entered.
  const keeper = execa('ip', ['netns', 'exec', NAME, 'sh', '-c', prepare], { reject: false });
  await new Promise<void>((resolve, reject) => {
    keeper.stdout.once('data', () => resolve());
    void keeper.then(({ stderr }) => reject(new Error(`the second node has no namespaces: ${stderr}`)));
  });
  const within = ['nsenter', '--target', String(keeper.pid), '--net', '--mount', '--'];
  const run = async (file: string, ...args: string[]) => {
    const [enter = '', ...rest] = [...within, file, ...args];
    return (await execa(enter, rest)).stdout;
  };
  await ip('link', 'set', 'fabric0', 'netns', NAME);
  await run('ip', 'link', 'set', 'lo', 'up');
  for (const prefix of PREFIXES) {
    await run('ip', 'address', 'add', prefix, 'dev', 'fabric0', ...(prefix.includes(':') ? ['nodad'] : []));
  }
  await run('ip', 'link', 'set', 'fabric0', 'up');

  // The apiserver listens on the first one's loopback alone, and a socket file leads from one namespace to the other.
  const { port } = new URL(node.plane.url);
  const bridge = join(dir, 'apiserver.sock');
  const relay = createServer((near) => {
    pipeline(near, connect(Number(port), '127.0.0.1'), near, () => undefined);
  });
  await new Promise<void>((resolve) => relay.listen(bridge, resolve));
  const [enter = '', ...rest] = within;
  const listen = `TCP-LISTEN:${port},bind=127.0.0.1,fork,reuseaddr`;
  const entrance = execa(enter, [...rest, 'socat', listen, `UNIX-CONNECT:${bridge}`], { reject: false });

  await node.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: NAME } });
  const addresses = ADDRESSES.map((address) => ({ type: 'InternalIP', address }));
  const patch = JSON.stringify({ status: { addresses } });
  await node.kubectl('patch', 'node', NAME, '--subresource=status', '--type=merge', '-p', patch);
  const agent = await node.startAgent({ nodeName: NAME, within, probe: join(dir, 'probe.sock') });

  return {
    name: NAME,
    run,
    cni: (call) => node.cni({ ...call, within }),
    async makeSandbox(name) {
      await run('ip', 'netns', 'add', name);
      return `/run/netns/${name}`;
    },
    async removeSandbox(name) {
      await run('ip', 'netns', 'delete', name);
    },
    async stop() {
      await agent.kill();
      entrance.kill('SIGKILL');
      await entrance;
      relay.close();
      keeper.kill('SIGKILL');
      await keeper;
      await ip('netns', 'delete', NAME);
      await rm(dir, { recursive: true, force: true });
    },
  };
}
