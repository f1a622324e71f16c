import { pino } from 'pino';
import { parseAgentFlags } from '../../src/agent/flags.ts';
import { runAgent } from '../../src/agent/run.ts';
import { createSystemClock } from '../../src/system-clock.ts';

// The agent as it is, but for one thing: it dies at the step that WEFT_TEST_KILL_AT names, as by a power cut.
const killAt = process.env['WEFT_TEST_KILL_AT'];

await runAgent(parseAgentFlags(process.argv.slice(2)), {
  clock: createSystemClock(),
  random: Math.random,
  env: process.env,
  log: pino(),
  signal: new AbortController().signal,
  observe(step) {
    if (step === killAt) process.kill(process.pid, 'SIGKILL');
  },
});
