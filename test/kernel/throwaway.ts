import { execFileSync } from 'node:child_process';
import { afterAll } from 'vitest';
import {
  createCommandRunner,
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
}

/** Makes namespaces and removes them after the file's last test, also when a test fails. */
export function useThrowaways(): { own: Namespace; make: (label: string) => Throwaway } {
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
    const name = `weft-test-${process.pid}-${made.length}-${label}`;
    const path = `/run/netns/${name}`;
    execFileSync('ip', ['netns', 'add', name]);
    const prefix = ['ip', 'netns', 'exec', name];
    const throwaway = {
      name,
      path,
      namespace: openNamespaceSocket(own, path),
      sh: (command: string) =>
        execFileSync('ip', ['netns', 'exec', name, 'sh', '-c', command], { encoding: 'utf8' }),
      run: createCommandRunner({ prefix }),
    };
    made.push(throwaway);
    throwaway.sh('ip link set lo up');
    return throwaway;
  };
  return { own, make };
}
