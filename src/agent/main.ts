import { parseArgs } from 'node:util';
import { readFileSync } from 'node:fs';
import { pino } from 'pino';
import { ADDRESS_PLUGIN } from '../cni/index.ts';
import { serveHealth } from '../health.ts';
import { createCommandRunner, findSysctlRoot, openNetlinkSocket, SYSCTL_ROOTS } from '../kernel/index.ts';
import { createSystemClock } from '../system-clock.ts';
import { AGENT_USAGE, parseAgentFlags } from './flags.ts';
import { installExecutable, linkExecutable, providePlugin, requireRunnableHost } from './install.ts';
import { runAgent } from './run.ts';
import { uninstallNode } from './uninstall.ts';

/** How long an agent that was told to stop finishes what it does. */
const PATIENCE_MS = 2_000;

// The agent's program: serves a node, or, as an init container, installs the executable on its host, or takes all that
// is weft's from a node.
const [command, ...rest] = process.argv.slice(2);
try {
  if (command === 'install') await install(rest);
  else if (command === 'uninstall') await uninstall(rest);
  else if (command === '--help') process.stdout.write(AGENT_USAGE);
  else await serve(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  // Watches and the reading of notifications would keep the process alive.
  process.exit(1);
}

async function serve(argv: readonly string[]): Promise<void> {
  const flags = parseAgentFlags(argv);
  const stopping = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      stopping.abort(new Error(`the agent was told to stop (${signal})`));
      // A call may wait for an apiserver that is away, and meanwhile nobody would serve the node: its caller asks
      // the next agent, which clears away what this one began.
      setTimeout(() => process.exit(0), PATIENCE_MS);
    });
  }
  const log = pino({ level: flags.logLevel, base: { node: flags.nodeName } });
  try {
    await runAgent(flags, {
      clock: createSystemClock(),
      random: Math.random,
      env: process.env,
      log,
      observe: () => undefined,
      signal: stopping.signal,
    });
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
  }
  // Notification sockets are being read by threads that nothing can interrupt.
  process.exit(0);
}

async function install(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      'cni-bin-dir': { type: 'string' },
      'host-root': { type: 'string', default: '/' },
      plugin: { type: 'string', multiple: true, default: [] },
    },
  });
  const directory = values['cni-bin-dir'];
  if (directory === undefined) throw new Error('install: --cni-bin-dir is missing');
  await requireRunnableHost({
    architecture: process.arch,
    root: values['host-root'],
    cpuinfo: readFileSync('/proc/cpuinfo', 'utf8'),
  });
  const source = new URL('cni/weft', import.meta.url).pathname;
  const plugins = new URL('cni/', import.meta.url).pathname;
  for (const name of values.plugin) {
    const where = await providePlugin(plugins, directory, name);
    process.stdout.write(`${directory}/${name} ${where}\n`);
  }
  const copied = await installExecutable(source, directory, 'weft');
  const linked = await linkExecutable(directory, 'weft', ADDRESS_PLUGIN);
  process.stdout.write(`${directory}/weft ${copied ? 'installed' : 'is up to date'}\n`);
  process.stdout.write(`${directory}/${ADDRESS_PLUGIN} ${linked ? 'installed' : 'is up to date'}\n`);
}

/** Stays when nothing is left: its pod is Ready then, and is deleted by whoever waits for that on all nodes. */
async function uninstall(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      'run-dir': { type: 'string', default: '/run/weft' },
      'cni-conf-dir': { type: 'string', default: '/etc/cni/net.d' },
      'cni-bin-dir': { type: 'string', default: '/opt/cni/bin' },
      'sysctl-net': { type: 'string' },
      'probe-socket': { type: 'string', default: '/run/weft-pod/probe.sock' },
    },
  });
  const stopping = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => stopping.abort(new Error(`the uninstaller was told to stop (${signal})`)));
  }
  const log = pino({ base: null });
  let waiting: string | undefined = 'its first look at the node';
  await serveHealth(values['probe-socket'], { live: () => undefined, ready: () => waiting });
  try {
    await uninstallNode({
      host: openNetlinkSocket(),
      run: createCommandRunner(),
      sysctlRoot: values['sysctl-net'] ?? findSysctlRoot(SYSCTL_ROOTS),
      runDirectory: values['run-dir'],
      confDirectory: values['cni-conf-dir'],
      binDirectory: values['cni-bin-dir'],
      onWaiting(reason) {
        if (waiting !== reason) log.warn({}, `waiting: ${reason}`);
        waiting = reason;
      },
      clock: createSystemClock(),
      log,
      signal: stopping.signal,
    });
    waiting = undefined;
    log.info({}, 'nothing of weft is left on this node');
    await new Promise<void>((resolve) => {
      stopping.signal.addEventListener('abort', () => resolve(), { once: true });
      if (stopping.signal.aborted) resolve();
    });
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
  }
  process.exit(0);
}
