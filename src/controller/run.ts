import { serveHealth } from '../health.ts';
import type { Clock, Random } from '../ipam/index.ts';
import {
  createKubeClient,
  eventRecorder,
  loadConnection,
  repeatedly,
  requireSchemaRevision,
  startElection,
  type Log,
} from '../kube/index.ts';
import { serveMetrics } from '../metrics/index.ts';
import { watchCluster } from './caches.ts';
import type { ControllerFlags } from './flags.ts';
import { lead } from './leader.ts';
import { createControllerMetrics } from './metrics.ts';
import { poolObject } from './pool-object.ts';
import { createSubnetHold } from './subnet-hold.ts';

/** What the controller is made with besides its flags. */
export interface ControllerEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  /** Ends the controller. */
  readonly signal: AbortSignal;
}

/**
 * One replica from its start to its end: its caches are warm whether it leads or waits, and it works while it holds
 * the Lease.
 * @throws KubeConfigError
 */
export async function runController(
  flags: ControllerFlags,
  environment: ControllerEnvironment,
): Promise<void> {
  const { clock, random, log, signal } = environment;
  const { settings } = flags;
  const waiting = new Set(['the apiserver']);
  const health = await serveHealth(flags.probeSocket, {
    live: () => undefined,
    ready: () => (waiting.size === 0 ? undefined : `waiting for ${[...waiting].join(', ')}`),
  });
  const connection = await loadConnection({
    env: environment.env,
    clock,
    ...(flags.kubeconfig === undefined ? {} : { kubeconfig: flags.kubeconfig }),
  });
  const metrics = createControllerMetrics(clock);
  const scrapes = serveMetrics({ address: flags.metricsAddress, registry: metrics.registry, clock, log });
  const client = createKubeClient(connection, {
    userAgent: `weft-controller/${flags.identity}`,
    observe: metrics.requests,
  });
  const parts = { client, clock, random, log };
  const caches = await repeatedly(async () => {
    await requireSchemaRevision(client, signal);
    return watchCluster(parts, flags, signal);
  }, environment);
  const events = eventRecorder({
    ...parts,
    component: 'weft-controller',
    instance: flags.identity,
    observe: metrics.events,
  });
  const hold = createSubnetHold({ clock, holdMs: settings.subnetHoldMs });
  const election = startElection(parts, {
    namespace: flags.namespace,
    name: flags.leaseName,
    identity: flags.identity,
    leaseMs: settings.leaseMs,
    renewDeadlineMs: (settings.leaseMs * 2) / 3,
    retryMs: (settings.leaseMs * 2) / 15,
    annotations: hold.annotations,
    onWentBack(sign) {
      hold.begin();
      metrics.etcdWentBack();
      const message =
        'etcd is back at an older state: nodes recover what it has forgotten from their kernels, and claim no new ' +
        `subnets for ${Math.round(settings.subnetHoldMs / 1000)} s. ${sign}`;
      for (const pool of caches.pools.list()) {
        events.record({ object: poolObject(pool), type: 'Warning', reason: 'EtcdWentBack', message });
      }
      caches.startAfresh();
    },
    lead: (term) =>
      lead(
        {
          client,
          caches,
          events,
          settings,
          observer: metrics.leader,
          clock,
          random,
          log,
          onFindings: metrics.audited,
          onSilentAgents: metrics.silent,
        },
        term,
      ),
  });
  metrics.readFrom({ isLeading: () => election.isLeading });
  void caches.synced.then(() => {
    waiting.clear();
    log.info({ identity: flags.identity }, 'the caches are complete');
  });
  await aborted(signal);
  await election.stop();
  await caches.stop();
  await events.settled();
  await client.close();
  await scrapes.close();
  health.close();
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => {
      resolve();
    });
  });
}
