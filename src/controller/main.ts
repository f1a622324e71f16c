import { pino } from 'pino';
import { createSystemClock } from '../system-clock.ts';
import { CONTROLLER_USAGE, parseControllerFlags } from './flags.ts';
import { runController } from './run.ts';

// The controller's process: reads the command line, and ends by a signal or by what cannot be mended.
const argv = process.argv.slice(2);
if (argv.includes('--help')) {
  process.stdout.write(CONTROLLER_USAGE);
  process.exit(0);
}

const flags = readFlags();
const stop = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.once(name, () => {
    stop.abort(new Error(name));
  });
}
const log = pino({ level: flags.logLevel, base: { part: 'controller' } });
try {
  await runController(flags, {
    clock: createSystemClock(),
    random: Math.random,
    env: process.env,
    log,
    signal: stop.signal,
  });
} catch (error) {
  if (!stop.signal.aborted) {
    log.fatal({ err: error }, 'the controller cannot run');
    process.exitCode = 1;
  }
}
// Whatever still waits for a timer or a socket must not keep the process.
process.exit();

function readFlags() {
  try {
    return parseControllerFlags(argv);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n\n${CONTROLLER_USAGE}`);
    process.exit(2);
  }
}
