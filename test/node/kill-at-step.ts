import { readFileSync } from 'node:fs';
import { pino } from 'pino';
import { parseAgentFlags } from '../../src/agent/flags.ts';
import { runAgent } from '../../src/agent/run.ts';
import { createSystemClock } from '../../src/system-clock.ts';

// The agent as it is, but for one thing: it dies at the step that a file names, as by a power cut.
const fatalStepFile = process.env.WEFT_TEST_FATAL_STEP ?? '';

await runAgent(parseAgentFlags(process.argv.slice(2)), {
  clock: createSystemClock(),
  random: Math.random,
  env: process.env,
  log: pino(),
  signal: new AbortController().signal,
  observe(step) {
    if (step === fatalStep()) process.kill(process.pid, 'SIGKILL');
  },
});

function fatalStep(): string | undefined {
  try {
    return readFileSync(fatalStepFile, 'utf8');
  } catch {
    return undefined; // no step is fatal at the moment
  }
}
