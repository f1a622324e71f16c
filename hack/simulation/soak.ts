import { setTimeout as sleep } from 'node:timers/promises';
import type { AttachmentKey } from '../../src/ipam/index.ts';
import type { KubeClient, Log } from '../../src/kube/index.ts';
import type { Settings } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { startSimulatedAgent, type SimulatedAgent } from './agent.ts';
import { createFaultyClient, type Fault, type FaultyClient } from './faulty-client.ts';
import type { History } from './history.ts';
import { createMachine, type Machine } from './machine.ts';

/** The objects that people and kubelets write, as the soak needs to write them. */
export interface SoakCluster {
  readonly client: KubeClient;
  createNode(name: string): Promise<void>;
  deleteNode(name: string): Promise<void>;
  /** Replaces the pool's spec, all but its sizes. */
  editPool(name: string, spec: object): Promise<void>;
}

export interface SoakOptions {
  readonly cluster: SoakCluster;
  readonly history: History;
  readonly random: () => number;
  /** How many calls and troubles together. */
  readonly operations: number;
  readonly nodes: number;
  readonly settings: Settings;
  /** Specs that the pool of that name is given in turns. */
  readonly poolEdits: readonly { readonly name: string; readonly spec: object }[];
  readonly log: Log;
}

export interface SoakResult {
  /** How often each kind of operation was done. */
  readonly done: ReadonlyMap<string, number>;
  /** The nodes that are there at the end, their agents serving and all troubles healed. */
  readonly nodes: readonly SoakNode[];
}

export interface SoakNode {
  readonly machine: Machine;
  readonly agent: SimulatedAgent;
}

/**
 * Calls and troubles at random, many at once, on nodes whose kernels are simulated: pods come and go, DELs are said
 * twice, too early or never, agents are killed, nodes are cut off, rebooted, deleted and made anew, and pools are
 * edited. What a seed decides is what is asked for; how processes interleave is up to the machine.
 */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { cluster, history, random, settings, log } = options;
  const clock = createSystemClock();
  const done = new Map<string, number>();
  const nodes: RunningNode[] = [];
  let serial = 0;
  let begun = 0;

  function startAgent({ machine }: Pick<RunningNode, 'machine'>): Pick<RunningNode, 'agent' | 'way'> {
    const way = createFaultyClient(cluster.client);
    const agent = startSimulatedAgent({
      ...{ machine, client: way.client, clock, random: Math.random, log, settings },
      relistJitterMs: 0,
    });
    return { agent, way };
  }

  async function join(): Promise<RunningNode> {
    const name = `n${serial++}`;
    await cluster.createNode(name);
    const machine = createMachine(name, history);
    return { machine, ...startAgent({ machine }), pods: [], busy: new Set() };
  }

  const operations: readonly Operation[] = [
    { name: 'ADD', weight: 40, run: add },
    { name: 'DEL', weight: 34, run: (node) => del(node, 1) },
    { name: 'DEL twice', weight: 5, run: (node) => del(node, 2) },
    { name: 'DEL before ADD ends', weight: 4, run: overtake },
    { name: 'sandbox vanishes', weight: 3, run: vanish },
    { name: 'ADD again', weight: 4, run: addAgain },
    { name: 'agent killed', weight: 2, run: restart },
    {
      name: 'answers lost for a while',
      weight: 2,
      run: (node) => trouble(node, () => (random() < 0.4 ? 'lose-answer' : 'none')),
    },
    { name: 'cut off for a while', weight: 2, run: (node) => trouble(node, () => 'lose-request') },
    {
      name: 'slow for a while',
      weight: 2,
      run: (node) => trouble(node, () => ({ delayMs: random() * 500 })),
    },
    { name: 'watches broken', weight: 1, run: (node) => Promise.resolve(node.way.breakWatches()) },
    { name: 'node rebooted', weight: 0.5, run: reboot },
    { name: 'node deleted and its machine gone', weight: 0.3, run: removeNode },
    { name: 'Node made anew, its pods running', weight: 0.3, run: recreateNode },
    { name: 'pool edited', weight: 0.6, run: editPool },
  ];
  const total = operations.reduce((sum, { weight }) => sum + weight, 0);

  for (let i = 0; i < options.nodes; i++) nodes.push(await join());
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await heal();
  return { done, nodes };

  async function worker(): Promise<void> {
    while (begun < options.operations) {
      begun++;
      const operation = pick();
      const node = nodes[Math.floor(random() * nodes.length)];
      if (node === undefined) continue;
      done.set(operation.name, (done.get(operation.name) ?? 0) + 1);
      // Calls fail while there is trouble; what must hold all the same is the history's and the book's to say.
      await operation.run(node).catch(() => undefined);
    }
  }

  function pick(): Operation {
    let at = random() * total;
    for (const operation of operations) if ((at -= operation.weight) < 0) return operation;
    throw new Error('the weights add up to more than their sum');
  }

  async function add(node: RunningNode): Promise<void> {
    if (node.pods.length >= MOST_PODS) return del(node, 1);
    const key = { containerID: `c${serial++}`, ifName: 'eth0' };
    try {
      await node.agent.add(key);
      node.pods.push(key);
    } catch (error) {
      // As runtimes do after a failed ADD, most of the time.
      if (random() < 0.9) await node.agent.del(key).catch(() => undefined);
      node.machine.remove(key);
      throw error;
    }
  }

  async function del(node: RunningNode, times: number): Promise<void> {
    const key = node.pods.splice(Math.floor(random() * node.pods.length), 1)[0];
    if (key === undefined) return;
    const calls = Array.from({ length: times }, () => node.agent.del(key));
    await Promise.all(calls).finally(() => node.machine.remove(key)); // the namespace goes in any case
  }

  async function overtake(node: RunningNode): Promise<void> {
    const key = { containerID: `c${serial++}`, ifName: 'eth0' };
    const adding = node.agent.add(key).catch(() => undefined);
    await sleep(random() * 20);
    await node.agent.del(key).catch(() => undefined);
    await adding;
    node.machine.remove(key);
  }

  async function addAgain(node: RunningNode): Promise<void> {
    const key = node.pods[Math.floor(random() * node.pods.length)];
    if (key !== undefined) await node.agent.add(key);
  }

  function vanish(node: RunningNode): Promise<void> {
    const key = node.pods.splice(Math.floor(random() * node.pods.length), 1)[0];
    if (key !== undefined) node.machine.remove(key);
    return Promise.resolve();
  }

  async function restart(node: RunningNode): Promise<void> {
    await exclusively(node, () => {
      node.agent.kill();
      node.way.kill();
      Object.assign(node, startAgent(node));
      return node.agent.serving;
    });
  }

  async function trouble(node: RunningNode, fault: () => Fault): Promise<void> {
    node.way.setFault(fault);
    if (random() < 0.5) node.way.breakWatches();
    await sleep(200 + random() * 1_500);
    node.way.setFault(() => 'none');
  }

  async function reboot(node: RunningNode): Promise<void> {
    await exclusively(node, () => {
      node.agent.kill();
      node.way.kill();
      node.machine.reboot();
      node.pods.splice(0);
      Object.assign(node, startAgent(node));
      return node.agent.serving;
    });
  }

  async function removeNode(node: RunningNode): Promise<void> {
    await exclusively(node, async () => {
      const at = nodes.indexOf(node);
      if (at < 0) return;
      nodes.splice(at, 1);
      node.agent.kill();
      node.way.kill();
      node.machine.reboot();
      await cluster.deleteNode(node.machine.nodeName);
      nodes.push(await join());
    });
  }

  async function recreateNode(node: RunningNode): Promise<void> {
    await exclusively(node, async () => {
      if (!nodes.includes(node)) return;
      await cluster.deleteNode(node.machine.nodeName);
      await sleep(random() * 300);
      await cluster.createNode(node.machine.nodeName);
    });
  }

  async function editPool(): Promise<void> {
    const edit = options.poolEdits[Math.floor(random() * options.poolEdits.length)];
    if (edit !== undefined) await cluster.editPool(edit.name, edit.spec);
  }

  /** Two of these on one node would be two machines of one name. */
  async function exclusively(node: RunningNode, work: () => Promise<void>): Promise<void> {
    if (node.busy.size > 0) return;
    node.busy.add('trouble');
    try {
      await work();
    } finally {
      node.busy.delete('trouble');
    }
  }

  async function heal(): Promise<void> {
    for (const node of nodes) {
      node.way.setFault(() => 'none');
      await node.agent.serving;
    }
  }
}

const AT_ONCE = 16;
const MOST_PODS = 14;

interface RunningNode extends SoakNode {
  agent: SimulatedAgent;
  way: FaultyClient;
  readonly machine: Machine;
  /** Whose ADD has answered, and whose DEL was not sent. */
  readonly pods: AttachmentKey[];
  readonly busy: Set<string>;
}

interface Operation {
  readonly name: string;
  readonly weight: number;
  readonly run: (node: RunningNode) => Promise<void>;
}
