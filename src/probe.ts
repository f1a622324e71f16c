import { askHealth } from './health.ts';

// The command of the containers' probes: `node probe.mjs SOCKET /readyz`. A file of its own, because a probe
// that loaded all of the agent would cost more than the agent does between two pods.
const [socketPath, path] = process.argv.slice(2);
if (socketPath === undefined || path === undefined) {
  process.stderr.write('usage: probe.mjs SOCKET /livez|/readyz\n');
  process.exit(2);
}
try {
  await askHealth(socketPath, path, 4_000);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
