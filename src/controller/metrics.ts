import type { IPPoolStatus, PoolUsage } from '../api/index.ts';
import { countByInvariant, type Clock, type Invariant } from '../ipam/index.ts';
import type { EventOutcome, RequestObserver } from '../kube/index.ts';
import {
  addProcessMetrics,
  createEtcdMetrics,
  createEventMetrics,
  createMetricsRegistry,
  createRequestMetrics,
  type MetricsRegistry,
  type Sample,
} from '../metrics/index.ts';
import { FAMILIES } from '../net/index.ts';
import type { LeaderObserver } from './leader.ts';
import type { QueueObserver } from './queue.ts';

/** What a controller tells Prometheus: the observers of its parts, each of which knows only its own interface. */
export interface ControllerMetrics {
  readonly registry: MetricsRegistry;
  readonly requests: RequestObserver;
  readonly events: (outcome: EventOutcome) => void;
  readonly leader: LeaderObserver;
  /** How many findings the audit has, by invariant. */
  audited(counts: ReadonlyMap<Invariant, number>): void;
  /** For how long agents have been silent, by node. */
  silent(forMs: ReadonlyMap<string, number>): void;
  /** The leader has seen that etcd is back at an older state. */
  etcdWentBack(): void;
  /** From now on the gauge of leadership is read from there. */
  readFrom(sources: { readonly isLeading: () => boolean }): void;
}

export function createControllerMetrics(clock: Pick<Clock, 'nowMs'>): ControllerMetrics {
  const registry = createMetricsRegistry();
  let isLeading = () => false;
  registry.gauge(
    {
      name: 'weft_leader',
      help: '1 while this replica leads. The sum over all replicas is 1, but for moments; 0 for longer: nobody works.',
    },
    () => [{ value: isLeading() ? 1 : 0 }],
  );
  const pools = poolGauges(registry);
  const queues = queueObservers(registry);
  const freed = registry.counts({
    name: 'weft_gone_node_deletions_total',
    help: 'Objects of nodes that are gone which the controller deleted: the addresses first, then the subnets.',
    labels: ['resource'],
    known: [['ipallocations'], ['nodesubnets']],
  });
  const freedKept = registry.count({
    name: 'weft_kept_addresses_freed_total',
    help: 'Addresses that were kept for pods of StatefulSets and that the controller freed, since no pod will come for them.',
  });
  /** Undefined: this replica has not looked yet, or leads no longer. */
  let findings: ReadonlyMap<Invariant, number> | undefined;
  registry.gauge(
    {
      name: 'weft_audit_findings',
      help:
        'What the audit of the objects found, by invariant, while this replica leads; the conditions Consistent of the ' +
        'pools and Events say what. Above 0: two objects contradict each other, and somebody must look. 0 also until the first look is over. Told by the leader alone.',
      labels: ['invariant'],
    },
    // From the first moment of leading, so that what comes later is seen to rise.
    () =>
      [...(findings ?? (isLeading() ? countByInvariant([]) : []))].map(([invariant, value]) => ({
        labels: [String(invariant)],
        value,
      })),
  );
  let silence: ReadonlyMap<string, number> = new Map();
  registry.gauge(
    {
      name: 'weft_agent_silent_seconds',
      help:
        'For how long no agent has been Ready on a node that holds subnets or addresses, from five minutes on. The node ' +
        'keeps all of it; delete the Node of a machine that will not come back. Told by the leader alone.',
      labels: ['node'],
    },
    () => [...silence].map(([nodeName, ms]) => ({ labels: [nodeName], value: ms / 1000 })),
  );
  const etcdWentBack = createEtcdMetrics(registry);
  const events = createEventMetrics(registry);
  const requests = createRequestMetrics(registry, clock);
  addProcessMetrics(registry, 'controller');
  return {
    registry,
    requests,
    events,
    leader: {
      pools: {
        computed: (name, status) => pools.set(name, status),
        gone: (name) => pools.delete(name),
      },
      queues,
      freedOfNode({ allocations, subnets }) {
        freed('ipallocations')(allocations);
        freed('nodesubnets')(subnets);
      },
      freedKept,
      deposed() {
        pools.clear();
        findings = undefined;
        silence = new Map();
      },
    },
    audited(counts) {
      findings = counts;
    },
    silent(forMs) {
      silence = forMs;
    },
    etcdWentBack,
    readFrom(sources) {
      isLeading = sources.isLeading;
    },
  };
}

const USAGE_GAUGES: readonly {
  readonly name: string;
  readonly help: string;
  readonly of: (usage: PoolUsage) => bigint;
}[] = [
  {
    name: 'weft_pool_addresses_capacity',
    help: 'All addresses of the pool: of its CIDRs, and of subnets that are left of CIDRs it no longer lists.',
    of: ({ capacity }) => BigInt(capacity),
  },
  {
    name: 'weft_pool_addresses_allocated',
    help: 'Addresses of the pool that a sandbox or a holder has.',
    of: ({ allocated }) => BigInt(allocated),
  },
  {
    name: 'weft_pool_addresses_resting',
    help: 'Released addresses of the pool whose reuse delay runs: nobody gets them yet.',
    of: ({ resting }) => BigInt(resting),
  },
  {
    name: 'weft_pool_addresses_reserved',
    help: 'Addresses of the pool that nobody gets: the first of each subnet, what is drained, what others hold.',
    of: ({ reserved }) => BigInt(reserved),
  },
  {
    name: 'weft_pool_addresses_free',
    help:
      'Addresses of the pool that a pod could get. A node draws from its own subnets alone: it may be full while ' +
      'others are not. Capacity is allocated, resting, reserved and free together.',
    of: ({ free }) => BigInt(free),
  },
  {
    name: 'weft_pool_subnets_held',
    help: 'Subnets of the pool that nodes hold.',
    of: ({ nodeSubnets }) => BigInt(nodeSubnets),
  },
  {
    name: 'weft_pool_subnets_free',
    help: 'Subnets that nodes can still claim from the pool. At 0 a node that is full stays full.',
    of: ({ freeSubnets }) => BigInt(freeSubnets),
  },
];

/**
 * The figures of the status, as they were last computed: the status itself may lag by its interval. Those of the
 * leader alone, so that a sum over the replicas counts nothing twice; they go when it leads no longer.
 */
function poolGauges(registry: MetricsRegistry): Map<string, IPPoolStatus> {
  const statuses = new Map<string, IPPoolStatus>();
  const usages = (of: (usage: PoolUsage) => bigint): Sample[] =>
    [...statuses].flatMap(([pool, status]) =>
      FAMILIES.flatMap((family) => {
        const usage = status[family];
        return usage === undefined ? [] : [{ labels: [pool, family], value: of(usage) }];
      }),
    );
  for (const { name, help, of } of USAGE_GAUGES) {
    registry.gauge({ name, help: `${help} Told by the leader alone.`, labels: ['pool', 'family'] }, () =>
      usages(of),
    );
  }
  registry.gauge(
    {
      name: 'weft_pool_condition',
      help:
        "The pool's conditions: 1 where it holds, 0 where it does not. Exhausted is the one to be woken for, Ready at " +
        '0 the other. Told by the leader alone.',
      labels: ['pool', 'condition'],
    },
    () =>
      [...statuses].flatMap(([pool, { conditions = [] }]) =>
        conditions.map(({ type, status }) => ({ labels: [pool, type], value: status === 'True' ? 1 : 0 })),
      ),
  );
  return statuses;
}

const QUEUES = ['pools', 'nodes', 'statefulsets'] as const;

function queueObservers(registry: MetricsRegistry): LeaderObserver['queues'] {
  const depths = new Map<string, number>(QUEUES.map((queue) => [queue, 0]));
  registry.gauge(
    {
      name: 'weft_workqueue_depth',
      help: 'Keys that wait to be reconciled. One that stays high: the controller does not keep up.',
      labels: ['queue'],
    },
    () => [...depths].map(([queue, value]) => ({ labels: [queue], value })),
  );
  const perQueue = { labels: ['queue'], known: QUEUES.map((queue) => [queue]) };
  const adds = registry.counts({
    name: 'weft_workqueue_adds_total',
    help: 'Keys that came to wait; one that waits already is not counted again.',
    ...perQueue,
  });
  const retries = registry.counts({
    name: 'weft_workqueue_retries_total',
    help: 'Keys whose reconciliation failed and is tried again, later each time; the log says why.',
    ...perQueue,
  });
  const durations = registry.histogram({
    name: 'weft_workqueue_work_duration_seconds',
    help: 'How long reconciling one key took, failures counted.',
    buckets: [0.001, 0.01, 0.1, 1, 10, 60],
    ...perQueue,
  });
  const observer = (queue: (typeof QUEUES)[number]): QueueObserver => ({
    waiting: (keys) => depths.set(queue, keys),
    added: adds(queue),
    reconciled(outcome, ms) {
      if (outcome === 'retried') retries(queue)();
      durations(queue)(ms / 1000);
    },
  });
  return {
    pools: observer('pools'),
    nodes: observer('nodes'),
    statefulSets: observer('statefulsets'),
  };
}
