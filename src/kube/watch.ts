import * as z from 'zod';
import type { Clock, Random } from '../ipam/clock.ts';
import { PARTIAL_METADATA, type KubeClient } from './client.ts';
import { errorOfAnswer } from './errors.ts';
import { identityOf } from './objects.ts';

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: unknown;
}

export interface WatchRequest {
  readonly path: string;
  readonly fieldSelector?: string;
  readonly labelSelector?: string;
  /** Metadata instead of whole objects. */
  readonly metadataOnly?: boolean;
  /** The revision that the reader has; events after it are delivered. */
  readonly resourceVersion: string;
  /** A watch that delivers nothing for so long, not even a bookmark, is taken for broken. */
  readonly idleTimeoutMs: number;
  readonly signal: AbortSignal;
}

export interface WatchReader {
  /** The apiserver has begun to answer. */
  onOpen(): void;
  onEvent(event: WatchEvent): void;
  /** Everything up to this revision has been delivered. Called after each event, too. */
  onRevision(resourceVersion: string): void;
}

/** The watch delivered nothing for longer than it may. */
export class WatchIdleError extends Error {
  override name = 'WatchIdleError' as const;

  constructor(path: string, idleTimeoutMs: number) {
    super(`the watch of ${path} delivered nothing for ${idleTimeoutMs} ms`);
  }
}

/**
 * Reads one watch until the apiserver ends it, which it does every five to ten minutes because it is asked to.
 * @throws GoneError if the revision is too old to resume from; WatchIdleError; or why the connection broke
 */
export async function readWatch(
  { client, clock, random }: { client: KubeClient; clock: Clock; random: Random },
  request: WatchRequest,
  reader: WatchReader,
): Promise<void> {
  const ended = new AbortController();
  const signal = AbortSignal.any([request.signal, ended.signal]);
  let heardAtMs = clock.nowMs();
  const heard = () => {
    heardAtMs = clock.nowMs();
  };
  const idle = endWhenIdle();
  try {
    await client.stream({
      path: request.path,
      query: {
        watch: true,
        allowWatchBookmarks: true,
        resourceVersion: request.resourceVersion,
        fieldSelector: request.fieldSelector,
        labelSelector: request.labelSelector,
        timeoutSeconds: Math.round(300 + random() * 300),
      },
      ...(request.metadataOnly === true ? { accept: PARTIAL_METADATA } : {}),
      signal,
      onOpen() {
        heard();
        reader.onOpen();
      },
      onLine(line) {
        heard();
        deliver(line, request.path, reader);
      },
    });
  } finally {
    ended.abort(new Error('the watch has ended'));
    await idle;
  }

  async function endWhenIdle(): Promise<void> {
    for (;;) {
      const leftMs = heardAtMs + request.idleTimeoutMs - clock.nowMs();
      if (leftMs <= 0) return ended.abort(new WatchIdleError(request.path, request.idleTimeoutMs));
      try {
        await clock.sleep(leftMs, signal);
      } catch {
        return; // the watch has ended
      }
    }
  }
}

const Line = z.discriminatedUnion('type', [
  z.object({ type: z.enum(['ADDED', 'MODIFIED', 'DELETED']), object: z.unknown() }),
  z.object({
    type: z.literal('BOOKMARK'),
    object: z.object({ metadata: z.object({ resourceVersion: z.string() }) }),
  }),
  z.object({ type: z.literal('ERROR'), object: z.looseObject({ code: z.number().optional() }) }),
]);

function deliver(line: unknown, path: string, reader: WatchReader): void {
  const event = Line.parse(line);
  switch (event.type) {
    case 'BOOKMARK':
      return reader.onRevision(event.object.metadata.resourceVersion);
    case 'ERROR':
      throw errorOfAnswer(`GET ${path} (watch)`, {
        statusCode: event.object.code ?? 500,
        text: JSON.stringify(event.object),
      });
    default:
      reader.onEvent({ type: event.type, object: event.object });
      reader.onRevision(identityOf(event.object).resourceVersion);
  }
}
