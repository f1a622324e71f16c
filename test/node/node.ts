import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { startControlPlane, type ControlPlane } from '../../hack/cluster/control-plane.ts';
import { askHealth } from '../../src/health.ts';
import { coverDirectories, ip, makeUplink, requirePrivateNamespaces, UPLINK } from './namespaces.ts';

const CHECKOUT = new URL('../../', import.meta.url).pathname;
export const NODE_NAME = 'test-node';

/** One node without a kubelet: this process's own namespaces, a real apiserver in them, agent and executable. */
export interface TestNode {
  readonly plane: ControlPlane;
  /** The agent's probe socket. */
  readonly probe: string;
  kubectl(...args: string[]): Promise<string>;
  /** Applies an object given as JSON. */
  apply(object: object): Promise<void>;
  startAgent(options?: AgentOptions): Promise<TestAgent>;
  /** Runs the executable as a runtime would. */
  cni(call: Call): Promise<CallResult>;
  /** A network namespace as a runtime makes one, by its path. */
  makeSandbox(name: string): Promise<string>;
  removeSandbox(name: string): Promise<void>;
  stop(): Promise<void>;
}

export interface AgentOptions {
  /** Started instead of src/agent/main.ts. */
  readonly program?: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly kubeconfig?: string;
  /** Do not wait until it serves. */
  readonly unready?: boolean;
}

export interface TestAgent {
  readonly pid: number | undefined;
  /** Resolves when the process has ended. */
  readonly ended: Promise<unknown>;
  kill(signal?: NodeJS.Signals): Promise<void>;
  log(): string;
}

export interface Call {
  readonly command: string;
  readonly containerID?: string;
  readonly ifName?: string;
  readonly netns?: string;
  readonly args?: string;
  readonly config?: object;
  readonly env?: Readonly<Record<string, string>>;
}

export interface CallResult {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  /** stdout as JSON; undefined if there was none. */
  readonly answer: Answer | undefined;
}

/** What the tests read of a result or an error object. */
export interface Answer {
  readonly code?: number;
  readonly msg?: string;
  readonly details?: string;
  readonly ips?: readonly { readonly address: string; readonly gateway: string }[];
}

export const CONFIG = { cniVersion: '1.1.0', name: 'weft', type: 'weft' };

export interface NodeOptions {
  /** Timings short enough to wait for in a test. */
  readonly flags?: readonly string[];
}

const QUICK = ['--sweep-seconds=1', '--grace-seconds=3', '--give-back-seconds=5'];

/** Starts the control plane, applies the CRDs and creates the Node object; the agent is the test's to start. */
export async function startNode(options: NodeOptions = {}): Promise<TestNode> {
  await requirePrivateNamespaces();
  await makeUplink();
  await coverDirectories(['/run/weft', '/run/netns', '/etc/cni', '/opt/cni']);
  await execa('mkdir', ['-p', '/etc/cni/net.d', '/opt/cni/bin']);
  const dir = await mkdtemp(join(tmpdir(), 'weft-node-'));
  const plane = await startControlPlane({ dir });
  const kubectlPath = join(plane.binaries, 'kubectl');
  const kubectl = async (...args: string[]) =>
    (await execa(kubectlPath, ['--kubeconfig', plane.kubeconfig, ...args])).stdout;
  const apply = async (object: object) => {
    const command = ['--kubeconfig', plane.kubeconfig, 'apply', '--server-side', '-f', '-'];
    await execa(kubectlPath, command, { input: JSON.stringify(object) });
  };
  await kubectl('apply', '-k', join(CHECKOUT, 'crds'), '--server-side');
  await kubectl('wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s');
  await createNode(apply, kubectl);
  const probe = '/run/weft/probe.sock';
  const running = new Set<TestAgent>();

  return {
    plane,
    probe,
    kubectl,
    apply,
    async startAgent(agentOptions = {}) {
      const agent = launchAgent(plane, probe, [...QUICK, ...(options.flags ?? [])], agentOptions);
      running.add(agent);
      if (agentOptions.unready !== true) await untilReady(agent, probe);
      return agent;
    },
    cni: callExecutable,
    async makeSandbox(name) {
      await ip('netns', 'add', name);
      return `/run/netns/${name}`;
    },
    async removeSandbox(name) {
      await ip('netns', 'delete', name);
    },
    async stop() {
      for (const agent of running) await agent.kill();
      await plane.stop();
      await rm(dir, { recursive: true, force: true });
      await ip('link', 'delete', UPLINK.name);
    },
  };
}

/** Waits until `look` answers something else than undefined. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 20_000,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await sleep(100);
  }
}

async function createNode(
  apply: (object: object) => Promise<void>,
  kubectl: (...args: string[]) => Promise<string>,
): Promise<void> {
  await apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: NODE_NAME } });
  const addresses = UPLINK.addresses.map((address) => ({ type: 'InternalIP', address }));
  const patch = JSON.stringify({ status: { addresses } });
  await kubectl('patch', 'node', NODE_NAME, '--subresource=status', '--type=merge', '-p', patch);
}

function launchAgent(
  plane: ControlPlane,
  probe: string,
  flags: readonly string[],
  options: AgentOptions,
): TestAgent {
  const program = options.program ?? join(CHECKOUT, 'src/agent/main.ts');
  const process = execa(
    'node',
    [
      program,
      `--node-name=${NODE_NAME}`,
      `--kubeconfig=${options.kubeconfig ?? plane.kubeconfig}`,
      `--probe-socket=${probe}`,
      '--sysctl-net=/proc/sys/net',
      ...flags,
      ...(options.flags ?? []),
    ],
    { reject: false, all: true, env: { UV_THREADPOOL_SIZE: '8', ...options.env }, cwd: CHECKOUT },
  );
  let text = '';
  process.all.on('data', (part: Buffer) => (text += part.toString()));
  const ended = process.then(() => undefined);
  return {
    pid: process.pid,
    ended,
    log: () => text,
    async kill(signal = 'SIGKILL') {
      process.kill(signal);
      await ended;
    },
  };
}

async function untilReady(agent: TestAgent, probe: string): Promise<void> {
  let over = false;
  void agent.ended.then(() => (over = true));
  await eventually('the agent to serve', async () => {
    if (over) throw new Error(`the agent ended:\n${agent.log()}`);
    try {
      await askHealth(probe, '/readyz', 1_000);
      return true;
    } catch {
      return undefined;
    }
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${agent.log()}`, { cause: error });
  });
}

async function callExecutable(call: Call): Promise<CallResult> {
  const env: Record<string, string> = { CNI_COMMAND: call.command, CNI_PATH: '/opt/cni/bin', ...call.env };
  if (call.containerID !== undefined) env.CNI_CONTAINERID = call.containerID;
  if (call.command !== 'STATUS' && call.command !== 'GC') env.CNI_IFNAME = call.ifName ?? 'eth0';
  if (call.netns !== undefined) env.CNI_NETNS = call.netns;
  if (call.args !== undefined) env.CNI_ARGS = call.args;
  const result = await execa(join(CHECKOUT, 'dist/cni/weft'), [], {
    input: JSON.stringify(call.config ?? CONFIG),
    env,
    extendEnv: false,
    reject: false,
  });
  const { exitCode, stdout } = result;
  return { exitCode, stdout, answer: stdout === '' ? undefined : (JSON.parse(stdout) as Answer) };
}

/** A pool object, ready to be applied. */
export function pool(name: string, spec: object): object {
  return { apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPPool', metadata: { name }, spec };
}

export async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8');
}
