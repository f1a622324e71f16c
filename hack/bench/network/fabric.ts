import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import {
  configurePodLink,
  createPodLink,
  formatAlias,
  openNamespaceSocket,
  openOwnNamespace,
  type NamespaceSocket,
} from '../../../src/kernel/index.ts';
import { parseAddress } from '../../../src/net/index.ts';
import type { NodeObjects } from './node-sync.ts';

/**
 * Machines as network namespaces, for a process that has namespaces of its own (hack/isolated.sh): all of it is gone
 * with that process's namespaces, and nothing of the real machine is touched.
 */
export interface Fabric {
  /** An empty machine. */
  machine(name: string): Promise<Machine>;
  /** A machine on the one segment: `prefixLength` 32 hides that it shares it with others. */
  host(name: string, number: number, prefixLength: 24 | 32): Promise<Machine>;
  /** Routes and filters of a node by the real code, which goes on repairing. */
  sync(machine: Machine, objects: NodeObjects): Promise<void>;
  /** A pod on that machine, wired as an ADD does. */
  pod(on: Machine, name: string, address: string, mtu: number): Promise<Machine>;
  /** Ends what runs in the machines, and removes them. */
  close(): Promise<void>;
}

export interface Machine {
  readonly name: string;
  readonly address: string;
  readonly namespace: NamespaceSocket;
  /** Shell lines, each of which must succeed. */
  sh(lines: readonly string[]): Promise<void>;
  run(command: readonly string[]): Promise<string>;
  /** Starts a program that says a line when it is ready, and stays. */
  start(command: readonly string[], input?: string): Promise<string>;
}

export async function makeFabric(): Promise<Fabric> {
  const own = openOwnNamespace();
  const children: ChildProcess[] = [];
  const machines: Machine[] = [];
  // Namespaces by name in a place of this process's own mount namespace.
  await execa('sh', ['-euc', 'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns']);

  async function machine(name: string, address = ''): Promise<Machine> {
    await execa('ip', ['netns', 'add', name]);
    const enter = ['netns', 'exec', name];
    const made: Machine = {
      ...{ name, address, namespace: openNamespaceSocket(own, `/run/netns/${name}`) },
      async sh(lines) {
        await execa('ip', [...enter, 'sh', '-eu'], { input: `${lines.join('\n')}\n` });
      },
      run: async (command) => (await execa('ip', [...enter, ...command])).stdout,
      async start(command, input) {
        const child = spawn('ip', [...enter, ...command], { stdio: ['pipe', 'pipe', 'inherit'] });
        children.push(child);
        child.stdin.end(input);
        const [line] = (await Promise.race([
          once(createInterface({ input: child.stdout }), 'line'),
          once(child, 'exit').then(() => {
            throw new Error(`${command.join(' ')} in ${name} has ended before it was ready`);
          }),
        ])) as [string];
        return line;
      },
    };
    machines.push(made);
    await made.sh(['ip link set lo up', 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad']);
    return made;
  }

  const segment = await machine('segment');
  await segment.sh(['ip link add lan type bridge', 'ip link set lan up']);

  return {
    machine,
    async host(name, number, prefixLength) {
      const address = `192.0.2.${number}`;
      const made = await machine(name, address);
      await segment.sh([
        `ip link add ${name} type veth peer name eth0 netns ${name}`,
        `ip link set ${name} master lan up`,
      ]);
      await made.sh([
        `ip address add ${address}/${prefixLength} dev eth0`,
        'ip link set eth0 up',
        ...(prefixLength === 32 ? ['ip route add 192.0.2.0/24 dev eth0 scope link'] : []),
      ]);
      return made;
    },
    async sync(on, objects) {
      const program = new URL('node-sync.ts', import.meta.url).pathname;
      const environment = ['env', 'UV_THREADPOOL_SIZE=8'];
      await on.start([...environment, process.execPath, program, 'stay'], JSON.stringify(objects));
    },
    async pod(on, name, address, mtu) {
      const made = await machine(name, address);
      const containerID = `bench-${name}`;
      const addresses = { ipv4: parseAddress(address) };
      const link = createPodLink(on.namespace.socket, made.namespace, { containerID, ifName: 'eth0', mtu });
      configurePodLink(on.namespace.socket, made.namespace.socket, link, {
        ...{ addresses, destinations: 'default', hostSources: {} },
        alias: formatAlias({
          ...{ network: 'weft', containerID, ifName: 'eth0', addresses },
          podUID: undefined,
        }),
      });
      return made;
    },
    async close() {
      await Promise.all(
        children.map(async (child) => {
          if (child.exitCode !== null || child.signalCode !== null) return;
          child.kill('SIGKILL');
          await once(child, 'exit');
        }),
      );
      for (const { name, namespace } of machines) {
        namespace.close();
        await execa('ip', ['netns', 'delete', name]);
      }
      own.close();
    },
  };
}
