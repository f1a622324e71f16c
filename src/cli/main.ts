import { hostname } from 'node:os';
import { createSystemClock } from '../system-clock.ts';
import type { Output } from './command.ts';
import { OutputError, StoppedError } from './errors.ts';
import { runCLI } from './run.ts';

// The process kubectl-weft: a plugin of kubectl, and a program of its own.

const stopping = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => {
    // What was begun is undone first; a second signal ends at once.
    stopping.abort(new StoppedError(`stopped by ${name}`));
  });
}

process.exitCode = await runCLI(process.argv.slice(2), {
  stdout: outputOf(process.stdout),
  stderr: outputOf(process.stderr),
  env: process.env,
  clock: createSystemClock(),
  random: Math.random,
  person: `${userName()}@${hostname()}`,
  signal: stopping.signal,
});
process.exit();

function outputOf(stream: NodeJS.WriteStream): Output {
  // Each write is told of its failure itself.
  stream.on('error', () => undefined);
  return {
    write: (text) =>
      new Promise((resolve, reject) => {
        stream.write(text, (error?: NodeJS.ErrnoException | null) => {
          // Who reads no further, as "head" does, has what he wanted.
          if (error?.code === 'EPIPE' || !error) resolve();
          else reject(new OutputError(`cannot write the answer: ${error.message}`, { cause: error }));
        });
      }),
    // Absent where it is no terminal, whatever the types say.
    isTerminal: Boolean(stream.isTTY),
    columns: Number(stream.columns) || 80,
  };
}

/** By name where there is one: who used sudo is still who asks, and a container's user may have none. */
function userName(): string {
  const { SUDO_USER, USER, LOGNAME } = process.env;
  const named = [SUDO_USER, USER, LOGNAME].find((name) => name !== undefined && name !== '');
  return named ?? `uid${process.getuid?.() ?? ''}`;
}
