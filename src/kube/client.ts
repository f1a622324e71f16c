import { StringDecoder } from 'node:string_decoder';
import Pool from 'undici/lib/dispatcher/pool.js';
import type { Pool as PoolType } from 'undici';
import type { KubeConnection } from './connection.ts';
import { createConnect } from './connect.ts';
import { errorOfAnswer, type KubeError, UnauthorizedError, UnreachableError } from './errors.ts';
import { exchange, TransportError, type Head } from './http.ts';
import { createListText } from './list-items.ts';

/** The one way to the apiserver. */
export interface KubeClient {
  /**
   * Sends a request and answers with the parsed JSON. It sends once: who may repeat decides that itself.
   * @throws a KubeError by the Status' reason, UnreachableError, or the signal's reason
   */
  request(request: KubeRequest): Promise<unknown>;
  /**
   * Sends a GET whose answer is JSON line by line without end (a watch), on connections of its own, and calls
   * `onLine` for each. Resolves when the apiserver ends it.
   * @throws as request does, and what `onLine` throws
   */
  stream(
    request: Pick<KubeRequest, 'path' | 'query' | 'accept'> & {
      readonly signal: AbortSignal;
      /** Called when the apiserver has begun to answer. */
      readonly onOpen?: () => void;
      readonly onLine: (line: unknown) => void;
    },
  ): Promise<void>;
  /** Ends all connections. */
  close(): Promise<void>;
}

export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Of the body. Default: application/json. */
  readonly contentType?: string;
  readonly accept?: string;
  readonly signal?: AbortSignal | undefined;
  /**
   * For a list: is given the text of each of its items, and the answer's `items` is empty then. A page that is parsed as
   * a whole is several times its text in memory. What is thrown ends the request.
   */
  readonly onItem?: (text: string) => void;
  /**
   * How long the apiserver may stay silent. Default: 30 s, for writes 10 s: a connection that died silently must not
   * cost an ADD all its time, and every write of ours may be sent again.
   */
  readonly timeoutMs?: number;
}

export const MERGE_PATCH = 'application/merge-patch+json';
export const STRATEGIC_MERGE_PATCH = 'application/strategic-merge-patch+json';

/** Metadata alone, of any kind. */
export const PARTIAL_METADATA = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';
/** The same for lists: asked for the other, the apiserver refuses a list. */
export const PARTIAL_METADATA_LIST = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1';

/** What a request does to objects, as Kubernetes calls it. */
export type RequestVerb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete';

/** The answer's status; or no answer came; or whoever asked gave up. */
export type RequestOutcome = number | 'unreachable' | 'aborted';

/**
 * Is told of each request as it is sent, and what it answers is told how that ended: a watch ends for it when the
 * apiserver has begun to answer.
 */
export type RequestObserver = (verb: RequestVerb) => (outcome: RequestOutcome) => void;

export interface KubeClientOptions {
  /** What the apiserver's audit log calls us. */
  readonly userAgent?: string;
  /** How many requests may be under way at once, each on a kept-alive connection of its own. */
  readonly connections?: number;
  readonly observe?: RequestObserver;
}

/**
 * Makes a client. Proxies named in the environment are ignored, certificates always verified. Requests share one
 * set of kept-alive HTTP/1.1 connections; watches have their own, so that they never starve a create.
 */
export function createKubeClient(
  connection: KubeConnection,
  { userAgent = 'weft', connections = 32, observe = () => () => undefined }: KubeClientOptions = {},
): KubeClient {
  const prefix = connection.server.pathname.replace(/\/$/, '');
  const settings = {
    pipelining: 1,
    // The apiserver ends idle connections after 90 s; we must be earlier, else a request meets the end.
    keepAliveTimeout: 60_000,
    keepAliveMaxTimeout: 80_000,
    allowH2: false,
    connect: createConnect(connection),
  };
  const requests: PoolType = new Pool(connection.server.origin, { ...settings, connections });
  const watches: PoolType = new Pool(connection.server.origin, settings);

  async function headersFor(request: Omit<KubeRequest, 'method'>, fresh: boolean) {
    const token = await connection.token({ fresh });
    return {
      accept: request.accept ?? 'application/json',
      'user-agent': userAgent,
      ...(request.body === undefined ? {} : { 'content-type': request.contentType ?? 'application/json' }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    };
  }

  async function send(request: KubeRequest, fresh: boolean): Promise<unknown> {
    const what = `${request.method} ${request.path}`;
    const chunks: Buffer[] = [];
    const decoder = new StringDecoder('utf8');
    const list = request.onItem && createListText(request.onItem);
    const ended = observe(verbOf(request));
    const head = await named(what, ended, async () =>
      exchange(
        requests,
        {
          method: request.method,
          path: prefix + request.path + queryText(request),
          headers: await headersFor(request, fresh),
          timeoutMs: request.timeoutMs ?? (request.method === 'GET' ? 30_000 : 10_000),
          ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
          signal: request.signal,
        },
        (chunk, { statusCode }) => {
          if (list !== undefined && statusCode < 300) list.read(decoder.write(chunk));
          else chunks.push(chunk);
        },
      ),
    );
    ended(head.statusCode);
    const text =
      chunks.length === 0 && list !== undefined ? list.rest() : Buffer.concat(chunks).toString('utf8');
    if (head.statusCode >= 300) throw refusal(what, head, text);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new UnreachableError(what, true, error instanceof Error ? error : new Error(String(error)));
    }
  }

  async function open(request: Parameters<KubeClient['stream']>[0], fresh: boolean): Promise<void> {
    const what = `GET ${request.path} (watch)`;
    const decoder = new StringDecoder('utf8');
    let rest = '';
    const begun = once(observe('watch'));
    const head = await named(what, begun, async () =>
      exchange(
        watches,
        {
          method: 'GET',
          path: prefix + request.path + queryText(request),
          headers: await headersFor(request, fresh),
          // Its reader decides for how long a watch may be silent.
          timeoutMs: 0,
          signal: request.signal,
        },
        (chunk, { statusCode }) => {
          rest += decoder.write(chunk);
          if (statusCode >= 300) return;
          const lines = rest.split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) if (line !== '') request.onLine(JSON.parse(line));
        },
        ({ statusCode }) => {
          begun(statusCode);
          if (statusCode < 300) request.onOpen?.();
        },
      ),
    );
    if (head.statusCode >= 300) throw refusal(what, head, rest);
  }

  return {
    request: (request) => withFreshToken((fresh) => send(request, fresh)),
    stream: (request) => withFreshToken((fresh) => open(request, fresh)),
    async close() {
      await Promise.all([requests.destroy(), watches.destroy()]);
    },
  };
}

/** A 401 means that nothing was done: the token is read again, once. */
async function withFreshToken<T>(attempt: (fresh: boolean) => Promise<T>): Promise<T> {
  try {
    return await attempt(false);
  } catch (error) {
    if (error instanceof UnauthorizedError) return attempt(true);
    throw error;
  }
}

async function named(
  what: string,
  failed: (outcome: RequestOutcome) => void,
  work: () => Promise<Head>,
): Promise<Head> {
  try {
    return await work();
  } catch (error) {
    const noAnswer = error instanceof TransportError;
    failed(noAnswer ? 'unreachable' : 'aborted');
    if (noAnswer) throw new UnreachableError(what, error.sent, error.cause);
    throw error;
  }
}

/** A watch that began and broke has ended for its observer before. */
function once(ended: (outcome: RequestOutcome) => void): (outcome: RequestOutcome) => void {
  let told = false;
  return (outcome) => {
    if (!told) ended(outcome);
    told = true;
  };
}

const VERBS = { POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' } as const;

/** Lists ask for pages, and nothing else does. */
function verbOf({ method, query }: KubeRequest): RequestVerb {
  if (method !== 'GET') return VERBS[method];
  return query?.limit === undefined ? 'get' : 'list';
}

function refusal(what: string, head: Head, text: string): KubeError {
  const seconds = Number(head.header('retry-after'));
  return errorOfAnswer(what, {
    statusCode: head.statusCode,
    text,
    ...(Number.isFinite(seconds) && seconds > 0 ? { retryAfterSeconds: seconds } : {}),
  });
}

/** Every write asks to be refused if it carries a field that the apiserver does not know. */
function queryText(request: { readonly method?: string; readonly query?: KubeRequest['query'] }): string {
  const { method } = request;
  const strict = method === 'POST' || method === 'PUT' || method === 'PATCH';
  const query = { ...request.query, ...(strict ? { fieldValidation: 'Strict' } : {}) };
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text === '' ? '' : `?${text}`;
}
