import { setTimeout as sleep } from 'node:timers/promises';
import { allocationName, IP_ALLOCATION, NODE_SUBNET, NodeSubnet } from '../../src/api/index.ts';
import { isExclusive, type AttachmentKey } from '../../src/ipam/index.ts';
import {
  listAll,
  NotFoundError,
  pathOf,
  poolStore,
  type KubeClient,
  type Log,
} from '../../src/kube/index.ts';
import { cidrHasAddress, firstAddress, formatAddress, type IPAddress } from '../../src/net/index.ts';
import type { Settings } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { startSimulatedAgent, type SimulatedAgent } from './agent.ts';
import { createFaultyClient, type Fault, type FaultyClient } from './faulty-client.ts';
import type { History } from './history.ts';
import { createMachine, type Machine } from './machine.ts';
import {
  createNamedPods,
  type PodIdentity,
  type PodMaker,
  type NamedPod,
  type Running,
} from './named-pods.ts';
import type { PoolHistory, PoolIdentity } from './pool-history.ts';
import { seededRandom } from './seeded-random.ts';

/** The objects that people and kubelets write, as the soak needs to write them. */
export interface SoakCluster extends PodMaker {
  readonly client: KubeClient;
  createNode(name: string): Promise<void>;
  deleteNode(name: string): Promise<void>;
  /** Makes the pool, or replaces its spec, all but its sizes. */
  writePool(name: string, spec: object): Promise<PoolIdentity>;
  /** It may be there for long after that. */
  deletePool(name: string): Promise<void>;
  labelNamespace(name: string, labels: Readonly<Record<string, string | null>>): Promise<void>;
}

export interface SoakOptions {
  readonly cluster: SoakCluster;
  readonly history: History;
  readonly random: () => number;
  /** How many calls and troubles together. */
  readonly operations: number;
  readonly nodes: number;
  /** The longest of all pools. */
  readonly reuseDelayMs: number;
  readonly settings: Settings;
  readonly pools: readonly SoakPool[];
  /** Knows of their first specs. */
  readonly poolHistory: PoolHistory;
  /** Of how long ago the spec may be by which a node gives addresses (PoolHistory). */
  readonly poolLagMs: number;
  /** The pods with names: each is there once at the most, on any node. All others are pods that nobody knows. */
  readonly podIdentities: readonly PodIdentity[];
  /** Labels that the namespace of that name is given in turns; null takes one away. */
  readonly namespaceEdits: readonly {
    readonly name: string;
    readonly labels: Readonly<Record<string, string | null>>;
  }[];
  readonly log: Log;
}

export interface SoakPool {
  readonly name: string;
  /** What it is at first, and when it is made again after it was deleted. */
  readonly spec: object;
  /** What it is in turns. */
  readonly edits: readonly object[];
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
 * Calls and troubles at random, many at once, on nodes whose kernels are simulated: pods come and go, also such as keep
 * or name their addresses and such as belong to tenants; DELs are said twice, too early or never; agents are killed, nodes
 * are cut off, rebooted, deleted and made anew; pools are edited, also into each other, deleted in use and made again; so
 * are the labels of namespaces, and objects deleted by hand. What a seed decides is what is asked for; how processes
 * interleave is up to the machine.
 */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { cluster, history, random, settings, log } = options;
  const clock = createSystemClock();
  const done = new Map<string, number>();
  const nodes: RunningNode[] = [];
  const named = createNamedPods(cluster, options.podIdentities, random);
  const fixed = new Set(options.podIdentities.flatMap((identity) => identity.fixed ?? []));
  let serial = 0;
  let begun = 0;
  let isDeletingByHand = false;
  let isRemakingPool = false;
  /** By name: those of which a write or a deletion is under way. */
  const busyPools = new Set<string>();
  /** By UID: their claims have been judged. */
  const judgedSubnets = new Set<string>();
  /** All NodeSubnets that were ever deleted by hand, and until when it may be in doubt whose their ranges are. */
  const contested: { readonly subnet: NodeSubnet; readonly untilMs: number }[] = [];

  function startAgent({ machine }: Pick<RunningNode, 'machine'>): Pick<RunningNode, 'agent' | 'way'> {
    const way = createFaultyClient(cluster.client);
    // Of its own: what one agent draws must not depend on when the others do.
    const agentsRandom = seededRandom(Math.floor(random() * 2 ** 31));
    const agent = startSimulatedAgent({
      ...{ machine, client: way.client, clock, random: agentsRandom, log, settings },
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
    { name: 'ADD', weight: 34, run: (node) => add(node) },
    { name: 'ADD of a pod with a name', weight: 9, run: addNamed },
    { name: 'ADD of a second interface', weight: 3, run: addInterface },
    { name: 'second sandbox of a pod', weight: 2, run: addSandbox },
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
    { name: 'Node made anew, another machine', weight: 0.6, run: replaceNode },
    { name: 'pool edited', weight: 0.6, run: editPool },
    { name: 'pool deleted in use and made again', weight: 0.3, run: remakePool },
    { name: 'namespace labelled', weight: 0.8, run: labelNamespace },
    { name: 'IPAllocation deleted by hand', weight: 1, run: deleteAllocation },
    { name: 'NodeSubnet deleted by hand', weight: 0.4, run: deleteSubnet },
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

  /** A sandbox for the pod, or for one that nobody knows. */
  async function add(node: RunningNode, pod?: NamedPod): Promise<void> {
    if (pod === undefined && node.pods.length >= MOST_PODS) return del(node, 1);
    await wire(node, { key: { containerID: `c${serial++}`, ifName: 'eth0' }, pod });
  }

  async function wire(node: RunningNode, running: Running): Promise<void> {
    const { key, pod } = running;
    if (pod !== undefined) pod.interfaces++;
    try {
      const addresses = await node.agent.add(key, pod?.reference);
      node.pods.push(running);
      const missing = pod?.identity.fixed?.filter((address) => !addresses.includes(address)) ?? [];
      if (missing.length > 0) history.violated(`${key.containerID} has not got ${missing.join(', ')}`);
      await judgeWay(node, key);
    } catch (error) {
      // As runtimes do after a failed ADD, most of the time.
      if (random() < 0.9) await node.agent.del(key).catch(() => undefined);
      node.machine.remove(key);
      await interfaceEnds(pod);
      throw error;
    }
  }

  /**
   * Whatever an ADD answers is led to its node, by the book: whoever draws from a subnet that another node has gives
   * addresses that nobody reaches. Looked at twice, since an exclusive subnet may be on its way.
   */
  async function judgeWay(node: RunningNode, key: AttachmentKey): Promise<void> {
    const astray = async () => {
      const addresses = node.machine.find(key)?.addresses ?? [];
      const all = await subnets();
      judgeClaims(all);
      return addresses.flatMap((address) => {
        const isContested = contested.some(
          ({ subnet, untilMs }) => clock.nowMs() < untilMs && cidrHasAddress(subnet.spec.cidr, address),
        );
        const owner = wayTo(all, address);
        const isAstray = owner !== undefined && owner !== node.machine.nodeName && !isContested;
        return isAstray ? [`${formatAddress(address)} leads to ${owner}`] : [];
      });
    };
    // While the apiserver is away nothing can be said.
    if ((await astray().catch(() => [])).length === 0) return;
    await sleep(1_000);
    for (const what of await astray().catch(() => [])) {
      history.violated(
        `${what} and was given to ${key.containerID}/${key.ifName} on ${node.machine.nodeName}`,
      );
    }
  }

  /** Each NodeSubnet once. What was deleted by hand is made again as the kernel knows it, whatever the pool gives by then. */
  function judgeClaims(all: readonly NodeSubnet[]): void {
    for (const subnet of all) {
      const { uid } = subnet.metadata;
      if (judgedSubnets.has(uid)) continue;
      judgedSubnets.add(uid);
      const whyNot = options.poolHistory.whyNotClaimed(subnet);
      if (whyNot === undefined || wasDeletedByHand(firstAddress(subnet.spec.cidr))) continue;
      history.violated(whyNot);
    }
  }

  function wasDeletedByHand(address: IPAddress): boolean {
    return contested.some(({ subnet }) => cidrHasAddress(subnet.spec.cidr, address));
  }

  async function addNamed(node: RunningNode): Promise<void> {
    if (node.pods.length >= MOST_PODS) return del(node, 1);
    const pod = await named.make(node.machine.nodeName);
    return pod === undefined ? del(node, 1) : add(node, pod);
  }

  async function addInterface(node: RunningNode): Promise<void> {
    const running = node.pods[Math.floor(random() * node.pods.length)];
    if (running === undefined || node.pods.some(({ key }) => isSecond(key, running.key))) return;
    await wire(node, { ...running, key: { ...running.key, ifName: 'net1' } });
  }

  /** The first one's DEL comes when the second's ADD has begun. */
  async function addSandbox(node: RunningNode): Promise<void> {
    const first = node.pods.find(({ pod, key }) => pod !== undefined && key.ifName === 'eth0');
    if (first?.pod === undefined) return addNamed(node);
    const adding = add(node, first.pod).catch(() => undefined);
    await sleep(random() * 300);
    await Promise.allSettled([end(node, take(node, first), 1), adding]);
  }

  async function del(node: RunningNode, times: number): Promise<void> {
    await end(node, take(node, node.pods[Math.floor(random() * node.pods.length)]), times);
  }

  /** All interfaces of its sandbox: from now on nobody else ends them. */
  function take(node: RunningNode, one: Running | undefined): Running[] {
    const taken = node.pods.filter(({ key }) => key.containerID === one?.key.containerID);
    for (const running of taken) node.pods.splice(node.pods.indexOf(running), 1);
    return taken;
  }

  async function end(node: RunningNode, taken: readonly Running[], times: number): Promise<void> {
    try {
      for (const { key } of taken) {
        const calls = Array.from({ length: times }, () => node.agent.del(key));
        await Promise.all(calls);
      }
    } finally {
      await sandboxEnds(node, taken);
    }
  }

  /** Its namespace goes in any case, whatever DEL has said. */
  async function sandboxEnds(node: RunningNode, taken: readonly Running[]): Promise<void> {
    for (const { key } of taken) node.machine.remove(key);
    for (const { pod } of taken) await interfaceEnds(pod);
  }

  /** A pod without a sandbox goes. */
  async function interfaceEnds(pod: NamedPod | undefined): Promise<void> {
    if (pod !== undefined && --pod.interfaces === 0) await named.end(pod);
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
    const running = node.pods[Math.floor(random() * node.pods.length)];
    if (running !== undefined) await node.agent.add(running.key, running.pod?.reference);
  }

  async function vanish(node: RunningNode): Promise<void> {
    await sandboxEnds(node, take(node, node.pods[Math.floor(random() * node.pods.length)]));
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
    await exclusively(node, async () => {
      node.agent.kill();
      node.way.kill();
      await machineEnds(node);
      Object.assign(node, startAgent(node));
      await node.agent.serving;
    });
  }

  async function machineEnds(node: RunningNode): Promise<void> {
    const ended = node.pods.splice(0);
    node.machine.reboot();
    for (const { pod } of ended) await interfaceEnds(pod);
  }

  async function removeNode(node: RunningNode): Promise<void> {
    await exclusively(node, async () => {
      const at = nodes.indexOf(node);
      if (at < 0) return;
      nodes.splice(at, 1);
      node.agent.kill();
      node.way.kill();
      await machineEnds(node);
      await cluster.deleteNode(node.machine.nodeName);
      nodes.push(await join());
    });
  }

  async function replaceNode(node: RunningNode): Promise<void> {
    await exclusively(node, async () => {
      if (!nodes.includes(node)) return;
      node.agent.kill();
      node.way.kill();
      await machineEnds(node);
      await cluster.deleteNode(node.machine.nodeName);
      await cluster.createNode(node.machine.nodeName);
      Object.assign(node, startAgent(node));
      await node.agent.serving;
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
    const edits = options.pools.flatMap(({ name, edits: specs }) => specs.map((spec) => ({ name, spec })));
    const edit = edits[Math.floor(random() * edits.length)];
    if (edit === undefined) return;
    await alone(edit.name, () => writePool(edit.name, edit.spec));
  }

  function writePool(name: string, spec: object): Promise<void> {
    return options.poolHistory.write(name, spec, () => cluster.writePool(name, spec));
  }

  /** It waits for its pods, is gone when they are, and comes back as another of its name. One at a time. */
  async function remakePool(): Promise<void> {
    const pool = options.pools[Math.floor(random() * options.pools.length)];
    // One that began late would last longer than all else.
    if (pool === undefined || isRemakingPool || begun > options.operations * 0.7) return;
    const { name, spec } = pool;
    isRemakingPool = true;
    const remade = alone(name, async () => {
      const uid = await poolUID(name);
      await options.poolHistory.delete(name, () => cluster.deletePool(name));
      // For so long that a node which still gave addresses of it would be found out.
      await sleep(options.poolLagMs + 1_000 + random() * 2_000);
      let isGone = false;
      await seen(async () => {
        isGone = (await poolUID(name)) !== uid;
        if (!isGone) await endPodsOf(name);
        return isGone;
      });
      if (!isGone)
        return history.violated(`IPPool ${name} was deleted, its pods have ended, and it does not go`);
      for (const address of history.living(name)) {
        if (wasDeletedByHand(address)) continue;
        history.violated(`IPPool ${name} has gone, and a pod has its ${formatAddress(address)}`);
      }
      await writePool(name, spec);
    });
    await remade.finally(() => (isRemakingPool = false));
  }

  /** As who drains it: what has an address of the pool is to come back with another. */
  async function endPodsOf(pool: string): Promise<void> {
    const left = new Set(history.living(pool).map(formatAddress));
    for (const node of [...nodes]) {
      for (const running of [...node.pods]) {
        const addresses = node.machine.find(running.key)?.addresses ?? [];
        if (!addresses.some((address) => left.has(formatAddress(address)))) continue;
        await end(node, take(node, running), 1).catch(() => undefined);
      }
    }
  }

  /** Undefined: it is not there. */
  async function poolUID(name: string): Promise<string | undefined> {
    return (await poolStore(cluster.client).get(name))?.metadata.uid;
  }

  /** One write of a pool at a time: else nobody knows which of two stands. */
  async function alone(pool: string, work: () => Promise<void>): Promise<void> {
    if (busyPools.has(pool)) return;
    busyPools.add(pool);
    await work().finally(() => busyPools.delete(pool));
  }

  async function labelNamespace(): Promise<void> {
    const edits = options.namespaceEdits;
    const edit = edits[Math.floor(random() * edits.length)];
    if (edit !== undefined) await cluster.labelNamespace(edit.name, edit.labels);
  }

  /**
   * The address of a living sandbox loses its object: it must come back, and nobody may get it meanwhile, also where
   * the sandbox goes or the agent is killed before. Not one that pods name: the next who names it may have it.
   */
  async function deleteAllocation(node: RunningNode): Promise<void> {
    const running = node.pods[Math.floor(random() * node.pods.length)];
    const addresses = running === undefined ? [] : (node.machine.find(running.key)?.addresses ?? []);
    const address = addresses[Math.floor(random() * addresses.length)];
    if (address === undefined || fixed.has(formatAddress(address))) return;
    await byHand(async () => {
      if (node.busy.size > 0) return;
      await exclusively(node, async () => {
        // Where it leads elsewhere by the book, somebody has deleted more than this.
        if (!(await leadsTo(node, address))) return;
        const taken = take(node, running);
        if (taken.length === 0) return;
        const name = allocationName(address);
        history.tell(address, 'its IPAllocation was deleted by hand');
        // Whether a delete that is not answered was carried out, nobody knows.
        await seen(async () => {
          await remove(`${pathOf(IP_ALLOCATION)}/${name}`);
          return true;
        });
        const before = random();
        if (before < 0.6) {
          await (before < 0.3 ? end(node, taken, 1) : sandboxEnds(node, taken));
          // Whoever comes next draws another.
          await Promise.allSettled(Array.from({ length: 4 }, () => add(node)));
          // An agent that is killed as well does not know any more that it rests.
          return sleep(options.reuseDelayMs);
        }
        if (before > 0.8) {
          node.agent.kill();
          node.way.kill();
          Object.assign(node, startAgent(node));
          // Of a sandbox that vanishes before the next one has looked nothing is left that says that its address rests.
          await node.agent.serving.catch(() => undefined);
        }
        node.pods.push(...taken);
        await seen(async () => (await isThere(name)) || !isWired(node, address));
      });
    });
  }

  async function deleteSubnet(): Promise<void> {
    await byHand(async () => {
      const all = await subnets();
      const one = all[Math.floor(random() * all.length)];
      if (one === undefined) return;
      contested.push({ subnet: one, untilMs: clock.nowMs() + CONTESTED_MS });
      await remove(`${pathOf(NODE_SUBNET)}/${one.metadata.name}`);
      await sleep(random() * 3_000);
    });
  }

  /** One after the other: what is deleted of one address twice over nobody can make good. */
  async function byHand(work: () => Promise<void>): Promise<void> {
    if (isDeletingByHand) return;
    isDeletingByHand = true;
    await work().finally(() => (isDeletingByHand = false));
  }

  async function remove(path: string): Promise<void> {
    await cluster.client.request({ method: 'DELETE', path }).catch((error: unknown) => {
      if (!(error instanceof NotFoundError)) throw error;
    });
  }

  async function subnets(): Promise<NodeSubnet[]> {
    const { items } = await listAll(cluster.client, { path: pathOf(NODE_SUBNET) });
    return items.map((item) => NodeSubnet.parse(item));
  }

  async function leadsTo(node: RunningNode, address: IPAddress): Promise<boolean> {
    return wayTo(await subnets(), address) === node.machine.nodeName;
  }

  async function isThere(name: string): Promise<boolean> {
    try {
      await cluster.client.request({ method: 'GET', path: `${pathOf(IP_ALLOCATION)}/${name}` });
      return true;
    } catch (error) {
      if (error instanceof NotFoundError) return false;
      throw error;
    }
  }

  function isWired({ machine }: RunningNode, address: IPAddress): boolean {
    const text = formatAddress(address);
    return machine.links().some(({ addresses }) => addresses.some((its) => formatAddress(its) === text));
  }

  /**
   * Waits for it, also while the apiserver is away, and not for ever: the book at the end says what has not come.
   */
  async function seen(look: () => Promise<boolean>): Promise<void> {
    for (let i = 0; i < 600; i++) {
      if (await look().catch(() => false)) return;
      await sleep(100);
    }
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

/** The node to which the book leads who sends to the address: the longest prefix decides, as in the kernel. */
function wayTo(subnets: readonly NodeSubnet[], address: IPAddress): string | undefined {
  const around = subnets.filter(({ spec }) => cidrHasAddress(spec.cidr, address));
  around.sort((a, b) => b.spec.cidr.prefixLength - a.spec.cidr.prefixLength);
  return (around.find(isExclusive) ?? around[0])?.spec.nodeName;
}

const AT_ONCE = 16;
/** Of two who claim a range that somebody deleted, each has found out about the other by then. */
const CONTESTED_MS = 15_000;
const MOST_PODS = 14;

interface RunningNode extends SoakNode {
  agent: SimulatedAgent;
  way: FaultyClient;
  readonly machine: Machine;
  /** Whose ADD has answered, and whose DEL was not sent. */
  readonly pods: Running[];
  readonly busy: Set<string>;
}

function isSecond(key: AttachmentKey, first: AttachmentKey): boolean {
  return key.containerID === first.containerID && key.ifName === 'net1';
}

interface Operation {
  readonly name: string;
  readonly weight: number;
  readonly run: (node: RunningNode) => Promise<void>;
}
