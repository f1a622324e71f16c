import type { World } from '../../src/cli/command.ts';
import { createSystemClock } from '../../src/system-clock.ts';

/** A world without a cluster that keeps what was written. */
export interface TestWorld extends World {
  readonly written: { stdout: string; stderr: string };
}

export function testWorld(env: World['env'] = {}): TestWorld {
  const written = { stdout: '', stderr: '' };
  const output = (name: keyof typeof written) => ({
    write: async (text: string) => {
      written[name] += text;
    },
    isTerminal: false,
    columns: 80,
  });
  return {
    written,
    stdout: output('stdout'),
    stderr: output('stderr'),
    // An address at which nobody listens, wherever the test runs.
    env: { KUBECONFIG: '/nowhere/kubeconfig', ...env },
    clock: createSystemClock(),
    random: Math.random,
    person: 'me@here',
    signal: new AbortController().signal,
  };
}
