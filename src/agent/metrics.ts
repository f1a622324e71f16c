import type { IPPool, NodeSubnet } from '../api/index.ts';
import {
  countByInvariant,
  isGeneral,
  usableFamilies,
  type ClaimingNode,
  type ClaimObserver,
  type Clock,
  type Invariant,
  type PendingReleases,
  type ReleaseObserver,
} from '../ipam/index.ts';
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
import type { ClaimOutcome } from './claim.ts';
import type { SubnetObserver } from './node-subnets.ts';
import type { CallObserver } from './server.ts';
import type { SweepSummary } from './sweep.ts';
import type { Unmet } from './sync.ts';

/** What an agent tells Prometheus: the observers of its parts, each of which knows only its own interface. */
export interface AgentMetrics {
  readonly registry: MetricsRegistry;
  readonly requests: RequestObserver;
  readonly events: (outcome: EventOutcome) => void;
  readonly calls: CallObserver;
  readonly claims: ClaimObserver;
  readonly claimEnded: (outcome: ClaimOutcome) => void;
  readonly releases: ReleaseObserver & { retried(): void };
  readonly subnets: SubnetObserver;
  driftRepaired(objects: number): void;
  /** This node has seen that etcd is back at an older state. */
  etcdWentBack(): void;
  unmet(unmet: Unmet): void;
  /** How many findings the audit of the node has, by invariant. */
  audited(counts: ReadonlyMap<Invariant, number>): void;
  /** A pass over the tracked connections of released addresses has ended so many, or failed. */
  connectionsEnded(ended: number | 'failed'): void;
  /** The same sweep, counted. */
  counted(sweep: () => Promise<SweepSummary>): () => Promise<SweepSummary>;
  /** From now on the gauges are read from there, at each scrape. */
  readFrom(sources: AgentGaugeSources): void;
}

export interface AgentGaugeSources {
  readonly node: () => ClaimingNode;
  readonly pools: () => readonly IPPool[];
  /** All nodes'. */
  readonly subnets: () => readonly NodeSubnet[];
  readonly pendingReleases: () => PendingReleases;
  readonly broken: () => { readonly forMs: number } | undefined;
}

/**
 * How calls of each verb may be expected to end (cni/error.ts says what the codes mean): each combination is fourteen
 * lines on every node, so what hardly ever happens comes when it does.
 */
const CALL_OUTCOMES = {
  ADD: ['ok', 'gone', '7', '11', '101', '104', '999'],
  DEL: ['ok', '104', '999'],
  CHECK: ['ok', '107'],
  STATUS: ['ok', '50', '51'],
  GC: ['ok'],
};

const RELEASE_STATES: readonly (keyof PendingReleases)[] = ['releasing', 'resting', 'undoing'];

/** The invariants that a node can show to be broken; the others are the leader's to look at. */
const OF_NODES: readonly Invariant[] = [1, 2, 3, 4, 10];

const CLAIM_OUTCOMES: readonly ClaimOutcome[] = [
  'claimed',
  'refused',
  'exhausted',
  'timeout',
  'abandoned',
  'failed',
];

export function createAgentMetrics(clock: Pick<Clock, 'nowMs'>): AgentMetrics {
  const registry = createMetricsRegistry();
  let sources: AgentGaugeSources | undefined;

  const calls = callObserver(registry);
  const claimEnded = registry.counts({
    name: 'weft_claims_total',
    help:
      "Claims of an attachment's addresses by how they ended: claimed; refused, no pool serves and admits it; exhausted, the " +
      'pools that do are full; timeout, the apiserver gave no definite answer; abandoned, a DEL came or the runtime ' +
      'went; failed, anything else.',
    labels: ['result'],
    known: CLAIM_OUTCOMES.map((outcome) => [outcome]),
  });
  const tries = registry.counts({
    name: 'weft_claim_tries_total',
    help:
      'Creates of an IPAllocation by what came of them: created; taken, another has that address; retried, no ' +
      'definite answer came and the same address was tried again. Many taken ones say that the cache lags.',
    labels: ['result'],
    known: [['created'], ['taken'], ['retried']],
  });
  const released = registry.counts({
    name: 'weft_releases_total',
    help: 'Addresses given back, by step: marked, and resting from then on; deleted, and free for others.',
    labels: ['step'],
    known: [['marked'], ['deleted']],
  });
  const releaseRetried = registry.count({
    name: 'weft_release_retries_total',
    help: 'Steps of releases that the apiserver did not answer definitely and that are tried again.',
  });
  const connectionsEnded = registry.count({
    name: 'weft_connections_ended_total',
    help: 'Tracked connections of released addresses that were ended, so that the next owner does not get them.',
  });
  const connectionPasses = registry.counts({
    name: 'weft_connection_passes_total',
    help:
      'Walks through the table of tracked connections for released addresses: done; failed, the log says why, and the ' +
      'next owner of an address may get what is sent to the last one.',
    labels: ['result'],
    known: [['done'], ['failed']],
  });
  registry.gauge(
    {
      name: 'weft_releases_pending',
      help:
        'Releases under way, by state: releasing, the apiserver does not know yet; resting, the reuse delay runs; ' +
        'undoing, it is not known whether a claim has come to be.',
      labels: ['state'],
    },
    () => {
      const pending = sources?.pendingReleases();
      return RELEASE_STATES.map((state) => ({ labels: [state], value: pending?.[state] ?? 0 }));
    },
  );
  const subnetClaims = registry.counts({
    name: 'weft_subnet_claims_total',
    help:
      'Claims of a subnet for this node by what came of them: claimed; taken, another node was faster and the ' +
      'search went on; unavailable, the pool has none left or the claim failed, as the log says.',
    labels: ['result'],
    known: [['claimed'], ['taken'], ['unavailable']],
  });
  const givenBack = registry.count({
    name: 'weft_subnets_given_back_total',
    help: 'Subnets that this node gave back: surplus, drained, or of a deleted pool.',
  });
  registry.gauge(
    {
      name: 'weft_node_subnets',
      help:
        'Subnets that this node holds, by pool and family. There with 0 for pools that every pod of the node may ' +
        'draw from: they should have one each, and without it ADDs wait for it, or fail.',
      labels: ['pool', 'family'],
    },
    () => (sources === undefined ? [] : subnetsHeld(sources)),
  );
  const driftRepaired = registry.count({
    name: 'weft_drift_repaired_total',
    help:
      "Routes, addresses, filters and settings of the node's network that somebody else had changed and weft put " +
      'back; the log names them. A steady rise: another program fights with weft.',
  });
  let unmet: Unmet = { notes: [], refused: [] };
  registry.gauge(
    {
      name: 'weft_unmet_needs',
      help:
        'What this node does without and tries again, by cause: objects, other nodes that cannot be reached by what ' +
        'NodeSubnets and this Node say; kernel, what it refuses of routes, neighbours and MTUs of single nodes or pods. ' +
        'Above 0: pods do not reach all others; the log and Events on the Node name them.',
      labels: ['cause'],
    },
    () => [
      { labels: ['objects'], value: unmet.notes.length },
      { labels: ['kernel'], value: unmet.refused.length },
    ],
  );
  registry.gauge(
    {
      name: 'weft_data_path_broken_seconds',
      help: "For how long the node's routes or filters have not been as they should be; 0: they are. At 60 STATUS fails.",
    },
    () => [{ value: (sources?.broken()?.forMs ?? 0) / 1000 }],
  );
  let findings: ReadonlyMap<Invariant, number> = countByInvariant([]);
  registry.gauge(
    {
      name: 'weft_node_findings',
      help:
        'What the audit of this node found, by invariant: sandboxes without their IPAllocation, IPAllocations without ' +
        'their sandbox, addresses in namespaces that nothing tells of, what the kernel lacks or has too much of, routes of ' +
        "others that take packets for other nodes' pods. Above 0: neither sweep nor sync could mend it; the Node's " +
        'condition WeftConsistent and Events say what. 0 also until it has looked for as long as the grace.',
      labels: ['invariant'],
    },
    () => OF_NODES.map((invariant) => ({ labels: [String(invariant)], value: findings.get(invariant) ?? 0 })),
  );
  const counted = sweepCounter(registry);
  const etcdWentBack = createEtcdMetrics(registry);
  const events = createEventMetrics(registry);
  const requests = createRequestMetrics(registry, clock);
  addProcessMetrics(registry, 'agent');

  return {
    registry,
    requests,
    events,
    calls,
    claims: { created: tries('created'), taken: tries('taken'), retried: tries('retried') },
    claimEnded: (outcome) => {
      claimEnded(outcome)();
    },
    releases: { marked: released('marked'), deleted: released('deleted'), retried: releaseRetried },
    subnets: {
      claimed: subnetClaims('claimed'),
      taken: subnetClaims('taken'),
      unavailable: subnetClaims('unavailable'),
      givenBack,
    },
    driftRepaired,
    etcdWentBack,
    connectionsEnded(ended) {
      connectionPasses(ended === 'failed' ? 'failed' : 'done')();
      if (ended !== 'failed') connectionsEnded(ended);
    },
    unmet(now) {
      unmet = now;
    },
    audited(counts) {
      findings = counts;
    },
    counted,
    readFrom(given) {
      sources = given;
    },
  };
}

function callObserver(registry: MetricsRegistry): CallObserver {
  const durations = registry.histogram({
    name: 'weft_cni_duration_seconds',
    help:
      'CNI calls by verb and result, and how long the agent took for them: ok; the code of the CNI error (11: the ' +
      'kubelet tries again by itself); gone, the runtime did not wait for the answer.',
    labels: ['verb', 'result'],
    known: Object.entries(CALL_OUTCOMES).flatMap(([verb, results]) =>
      results.map((result) => [verb, result]),
    ),
    buckets: [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15, 45],
  });
  return (verb, outcome, ms) => {
    durations(verb ?? 'unknown', String(outcome))(ms / 1000);
  };
}

function sweepCounter(registry: MetricsRegistry): AgentMetrics['counted'] {
  let last: SweepSummary | undefined;
  const sweeps = registry.counts({
    name: 'weft_sweeps_total',
    help:
      'Sweeps by result: judged; blind, the watch did not live and nothing was judged; failed, the log says why. ' +
      'Without judged ones nobody frees what crashes leave.',
    labels: ['result'],
    known: [['judged'], ['blind'], ['failed']],
  });
  const released = registry.count({
    name: 'weft_sweep_released_total',
    help: 'Addresses that the sweep released because their sandbox had gone without a DEL. A steady rise is a leak.',
  });
  const readopted = registry.count({
    name: 'weft_sweep_readopted_total',
    help: 'IPAllocations that the sweep made again for living sandboxes: somebody had deleted them.',
  });
  const linksRemoved = registry.count({
    name: 'weft_sweep_links_removed_total',
    help: 'Half-made interfaces that the sweep removed: an ADD had ended in the middle.',
  });
  registry.gauge(
    {
      name: 'weft_sweep_suspects',
      help:
        'Allocations that the last sweep saw without a living sandbox. Above 0 for longer than the grace: the sweep ' +
        'cannot free them.',
    },
    () => [{ value: last?.suspects ?? 0 }],
  );
  registry.gauge(
    {
      name: 'weft_sweep_conflicts',
      help:
        'Addresses of living sandboxes that, by the last sweep, the book gives to another or to no pool. Above 0: ' +
        'two pods may have one address; the log names them.',
    },
    () => [{ value: last?.conflicts ?? 0 }],
  );
  return (sweep) => async () => {
    let summary: SweepSummary;
    try {
      summary = await sweep();
    } catch (error) {
      sweeps('failed')();
      throw error;
    }
    sweeps(summary.judged ? 'judged' : 'blind')();
    // A blind one has seen nothing, and that is no news of what stood before.
    if (summary.judged) last = summary;
    released(summary.released);
    readopted(summary.readopted);
    linksRemoved(summary.linksRemoved);
    return summary;
  };
}

/** Counts per pool and family: 0 where the node should have one, and whatever it has of other pools. */
function subnetsHeld({ node, pools, subnets }: AgentGaugeSources): Sample[] {
  const held = new Map<string, { readonly labels: readonly string[]; value: number }>();
  const entry = (pool: string, family: string) => {
    const key = `${pool}/${family}`;
    const known = held.get(key) ?? { labels: [pool, family], value: 0 };
    held.set(key, known);
    return known;
  };
  const view = { pools: pools(), subnets: subnets() };
  const { name, labels, addresses } = node();
  for (const pool of view.pools) {
    if (!isGeneral(pool, view, { name, labels })) continue;
    for (const family of usableFamilies(pool, addresses)) entry(pool.metadata.name, family);
  }
  for (const { spec } of view.subnets) {
    if (spec.nodeName === name) entry(spec.pool, spec.cidr.family).value++;
  }
  return [...held.values()];
}
