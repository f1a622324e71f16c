import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { afterAll } from 'vitest';
import {
  createCommandRunner,
  getLink,
  openNamespaceSocket,
  openOwnNamespace,
  type CommandRunner,
  type Namespace,
  type NamespaceSocket,
} from '../../src/kernel/index.ts';

/** A network namespace that lives as long as its test file; the test process itself never enters it. */
export interface Throwaway {
  readonly name: string;
  readonly path: string;
  readonly namespace: NamespaceSocket;
  /** Runs a program inside it and returns what it printed. */
  readonly sh: (command: string) => string;
  /** For functions that start programs. */
  readonly run: CommandRunner;
  /** Adds a veth whose other end is in the same namespace, both up, and returns its index. */
  readonly addLink: (name: string, mac?: string) => number;
}

const NAME_PREFIX = 'weft-test-';

/** Makes namespaces and removes them after the file's last test, also when a test fails. */
export function useThrowaways(): { own: Namespace; make: (label: string) => Throwaway } {
  removeLeftovers();
  const own = openOwnNamespace();
  const made: Throwaway[] = [];
  afterAll(() => {
    for (const { name, namespace } of made) {
      namespace.close();
      execFileSync('ip', ['netns', 'del', name]);
    }
    own.close();
  });
  const make = (label: string): Throwaway => {
    const name = `${NAME_PREFIX}${process.pid}-${made.length}-${label}`;
    const path = `/run/netns/${name}`;
    execFileSync('ip', ['netns', 'add', name]);
    const prefix = ['ip', 'netns', 'exec', name];
    const namespace = openNamespaceSocket(own, path);
    const sh = (command: string) =>
      execFileSync('ip', ['netns', 'exec', name, 'sh', '-c', command], { encoding: 'utf8' });
    const addLink = (link: string, mac = '02:00:00:00:00:01') => {
      sh(`ip link add ${link} address ${mac} type veth peer name ${link}-peer`);
      sh(`ip link set ${link}-peer up && ip link set ${link} up`);
      return getLink(namespace.socket, { name: link })?.index ?? 0;
    };
    const throwaway = { name, path, namespace, sh, addLink, run: createCommandRunner({ prefix }) };
    made.push(throwaway);
    throwaway.sh('ip link set lo up');
    return throwaway;
  };
  return { own, make };
}

/** Of runs that were killed. Another run may be removing them at the same time. */
function removeLeftovers(): void {
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : []) {
    const pid = new RegExp(`^${NAME_PREFIX}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    try {
      execFileSync('ip', ['netns', 'del', name], { stdio: 'pipe' });
    } catch (error) {
      if (existsSync(`/run/netns/${name}`)) throw error;
    }
  }
}
