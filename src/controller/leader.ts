import {
  API_VERSION,
  DEFAULT_REUSE_DELAY_SECONDS,
  IP_ALLOCATION,
  IP_POOL,
  IPAllocation,
  type Condition,
  type IPPool,
} from '../api/index.ts';
import {
  countingFor,
  STICKY_ANNOTATION,
  type Book,
  type Clock,
  type Finding,
  type Invariant,
  type Random,
} from '../ipam/index.ts';
import {
  allocationStore,
  conditionalWrites,
  EMPTIED,
  getNode,
  getPod,
  getStatefulSetSize,
  nodeSubnetStore,
  pathOf,
  poolStore,
  type EventRecord,
  type EventRecorder,
  type KubeClient,
  type Log,
  type Node,
} from '../kube/index.ts';
import { cidrHasAddress, cidrsOverlap, formatAddress, type CIDR } from '../net/index.ts';
import type { Settings } from '../settings.ts';
import { indexedAllocation, statefulSetKey, type IndexedAllocation } from './allocation-index.ts';
import { createAudit, type Audit } from './audit.ts';
import type { ControllerCaches } from './caches.ts';
import { createGoneNodes, type FreedOfNode, type GoneNodesCluster } from './gone-nodes.ts';
import { createKeptAddresses, type KeptAddressesCluster } from './kept-addresses.ts';
import { poolObject } from './pool-object.ts';
import { createPools, type PoolObserver, type PoolsCluster } from './pools.ts';
import { createWorkQueue, type QueueObserver, type WorkQueue } from './queue.ts';
import { createRateLimit } from './rate.ts';
import { createSilentAgents } from './silent-agents.ts';

/** Is told what the leader does. */
export interface LeaderObserver {
  readonly pools: PoolObserver;
  readonly queues: Readonly<Record<'pools' | 'nodes' | 'statefulSets', QueueObserver>>;
  /** It has deleted so many objects of a node that is gone. */
  freedOfNode(freed: { readonly allocations: number; readonly subnets: number }): void;
  /** It has deleted an address that was kept for a pod of a StatefulSet. */
  freedKept(): void;
  /** It leads no longer: what it knew of the pools is the next leader's to tell. */
  deposed(): void;
}

export interface LeaderParts {
  readonly client: KubeClient;
  readonly caches: ControllerCaches;
  readonly events: EventRecorder;
  readonly settings: Settings;
  readonly observer: LeaderObserver;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Told after each audit how many findings stand, by invariant. */
  readonly onFindings: (counts: ReadonlyMap<Invariant, number>) => void;
  /** Told after each look for how long agents have been silent, by node. */
  readonly onSilentAgents: (forMs: ReadonlyMap<string, number>) => void;
}

/** How long changes are gathered before a pool is counted again: objects come in bursts. */
const GATHER_SUBNETS_MS = 200;
const GATHER_ALLOCATIONS_MS = 2_000;

/**
 * What the leader does until `signal` aborts. Everything it remembers begins and ends with it: a new leader, also
 * the same process elected again, starts from the objects.
 */
export async function lead(parts: LeaderParts, signal: AbortSignal): Promise<void> {
  const { caches, settings, observer, clock, random, log } = parts;
  await caches.synced;
  const onFailure = (key: string, error: unknown) => {
    log.error({ key, err: error }, 'reconciling failed: trying again');
  };
  const audit = createAudit({
    book: () => bookOf(caches),
    clock,
    everyMs: settings.auditMs,
    graceMs: settings.graceMs,
    quarantineMs: settings.quarantineMs,
    onChange: (pool) => pools.add(pool),
    onFound: (finding) => {
      log.warn({ ...finding }, `the audit found: ${finding.message}`);
      const event = eventOfFinding(finding, caches);
      if (event !== undefined) parts.events.record(event);
    },
    onFindings: parts.onFindings,
    log,
  });
  const pools = createWorkQueue({
    clock,
    random,
    onFailure,
    observer: observer.queues.pools,
    reconcile: createPools({
      cluster: poolsCluster(parts, audit),
      clock,
      observer: observer.pools,
      statusMs: settings.statusMs,
      deletionMs: settings.poolDeletionMs,
    }),
  });
  const nodes = createWorkQueue({
    clock,
    random,
    onFailure,
    observer: observer.queues.nodes,
    reconcile: createGoneNodes({
      cluster: goneNodesCluster(parts),
      clock,
      quarantineMs: settings.quarantineMs,
      mayDelete: createRateLimit(settings.deletesPerSecond, clock),
      onFreed: (freed) => {
        const counts = { allocations: freed.allocations.length, subnets: freed.subnets.length };
        observer.freedOfNode(counts);
        const { nodeName, emptied } = freed;
        log.info({ nodeName, ...counts, emptied: emptied.length }, 'freed what a gone node held');
        for (const event of eventsOfGoneNode(freed, caches)) parts.events.record(event);
      },
    }),
  });
  const statefulSets = createWorkQueue({
    clock,
    random,
    onFailure,
    observer: observer.queues.statefulSets,
    reconcile: createKeptAddresses({
      cluster: keptAddressesCluster(parts),
      clock,
      keepMs: settings.stickyKeepMs,
      mayDelete: createRateLimit(settings.deletesPerSecond, clock),
      onFreed: (statefulSet, { metadata: { name }, spec, sticky = '' }) => {
        observer.freedKept();
        log.info({ statefulSet, address: name }, 'freed a sticky address for which no pod will come');
        const text =
          `${formatAddress(spec.address)}, kept for pod ${sticky}, was freed: StatefulSet ${statefulSet} has no such ` +
          'pod any more, or the pod no longer asks for it';
        for (const event of eventsOnPool(spec.pool, text, caches)) parts.events.record(event);
      },
    }),
  });
  const silentAgents = createSilentAgents({
    holders: () => holders(caches).filter((nodeName) => caches.nodes.has(nodeName)),
    served: () => servedNodes(caches),
    clock,
    everyMs: settings.auditMs,
    afterMs: settings.quarantineMs,
    onSilent: (nodeName, forMs) => {
      const event = eventOfSilence(nodeName, forMs, caches);
      log.warn({ node: nodeName, forMs }, 'the agent of a node that holds addresses is not Ready');
      if (event !== undefined) parts.events.record(event);
    },
    onLooked: parts.onSilentAgents,
    log,
  });
  const unsubscribe = wakeOnChange(caches, { pools, nodes, statefulSets });
  try {
    for (const name of caches.pools.keys()) pools.add(name);
    for (const nodeName of holders(caches)) nodes.add(nodeName);
    for (const key of caches.index.statefulSets()) statefulSets.add(key);
    await Promise.all([pools, nodes, statefulSets, audit, silentAgents].map((part) => part.run(signal)));
  } finally {
    unsubscribe();
    observer.deposed();
  }
}

/** The names of nodes that have subnets or addresses, some of them more than once. */
function holders({ index, subnets }: ControllerCaches): string[] {
  return [...index.nodeNames(), ...subnets.list().map(({ spec }) => spec.nodeName)];
}

/** The nodes on which an agent serves, or waits to; undefined while that is not known. */
function servedNodes({ agents }: ControllerCaches): ReadonlySet<string> | undefined {
  if (!agents.isSynced || !agents.isAlive()) return undefined;
  return new Set(agents.list().flatMap(({ nodeName, isReady }) => (isReady ? (nodeName ?? []) : [])));
}

function eventOfSilence(nodeName: string, forMs: number, caches: ControllerCaches): EventRecord | undefined {
  const uid = caches.nodes.get(nodeName)?.uid;
  if (uid === undefined) return undefined;
  const subnets = caches.subnets.list().filter(({ spec }) => spec.nodeName === nodeName).length;
  const addresses = caches.index.ofNode(nodeName).length;
  return {
    object: { apiVersion: 'v1', kind: 'Node', name: nodeName, uid },
    type: 'Warning',
    reason: 'AgentSilent',
    message:
      `weft-agent has not been Ready on this node for ${Math.round(forMs / 60_000)} min. The node keeps all it holds ` +
      `(${addresses} addresses, ${subnets} subnets) as long as its Node exists: nobody else can know what runs there. ` +
      'If the machine will not come back, delete its Node, and they come free',
  };
}

/** On each pool that the node held something of: its Node is no longer there to tell of it. */
function eventsOfGoneNode(
  { nodeName, allocations, emptied, subnets }: FreedOfNode,
  caches: ControllerCaches,
): EventRecord[] {
  const ofPool = (one: { readonly spec: { readonly pool: string } }, pool: string) => one.spec.pool === pool;
  const pools = new Set([...allocations, ...emptied, ...subnets].map(({ spec }) => spec.pool));
  return [...pools].flatMap((pool) => {
    const counted = [
      [allocations.filter((one) => ofPool(one, pool)).length, 'addresses'],
      [emptied.filter((one) => ofPool(one, pool)).length, 'sticky addresses, which their pods keep'],
      [subnets.filter((one) => ofPool(one, pool)).length, 'node subnets'],
    ] as const;
    const freed = counted.flatMap(([count, what]) => (count > 0 ? [`${count} ${what}`] : []));
    return eventsOnPool(pool, `freed of node ${nodeName}, which is gone: ${freed.join('; ')}`, caches);
  });
}

/** None where the pool is gone, too. */
function eventsOnPool(name: string, message: string, { pools }: ControllerCaches): EventRecord[] {
  const pool = pools.get(name);
  return pool === undefined
    ? []
    : [{ object: poolObject(pool), type: 'Normal', reason: 'AddressesReclaimed', message }];
}

/** An event only wakes: what is done about it is read from the caches then. */
function wakeOnChange(
  caches: ControllerCaches,
  { pools, nodes, statefulSets }: Readonly<Record<'pools' | 'nodes' | 'statefulSets', WorkQueue>>,
): () => void {
  const wakeAllPools = () => {
    for (const name of caches.pools.keys()) pools.addAfter(name, GATHER_SUBNETS_MS);
  };
  /** Also the pools in whose ranges it lies: what others have there is not free. */
  const wakePools = (named: string, liesIn: (cidr: CIDR) => boolean, afterMs: number) => {
    pools.addAfter(named, afterMs);
    for (const { metadata, spec } of caches.pools.list()) {
      if (metadata.name !== named && spec.cidrs.some(liesIn)) pools.addAfter(metadata.name, afterMs);
    }
  };
  const wakeIfGone = (nodeName: string | undefined) => {
    if (nodeName !== undefined && !caches.nodes.has(nodeName)) nodes.addAfter(nodeName, GATHER_SUBNETS_MS);
  };
  const ended = [
    caches.pools.onChange(({ key, before, after }) => {
      pools.add(key);
      // Whether one pool overlaps another is shown on the other, too. Statuses come often and say nothing of it.
      // One that was made anew begins with the generation that the one before it may have had.
      const isSame =
        before?.metadata.uid === after?.metadata.uid &&
        before?.metadata.generation === after?.metadata.generation;
      if (!isSame) wakeAllPools();
    }),
    caches.subnets.onChange(({ before, after }) => {
      for (const subnet of [before, after]) {
        if (subnet === undefined) continue;
        const { cidr, pool } = subnet.spec;
        wakePools(pool, (its) => cidrsOverlap(its, cidr), GATHER_SUBNETS_MS);
        wakeIfGone(subnet.spec.nodeName);
      }
    }),
    caches.allocations.onChange(({ before, after }) => {
      for (const allocation of [before, after]) {
        if (allocation === undefined) continue;
        const { address, pool } = allocation.spec;
        wakePools(pool, (its) => cidrHasAddress(its, address), GATHER_ALLOCATIONS_MS);
        wakeIfGone(allocation.nodeName);
      }
      const statefulSet = after === undefined ? undefined : statefulSetKey(after);
      if (statefulSet !== undefined) statefulSets.addAfter(statefulSet, GATHER_ALLOCATIONS_MS);
    }),
    caches.onServiceCIDRs(wakeAllPools),
    caches.nodes.onChange(({ key, before, after }) => {
      if (before === undefined || after === undefined) nodes.add(key);
      if (whatPoolsSee(before) !== whatPoolsSee(after)) wakeAllPools();
    }),
  ];
  return () => {
    for (const end of ended) end();
  };
}

/** Of a Node, all that the status of a pool depends on, as text. */
function whatPoolsSee(node: Node | undefined): string {
  return JSON.stringify([node?.addresses.map(formatAddress), node?.labels]);
}

/** All that the caches hold; undefined while one of them may be behind. */
function bookOf(caches: ControllerCaches): Book | undefined {
  const kinds = {
    IPPool: caches.pools,
    NodeSubnet: caches.subnets,
    IPAllocation: caches.allocations,
    Node: caches.nodes,
  } as const;
  if (!Object.values(kinds).every((informer) => informer.isSynced && informer.isAlive())) return undefined;
  return {
    pools: caches.pools.list(),
    subnets: caches.subnets.list(),
    allocations: caches.allocations.list(),
    nodes: caches.nodes.list(),
    serviceCIDRs: caches.serviceCIDRs(),
    unreadable: (['IPPool', 'NodeSubnet', 'IPAllocation', 'Node'] as const).flatMap((kind) =>
      [...kinds[kind].unreadable].map(([name, uid]) => ({
        object: { kind, name, uid },
        problem: 'the log of weft-controller says why',
      })),
    ),
  };
}

/** On the pool, where people look; on the object itself where there is no such pool. */
function eventOfFinding(finding: Finding, caches: ControllerCaches): EventRecord | undefined {
  const pool = finding.pool === undefined ? undefined : caches.pools.get(finding.pool);
  const { kind, name, uid } = pool === undefined ? finding.object : { kind: IP_POOL.kind, ...pool.metadata };
  // The log has it, too.
  if (uid === undefined) return undefined;
  const apiVersion = kind === 'Node' ? 'v1' : API_VERSION;
  const { reason, message } = finding;
  return { object: { apiVersion, kind, name, uid }, type: 'Warning', reason, message };
}

function poolsCluster({ client, caches, events, settings }: LeaderParts, audit: Audit): PoolsCluster {
  const store = poolStore(client, caches.pools);
  const subnets = nodeSubnetStore(client, caches.subnets);
  return {
    pool: caches.pools.get,
    subnets: caches.subnets.list,
    factsOf: (pool) => ({
      pools: caches.pools.list(),
      subnets: caches.subnets.list(),
      allocations: allocationsThatMatter(pool, caches),
      nodeAddresses: caches.nodes.list().flatMap(({ addresses }) => addresses),
      labelsOf: (nodeName) => caches.nodes.get(nodeName)?.labels,
      serviceCIDRs: caches.serviceCIDRs(),
      nearlyExhausted: settings.nearlyExhausted,
      findings: audit.findingsOf(pool.metadata.name),
    }),
    listSubnets: (pool, signal) => subnets.listOfPool(pool.metadata.name, signal),
    addFinalizer: store.addFinalizer,
    removeFinalizer: store.removeFinalizer,
    writeStatus: store.writePoolStatus,
    announce: (pool, condition) => {
      events.record(eventOf(pool, condition));
    },
  };
}

/** Those that the pool's status counts. */
function allocationsThatMatter(
  pool: IPPool,
  { index, pools, subnets }: ControllerCaches,
): IndexedAllocation[] {
  const counts = countingFor(pool, pools.list(), subnets.list());
  return [
    ...index.poolNames().filter(counts).flatMap(index.ofPool),
    ...index.withoutNode().filter(({ spec }) => !counts(spec.pool)),
  ];
}

/** What people call it when a condition holds no longer, where that is a word. */
const ENDED: Readonly<Record<string, string>> = { Draining: 'Drained', PeersUnmatched: 'PeersMatched' };

function eventOf(pool: IPPool, { type, status, message }: Condition) {
  const isGood = type === 'Ready' || type === 'Consistent';
  const harmless = type === 'Draining' || (status === 'True') === isGood;
  return {
    object: poolObject(pool),
    type: harmless ? ('Normal' as const) : ('Warning' as const),
    reason: status === 'True' ? type : (ENDED[type] ?? `Not${type}`),
    message,
  };
}

function goneNodesCluster({ client, caches }: LeaderParts): GoneNodesCluster {
  const lists = allocationStore(client);
  const allocations = allocationWrites(client, caches);
  const subnets = nodeSubnetStore(client, caches.subnets);
  return {
    nodeIsKnown: caches.nodes.has,
    subnetsOfNode: (nodeName) => caches.subnets.list().filter(({ spec }) => spec.nodeName === nodeName),
    allocationsOfNode: caches.index.ofNode,
    reuseDelayMs: (pool) => reuseDelayMs(pool, caches),
    nodeExists: async (nodeName, signal) => (await getNode(client, nodeName, signal)) !== undefined,
    listAllocationsOfNode: async (nodeName, signal) =>
      (await lists.listOfNode(nodeName, signal)).map(indexedAllocation),
    deleteAllocation: allocations.delete,
    emptyAllocation: allocations.empty,
    deleteSubnet: subnets.delete,
  };
}

/** A pool that is gone no longer says. */
function reuseDelayMs(pool: string, { pools }: ControllerCaches): number {
  return (pools.get(pool)?.spec.reuseDelaySeconds ?? DEFAULT_REUSE_DELAY_SECONDS) * 1_000;
}

function keptAddressesCluster({ client, caches }: LeaderParts): KeptAddressesCluster {
  return {
    keptFor: caches.index.keptFor,
    reuseDelayMs: (pool) => reuseDelayMs(pool, caches),
    sizeOf: (statefulSet, signal) => {
      const [namespace = '', name = ''] = statefulSet.split('/');
      return getStatefulSetSize(client, { namespace, name }, signal);
    },
    async asksToKeep(key, signal) {
      const [namespace = '', name = ''] = key.split('/');
      const pod = await getPod(client, { namespace, name }, signal);
      if (pod === undefined || pod.isTerminating) return undefined;
      // With anything else in it the ADD fails, and nothing is settled.
      const asked = pod.annotations[STICKY_ANNOTATION];
      return asked !== undefined && asked !== 'false';
    },
    deleteAllocation: allocationWrites(client, caches).delete,
  };
}

/** Of an allocation the controller keeps only the little that a condition needs. */
function allocationWrites(client: KubeClient, { allocations }: ControllerCaches) {
  const parse = (object: unknown) => IPAllocation.parse(object);
  const writes = conditionalWrites(client, pathOf(IP_ALLOCATION), parse, allocations);
  return {
    delete: writes.delete,
    empty: (seen: IndexedAllocation, signal: AbortSignal) =>
      writes.patch(seen, { spec: EMPTIED }, { signal }),
  };
}
