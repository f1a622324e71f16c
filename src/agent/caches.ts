import type { IPAllocation, IPPool, NodeSubnet, PodReference } from '../api/index.ts';
import type { ClaimingNode } from '../ipam/index.ts';
import {
  isPodOf,
  watchAllocationsOfNode,
  watchNamespaces,
  watchNode,
  watchNodeSubnets,
  watchPodsOfNode,
  watchPools,
  type ConditionState,
  type Informer,
  type InformerParts,
  type Namespace,
  type Node,
  type Pod,
} from '../kube/index.ts';
import { formatAddress, sameAddress, type IPAddress } from '../net/index.ts';
import type { OwnAllocations } from './parts.ts';
import type { NodeSources } from './sync.ts';

/**
 * What an agent watches: all pools, node subnets and namespaces (their metadata), and of the rest only what is its own
 * node's.
 */
export interface AgentCaches {
  readonly pools: Informer<IPPool>;
  readonly subnets: Informer<NodeSubnet>;
  /** Those of them that bear this Node's name, kept apart: a cluster has thousands, and ADDs ask for these. */
  subnetsOfNode(): NodeSubnet[];
  /**
   * Whether a node speaks by that address: this one, one that holds a subnet which is routed to it, or one that the
   * controller has found inside the pool.
   */
  isNodeAddress(address: IPAddress, pool: IPPool): boolean;
  readonly allocations: OwnAllocations & {
    /** Where own writes are laid over the cache. */
    readonly feed: Informer<IPAllocation>;
    /** Whether the cache is complete and its watch lives. */
    isLiving(): boolean;
    /** Resolves when it does. */
    living(signal: AbortSignal): Promise<void>;
  };
  /** Resolves when all have been listed completely once and this node's Node is there. */
  synced(signal: AbortSignal): Promise<void>;
  /** This node, as its Node object says or last said: an agent outlives its Node for a while. */
  node(): ClaimingNode;
  /** Whether the Node says that its network does not work yet. */
  networkUnavailable(): boolean;
  /** What the Node says of this agent's audit (audit.ts). */
  consistent(): ConditionState | undefined;
  /** What routes and filters are derived from; undefined before the first complete lists. */
  nodeSources(): Omit<NodeSources, 'dnsServers'> | undefined;
  readonly namespaces: Informer<Namespace>;
  /** The pods bound to this node; keys are `namespace/name`. */
  readonly pods: Informer<Pod>;
  /** The pod of that UID, mirror pods by the UID that their kubelet uses. */
  podOf(podUID: string): PodReference | undefined;
  /** Calls the listener when a pool, a node subnet or this Node has changed. */
  onNodeChange(listener: () => void): void;
  /** Calls the listener when a pod has been bound to this node. */
  onPodBound(listener: () => void): void;
  /** Calls the listener with each sign that etcd has gone back to an older state; by then all is listed again. */
  onWentBack(listener: (sign: string) => void): void;
  /** Resolves when the lists for that have been read. They may be of the state before, all the same (Informer). */
  listedAfresh(signal: AbortSignal): Promise<void>;
  /** A sign that no cache can see by itself. */
  wentBack(sign: string): void;
  stop(): Promise<void>;
}

/** This node's Node object has not been seen yet. */
export class NodeUnknownError extends Error {
  override name = 'NodeUnknownError' as const;

  constructor(nodeName: string) {
    super(`there is no Node "${nodeName}" in the cluster yet; is --node-name right?`);
  }
}

export function watchObjects(given: InformerParts, nodeName: string): AgentCaches {
  const signListeners: ((sign: string) => void)[] = [];
  const wentBack = (sign: string) => {
    for (const informer of all) informer.startAfresh();
    for (const listener of signListeners) listener(sign);
  };
  const parts = { ...given, onWentBack: wentBack };
  const pools = watchPools(parts);
  const subnets = watchNodeSubnets(parts);
  const namedForNode = indexByNode(subnets, nodeName);
  const nextHops = indexNextHops(subnets);
  const nodes = watchNode(parts, nodeName);
  const pods = watchPodsOfNode(parts, nodeName);
  const allocations = watchAllocationsOfNode(parts, nodeName);
  const namespaces = watchNamespaces(parts);
  const all = [pools, subnets, nodes, pods, namespaces, allocations];
  let lastNode: Node | undefined;

  const isLiving = () => allocations.isSynced && allocations.isAlive();
  const currentNode = () => (lastNode = nodes.get(nodeName) ?? lastNode);
  const node = (): ClaimingNode => {
    const known = currentNode();
    if (known === undefined) throw new NodeUnknownError(nodeName);
    return { name: known.name, uid: known.uid, labels: known.labels, addresses: known.addresses };
  };

  return {
    pools,
    subnets,
    subnetsOfNode: () => [...namedForNode.values()],
    isNodeAddress(address, { status }) {
      const isIt = (one: IPAddress) => sameAddress(one, address);
      return (
        nextHops.has(address) ||
        currentNode()?.addresses.some(isIt) === true ||
        status?.nodeAddresses?.some(isIt) === true
      );
    },
    allocations: {
      has: allocations.has,
      keys: allocations.keys,
      get: allocations.get,
      values: allocations.list,
      get size() {
        return [...allocations.keys()].length;
      },
      feed: allocations,
      isLiving,
      living: (signal) => allocations.waitFor(isLiving, signal),
    },
    async synced(signal) {
      for (const informer of all) await informer.waitFor(() => informer.isSynced, signal);
      await nodes.waitFor(() => currentNode() !== undefined, signal);
    },
    node,
    namespaces,
    pods,
    networkUnavailable: () => currentNode()?.networkUnavailable === true,
    consistent: () => currentNode()?.consistent,
    nodeSources() {
      if (!pools.isSynced || !subnets.isSynced || currentNode() === undefined) return undefined;
      return { node: node(), pools: pools.list(), subnets: subnets.list() };
    },
    podOf(podUID) {
      const pod = pods.list().find((candidate) => isPodOf(candidate, podUID));
      return pod === undefined ? undefined : { namespace: pod.namespace, name: pod.name, uid: podUID };
    },
    onNodeChange(listener) {
      pools.onChange(({ before, after }) => {
        // A status changes no generation and matters to no node.
        const same =
          before?.metadata.uid === after?.metadata.uid &&
          before?.metadata.generation === after?.metadata.generation &&
          before?.metadata.deletionTimestamp === after?.metadata.deletionTimestamp;
        if (!same) listener();
      });
      subnets.onChange(listener);
      nodes.onChange(listener);
    },
    onPodBound(listener) {
      pods.onChange(({ before }) => {
        if (before === undefined) listener();
      });
    },
    onWentBack: (listener) => void signListeners.push(listener),
    async listedAfresh(signal) {
      for (const informer of all) await informer.waitFor(() => !informer.isStartingAfresh, signal);
    },
    wentBack,
    async stop() {
      await Promise.all(all.map((informer) => informer.stop()));
    },
  };
}

/** Which addresses are next hops of subnets. Made before the first list has come. */
export function indexNextHops(subnets: Pick<Informer<NodeSubnet>, 'onChange'>): {
  has(address: IPAddress): boolean;
} {
  // A node has as many subnets as it needs, all with the same next hops.
  const counts = new Map<string, number>();
  const add = (address: IPAddress, step: 1 | -1) => {
    const key = formatAddress(address);
    const count = (counts.get(key) ?? 0) + step;
    if (count === 0) counts.delete(key);
    else counts.set(key, count);
  };
  subnets.onChange(({ before, after }) => {
    for (const hop of before?.spec.nextHops ?? []) add(hop, -1);
    for (const hop of after?.spec.nextHops ?? []) add(hop, 1);
  });
  return { has: (address) => counts.has(formatAddress(address)) };
}

/** The node's subnets by name, own writes included. Made before the first list has come. */
export function indexByNode(
  subnets: Pick<Informer<NodeSubnet>, 'onChange'>,
  nodeName: string,
): ReadonlyMap<string, NodeSubnet> {
  const byName = new Map<string, NodeSubnet>();
  subnets.onChange(({ key, after }) => {
    if (after?.spec.nodeName === nodeName) byName.set(key, after);
    else byName.delete(key);
  });
  return byName;
}
