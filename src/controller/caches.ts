import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  watchAgents,
  watchAllAllocations,
  watchNodes,
  watchNodeSubnets,
  watchPools,
  watchServiceCIDRs,
  type AgentPod,
  type Informer,
  type InformerParts,
  type Node,
} from '../kube/index.ts';
import type { CIDR } from '../net/index.ts';
import {
  createAllocationIndex,
  indexedAllocation,
  type AllocationIndex,
  type IndexedAllocation,
} from './allocation-index.ts';

/** What the controller watches. */
export interface ControllerCaches {
  readonly pools: Informer<IPPool>;
  readonly subnets: Informer<NodeSubnet>;
  readonly nodes: Informer<Node>;
  readonly allocations: Informer<IndexedAllocation>;
  /** Of weft's own namespace. Not among the kinds that must be complete: nothing but a word to people follows from it. */
  readonly agents: Informer<AgentPod>;
  /** The same allocations, by pool and by node. */
  readonly index: AllocationIndex;
  /** The ranges of Services; undefined: nobody tells. */
  serviceCIDRs(): readonly CIDR[] | undefined;
  /** Told when they change. Returns what ends it. */
  onServiceCIDRs(listener: () => void): () => void;
  /** Which of the kinds have not been listed completely yet. */
  missing(): string[];
  /** Resolves when all have been complete once. */
  readonly synced: Promise<void>;
  /** etcd is back at an older state: all is listed again, the old caches in use meanwhile. */
  startAfresh(): void;
  stop(): Promise<void>;
}

/** Agents must not all list at once; a controller has few replicas. */
const RELIST_JITTER_MS = 1_000;

/** Starts to watch. `serviceCIDRs`: ranges of Services for apiservers that do not tell them. `namespace`: weft's own. */
export async function watchCluster(
  { relistJitterMs = RELIST_JITTER_MS, ...others }: InformerParts,
  { serviceCIDRs: given, namespace }: { readonly serviceCIDRs: readonly CIDR[]; readonly namespace: string },
  signal: AbortSignal,
): Promise<ControllerCaches> {
  const parts = { ...others, relistJitterMs };
  const services = await watchServiceCIDRs(parts, signal);
  const pools = watchPools(parts);
  const subnets = watchNodeSubnets(parts);
  const nodes = watchNodes(parts);
  const allocations = watchAllAllocations(parts, indexedAllocation);
  const agents = watchAgents(parts, namespace);
  // Before the first list is answered, so that it misses none of it.
  const index = createAllocationIndex();
  allocations.onChange(({ before, after }) => {
    index.change(before, after);
  });
  const all = { IPPools: pools, NodeSubnets: subnets, Nodes: nodes, IPAllocations: allocations };
  const informers = [...Object.values(all), ...(services === undefined ? [] : [services])];
  return {
    pools,
    subnets,
    nodes,
    allocations,
    agents,
    index,
    serviceCIDRs() {
      if (services !== undefined) return services.list().flat();
      return given.length > 0 ? given : undefined;
    },
    onServiceCIDRs: (listener) => services?.onChange(listener) ?? (() => undefined),
    missing: () => Object.entries(all).flatMap(([kind, informer]) => (informer.isSynced ? [] : [kind])),
    synced: Promise.all(informers.map(({ synced }) => synced)).then(() => undefined),
    startAfresh() {
      for (const informer of [...informers, agents]) informer.startAfresh();
    },
    async stop() {
      await Promise.all([...informers, agents].map((informer) => informer.stop()));
    },
  };
}
