import * as z from 'zod';
import type { Clock, Random } from '../ipam/clock.ts';
import type { KubeClient } from './client.ts';
import { AlreadyExistsError, ConflictError, NotFoundError } from './errors.ts';
import type { Log } from './informer.ts';
import { compareRevisions } from './objects.ts';

export interface Election {
  readonly isLeading: boolean;
  /** Ends the work, waits for it, and hands the Lease back so that the next one need not wait for its end. */
  stop(): Promise<void>;
}

export interface ElectionParts {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface ElectionOptions {
  readonly namespace: string;
  readonly name: string;
  /** Different for each process, also after a restart. */
  readonly identity: string;
  /** For how long the others leave the Lease alone after its last renewal. Default 15 s. */
  readonly leaseMs?: number;
  /** Without a renewal for so long we no longer lead; shorter than `leaseMs`. Default 10 s. */
  readonly renewDeadlineMs?: number;
  /** Between two tries to get or to renew it. Default 2 s. */
  readonly retryMs?: number;
  /** What the leader's Lease says besides, asked at each renewal; `found`: what it said when it was last seen. */
  readonly annotations?: (found: Annotations) => Annotations;
  /**
   * Told when etcd is back at an older state: a write of the Lease was answered with a lower revision than had been
   * seen of it, or it was found as it had been before that, or not at all. A leader renews it at once, so that its
   * annotations may tell others.
   */
  readonly onWentBack?: (sign: string) => void;
  /** The leader's work, until `signal` aborts. Called again at each election. */
  readonly lead: (signal: AbortSignal) => Promise<void>;
}

type Annotations = Readonly<Record<string, string>>;

/** Another leads, or nobody knows: what the leader does must end. */
export class LeaseLostError extends Error {
  override name = 'LeaseLostError' as const;

  constructor(lease: string, reason: string) {
    super(`no longer the holder of the Lease ${lease}: ${reason}`);
  }
}

/** The leader's work came to an end although the Lease was held. */
class LeaderWorkEndedError extends Error {
  override name = 'LeaderWorkEndedError' as const;

  constructor(lease: string) {
    super(`the Lease ${lease} is given up: the leader's work has ended`);
  }
}

/** Reads the annotations of a Lease from etcd itself. Undefined: there is no such Lease. */
export async function readLeaseAnnotations(
  client: KubeClient,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  signal?: AbortSignal,
): Promise<Annotations | undefined> {
  try {
    const path = `${leasesPath(namespace)}/${name}`;
    return Lease.parse(await client.request({ method: 'GET', path, signal })).metadata.annotations;
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

/**
 * Takes part in the election of a leader, until stopped. Being elected is an optimisation, never a lock: what the
 * leader writes carries preconditions. Clocks of machines are never compared: a Lease has ended when *we* have
 * seen it unchanged for its duration.
 *
 * | state     | what is seen                                  | next                                     |
 * |-----------|-----------------------------------------------|------------------------------------------|
 * | follower  | no Lease                                      | create it: leader                        |
 * | follower  | without holder, or unchanged for its duration | update it by resourceVersion: leader     |
 * | follower  | held by another, a refusal, a conflict        | try again after `retryMs`                |
 * | leader    | renewed                                       | again after `retryMs`                    |
 * | leader    | held by another                               | follower                                 |
 * | leader    | no renewal for `renewDeadlineMs`              | follower                                 |
 * | leader    | its work has ended                            | empty the holder: follower               |
 * | any       | stop                                          | leader: empty the holder, then end       |
 */
export function startElection(parts: ElectionParts, options: ElectionOptions): Election {
  const { client, clock, random, log } = parts;
  const { namespace, name, identity, lead } = options;
  const leaseMs = options.leaseMs ?? 15_000;
  const renewDeadlineMs = options.renewDeadlineMs ?? 10_000;
  const retryMs = options.retryMs ?? 2_000;
  const collection = leasesPath(namespace);
  const title = `${namespace}/${name}`;
  const stopped = new AbortController();
  let isLeading = false;
  /** The Lease as last seen, and since when it has been so. */
  let observed: { readonly lease: Lease; readonly sinceMs: number } | undefined;
  /** The highest revision of the Lease that was seen. */
  let highest: string | undefined;
  let renewAtOnce = false;

  const running = run();
  return {
    get isLeading() {
      return isLeading;
    },
    async stop() {
      stopped.abort(new Error('the election was stopped'));
      await running;
    },
  };

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      try {
        const acquiredAtMs = await tryToAcquire();
        if (acquiredAtMs !== undefined) await leadWhileHeld(acquiredAtMs);
      } catch (error) {
        if (stopped.signal.aborted) break;
        log.warn({ lease: title, err: error }, 'cannot take part in the election: trying again');
      }
      await pause();
    }
  }

  /** Answers since when the Lease is ours, by the time before the request, or undefined. */
  async function tryToAcquire(): Promise<number | undefined> {
    const lease = await read();
    const sentAtMs = clock.nowMs();
    if (lease === undefined) return (await create()) ? sentAtMs : undefined;
    if (observed?.lease.metadata.resourceVersion !== lease.metadata.resourceVersion) {
      observed = { lease, sinceMs: clock.nowMs() };
    }
    const holder = lease.spec.holderIdentity ?? '';
    const durationMs = (lease.spec.leaseDurationSeconds ?? 0) * 1000;
    const isFree = holder === '' || holder === identity || clock.nowMs() - observed.sinceMs > durationMs;
    return isFree && (await write(lease, identity)) ? sentAtMs : undefined;
  }

  async function leadWhileHeld(acquiredAtMs: number): Promise<void> {
    const ended = new AbortController();
    isLeading = true;
    log.info({ lease: title, identity }, 'elected: this process leads');
    const work = lead(ended.signal).then(
      () => new LeaderWorkEndedError(title),
      (error: unknown) => {
        if (!ended.signal.aborted) log.error({ lease: title, err: error }, "the leader's work failed");
        return new LeaderWorkEndedError(title);
      },
    );
    // A leader that does not work must not keep others from it.
    const renewing = renewUntilLost(acquiredAtMs, ended.signal);
    const reason = await Promise.race([work, renewing]);
    const hasFailed = reason instanceof LeaderWorkEndedError;
    isLeading = false;
    ended.abort(reason);
    log.warn({ lease: title, identity, err: reason }, 'this process no longer leads');
    await Promise.all([work, renewing]);
    if (hasFailed || stopped.signal.aborted) await handBack();
  }

  async function renewUntilLost(acquiredAtMs: number, ended: AbortSignal): Promise<Error> {
    let renewedAtMs = acquiredAtMs;
    for (;;) {
      if (!renewAtOnce) await pause(ended);
      renewAtOnce = false;
      if (stopped.signal.aborted || ended.aborted) return new LeaseLostError(title, 'stopped');
      const sentAtMs = clock.nowMs();
      try {
        const lease = observed?.lease;
        if (lease !== undefined && (await write(lease, identity))) {
          renewedAtMs = sentAtMs;
          continue;
        }
        const found = await read();
        if (found?.spec.holderIdentity !== identity) {
          return new LeaseLostError(title, `held by "${found?.spec.holderIdentity ?? ''}"`);
        }
        observed = { lease: found, sinceMs: clock.nowMs() };
      } catch (error) {
        if (!stopped.signal.aborted)
          log.warn({ lease: title, err: error }, 'cannot renew the Lease: trying again');
      }
      if (clock.nowMs() - renewedAtMs >= renewDeadlineMs) {
        return new LeaseLostError(title, `not renewed for ${renewDeadlineMs} ms`);
      }
    }
  }

  async function handBack(): Promise<void> {
    const lease = observed?.lease;
    if (lease === undefined) return;
    try {
      await write(lease, '', AbortSignal.timeout(2_000));
    } catch (error) {
      log.warn(
        { lease: title, err: error },
        'could not hand the Lease back: the next leader waits for its end',
      );
    }
  }

  async function read(): Promise<Lease | undefined> {
    try {
      const lease = Lease.parse(
        await client.request({ method: 'GET', path: `${collection}/${name}`, signal: soon() }),
      );
      saw(lease, `the Lease ${title} was found at revision ${lease.metadata.resourceVersion}`);
      return lease;
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;
      // Somebody may have deleted it. To hold claims for nothing does less harm than not to hold them.
      if (highest !== undefined) wentBack(`the Lease ${title} was not found`);
      return undefined;
    }
  }

  async function create(): Promise<boolean> {
    const metadata = { name, annotations: options.annotations?.({}) ?? {} };
    const body = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata };
    try {
      const spec = { ...held(identity), acquireTime: microTime(), leaseTransitions: 0 };
      observe(
        await client.request({ method: 'POST', path: collection, body: { ...body, spec }, signal: soon() }),
      );
      return true;
    } catch (error) {
      if (error instanceof AlreadyExistsError) return false;
      throw error;
    }
  }

  /** Writes the holder if the Lease is still as it was seen. */
  async function write(seen: Lease, holder: string, signal = soon()): Promise<boolean> {
    const isNew = seen.spec.holderIdentity !== holder;
    const spec = {
      ...seen.spec,
      ...held(holder),
      ...(isNew ? { acquireTime: microTime(), leaseTransitions: (seen.spec.leaseTransitions ?? 0) + 1 } : {}),
    };
    const { resourceVersion, uid } = seen.metadata;
    const annotations = options.annotations?.(seen.metadata.annotations) ?? seen.metadata.annotations;
    const body = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace, uid, resourceVersion, annotations },
      spec,
    };
    try {
      observe(await client.request({ method: 'PUT', path: `${collection}/${name}`, body, signal }));
      return true;
    } catch (error) {
      if (error instanceof ConflictError || error instanceof NotFoundError) return false;
      throw error;
    }
  }

  /** Takes in what a write was answered: it changes the Lease, so its revision is the newest that etcd has. */
  function observe(answer: unknown): void {
    const lease = Lease.parse(answer);
    observed = { lease, sinceMs: clock.nowMs() };
    saw(lease, `writing the Lease ${title} was answered with revision ${lease.metadata.resourceVersion}`);
  }

  /**
   * Each request here begins when the one before is over, and a GET by name without a revision is answered by etcd
   * itself, as writes are. So an older Lease than was seen is a proof, also where the restore has raised revisions
   * (`--bump-revision`): what is written by then is above all, but what is found has kept its own.
   */
  function saw({ metadata: { resourceVersion } }: Lease, what: string): void {
    if (highest !== undefined && compareRevisions(resourceVersion, highest) < 0) wentBack(what);
    if (highest === undefined || compareRevisions(resourceVersion, highest) > 0) highest = resourceVersion;
  }

  function wentBack(what: string): void {
    const sign = `${what}, after revision ${highest ?? ''} had been seen`;
    log.error({ lease: title }, `etcd seems to be back at an older state: ${sign}`);
    highest = undefined;
    renewAtOnce = true;
    options.onWentBack?.(sign);
  }

  function held(holder: string) {
    return {
      holderIdentity: holder,
      leaseDurationSeconds: holder === '' ? 1 : Math.max(1, Math.round(leaseMs / 1000)),
      renewTime: microTime(),
    };
  }

  function microTime(): string {
    return clock.wallTime().toISOString().replace('Z', '000Z');
  }

  /** A request that hangs must not outlive the deadline for renewing. */
  function soon(): AbortSignal {
    // A timeout takes whole milliseconds alone, and the deadline is a fraction of the Lease's duration.
    const ms = Math.max(1_000, Math.round(renewDeadlineMs / 2));
    return AbortSignal.any([stopped.signal, AbortSignal.timeout(ms)]);
  }

  async function pause(ended: AbortSignal = stopped.signal): Promise<void> {
    const ms = retryMs * (0.8 + random() * 0.4);
    await clock.sleep(ms, AbortSignal.any([stopped.signal, ended])).catch(() => undefined); // stopped: the loop ends by itself
  }
}

function leasesPath(namespace: string): string {
  return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
}

const Lease = z.object({
  metadata: z.object({
    uid: z.string(),
    resourceVersion: z.string(),
    annotations: z.record(z.string(), z.string()).default({}),
  }),
  spec: z
    .looseObject({
      holderIdentity: z.string().nullish(),
      leaseDurationSeconds: z.number().nullish(),
      leaseTransitions: z.number().nullish(),
    })
    .default({}),
});
type Lease = z.output<typeof Lease>;
