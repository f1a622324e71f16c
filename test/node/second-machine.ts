import { once } from 'node:events';
import { execa } from 'execa';
import { coverDirectories, ip, NODE_DIRECTORIES, UPLINK } from './namespaces.ts';

/** Another machine than the test node's: network and mount namespaces of its own, at the other end of its uplink. */
export interface SecondMachine {
  /** What is put before a command to run it there. */
  readonly within: readonly string[];
  readonly addresses: readonly string[];
  /** Runs a program there and answers what it printed. */
  run(...command: string[]): Promise<string>;
  /** A network namespace as a runtime makes one, by its path there. */
  makeSandbox(name: string): Promise<string>;
  /** Ends it with all that is in it. */
  stop(): Promise<void>;
}

const ADDRESSES = ['192.0.2.11', '2001:db8:2::11'];
const PREFIXES = ['192.0.2.11/24', '2001:db8:2::11/64'];

/** After startNode, of whose uplink it takes the other end. */
export async function startSecondMachine(): Promise<SecondMachine> {
  const namespaces = ['--net', '--mount', '--propagation', 'private'];
  // It says that it is inside: until then it would still be this machine that is changed.
  const holder = execa('unshare', [...namespaces, 'sh', '-c', 'echo inside; exec sleep infinity'], {
    reject: false,
    buffer: false,
  });
  await once(holder.stdout, 'data');
  const pid = String(holder.pid);
  const within = ['/usr/bin/nsenter', '--target', pid, '--net', '--mount', '--'];
  const run = async (...command: string[]) => {
    const [program = '', ...args] = [...within, ...command];
    return (await execa(program, args)).stdout;
  };
  await coverDirectories(NODE_DIRECTORIES, run);
  await run('mkdir', '-p', '/etc/cni/net.d', '/opt/cni/bin');
  await ip('link', 'set', UPLINK.peer, 'netns', pid);
  await run('ip', 'link', 'set', UPLINK.peer, 'name', UPLINK.name);
  for (const prefix of PREFIXES) {
    const more = prefix.includes(':') ? ['nodad'] : [];
    await run('ip', 'address', 'add', prefix, 'dev', UPLINK.name, ...more);
  }
  for (const link of ['lo', UPLINK.name]) await run('ip', 'link', 'set', link, 'up');
  return {
    within,
    addresses: ADDRESSES,
    run,
    async makeSandbox(name) {
      await run('ip', 'netns', 'add', name);
      return `/run/netns/${name}`;
    },
    async stop() {
      holder.kill('SIGKILL');
      await holder;
    },
  };
}
