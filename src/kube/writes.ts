import type { CreateOutcome, UpdateOutcome, WriteOutcome } from '../ipam/store.ts';
import { MERGE_PATCH, type KubeClient } from './client.ts';
import { AlreadyExistsError, ConflictError, NotFoundError } from './errors.ts';
import type { Mark } from './timeline.ts';

/** Where this process's own writes are laid over its cache: an informer, or nothing. */
export interface WriteFeed {
  /** How far the store is known to be, right before a create is sent. */
  mark(): Mark;
  /** The answer to a create: by its revision it tells whether etcd has gone back. */
  created(object: unknown, sentAt: Mark): void;
  wrote(object: unknown): void;
  removed(uid: string, key: string): void;
}

/** What a write must still find: the object as it was seen. */
export interface Seen {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
}

export interface ConditionalWrites<T> {
  /** One POST, no read. Only "somebody has the name" is an answer; any other failure throws. */
  readonly create: (object: object, signal?: AbortSignal) => Promise<CreateOutcome<T>>;
  readonly get: (name: string, signal?: AbortSignal) => Promise<T | undefined>;
  /**
   * A merge patch under the resourceVersion of `seen`. The uid would be no precondition: on the status
   * subresource a wrong one is ignored.
   */
  readonly patch: (
    seen: Seen,
    change: { readonly metadata?: object; readonly spec?: object; readonly status?: object },
    options?: { readonly subresource?: 'status'; readonly signal?: AbortSignal | undefined },
  ) => Promise<WriteOutcome>;
  /** The same patch for who needs the object as it is then. */
  readonly update: (
    seen: Seen,
    change: { readonly spec: object },
    signal?: AbortSignal,
  ) => Promise<UpdateOutcome<T>>;
  /** Deletes under uid and resourceVersion of `seen`. */
  readonly delete: (seen: Seen, signal?: AbortSignal) => Promise<WriteOutcome>;
}

/** The writes that all of weft's stores consist of, for one kind. Each is sent once. */
export function conditionalWrites<T>(
  client: KubeClient,
  path: string,
  parse: (object: unknown) => T,
  feed?: WriteFeed,
): ConditionalWrites<T> {
  const send = async (
    seen: Seen,
    change: { readonly metadata?: object; readonly spec?: object; readonly status?: object },
    { subresource, signal }: { readonly subresource?: 'status'; readonly signal?: AbortSignal | undefined },
  ) => {
    const { name, resourceVersion } = seen.metadata;
    const answer = await client.request({
      method: 'PATCH',
      path: `${path}/${name}${subresource === undefined ? '' : `/${subresource}`}`,
      body: { ...change, metadata: { ...change.metadata, resourceVersion } },
      contentType: MERGE_PATCH,
      signal,
    });
    feed?.wrote(answer);
    return answer;
  };

  return {
    async create(object, signal) {
      const sentAt = feed?.mark();
      let answer: unknown;
      try {
        answer = await client.request({ method: 'POST', path, body: object, signal });
      } catch (error) {
        if (error instanceof AlreadyExistsError) return { kind: 'taken' };
        throw error;
      }
      if (sentAt !== undefined) feed?.created(answer, sentAt);
      return { kind: 'created', object: parse(answer) };
    },

    async get(name, signal) {
      try {
        const answer = await client.request({ method: 'GET', path: `${path}/${name}`, signal });
        // A read by name asks etcd: it may be ahead of the watch, as an own write is.
        feed?.wrote(answer);
        return parse(answer);
      } catch (error) {
        if (error instanceof NotFoundError) return undefined;
        throw error;
      }
    },

    patch: (seen, change, options = {}) =>
      outcomeOf(async () => {
        await send(seen, change, options);
      }),

    async update(seen, change, signal) {
      let object: T | undefined;
      const outcome = await outcomeOf(async () => {
        object = parse(await send(seen, change, { signal }));
      });
      if (outcome === 'done' && object !== undefined) return { kind: 'done', object };
      return { kind: outcome === 'gone' ? 'gone' : 'changed' };
    },

    delete(seen, signal) {
      const { name, uid, resourceVersion } = seen.metadata;
      return outcomeOf(async () => {
        await client.request({
          method: 'DELETE',
          path: `${path}/${name}`,
          body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid, resourceVersion } },
          signal,
        });
        feed?.removed(uid, name);
      });
    },
  };
}

async function outcomeOf(write: () => Promise<void>): Promise<WriteOutcome> {
  try {
    await write();
    return 'done';
  } catch (error) {
    if (error instanceof NotFoundError) return 'gone';
    if (error instanceof ConflictError) return 'changed';
    throw error;
  }
}
