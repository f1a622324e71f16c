import { chmod, mkdir, rename, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import {
  CALL_PATH,
  cniErrorObject,
  LATEST_VERSION,
  MAX_INPUT_BYTES,
  parseRequest,
  renderAdd,
  SUPPORTED_VERSIONS,
  VerbDeadlineError,
  type AddRequest,
  type AddResult,
  type AddressAddRequest,
  type AddressCheckRequest,
  type CallAnswer,
  type CallRequest,
  type CheckRequest,
  type CniErrorObject,
  type CniRequest,
  type DelRequest,
  type GcRequest,
  type StatusRequest,
} from '../cni/index.ts';

/**
 * What the agent does for each verb. `signal` aborts when nobody waits for the answer any more, or when the verb's
 * time is over; what was begun is then to be taken back.
 */
export interface Verbs {
  add(request: AddRequest, signal: AbortSignal): Promise<AddResult>;
  addAddresses(request: AddressAddRequest, signal: AbortSignal): Promise<AddResult>;
  del(request: DelRequest, signal: AbortSignal): Promise<void>;
  check(request: CheckRequest, signal: AbortSignal): Promise<void>;
  checkAddresses(request: AddressCheckRequest, signal: AbortSignal): Promise<void>;
  status(request: StatusRequest, signal: AbortSignal): Promise<void>;
  gc(request: GcRequest, signal: AbortSignal): Promise<void>;
}

/** How a call ended: with success, with an error of that code, or with nobody to answer any more. */
export type CallOutcome = 'ok' | 'gone' | number;

/** Is told of each call when it has ended; `verb` is undefined where the call named none that there is. */
export type CallObserver = (verb: CniRequest['verb'] | undefined, outcome: CallOutcome, ms: number) => void;

export interface ServeOptions {
  readonly socketPath: string;
  readonly verbs: Verbs;
  readonly log: ServerLog;
  readonly clock: { nowMs(): number };
  /** How long each verb may take, in ms; the executable's own deadlines are a little longer. */
  readonly deadlinesMs?: Partial<Deadlines>;
  /** Work that must be done after the socket has opened and before the first call is served. */
  readonly prepare?: () => Promise<void>;
  readonly onCall?: CallObserver;
  /** What else may be asked for with GET, by path; answered as JSON. */
  readonly reads?: Readonly<Record<string, () => Promise<unknown>>>;
}

export interface ServerLog {
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

export interface CniServer {
  /** Takes no more calls, and resolves when those under way have been answered. The socket file stays. */
  close(): Promise<void>;
}

/** Nobody reads the answer any more: the executable was killed, or has given up. */
export class CallerGoneError extends Error {
  override name = 'CallerGoneError' as const;

  constructor() {
    super('the caller went before the answer was written');
  }
}

type Deadlines = Readonly<Record<CniRequest['verb'], number>>;

const DEADLINES_MS: Deadlines = { ADD: 45_000, DEL: 18_000, CHECK: 9_000, STATUS: 900, GC: 55_000 };

/**
 * Serves CNI calls on a unix socket: 0600, in a directory of 0700. Only the agent that holds the lock may call
 * this, since it takes the place of whatever socket is there. Resolves when calls are being served.
 */
export async function serveCni(options: ServeOptions): Promise<CniServer> {
  const prepared = Promise.withResolvers<void>();
  // A failing preparation is thrown below; calls that wait for it are answered with it, each for itself.
  prepared.promise.catch(() => undefined);
  let ready = false;
  const server = createServer((incoming, response) => {
    const call = incoming.method === 'POST' && incoming.url === CALL_PATH;
    if (call) void serveCall(options, prepared.promise, incoming, response);
    else void serveRead(options, ready, incoming, response);
  });
  // A call may take longer than Node gives a request by default, and has a deadline of its own.
  server.requestTimeout = 0;
  await listen(server, options.socketPath);
  try {
    await options.prepare?.();
    prepared.resolve();
    ready = true;
  } catch (error) {
    prepared.reject(error);
    await close(server);
    throw error;
  }
  return { close: () => close(server) };
}

/** One call, from the bytes of its request to those of its answer. Never rejects. */
async function serveCall(
  options: ServeOptions,
  prepared: Promise<void>,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const startedMs = options.clock.nowMs();
  const end = new AbortController();
  response.on('close', () => {
    if (!response.writableFinished) end.abort(new CallerGoneError());
  });
  let call: CallRequest | undefined;
  let answer: CallAnswer;
  let outcome: CallOutcome = 'ok';
  try {
    call = parseCall(await readBody(incoming));
    await prepared;
    answer = await run(options, parseRequest(call), end);
  } catch (error) {
    const failure = errorObject(error, call);
    outcome = failure.code;
    answer = { stdout: JSON.stringify(failure), exitCode: 1 };
    options.log.warn(
      { err: error, ...summary(call), ms: elapsed(options, startedMs) },
      `${call?.env.CNI_COMMAND ?? 'call'} failed`,
    );
  }
  options.onCall?.(verbOf(call), response.destroyed ? 'gone' : outcome, elapsed(options, startedMs));
  if (response.destroyed) return;
  send(response, 200, JSON.stringify(answer));
  // Runtimes ask for the status every few seconds.
  if (answer.exitCode === 0 && call?.env.CNI_COMMAND !== 'STATUS') {
    options.log.info(
      { ...summary(call), ms: elapsed(options, startedMs) },
      `${call?.env.CNI_COMMAND ?? ''} done`,
    );
  }
}

/** Runs the verb until it ends; `end` aborts when its time is over. */
async function run(options: ServeOptions, request: CniRequest, end: AbortController): Promise<CallAnswer> {
  const deadlineMs = options.deadlinesMs?.[request.verb] ?? DEADLINES_MS[request.verb];
  const timer = setTimeout(() => {
    end.abort(new VerbDeadlineError(request.verb, deadlineMs, 'what was begun has been taken back'));
  }, deadlineMs);
  try {
    return { stdout: await dispatch(options.verbs, request, end.signal), exitCode: 0 };
  } catch (error) {
    // Some only say that they were aborted; why is the signal's to say.
    const isBareAbort = error instanceof Error && error.name === 'AbortError';
    throw isBareAbort && end.signal.aborted ? end.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

/** What the verb prints when it succeeds; only ADD prints anything. */
async function dispatch(verbs: Verbs, request: CniRequest, signal: AbortSignal): Promise<string> {
  switch (request.verb) {
    case 'ADD': {
      const result =
        request.asks === 'AddressOnly'
          ? await verbs.addAddresses(request, signal)
          : await verbs.add(request, signal);
      return JSON.stringify(renderAdd(result, request.cniVersion));
    }
    case 'DEL':
      await verbs.del(request, signal);
      return '';
    case 'CHECK':
      if (request.asks === 'AddressOnly') await verbs.checkAddresses(request, signal);
      else await verbs.check(request, signal);
      return '';
    case 'STATUS':
      await verbs.status(request, signal);
      return '';
    case 'GC':
      await verbs.gc(request, signal);
      return '';
  }
}

async function serveRead(
  options: ServeOptions,
  ready: boolean,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = incoming.method === 'GET' ? (incoming.url ?? '') : '';
  if (path === '/healthz') {
    send(response, ready ? 200 : 503, JSON.stringify({ serving: ready }));
    return;
  }
  const read =
    options.reads !== undefined && Object.hasOwn(options.reads, path) ? options.reads[path] : undefined;
  if (read === undefined) {
    send(
      response,
      404,
      JSON.stringify({ error: `nothing answers ${incoming.method ?? ''} ${incoming.url ?? ''}` }),
    );
    return;
  }
  try {
    send(response, 200, JSON.stringify(await read()));
  } catch (error) {
    options.log.error({ err: error }, `GET ${path} failed`);
    send(response, 500, JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
  }
}

/**
 * Opens the socket under a name of its own and renames it into place: it is never there with wider rights, takes
 * the place of one that a crash left, and is not unlinked when this process ends, since by then the path may be
 * the next agent's.
 */
async function listen(server: Server, socketPath: string): Promise<void> {
  const directory = dirname(socketPath);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700);
  const draft = `${socketPath}.${process.pid}`;
  await rm(draft, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(draft, resolve);
  });
  await chmod(draft, 0o600);
  await rename(draft, socketPath);
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
}

/** Every byte of the input may be six in JSON, and the environment stands beside it. */
const MAX_BODY_BYTES = 6 * MAX_INPUT_BYTES + 64 * 1024;

async function readBody(incoming: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of incoming as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length > MAX_BODY_BYTES) throw new Error(`a call of more than ${MAX_BODY_BYTES} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

/** The socket is root's and the executable's, so a malformed call is a mistake of ours and not of the runtime. */
function parseCall(body: string): CallRequest {
  const call: unknown = JSON.parse(body);
  if (typeof call === 'object' && call !== null && 'env' in call && 'stdin' in call) {
    const { env, stdin } = call;
    if (typeof stdin === 'string' && isVariables(env)) return { env, stdin };
  }
  throw new TypeError('a call is {env: {NAME: value}, stdin: text}');
}

function isVariables(value: unknown): value is Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((entry) => typeof entry === 'string');
}

/** The one place where an error becomes what the runtime reads. */
function errorObject(error: unknown, call: CallRequest | undefined): CniErrorObject {
  return cniErrorObject(error, versionOf(call), call?.env.CNI_COMMAND);
}

function verbOf(call: CallRequest | undefined): CniRequest['verb'] | undefined {
  const verb = call?.env.CNI_COMMAND ?? '';
  return Object.hasOwn(DEADLINES_MS, verb) ? (verb as CniRequest['verb']) : undefined;
}

/** The version to write an error in, as far as the input can be read. */
function versionOf(call: CallRequest | undefined): string {
  try {
    const configuration: unknown = JSON.parse(call?.stdin ?? '');
    const asked =
      typeof configuration === 'object' && configuration !== null && 'cniVersion' in configuration
        ? configuration.cniVersion
        : undefined;
    return SUPPORTED_VERSIONS.find((version) => version === asked) ?? LATEST_VERSION;
  } catch {
    return LATEST_VERSION;
  }
}

function summary(call: CallRequest | undefined): object {
  const { CNI_CONTAINERID: containerID, CNI_IFNAME: ifName, CNI_NETNS: netns } = call?.env ?? {};
  return { containerID, ifName, netns };
}

function elapsed(options: ServeOptions, startedMs: number): number {
  return Math.round((options.clock.nowMs() - startedMs) * 100) / 100;
}

function send(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}
