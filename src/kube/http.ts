import type { Dispatcher, Pool } from 'undici';

export interface HTTPRequest {
  readonly method: Dispatcher.HttpMethod;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body?: string;
  /** For the head of the answer, and between two pieces of its body; 0: none. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface Head {
  readonly statusCode: number;
  readonly header: (name: string) => string | undefined;
}

/** The request failed below HTTP. If not `sent`, not a byte of it can have arrived. */
export class TransportError extends Error {
  override name = 'TransportError' as const;
  readonly sent: boolean;
  override readonly cause: Error;

  constructor(sent: boolean, cause: Error) {
    super(cause.message, { cause });
    this.sent = sent;
    this.cause = cause;
  }
}

/**
 * Sends a request and answers when its answer is complete; `onData` gets the body as it comes. Works on the
 * dispatcher itself: a body that is one string goes out with its head and a content-length in one write.
 * @throws TransportError, what `onData` throws, or the signal's reason
 */
export function exchange(
  pool: Pool,
  request: HTTPRequest,
  onData: (chunk: Buffer, head: Head) => void,
  onHead: (head: Head) => void = () => undefined,
): Promise<Head> {
  const { signal, timeoutMs } = request;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(reasonOf(signal));
    let controller: Dispatcher.DispatchController | undefined;
    let head: Head | undefined;
    const onAbort = () => {
      if (signal === undefined) return;
      // Whoever gave up gets its answer now; a request still waiting for a connection is dropped when it starts.
      reject(reasonOf(signal));
      controller?.abort(reasonOf(signal));
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    const done = () => signal?.removeEventListener('abort', onAbort);
    pool.dispatch(
      {
        method: request.method,
        path: request.path,
        headers: request.headers,
        body: request.body ?? null,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      },
      {
        onRequestStart(started) {
          controller = started;
          if (signal?.aborted === true) started.abort(reasonOf(signal));
        },
        onResponseStart(_controller, statusCode, headers) {
          head = { statusCode, header: (name) => single(headers[name]) };
          onHead(head);
        },
        onResponseData(started, chunk) {
          if (head === undefined) return;
          try {
            onData(chunk, head);
          } catch (error) {
            // The reader's error, not the connection's: it must reach the caller as it is.
            const failure = error instanceof Error ? error : new Error(String(error));
            done();
            reject(failure);
            started.abort(failure);
          }
        },
        onResponseEnd() {
          done();
          if (head !== undefined) resolve(head);
        },
        onResponseError(_controller, error) {
          done();
          reject(new TransportError(controller !== undefined, error));
        },
      },
    );
  });
}

function reasonOf(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new Error(String(reason));
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
