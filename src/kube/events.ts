import { randomBytes } from 'node:crypto';
import type { Clock } from '../ipam/clock.ts';
import { MERGE_PATCH, type KubeClient } from './client.ts';
import { NotFoundError } from './errors.ts';
import type { Log } from './informer.ts';

/** What an Event is about. */
export interface EventObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  /** Absent for cluster-scoped objects: their Events live in the namespace default. */
  readonly namespace?: string;
}

export interface EventRecord {
  readonly object: EventObject;
  readonly type: 'Normal' | 'Warning';
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
}

export interface EventRecorder {
  /** Writes an Event, later and in the background: Events are best effort, and never in anyone's way. */
  record(event: EventRecord): void;
  /** Resolves when what was recorded has been written or given up. */
  settled(): Promise<void>;
}

/** What became of an Event: repeated ones are counted by the first; too many at once are dropped. */
export type EventOutcome = 'written' | 'repeated' | 'dropped' | 'failed';

export interface EventRecorderParts {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  /** Which part of weft speaks: weft-agent, weft-controller. */
  readonly component: string;
  /** Which one of them: a node's or pod's name. */
  readonly instance: string;
  /** Is told what became of each. */
  readonly observe?: (outcome: EventOutcome) => void;
}

/** What is said again is counted in one Event; that is written at most so often. */
const REPEAT_MS = 60_000;

/** One Event speaks for its repetitions for so long; apiservers forget Events after an hour. */
const SERIES_MS = 10 * 60_000;

/** New Events of one process: so many at once, and then one a second. */
const BURST = 50;
const REFILL_MS = 1_000;

/** The last of these are for what has not been said yet: who says it once must not be silenced by who goes on and on. */
const RESERVED = 20;

/**
 * So many texts of one reason an object has in Events of their own. A text that counts down is another one each time: what
 * comes after these takes the place of the last.
 */
const TEXTS = 5;

/** For how many objects and reasons it is remembered what they said. */
const REMEMBERED = 1_000;

/** What was said of one object for one reason. */
interface Topic {
  readonly startedAtMs: number;
  /** By text, the latest last. */
  readonly series: Map<string, Series>;
}

interface Series {
  /** The Event's name, once it has been created. */
  name: Promise<string | undefined>;
  count: number;
  writtenAtMs: number;
}

/** Records Events, repeated ones as a count, and never more than the apiserver likes. */
export function eventRecorder(parts: EventRecorderParts): EventRecorder {
  const { client, clock, log, component, instance, observe = () => undefined } = parts;
  const topics = new Map<string, Topic>();
  const writing = new Set<Promise<unknown>>();
  let tokens = BURST;
  let refilledAtMs = clock.nowMs();

  return {
    record(event) {
      const nowMs = clock.nowMs();
      const topic = topicOf(event, nowMs);
      const known = topic.series.get(event.message) ?? replacedBy(event, topic);
      if (known !== undefined) {
        known.count += 1;
        observe('repeated');
        if (nowMs - known.writtenAtMs < REPEAT_MS) return;
        known.writtenAtMs = nowMs;
        return background(event, countUp(known, event));
      }
      if (!takeToken(topic.series.size === 0 ? 0 : RESERVED)) {
        observe('dropped');
        return log.warn(
          { object: event.object.name, reason: event.reason },
          `too many Events: ${event.message}`,
        );
      }
      const name = create(event);
      topic.series.set(event.message, { name, count: 1, writtenAtMs: nowMs });
      background(event, name);
    },
    async settled() {
      while (writing.size > 0) await Promise.all(writing);
    },
  };

  function topicOf({ object, type, reason }: EventRecord, nowMs: number): Topic {
    const key = JSON.stringify([object.uid, object.name, type, reason]);
    const known = topics.get(key);
    if (known !== undefined && nowMs - known.startedAtMs < SERIES_MS) return known;
    const topic: Topic = { startedAtMs: nowMs, series: new Map() };
    topics.delete(key);
    topics.set(key, topic);
    for (const oldest of topics.keys()) {
      if (topics.size <= REMEMBERED) break;
      topics.delete(oldest);
    }
    return topic;
  }

  /** The latest Event of a topic that has its fill of them, which says this text from now on. */
  function replacedBy({ message }: EventRecord, { series }: Topic): Series | undefined {
    if (series.size < TEXTS) return undefined;
    const [text, latest] = [...series].at(-1) ?? [];
    if (text === undefined || latest === undefined) return undefined;
    series.delete(text);
    series.set(message, latest);
    return latest;
  }

  function background(event: EventRecord, work: Promise<unknown>): void {
    const settled = work
      .catch((error: unknown) => {
        observe('failed');
        log.warn({ object: event.object.name, reason: event.reason, err: error }, 'cannot write an Event');
      })
      .finally(() => writing.delete(settled));
    writing.add(settled);
  }

  async function create({ object, type, reason, message }: EventRecord): Promise<string | undefined> {
    const namespace = namespaceOf(object);
    const name = `${object.name.slice(0, 230)}.${randomBytes(8).toString('hex')}`;
    const now = secondsTime();
    await client.request({
      method: 'POST',
      path: eventsPath(namespace),
      body: {
        apiVersion: 'v1',
        kind: 'Event',
        metadata: { name, namespace },
        involvedObject: object,
        type,
        reason,
        message: shortened(message),
        source: { component, host: instance },
        reportingComponent: component,
        reportingInstance: instance,
        firstTimestamp: now,
        lastTimestamp: now,
        count: 1,
      },
    });
    observe('written');
    return name;
  }

  async function countUp(known: Series, event: EventRecord): Promise<void> {
    // A failed create was reported; the next series tries again.
    const name = await known.name.catch(() => undefined);
    if (name === undefined) return;
    try {
      await client.request({
        method: 'PATCH',
        path: `${eventsPath(namespaceOf(event.object))}/${name}`,
        contentType: MERGE_PATCH,
        body: { count: known.count, lastTimestamp: secondsTime(), message: shortened(event.message) },
      });
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;
      known.name = create(event); // it had expired
      await known.name;
    }
  }

  /** One of those above `kept`. */
  function takeToken(kept: number): boolean {
    const refills = Math.floor((clock.nowMs() - refilledAtMs) / REFILL_MS);
    tokens = Math.min(BURST, tokens + refills);
    refilledAtMs += refills * REFILL_MS;
    if (tokens <= kept) return false;
    tokens -= 1;
    return true;
  }

  function secondsTime(): string {
    return `${clock.wallTime().toISOString().slice(0, 19)}Z`;
  }
}

/** The apiserver takes no longer ones. */
const shortened = (message: string) => message.slice(0, 1_024);

function namespaceOf(object: EventObject): string {
  return object.namespace ?? 'default';
}

function eventsPath(namespace: string): string {
  return `/api/v1/namespaces/${namespace}/events`;
}
