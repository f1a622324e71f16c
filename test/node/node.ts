import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { buildAll } from '../../hack/build.ts';
import { startControlPlane, type ControlPlane } from '../../hack/cluster/control-plane.ts';
import { askHealth } from '../../src/health.ts';
import {
  clearNode,
  coverDirectories,
  ip,
  makeUplink,
  NODE_DIRECTORIES,
  requirePrivateNamespaces,
  UPLINK,
} from './namespaces.ts';

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
  /** Starts a controller with these flags besides those that it needs here. A test without has none. */
  startController(flags: readonly string[]): TestProcess;
  /** Runs the executable as a runtime would. */
  cni(call: Call): Promise<CallResult>;
  /** The same, for a runtime that may lose its patience. */
  beginCni(call: Call): RunningCall;
  /** All IPAllocations, or those of one container, also those that rest. */
  allocations(containerID?: string): Promise<Allocation[]>;
  /** The names of the NodeSubnets, of one pool if it is named. */
  subnets(poolName?: string): Promise<string[]>;
  /** Makes a namespace, if it is not there, with these labels and annotations. */
  makeNamespace(name: string, metadata?: ObjectMetadata): Promise<void>;
  /** Makes a pod that is bound to the node, or to the one that is named, and answers the CNI_ARGS by which a kubelet names it. */
  makePod(
    name: string,
    metadata?: ObjectMetadata & { readonly namespace?: string; readonly nodeName?: string },
  ): Promise<string>;
  /** The Events on a pod: reason and message. */
  podEvents(name: string): Promise<PodEvent[]>;
  /** A network namespace as a runtime makes one, by its path. */
  makeSandbox(name: string): Promise<string>;
  removeSandbox(name: string): Promise<void>;
  /** Deletes the Node object, if it is there, and makes it anew, as when a node is replaced under its name. */
  recreateNode(): Promise<void>;
  stop(): Promise<void>;
}

export interface ObjectMetadata {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly object[];
}

export interface PodEvent {
  readonly type: string;
  readonly reason: string;
  readonly message: string;
}

export interface AgentOptions {
  /** Started instead of the agent's bundle. */
  readonly program?: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Default: the administrator's. null: none, so that the agent finds a pod's service account. */
  readonly kubeconfig?: string | null;
  /** Where its probe socket is; for a second agent. */
  readonly probe?: string;
  /** Do not wait until it serves. */
  readonly unready?: boolean;
  /** For an agent of another machine: its Node, and what is put before a command to run it there. */
  readonly nodeName?: string;
  readonly within?: readonly string[];
}

export interface TestProcess {
  readonly pid: number | undefined;
  /** Resolves when the process has ended. */
  readonly ended: Promise<unknown>;
  /** How it ended; undefined if by a signal. */
  exitCode(): Promise<number | undefined>;
  kill(signal?: NodeJS.Signals): Promise<void>;
  log(): string;
}

export type TestAgent = TestProcess;

export interface Call {
  readonly command: string;
  readonly containerID?: string;
  readonly ifName?: string;
  readonly netns?: string;
  readonly args?: string;
  readonly config?: object;
  readonly env?: Readonly<Record<string, string>>;
  /** What is put before the executable to run it on another machine. */
  readonly within?: readonly string[];
}

/** A call whose caller may end it. */
export interface RunningCall {
  readonly result: Promise<CallResult>;
  /** Ends the executable, as a runtime whose own patience is over. */
  kill(): void;
}

/** What the tests read of an IPAllocation. */
export interface Allocation {
  readonly name: string;
  readonly uid: string;
  readonly pool: string;
  readonly containerID: string | undefined;
  readonly podName: string | undefined;
  readonly released: boolean;
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

/** Without spare addresses, so that a test knows how many subnets there will be. */
const QUICK = ['--sweep-seconds=1', '--grace-seconds=3', '--give-back-seconds=5', '--spare-addresses=0'];

/** Starts the control plane, applies the CRDs and creates the Node object; the agent is the test's to start. */
export async function startNode(options: NodeOptions = {}): Promise<TestNode> {
  await requirePrivateNamespaces();
  // Never yesterday's: what has not changed since the last build is left alone.
  await buildAll();
  await makeUplink();
  await coverDirectories(NODE_DIRECTORIES);
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
  const makeNamespace = async (name: string, metadata: ObjectMetadata = {}) => {
    await apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, ...metadata } });
    // A pod is refused without it, and no controller is here to make it.
    await apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: name } });
  };
  const probe = '/run/weft/probe.sock';
  const running = new Set<TestProcess>();

  return {
    plane,
    probe,
    kubectl,
    apply,
    async startAgent(agentOptions = {}) {
      const its = { probe, ...agentOptions };
      const agent = launchAgent(plane, [...QUICK, ...(options.flags ?? [])], its);
      running.add(agent);
      if (agentOptions.unready !== true) await untilReady(agent, its.probe);
      return agent;
    },
    startController(flags) {
      const program = join(CHECKOUT, 'dist/controller.mjs');
      const ours = ['--probe-socket=/run/weft/controller.sock', '--metrics-address='];
      const controller = launch('node', [program, `--kubeconfig=${plane.kubeconfig}`, ...ours, ...flags]);
      running.add(controller);
      return controller;
    },
    cni: (call) => beginCall(call).result,
    beginCni: beginCall,
    async allocations(containerID) {
      const text = await kubectl('get', 'ipallocations', '-o', 'json');
      const all = (JSON.parse(text) as { items: AllocationObject[] }).items.map(readAllocation);
      return containerID === undefined ? all : all.filter((one) => one.containerID === containerID);
    },
    async subnets(poolName) {
      const text = await kubectl('get', 'nodesubnets', '-o', 'json');
      const { items } = JSON.parse(text) as {
        items: { metadata: { name: string }; spec: { pool: string } }[];
      };
      return items
        .filter(({ spec }) => poolName === undefined || spec.pool === poolName)
        .map(({ metadata }) => metadata.name);
    },
    makeNamespace,
    async makePod(name, { namespace = 'default', nodeName = NODE_NAME, ...metadata } = {}) {
      if (namespace === 'default') await makeNamespace(namespace);
      await apply({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace, ...metadata },
        spec: {
          nodeName,
          automountServiceAccountToken: false,
          containers: [{ name: 'c', image: 'none' }],
        },
      });
      const uid = await kubectl('-n', namespace, 'get', 'pod', name, '-o', 'jsonpath={.metadata.uid}');
      return `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`;
    },
    async podEvents(name) {
      const selector = `--field-selector=involvedObject.kind=Pod,involvedObject.name=${name}`;
      const text = await kubectl('get', 'events', '-A', selector, '-o', 'json');
      return (JSON.parse(text) as { items: PodEvent[] }).items;
    },
    async makeSandbox(name) {
      await ip('netns', 'add', name);
      return `/run/netns/${name}`;
    },
    async removeSandbox(name) {
      await ip('netns', 'delete', name);
    },
    async recreateNode() {
      await kubectl('delete', 'node', NODE_NAME, '--ignore-not-found');
      await createNode(apply, kubectl);
    },
    async stop() {
      for (const one of running) await one.kill();
      await plane.stop();
      await rm(dir, { recursive: true, force: true });
      await clearNode();
    },
  };
}

/** Waits until `look` answers something else than undefined. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 40_000,
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
  flags: readonly string[],
  options: AgentOptions & { readonly probe: string },
): TestAgent {
  const [command = '', ...args] = [
    ...(options.within ?? []),
    'node',
    options.program ?? join(CHECKOUT, 'dist/agent.mjs'),
    `--node-name=${options.nodeName ?? NODE_NAME}`,
    ...(options.kubeconfig === null ? [] : [`--kubeconfig=${options.kubeconfig ?? plane.kubeconfig}`]),
    `--probe-socket=${options.probe}`,
    '--sysctl-net=/proc/sys/net',
    ...flags,
    ...(options.flags ?? []),
  ];
  return launch(command, args, { UV_THREADPOOL_SIZE: '8', ...options.env });
}

function launch(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): TestProcess {
  const process = execa(command, args, { reject: false, all: true, env, cwd: CHECKOUT });
  let text = '';
  process.all.on('data', (part: Buffer) => (text += part.toString()));
  const ended = process.then(() => undefined);
  return {
    pid: process.pid,
    ended,
    exitCode: async () => (await process).exitCode,
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

function beginCall(call: Call): RunningCall {
  const env: Record<string, string> = { CNI_COMMAND: call.command, CNI_PATH: '/opt/cni/bin', ...call.env };
  if (call.containerID !== undefined) env.CNI_CONTAINERID = call.containerID;
  if (call.command !== 'STATUS' && call.command !== 'GC') env.CNI_IFNAME = call.ifName ?? 'eth0';
  if (call.netns !== undefined) env.CNI_NETNS = call.netns;
  if (call.args !== undefined) env.CNI_ARGS = call.args;
  const [command = '', ...args] = [...(call.within ?? []), join(CHECKOUT, 'dist/cni/weft')];
  const running = execa(command, args, {
    input: JSON.stringify(call.config ?? CONFIG),
    env,
    extendEnv: false,
    reject: false,
  });
  return {
    kill: () => void running.kill('SIGKILL'),
    result: running.then(({ exitCode, stdout }) => ({
      exitCode,
      stdout,
      answer: stdout === '' ? undefined : (JSON.parse(stdout) as Answer),
    })),
  };
}

/** An IPAllocation, as far as the tests read it. */
interface AllocationObject {
  readonly metadata: { readonly name: string; readonly uid: string };
  readonly spec: {
    readonly pool: string;
    readonly attachment?: { readonly containerID: string };
    readonly pod?: { readonly name: string };
  };
  readonly status?: { readonly releasedAt?: string };
}

function readAllocation({ metadata, spec, status }: AllocationObject): Allocation {
  return {
    name: metadata.name,
    uid: metadata.uid,
    pool: spec.pool,
    containerID: spec.attachment?.containerID,
    podName: spec.pod?.name,
    released: status?.releasedAt !== undefined,
  };
}

/** A pool object, ready to be applied. */
export function pool(name: string, spec: object): object {
  return { apiVersion: 'ipam.weft.dev/v1alpha1', kind: 'IPPool', metadata: { name }, spec };
}
