import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { execa } from 'execa';
import type { Call, CallResult, TestNode } from './node.ts';
import { startSecondMachine, type SecondMachine } from './second-machine.ts';

/** Another node beside the test's own, with a real agent: a machine of its own, on one link with it, one apiserver. */
export interface SecondNode extends Pick<SecondMachine, 'run' | 'makeSandbox'> {
  readonly name: string;
  /** Runs the executable there, as a runtime would. */
  cni(call: Call): Promise<CallResult>;
  removeSandbox(name: string): Promise<void>;
  stop(): Promise<void>;
}

const NAME = 'second-node';

export async function startSecondNode(node: TestNode): Promise<SecondNode> {
  const dir = await mkdtemp(join(tmpdir(), 'weft-second-'));
  const machine = await startSecondMachine();
  const { within, run } = machine;

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
  const addresses = machine.addresses.map((address) => ({ type: 'InternalIP', address }));
  const patch = JSON.stringify({ status: { addresses } });
  await node.kubectl('patch', 'node', NAME, '--subresource=status', '--type=merge', '-p', patch);
  const agent = await node.startAgent({ nodeName: NAME, within, probe: join(dir, 'probe.sock') });

  return {
    name: NAME,
    run,
    makeSandbox: machine.makeSandbox,
    cni: (call) => node.cni({ ...call, within }),
    async removeSandbox(name) {
      await run('ip', 'netns', 'delete', name);
    },
    async stop() {
      await agent.kill();
      entrance.kill('SIGKILL');
      await entrance;
      relay.close();
      await machine.stop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
