import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { askHealth } from '../../../src/health.ts';
import { AGENT_FLAGS, NO_AGENT_LABEL } from './bring-up.ts';
import type { Stage } from './stage.ts';

const BUNDLE = join(import.meta.dirname, '..', '..', '..', 'dist', 'agent.mjs');
/** In the node, gone with it. */
const FOLDER = '/run/weft-e2e';

/** An agent of a node that is no container: it can be killed as often as one likes, without a back-off. */
export interface AgentProcess {
  /** Resolves when it serves the node; throws with its last lines if it ends before. */
  serving(): Promise<void>;
  kill(): Promise<void>;
  log(): string;
}

/** Takes the DaemonSet's agent off the node, and answers when it has ended. */
export async function removeAgent(stage: Stage, node: string): Promise<void> {
  await stage.cluster.kubectl(['label', 'node', node, '--overwrite', `${NO_AGENT_LABEL}=off`]);
  await stage.eventually(`no agent on ${node}`, async () => {
    if (await agentPod(stage, node)) throw new Error('its pod is still there');
  });
}

/** Brings it back, and answers when it is ready. */
export async function returnAgent(stage: Stage, node: string): Promise<void> {
  await stage.cluster.kubectl(['label', 'node', node, `${NO_AGENT_LABEL}-`]);
  await stage.eventually(`an agent on ${node}`, async () => {
    const pod = await agentPod(stage, node);
    const ready = pod?.status.conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
    if (ready !== true) throw new Error(`its pod is ${pod?.status.phase ?? 'missing'}`);
  });
}

async function agentPod(stage: Stage, node: string) {
  const agents = await stage.pods('app.kubernetes.io/name=weft-agent', 'weft-system');
  return agents.find(({ spec }) => spec.nodeName === node);
}

/** Writes what agent processes of the node need: a kubeconfig with the rights of the node's own agent. */
export async function prepareAgentProcess({ cluster }: Stage, node: string): Promise<void> {
  const bound = ['--bound-object-kind=Node', `--bound-object-name=${node}`, '--duration=1h'];
  const token = await cluster.kubectl(['-n', 'weft-system', 'create', 'token', 'weft-agent', ...bound]);
  const authority = ['-o', 'jsonpath={.clusters[0].cluster.certificate-authority-data}'];
  const ca = await cluster.kubectl(['config', 'view', '--raw', ...authority]);
  const { ipv4, port } = cluster.plan.controlPlane;
  const kubeconfig = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'e2e', cluster: { server: `https://${ipv4}:${port}`, 'certificate-authority-data': ca } },
    ],
    users: [{ name: 'agent', user: { token } }],
    contexts: [{ name: 'e2e', context: { cluster: 'e2e', user: 'agent' } }],
    'current-context': 'e2e',
  };
  const write = `mkdir -p ${FOLDER}; cat >${FOLDER}/kubeconfig`;
  await cluster.execOnNode(node, ['sh', '-euc', write], JSON.stringify(kubeconfig));
}

/** Starts an agent in the node's namespaces, by the same bundle and flags as the DaemonSet's. */
export async function startAgentProcess({ cluster }: Stage, node: string): Promise<AgentProcess> {
  const flags = [
    `--node-name=${node}`,
    `--kubeconfig=${FOLDER}/kubeconfig`,
    `--probe-socket=${FOLDER}/probe.sock`,
    ...AGENT_FLAGS,
  ];
  const [command, ...args] = await cluster.commandOn(node, [process.execPath, BUNDLE, ...flags]);
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
  });
  let log = '';
  const lines = (text: Buffer) => {
    log += text.toString();
  };
  child.stdout.on('data', lines);
  child.stderr.on('data', lines);
  const exited = once(child, 'exit');
  let ended = false;
  void exited.then(() => {
    ended = true;
  });
  return {
    log: () => log,
    async serving() {
      // A standby is Ready too, so it has to have said that it serves.
      while (!log.includes('this agent serves the node')) await stillThere();
      while (!(await isReady(`/proc/${child.pid}/root${FOLDER}/probe.sock`))) await stillThere();
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };

  async function stillThere(): Promise<void> {
    if (ended) throw new AgentEndedError(node, log);
    await sleep(20);
  }
}

async function isReady(socket: string): Promise<boolean> {
  return askHealth(socket, '/readyz', 2_000).then(
    () => true,
    () => false,
  );
}

/** An agent ended by itself. */
export class AgentEndedError extends Error {
  override name = 'AgentEndedError' as const;
  constructor(node: string, log: string) {
    super(`the agent of ${node} ended before it served; its last lines:\n${log.slice(-3_000)}`);
  }
}
