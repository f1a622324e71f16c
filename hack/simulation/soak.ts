import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { ClaimerUnknownError } from '../../src/agent/claimers.ts';
import { allocationName, IP_ALLOCATION, IPAllocation, NODE_SUBNET, NodeSubnet } from '../../src/api/index.ts';
import {
  AddressTakenError,
  ClaimDeadlineError,
  FixedAddressError,
  isExclusive,
  IsolatedPoolFullError,
  NoPoolError,
  PoolExhaustedError,
  SubnetUnavailableError,
  SupersededError,
  type AttachmentKey,
} from '../../src/ipam/index.ts';
import {
  listAll,
  NotFoundError,
  pathOf,
  poolStore,
  ServerError,
  TooManyRequestsError,
  UnreachableError,
  type KubeClient,
  type Log,
} from '../../src/kube/index.ts';
import { cidrHasAddress, firstAddress, formatAddress, type IPAddress } from '../../src/net/index.ts';
import type { Settings } from '../../src/settings.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { AgentKilledError, startSimulatedAgent, type SimulatedAgent } from './agent.ts';
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
import { drawTurns } from './turns.ts';

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
  /** How many calls and troubles together, at least. */
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
  /** By kind of operation. */
  readonly tallies: ReadonlyMap<string, Tally>;
  /** The nodes that are there at the end, their agents serving and all troubles healed. */
  readonly nodes: readonly SoakNode[];
}

/** How many operations of a kind ended how. */
export type Tally = Readonly<Record<Outcome, number>>;

/** What its name says was done, or could not be done, or there was nothing to do it to. */
type Outcome = 'done' | 'failed' | 'left out';

export interface SoakNode {
  readonly machine: Machine;
  readonly agent: SimulatedAgent;
}

/**
 * Calls and troubles at random, many at once, on nodes whose kernels are simulated: pods come and go, also such as keep
 * or name their addresses and such as belong to tenants; DELs are said twice, too early or never; agents are killed, nodes
 * are cut off, rebooted, deleted and made anew; pools are edited, also into each other, deleted in use and made again; so
 * are the labels of namespaces, and objects deleted by hand. An operation that fails in a way in which it must not is a
 * violation of the history. What a seed decides is what is asked for; how processes interleave is up to the machine, and
 * the UIDs of nodes, by which they choose their subnets, are the apiserver's.
 */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const { cluster, history, random, settings, log } = options;
  const clock = createSystemClock();
  const nodes: RunningNode[] = [];
  const named = createNamedPods(cluster, options.podIdentities);
  const fixed = new Set(options.podIdentities.flatMap((identity) => identity.fixed ?? []));
  let serial = 0;
  let joined = 0;
  let begun = 0;
  let isDeletingByHand = false;
  let isRemakingPool = false;
  /** By name: those of which a write or a deletion is under way. */
  const busyPools = new Set<string>();
  /** By UID: their claims have been judged. */
  const judgedSubnets = new Set<string>();
  /** All NodeSubnets that were ever deleted by hand, and until when it may be in doubt whose their ranges are. */
  const contested: { readonly subnet: NodeSubnet; readonly untilMs: number }[] = [];

  function startAgent(
    { machine }: Pick<RunningNode, 'machine'>,
    draw: () => number,
  ): Pick<RunningNode, 'agent' | 'way'> {
    const way = createFaultyClient(cluster.client);
    // Of its own: what one agent draws must not depend on when the others do.
    const agentsRandom = seededRandom(Math.floor(draw() * 2 ** 32));
    const agent = startSimulatedAgent({
      ...{ machine, client: way.client, clock, random: agentsRandom, log, settings },
      relistJitterMs: 0,
    });
    return { agent, way };
  }

  async function join(draw: () => number): Promise<RunningNode> {
    const name = `n${joined++}`;
    await cluster.createNode(name);
    const machine = createMachine(name, history);
    return { machine, ...startAgent({ machine }, draw), pods: [], busy: new Set() };
  }

  const operations: readonly Operation[] = [
    { name: 'ADD', weight: 34, mayFail: ADD_FAILS, run: (turn) => add(turn) },
    { name: 'ADD of a pod with a name', weight: 9, mayFail: NAMED_ADD_FAILS, run: addNamed },
    { name: 'ADD of a second interface', weight: 3, mayFail: NAMED_ADD_FAILS, run: addInterface },
    { name: 'second sandbox of a pod', weight: 2, mayFail: NAMED_ADD_FAILS, run: addSandbox },
    { name: 'DEL', weight: 34, mayFail: DEL_FAILS, run: (turn) => del(turn, 1) },
    { name: 'DEL twice', weight: 5, mayFail: DEL_FAILS, run: (turn) => del(turn, 2) },
    { name: 'DEL before ADD ends', weight: 4, mayFail: DEL_FAILS, run: overtake },
    { name: 'sandbox vanishes', weight: 3, mayFail: [], run: vanish },
    { name: 'ADD again', weight: 4, mayFail: LATE_ADD_FAILS, run: addAgain },
    { name: 'agent killed', weight: 2, mayFail: [], run: restart },
    {
      name: 'answers lost for a while',
      weight: 2,
      mayFail: [],
      run: (turn) => trouble(turn, () => (turn.random() < 0.4 ? 'lose-answer' : 'none')),
    },
    {
      name: 'cut off for a while',
      weight: 2,
      mayFail: [],
      run: (turn) => trouble(turn, () => 'lose-request'),
    },
    {
      name: 'slow for a while',
      weight: 2,
      mayFail: [],
      run: (turn) => trouble(turn, () => ({ delayMs: turn.random() * 500 })),
    },
    { name: 'watches broken', weight: 1, mayFail: [], run: breakWatches },
    { name: 'node rebooted', weight: 0.5, mayFail: [], run: reboot },
    { name: 'node deleted and its machine gone', weight: 0.3, mayFail: [], run: removeNode },
    { name: 'Node made anew, its pods running', weight: 0.3, mayFail: [], run: recreateNode },
    { name: 'Node made anew, another machine', weight: 0.6, mayFail: [], run: replaceNode },
    { name: 'Node away until all it held was freed', weight: 0.3, mayFail: AWAY, run: outlastQuarantine },
    { name: 'pool edited', weight: 0.6, mayFail: [], run: editPool },
    { name: 'pool deleted in use and made again', weight: 0.3, mayFail: AWAY, run: remakePool },
    { name: 'namespace labelled', weight: 0.8, mayFail: [], run: labelNamespace },
    { name: 'IPAllocation deleted by hand', weight: 1, mayFail: AWAY, run: deleteAllocation },
    { name: 'NodeSubnet deleted by hand', weight: 0.4, mayFail: AWAY, run: deleteSubnet },
  ];
  const tallies = new Map(operations.map(({ name }) => [name, { done: 0, failed: 0, 'left out': 0 }]));
  const turns = drawTurns(operations, options.operations, random);

  for (let i = 0; i < options.nodes; i++) nodes.push(await join(random));
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await heal();
  return { tallies, nodes };

  async function worker(): Promise<void> {
    for (let next = turns[begun++]; next !== undefined; next = turns[begun++]) {
      const { operation, random: draw } = next;
      const node = nodes[Math.floor(draw() * nodes.length)];
      if (node === undefined) throw new Error('no node is left');
      const work = operation.run({ node, random: draw });
      const outcome = await judged(`${operation.name} on ${node.machine.nodeName}`, operation.mayFail, work);
      const tally = tallies.get(operation.name);
      if (tally !== undefined) tally[outcome]++;
      if (outcome !== 'done') await sleep(BACK_OFF_MS);
    }
  }

  /** Calls may fail while there is trouble, and where pools are full, but in no other way. */
  async function judged<T>(
    what: string,
    mayFail: readonly ErrorKind[],
    work: Promise<T>,
  ): Promise<T | 'failed'> {
    try {
      return await work;
    } catch (error) {
      if (!isOneOf(mayFail, error)) history.violated(`${what} failed: ${inspect(error)}`);
      return 'failed';
    }
  }

  /** A sandbox for the pod, or for one that nobody knows. */
  async function add(turn: SoakTurn, pod?: NamedPod): Promise<Outcome> {
    if (pod === undefined && turn.node.pods.length >= MOST_PODS) return insteadDel(turn);
    return wire(turn, { key: { containerID: `c${serial++}`, ifName: 'eth0' }, pod });
  }

  /** Where there is no room. */
  async function insteadDel(turn: SoakTurn): Promise<Outcome> {
    await judged('DEL in place of an ADD', DEL_FAILS, del(turn, 1));
    return 'left out';
  }

  async function wire({ node, random: draw }: SoakTurn, running: Running): Promise<Outcome> {
    const { key, pod } = running;
    if (pod !== undefined) pod.interfaces++;
    try {
      const addresses = await node.agent.add(key, pod?.reference);
      node.pods.push(running);
      const missing = pod?.identity.fixed?.filter((address) => !addresses.includes(address)) ?? [];
      if (missing.length > 0) history.violated(`${key.containerID} has not got ${missing.join(', ')}`);
      await judgeWay(node, key);
      return 'done';
    } catch (error) {
      // As runtimes do after a failed ADD, most of the time.
      if (draw() < 0.9) await judged('DEL after an ADD that failed', DEL_FAILS, node.agent.del(key));
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
        const way = wayTo(all, address);
        const isAstray = way !== undefined && way.spec.nodeName !== node.machine.nodeName && !isContested;
        return isAstray
          ? [`${formatAddress(address)} leads to ${way.spec.nodeName} by ${way.metadata.name}`]
          : [];
      });
    };
    // While the apiserver is away nothing can be said.
    if ((await unlessAway(astray(), [])).length === 0) return;
    await sleep(1_000);
    for (const what of await unlessAway(astray(), [])) {
      const deleted = contested.map(({ subnet, untilMs }) => {
        const agoMs = Math.round(clock.nowMs() - (untilMs - CONTESTED_MS));
        return `${subnet.metadata.name} of ${subnet.spec.nodeName} ${agoMs} ms before`;
      });
      history.violated(
        `${what} and was given to ${key.containerID}/${key.ifName} on ${node.machine.nodeName} ` +
          `(NodeSubnets deleted by hand: ${deleted.join(', ')})`,
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

  async function addNamed(turn: SoakTurn): Promise<Outcome> {
    if (turn.node.pods.length >= MOST_PODS) return insteadDel(turn);
    const pod = await named.make(turn.node.machine.nodeName, turn.random);
    return pod === undefined ? insteadDel(turn) : add(turn, pod);
  }

  async function addInterface(turn: SoakTurn): Promise<Outcome> {
    const { node } = turn;
    const running = anyOf(turn);
    if (running === undefined || node.pods.some(({ key }) => isSecond(key, running.key))) return 'left out';
    return wire(turn, { ...running, key: { ...running.key, ifName: 'net1' } });
  }

  /** The first one's DEL comes when the second's ADD has begun. */
  async function addSandbox(turn: SoakTurn): Promise<Outcome> {
    const { node, random: draw } = turn;
    const first = node.pods.find(({ pod, key }) => pod !== undefined && key.ifName === 'eth0');
    if (first?.pod === undefined) return 'left out';
    const adding = add(turn, first.pod);
    // Whoever waits for it is told, later.
    adding.catch(() => undefined);
    await sleep(draw() * 300);
    const ended = await judged(
      'DEL of a pod that has another sandbox',
      DEL_FAILS,
      end(node, take(node, first), 1),
    );
    const added = await adding;
    return ended === 'failed' ? ended : added;
  }

  async function del(turn: SoakTurn, times: number): Promise<Outcome> {
    return end(turn.node, take(turn.node, anyOf(turn)), times);
  }

  function anyOf({ node: { pods }, random: draw }: SoakTurn): Running | undefined {
    return pods[Math.floor(draw() * pods.length)];
  }

  /** All interfaces of its sandbox: from now on nobody else ends them. */
  function take(node: RunningNode, one: Running | undefined): Running[] {
    const taken = node.pods.filter(({ key }) => key.containerID === one?.key.containerID);
    for (const running of taken) node.pods.splice(node.pods.indexOf(running), 1);
    return taken;
  }

  async function end(node: RunningNode, taken: readonly Running[], times: number): Promise<Outcome> {
    try {
      for (const { key } of taken) {
        const calls = Array.from({ length: times }, () => node.agent.del(key));
        await Promise.all(calls);
      }
    } finally {
      await sandboxEnds(node, taken);
    }
    return taken.length === 0 ? 'left out' : 'done';
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

  async function overtake({ node, random: draw }: SoakTurn): Promise<Outcome> {
    const key = { containerID: `c${serial++}`, ifName: 'eth0' };
    let isUnderWay = true;
    const adding = judged(
      'ADD that a DEL ends',
      [...ADD_FAILS, SupersededError],
      node.agent.add(key),
    ).finally(() => (isUnderWay = false));
    await sleep(draw() * 20);
    const outcome = isUnderWay ? 'done' : 'left out';
    try {
      await node.agent.del(key);
    } finally {
      await adding;
      node.machine.remove(key);
    }
    return outcome;
  }

  async function addAgain(turn: SoakTurn): Promise<Outcome> {
    const running = anyOf(turn);
    if (running === undefined) return 'left out';
    await turn.node.agent.add(running.key, running.pod?.reference);
    return 'done';
  }

  async function vanish(turn: SoakTurn): Promise<Outcome> {
    const taken = take(turn.node, anyOf(turn));
    await sandboxEnds(turn.node, taken);
    return taken.length === 0 ? 'left out' : 'done';
  }

  async function restart({ node, random: draw }: SoakTurn): Promise<Outcome> {
    return exclusively(node, async () => {
      node.agent.kill();
      node.way.kill();
      Object.assign(node, startAgent(node, draw));
      await node.agent.serving;
      return 'done';
    });
  }

  async function trouble({ node, random: draw }: SoakTurn, fault: () => Fault): Promise<Outcome> {
    node.way.setFault(fault);
    if (draw() < 0.5) node.way.breakWatches();
    await sleep(200 + draw() * 1_500);
    node.way.setFault(() => 'none');
    return 'done';
  }

  function breakWatches({ node }: SoakTurn): Promise<Outcome> {
    node.way.breakWatches();
    return Promise.resolve('done');
  }

  async function reboot({ node, random: draw }: SoakTurn): Promise<Outcome> {
    return exclusively(node, async () => {
      await machineEnds(node);
      Object.assign(node, startAgent(node, draw));
      await node.agent.serving;
      return 'done';
    });
  }

  async function machineEnds(node: RunningNode): Promise<void> {
    node.agent.kill();
    node.way.kill();
    const ended = node.pods.splice(0);
    node.machine.reboot();
    for (const { pod } of ended) await interfaceEnds(pod);
  }

  async function removeNode({ node, random: draw }: SoakTurn): Promise<Outcome> {
    return exclusively(node, async () => {
      const at = nodes.indexOf(node);
      if (at < 0 || nodes.length < 3) return 'left out';
      nodes.splice(at, 1);
      await machineEnds(node);
      await cluster.deleteNode(node.machine.nodeName);
      nodes.push(await join(draw));
      return 'done';
    });
  }

  async function replaceNode({ node, random: draw }: SoakTurn): Promise<Outcome> {
    return exclusively(node, async () => {
      if (!nodes.includes(node)) return 'left out';
      await machineEnds(node);
      await cluster.deleteNode(node.machine.nodeName);
      await cluster.createNode(node.machine.nodeName);
      Object.assign(node, startAgent(node, draw));
      await node.agent.serving;
      return 'done';
    });
  }

  /** The machine is off for longer than the quarantine. Another one comes under its name. */
  async function outlastQuarantine({ node, random: draw }: SoakTurn): Promise<Outcome> {
    return exclusively(node, async () => {
      const { nodeName } = node.machine;
      const at = nodes.indexOf(node);
      if (at < 0 || nodes.length < 3) return 'left out';
      // Nothing is asked of it meanwhile.
      nodes.splice(at, 1);
      await machineEnds(node);
      const hasHeld = await unlessAway(holdsSomething(nodeName), false);
      await cluster.deleteNode(nodeName);
      const isFreed = await seen(async () => !(await holdsSomething(nodeName)));
      await cluster.createNode(nodeName);
      Object.assign(node, startAgent(node, draw));
      nodes.push(node);
      await node.agent.serving;
      if (!hasHeld) return 'left out';
      return isFreed ? 'done' : 'failed';
    });
  }

  async function holdsSomething(nodeName: string): Promise<boolean> {
    if ((await subnets()).some(({ spec }) => spec.nodeName === nodeName)) return true;
    const fieldSelector = `spec.nodeName=${nodeName}`;
    const { items } = await listAll(cluster.client, { path: pathOf(IP_ALLOCATION), fieldSelector });
    return items.some((item) => IPAllocation.parse(item).spec.attachment !== undefined);
  }

  async function recreateNode({ node, random: draw }: SoakTurn): Promise<Outcome> {
    return exclusively(node, async () => {
      if (!nodes.includes(node)) return 'left out';
      await cluster.deleteNode(node.machine.nodeName);
      await sleep(draw() * 300);
      await cluster.createNode(node.machine.nodeName);
      return 'done';
    });
  }

  async function editPool({ random: draw }: SoakTurn): Promise<Outcome> {
    const edits = options.pools.flatMap(({ name, edits: specs }) => specs.map((spec) => ({ name, spec })));
    const edit = edits[Math.floor(draw() * edits.length)];
    if (edit === undefined) return 'left out';
    return alone(edit.name, async () => {
      await writePool(edit.name, edit.spec);
      return 'done';
    });
  }

  function writePool(name: string, spec: object): Promise<void> {
    return options.poolHistory.write(name, spec, () => cluster.writePool(name, spec));
  }

  /** It waits for its pods, is gone when they are, and comes back as another of its name. One at a time. */
  async function remakePool({ random: draw }: SoakTurn): Promise<Outcome> {
    const pool = options.pools[Math.floor(draw() * options.pools.length)];
    // One that began late would last longer than all else.
    if (pool === undefined || isRemakingPool || begun > turns.length * 0.7) return 'left out';
    const { name, spec } = pool;
    isRemakingPool = true;
    const remade = alone(name, async () => {
      const uid = await poolUID(name);
      await options.poolHistory.delete(name, () => cluster.deletePool(name));
      // For so long that a node which still gave addresses of it would be found out.
      await sleep(options.poolLagMs + 1_000 + draw() * 2_000);
      let isGone = false;
      await seen(async () => {
        isGone = (await poolUID(name)) !== uid;
        if (!isGone) await endPodsOf(name);
        return isGone;
      });
      if (!isGone) throw new Error(`IPPool ${name} was deleted, its pods have ended, and it does not go`);
      for (const address of history.living(name)) {
        if (wasDeletedByHand(address)) continue;
        history.violated(`IPPool ${name} has gone, and a pod has its ${formatAddress(address)}`);
      }
      await writePool(name, spec);
      return 'done';
    });
    return remade.finally(() => (isRemakingPool = false));
  }

  /** As who drains it: what has an address of the pool is to come back with another. */
  async function endPodsOf(pool: string): Promise<void> {
    const left = new Set(history.living(pool).map(formatAddress));
    for (const node of [...nodes]) {
      for (const running of [...node.pods]) {
        const addresses = node.machine.find(running.key)?.addresses ?? [];
        if (!addresses.some((address) => left.has(formatAddress(address)))) continue;
        await judged('DEL of who drains a pool', DEL_FAILS, end(node, take(node, running), 1));
      }
    }
  }

  /** Undefined: it is not there. */
  async function poolUID(name: string): Promise<string | undefined> {
    return (await poolStore(cluster.client).get(name))?.metadata.uid;
  }

  /** One write of a pool at a time: else nobody knows which of two stands. */
  async function alone(pool: string, work: () => Promise<Outcome>): Promise<Outcome> {
    if (busyPools.has(pool)) return 'left out';
    busyPools.add(pool);
    return work().finally(() => busyPools.delete(pool));
  }

  async function labelNamespace({ random: draw }: SoakTurn): Promise<Outcome> {
    const edits = options.namespaceEdits;
    const edit = edits[Math.floor(draw() * edits.length)];
    if (edit === undefined) return 'left out';
    await cluster.labelNamespace(edit.name, edit.labels);
    return 'done';
  }

  /**
   * The address of a living sandbox loses its object: it must come back, and nobody may get it meanwhile, also where
   * the sandbox goes or the agent is killed before. Not one that pods name: the next who names it may have it.
   */
  async function deleteAllocation(turn: SoakTurn): Promise<Outcome> {
    const { node, random: draw } = turn;
    const running = anyOf(turn);
    const addresses = running === undefined ? [] : (node.machine.find(running.key)?.addresses ?? []);
    const address = addresses[Math.floor(draw() * addresses.length)];
    if (address === undefined || fixed.has(formatAddress(address))) return 'left out';
    return byHand(() =>
      exclusively(node, async () => {
        // Where it leads elsewhere by the book, somebody has deleted more than this.
        if (!(await leadsTo(node, address))) return 'left out';
        const taken = take(node, running);
        if (taken.length === 0) return 'left out';
        const name = allocationName(address);
        history.tell(address, 'its IPAllocation was deleted by hand');
        // Whether a delete that is not answered was carried out, nobody knows.
        await seen(async () => {
          await remove(`${pathOf(IP_ALLOCATION)}/${name}`);
          return true;
        });
        const before = draw();
        if (before < 0.6) {
          const ends: Promise<unknown> = before < 0.3 ? end(node, taken, 1) : sandboxEnds(node, taken);
          await judged('DEL of who has lost an IPAllocation', DEL_FAILS, ends);
          // Whoever comes next draws another.
          const adding = Array.from({ length: 4 }, () => judged('ADD after that', ADD_FAILS, add(turn)));
          await Promise.all(adding);
          // An agent that is killed as well does not know any more that it rests.
          await sleep(options.reuseDelayMs);
          return 'done';
        }
        if (before > 0.8) {
          node.agent.kill();
          node.way.kill();
          Object.assign(node, startAgent(node, draw));
          // Of a sandbox that vanishes before the next one has looked nothing is left that says that its address rests.
          await node.agent.serving;
        }
        node.pods.push(...taken);
        await seen(async () => (await isThere(name)) || !isWired(node, address));
        // Its DEL may have come before its object was back: then, too, its agent alone knows that it rests.
        if (!isWired(node, address)) await sleep(options.reuseDelayMs);
        return 'done';
      }),
    );
  }

  async function deleteSubnet({ random: draw }: SoakTurn): Promise<Outcome> {
    return byHand(async () => {
      const all = await subnets();
      const one = all[Math.floor(draw() * all.length)];
      if (one === undefined) return 'left out';
      contested.push({ subnet: one, untilMs: clock.nowMs() + CONTESTED_MS });
      await remove(`${pathOf(NODE_SUBNET)}/${one.metadata.name}`);
      await sleep(draw() * 3_000);
      return 'done';
    });
  }

  /** One after the other: what is deleted of one address twice over nobody can make good. */
  async function byHand(work: () => Promise<Outcome>): Promise<Outcome> {
    if (isDeletingByHand) return 'left out';
    isDeletingByHand = true;
    return work().finally(() => (isDeletingByHand = false));
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
    return wayTo(await subnets(), address)?.spec.nodeName === node.machine.nodeName;
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
   * Answers whether it has.
   */
  async function seen(look: () => Promise<boolean>): Promise<boolean> {
    for (let i = 0; i < 600; i++) {
      if (await unlessAway(look(), false)) return true;
      await sleep(100);
    }
    return false;
  }

  /** Two of these on one node would be two machines of one name. */
  async function exclusively(node: RunningNode, work: () => Promise<Outcome>): Promise<Outcome> {
    if (node.busy.size > 0) return 'left out';
    node.busy.add('trouble');
    try {
      return await work();
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

/** By which the book leads who sends to the address: the longest prefix decides, as in the kernel. */
function wayTo(subnets: readonly NodeSubnet[], address: IPAddress): NodeSubnet | undefined {
  const around = subnets.filter(({ spec }) => cidrHasAddress(spec.cidr, address));
  around.sort((a, b) => b.spec.cidr.prefixLength - a.spec.cidr.prefixLength);
  return around.find(isExclusive) ?? around[0];
}

const AT_ONCE = 16;
/** Of two who claim a range that somebody deleted, each has found out about the other by then. */
const CONTESTED_MS = 15_000;
const MOST_PODS = 14;
/** As kubelets wait: else most of it would be over while the pool that has the most addresses is being made again. */
const BACK_OFF_MS = 300;

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
  /** What it may fail with. */
  readonly mayFail: readonly ErrorKind[];
  readonly run: (turn: SoakTurn) => Promise<Outcome>;
}

/** What an operation is done to, and what it draws by. */
interface SoakTurn {
  readonly node: RunningNode;
  readonly random: () => number;
}

type ErrorKind = abstract new (...given: never[]) => Error;

/** The apiserver, or the way to it. */
const AWAY: readonly ErrorKind[] = [UnreachableError, ServerError, TooManyRequestsError];
const DEL_FAILS: readonly ErrorKind[] = [AgentKilledError];
/** Pools are full, disabled, for other nodes or on their way out. */
const ADD_FAILS: readonly ErrorKind[] = [
  ...DEL_FAILS,
  ...[ClaimDeadlineError, PoolExhaustedError, SubnetUnavailableError, NoPoolError],
];
/** The pod is read; its namespace may be nobody's, its address another's. */
const NAMED_ADD_FAILS: readonly ErrorKind[] = [
  ...ADD_FAILS,
  ...AWAY,
  ...[IsolatedPoolFullError, AddressTakenError, FixedAddressError],
];

/** Its DEL may be on the way, or its pod be gone. */
const LATE_ADD_FAILS: readonly ErrorKind[] = [...NAMED_ADD_FAILS, SupersededError, ClaimerUnknownError];

/** Of those kinds, or caused by one of them. */
function isOneOf(kinds: readonly ErrorKind[], error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return kinds.some((kind) => error instanceof kind) || isOneOf(kinds, error.cause);
}

/** What the apiserver answers; `otherwise` where it is away. */
async function unlessAway<T>(work: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!isOneOf(AWAY, error)) throw error;
    return otherwise;
  }
}
