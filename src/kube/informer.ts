import { jitteredBackOff, type Clock, type Random } from '../ipam/clock.ts';
import { PARTIAL_METADATA, type KubeClient } from './client.ts';
import { GoneError, NotFoundError, ServerError } from './errors.ts';
import { listEach, type Listed } from './list.ts';
import { compareRevisions, identityOf, type Identity } from './objects.ts';
import { createOverlay, type Entry } from './overlay.ts';
import { createTimeline } from './timeline.ts';
import { readWatch } from './watch.ts';
import type { WriteFeed } from './writes.ts';

/** A cache of one kind's objects that follows the apiserver. Keys are names, `namespace/name` where namespaced. */
export interface Informer<T> extends WriteFeed {
  /** Undefined also for an object that cannot be read: see `unreadable`. */
  get(key: string): T | undefined;
  has(key: string): boolean;
  keys(): Iterable<string>;
  list(): T[];
  /** Of objects that are there, but are not what this version of weft can read, the UIDs by their keys. */
  readonly unreadable: ReadonlyMap<string, string>;
  /** Resolves when the cache has been complete once. */
  readonly synced: Promise<void>;
  readonly isSynced: boolean;
  /** Whether the watch lives: it is open, and has said something within the idle timeout. */
  isAlive(): boolean;
  /** How far the cache is; undefined before the first complete list. */
  readonly revision: string | undefined;
  /** Calls the listener for each change from now on, own writes included; answers how to end that. */
  onChange(listener: (change: Change<T>) => void): () => void;
  /** Resolves as soon as the predicate holds; looked at now and after each step of the cache. */
  waitFor(predicate: () => boolean, signal: AbortSignal): Promise<void>;
  /** Resolves when the watch itself, not only an own write laid over the cache, has delivered that object. */
  waitDelivered(key: string, signal: AbortSignal): Promise<void>;
  /** This process's own create or update, as the apiserver answered it: counts at once. */
  wrote(object: unknown): void;
  /** This process's own delete: counts at once. */
  removed(uid: string, key: string): void;
  /**
   * etcd has gone back to an older state: forgets how far it was and its own writes, and lists again. The cache stays
   * in use until then. Lists and watches stay in doubt until one shows that it is of the new state (timeline.ts).
   */
  startAfresh(): void;
  /** Whether the list for that is still on its way. */
  readonly isStartingAfresh: boolean;
  /**
   * Asks etcd itself for these objects of a cluster-scoped kind, one by one, and lays over the cache what it says:
   * the only way to the truth behind an apiserver that has not noticed that etcd went back.
   */
  reread(keys: Iterable<string>, signal: AbortSignal): Promise<void>;
  /** Ends the watch; the cache stays as it is. */
  stop(): Promise<void>;
}

export interface Change<T> {
  readonly key: string;
  readonly before: T | undefined;
  readonly after: T | undefined;
}

export interface Log {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** What the informers of one process share. */
export interface InformerParts {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Bookmarks come every minute or so; a watch silent for longer than this is broken. Default 90 s. */
  readonly idleTimeoutMs?: number;
  /**
   * After a 410 all informers of all nodes would list at once: each waits up to this long, and no longer than its last
   * list is old. Default 60 s.
   */
  readonly relistJitterMs?: number;
  /**
   * Told when this informer has a sign that etcd has gone back to an older state, before the answer that was the sign
   * reaches anybody. It starts afresh by itself; the others that the process has must be told.
   */
  readonly onWentBack?: (sign: string) => void;
}

export interface InformerSource<T> {
  readonly path: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  /** Metadata instead of whole objects. */
  readonly metadataOnly?: boolean;
  /** Reads an object; what it throws makes the object unreadable. */
  readonly parse: (object: unknown) => T;
  /** What the field selector selects: an own update, or a look at etcd, may take an object out of it. Default: all. */
  readonly selects?: (value: T) => boolean;
}

/** Before another try. */
const BACK_OFF = { firstMs: 100, maxMs: 30_000 };

/** A watch that lived so long worked: what breaks it is a new trouble, not the old one again. */
const LIVED_MS = 2_000;

/** For how long on end the apiserver may say that it is not as far as we are, before we believe it. */
const TOO_LARGE_BELIEVED_MS = 60_000;

/**
 * Each page costs the apiserver some 30 ms besides its objects, of which we hold no more than what is kept: 150,000 objects
 * by 500 take it twice as long as by 2,000, and by 5,000 a fifth less than that.
 */
const PAGE_SIZE = 5_000;

/** How many objects are read by name at once. */
const REREADS_AT_ONCE = 8;

/**
 * Starts to list and watch. A broken or idle watch resumes from its last revision; only 410 lists again, after a
 * jitter, the old cache staying in use (design section 8). Nothing that the apiserver sends or refuses ends it.
 */
export function startInformer<T>(parts: InformerParts, source: InformerSource<T>): Informer<T> {
  const { client, clock, random, log } = parts;
  const { path } = source;
  const idleTimeoutMs = parts.idleTimeoutMs ?? 90_000;
  const relistJitterMs = parts.relistJitterMs ?? 60_000;
  const selected = {
    path,
    ...(source.fieldSelector === undefined ? {} : { fieldSelector: source.fieldSelector }),
    ...(source.labelSelector === undefined ? {} : { labelSelector: source.labelSelector }),
    ...(source.metadataOnly === undefined ? {} : { metadataOnly: source.metadataOnly }),
  };

  /** What the watch has delivered; undefined values are unreadable objects. */
  const shown = new Map<string, Entry<T | undefined>>();
  const overlay = createOverlay<T | undefined>();
  /** What is there: `shown` with the overlay over it. */
  const view = new Map<string, Entry<T | undefined>>();
  const unreadable = new Map<string, string>();
  const listeners = new Set<(change: Change<T>) => void>();
  const waiters = new Set<() => void>();
  const synced = Promise.withResolvers<undefined>();
  const stopped = new AbortController();
  const timeline = createTimeline();
  /** Ends the list, watch or pause that is under way, when all starts afresh. */
  let round = new AbortController();
  let mustList = true;
  let isStartingAfresh = false;
  let isSynced = false;
  let revision: string | undefined;
  let heardAtMs: number | undefined;
  /** For how long the last watch was open. */
  let livedMs = 0;
  /** When the last list was complete. */
  let listedAtMs = -Infinity;

  const running = run();

  return {
    get: (key) => view.get(key)?.value,
    has: (key) => view.has(key),
    keys: () => view.keys(),
    list: () => [...view.values()].flatMap(({ value }) => (value === undefined ? [] : [value])),
    unreadable,
    synced: synced.promise,
    get isSynced() {
      return isSynced;
    },
    isAlive: () => heardAtMs !== undefined && clock.nowMs() - heardAtMs <= idleTimeoutMs,
    get revision() {
      return revision;
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    waitFor,
    waitDelivered: (key, signal) => waitFor(() => shown.has(key) && !overlay.pending(key), signal),
    mark: timeline.mark,
    created(object, sentAt) {
      const { key, resourceVersion } = identityOf(object);
      if (timeline.created(resourceVersion, sentAt)) {
        wentBack(
          `the create of ${key} was answered with revision ${resourceVersion}, after ${sentAt.highest ?? ''} had been seen`,
        );
      }
      wrote(object);
    },
    wrote,
    removed,
    startAfresh,
    get isStartingAfresh() {
      return isStartingAfresh;
    },
    async reread(keys, signal) {
      const left = new Set(keys).values();
      const readers = Array.from({ length: REREADS_AT_ONCE }, async () => {
        for (const key of left) await rereadOne(key, signal);
      });
      await Promise.all(readers);
    },
    async stop() {
      stopped.abort(new Error('the informer was stopped'));
      await running;
    },
  };

  async function run(): Promise<void> {
    let backOff = jitteredBackOff(random, BACK_OFF);
    let tooLargeSinceMs: number | undefined;
    while (!stopped.signal.aborted) {
      round = new AbortController();
      const { signal } = round;
      try {
        livedMs = 0;
        if (timeline.isDoubtful) {
          // An apiserver that has been restarted since says what etcd has: only a new list can show that.
          revision = undefined;
          mustList = true;
        }
        if (mustList) await relist(AbortSignal.any([signal, stopped.signal]));
        await followWatch(AbortSignal.any([signal, stopped.signal]));
      } catch (error) {
        if (stopped.signal.aborted) break;
        if (signal.aborted) continue;
        if (livedMs >= LIVED_MS) {
          backOff = jitteredBackOff(random, BACK_OFF);
          tooLargeSinceMs = undefined;
        }
        if (error instanceof GoneError && !mustList) {
          log.warn({ path, revision, err: error }, 'the watch is too far behind: listing again');
          mustList = true;
          // A list that is young is no crowd's: an apiserver that has just met this kind forgets its first revisions.
          const crowdMs = Math.min(relistJitterMs, clock.nowMs() - listedAtMs);
          await pause(backOff.next() + random() * crowdMs);
          continue;
        }
        if (error instanceof ServerError && error.isTooLargeResourceVersion) {
          tooLargeSinceMs ??= clock.nowMs();
          if (clock.nowMs() - tooLargeSinceMs >= TOO_LARGE_BELIEVED_MS) {
            wentBack(
              `the apiserver has not reached revision ${revision ?? ''}, which it once had, for a minute`,
            );
          }
        }
        log.warn({ path, revision, err: error }, 'the watch broke: trying again');
        await pause(backOff.next());
      }
    }
    heardAtMs = undefined;
  }

  async function pause(ms: number): Promise<void> {
    const signal = AbortSignal.any([round.signal, stopped.signal]);
    await clock.sleep(ms, signal).catch(() => undefined); // stopped, or starting afresh: the loop goes on by itself
  }

  function wentBack(sign: string): void {
    log.error({ path, revision }, `etcd seems to be back at an older state: ${sign}; starting afresh`);
    startAfresh();
    parts.onWentBack?.(sign);
  }

  function startAfresh(): void {
    timeline.wentBack();
    overlay.forget();
    revision = undefined;
    mustList = true;
    isStartingAfresh = true;
    round.abort(new Error('etcd has gone back: starting afresh'));
  }

  function wrote(object: unknown): void {
    const entry = entryOf(object);
    const there = shown.get(entry.key);
    const isShown = there !== undefined && isVersion(there, entry);
    // Where lists and watches are in doubt their revisions do not say that they have shown it.
    const reached = timeline.counts(entry.resourceVersion) ? revision : undefined;
    overlay.wrote(
      isSelected(entry) ? entry : { ...entry, left: true },
      isShown && isSelected(entry) ? entry.resourceVersion : reached,
    );
    refresh(entry.key);
  }

  function removed(uid: string, key: string): void {
    overlay.removed(uid, key);
    refresh(key);
  }

  async function rereadOne(key: string, signal: AbortSignal): Promise<void> {
    // What is created under that name meanwhile is not what is asked for.
    const uid = view.get(key)?.uid;
    const found = await getOrUndefined(key, signal);
    const entry = found === undefined ? undefined : entryOf(found);
    if (uid !== undefined && entry?.uid !== uid) removed(uid, key);
    // What only is not selected any more may be so again, under its uid.
    if (entry !== undefined && (entry.uid === uid || isSelected(entry))) wrote(found);
  }

  /** What cannot be read counts as selected. */
  function isSelected({ value }: Entry<T | undefined>): boolean {
    return value === undefined || (source.selects?.(value) ?? true);
  }

  async function getOrUndefined(key: string, signal: AbortSignal): Promise<unknown> {
    try {
      const accept = source.metadataOnly === true ? { accept: PARTIAL_METADATA } : {};
      return await client.request({ method: 'GET', path: `${path}/${key}`, ...accept, signal });
    } catch (error) {
      if (error instanceof NotFoundError) return undefined;
      throw error;
    }
  }

  /** The old cache stays in use until the new list is complete. */
  async function relist(signal: AbortSignal): Promise<void> {
    const listed = await listEach(
      client,
      {
        ...selected,
        ...{ pageSize: PAGE_SIZE, signal },
        ...(revision === undefined ? {} : { notOlderThan: revision }),
      },
      entryOf,
    );
    signal.throwIfAborted();
    listedAtMs = clock.nowMs();
    timeline.listed(listed.resourceVersion);
    endMissing(listed);
    for (const entry of listed.items) {
      // One that has not changed stays the object that others know by now: else a list would hold all of them twice.
      const known = shown.get(entry.key);
      shown.set(entry.key, known !== undefined && isVersion(known, entry) ? known : entry);
      // What the watch may never show, since it is of the gap, the list has shown now.
      if (timeline.counts(entry.resourceVersion)) overlay.delivered(entry.key, entry.resourceVersion);
      else overlay.matched(entry);
    }
    overlay.listed(listed.items);
    advance(listed.resourceVersion);
    for (const key of view.keys()) if (!shown.has(key)) refresh(key);
    for (const key of shown.keys()) refresh(key);
    mustList = false;
    isStartingAfresh = false;
    if (!isSynced) {
      isSynced = true;
      synced.resolve(undefined);
    }
    wakeWaiters();
  }

  /** Ends what a new list does not have any more, or has as another object. */
  function endMissing({ items, resourceVersion }: Listed<Entry<T | undefined>>): void {
    // The first list of a large kind needs no second index of all of it.
    if (shown.size === 0) return;
    const now = new Map(items.map((entry) => [entry.key, entry]));
    for (const { key, uid } of [...shown.values()]) {
      if (now.get(key)?.uid !== uid) overlay.ended(uid, resourceVersion);
      if (!now.has(key)) shown.delete(key);
    }
  }

  async function followWatch(signal: AbortSignal): Promise<void> {
    const from = revision;
    if (from === undefined) return;
    let openedAtMs: number | undefined;
    try {
      await readWatch(
        { client, clock, random },
        { ...selected, resourceVersion: from, idleTimeoutMs, signal },
        {
          onOpen: () => {
            openedAtMs = heardAtMs = clock.nowMs();
            wakeWaiters();
          },
          onEvent({ type, object }) {
            const entry = entryOf(object);
            if (type === 'DELETED') {
              shown.delete(entry.key);
              overlay.ended(entry.uid, entry.resourceVersion);
            } else {
              shown.set(entry.key, entry);
            }
            overlay.delivered(entry.key, entry.resourceVersion);
            advance(entry.resourceVersion);
            refresh(entry.key);
          },
          onRevision(reached) {
            heardAtMs = clock.nowMs();
            advance(reached);
            wakeWaiters();
          },
        },
      );
    } finally {
      heardAtMs = undefined;
      livedMs = openedAtMs === undefined ? 0 : clock.nowMs() - openedAtMs;
    }
    // One that ends at once again and again would otherwise spin.
    if (livedMs < LIVED_MS) await pause(500 + random() * 500);
  }

  function advance(reached: string): void {
    if (revision === undefined || compareRevisions(reached, revision) > 0) revision = reached;
    timeline.watched(reached);
    // Own writes since etcd went back have lower revisions, and a watch from before need never show them.
    for (const key of overlay.reached(reached, timeline.counts)) refresh(key);
  }

  /** Brings one key of the view up to date, and tells of it. */
  function refresh(key: string): void {
    const before = view.get(key);
    const after = overlay.over(key, shown.get(key));
    if (before === after || (before !== undefined && after !== undefined && isVersion(before, after))) return;
    if (after === undefined) view.delete(key);
    else view.set(key, after);
    if (after !== undefined && after.value === undefined) unreadable.set(key, after.uid);
    else unreadable.delete(key);
    for (const listener of listeners) {
      try {
        listener({ key, before: before?.value, after: after?.value });
      } catch (error) {
        log.error({ path, key, err: error }, 'a listener of the cache failed');
      }
    }
    wakeWaiters();
  }

  function wakeWaiters(): void {
    for (const look of [...waiters]) look();
  }

  function waitFor(predicate: () => boolean, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        waiters.delete(look);
        signal.removeEventListener('abort', onAbort);
        settle();
      };
      const onAbort = () =>
        end(() => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted')));
      const look = () => {
        try {
          if (predicate()) end(resolve);
        } catch (error) {
          end(() => reject(error instanceof Error ? error : new Error(String(error))));
        }
      };
      if (signal.aborted) return onAbort();
      waiters.add(look);
      signal.addEventListener('abort', onAbort, { once: true });
      look();
    });
  }

  /** An object that cannot be read keeps its key: it is there, and nobody may conclude otherwise. */
  function entryOf(object: unknown): Entry<T | undefined> {
    const identity = identityOf(object);
    try {
      return { ...identity, value: source.parse(object) };
    } catch (error) {
      log.error(
        { path, ...identity, err: error },
        'an object is not what this version of weft can read: it counts as there, and is left alone',
      );
      return { ...identity, value: undefined };
    }
  }
}

function isVersion(one: Identity, other: Identity): boolean {
  return one.uid === other.uid && one.resourceVersion === other.resourceVersion;
}
