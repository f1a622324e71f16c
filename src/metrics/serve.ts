import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Clock } from '../ipam/index.ts';
import { formatAddress } from '../net/index.ts';
import { formatMetricsAddress, type MetricsAddress } from './address.ts';
import type { MetricsRegistry } from './registry.ts';

export interface MetricsServerParts {
  /** Undefined: no metrics are served. */
  readonly address: MetricsAddress | undefined;
  readonly registry: Pick<MetricsRegistry, 'text' | 'contentType'>;
  readonly clock: Clock;
  readonly log: {
    info(facts: object, message: string): void;
    warn(facts: object, message: string): void;
    error(facts: object, message: string): void;
  };
}

export interface MetricsServer {
  /** Takes no more scrapes and cuts those under way. */
  close(): Promise<void>;
}

/** How often a port that another process has is tried again. */
export const TRY_AGAIN_MS = 10_000;

/** The longest that any connection may last, whatever its other end does or leaves undone. */
const CONNECTION_MS = 10_000;

/** At most so many connections at once: a scraper needs one. */
const MOST_CONNECTIONS = 8;

/** A text is good for so long: whoever asks more often costs no more. */
const FRESH_MS = 500;

/**
 * Serves `GET /metrics`. Nothing about it may keep the process from its work: a port that cannot be had is reported
 * and tried again, and callers that are slow, many or malicious get little of its time and memory.
 */
export function serveMetrics(parts: MetricsServerParts): MetricsServer {
  const { address, clock, log } = parts;
  const stopped = new AbortController();
  if (address === undefined) return { close: async () => undefined };
  const at = formatMetricsAddress(address);
  const server = createMetricsServer(parts);
  const opening = open(address);
  return {
    async close() {
      stopped.abort(new Error('the process ends'));
      await opening;
      await close(server);
    },
  };

  async function open(where: MetricsAddress): Promise<void> {
    let told = '';
    while (!stopped.signal.aborted) {
      try {
        await listen(server, where);
        // From here on one must not end the process.
        server.on('error', (error) => log.warn({ err: error }, 'the server of the metrics'));
        return log.info({ address: at }, 'metrics are served');
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (reason !== told) {
          log.warn(
            { address: at, err: error },
            'metrics cannot be served there: all else works, trying again',
          );
        }
        told = reason;
        await clock.sleep(TRY_AGAIN_MS, stopped.signal).catch(() => undefined); // stopped: the loop ends by itself
      }
    }
  }
}

function createMetricsServer({ registry, clock, log }: MetricsServerParts): Server {
  let latest: { readonly atMs: number; readonly text: Promise<string> } | undefined;
  const freshText = () => {
    const nowMs = clock.nowMs();
    if (latest === undefined || nowMs - latest.atMs >= FRESH_MS)
      latest = { atMs: nowMs, text: registry.text() };
    return latest.text;
  };

  const server = createServer({ maxHeaderSize: 8 * 1024 }, (request, response) => {
    answer(request, response).catch((error: unknown) => {
      log.error({ err: error }, 'the metrics could not be read');
      send(response, 500, 'text/plain', 'the metrics could not be read: the log says why\n');
    });
  });
  server.maxConnections = MOST_CONNECTIONS;
  server.on('connection', (socket) => {
    const timer = setTimeout(() => socket.destroy(), CONNECTION_MS);
    socket.once('close', () => clearTimeout(timer));
  });
  return server;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?', 1)[0];
    if (path !== '/metrics') return send(response, 404, 'text/plain', 'ask for /metrics\n');
    if (request.method !== 'GET') return send(response, 405, 'text/plain', 'only GET is answered\n');
    send(response, 200, registry.contentType, await freshText());
  }
}

/** The connection ends with its answer: until the next scrape it would only stand in the way of others. */
function send(response: ServerResponse, status: number, contentType: string, body: string): void {
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    ...(status === 405 ? { allow: 'GET' } : {}),
  });
  response.end(body);
}

function listen(server: Server, { host, port }: MetricsAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (how: () => void) => {
      server.off('error', onError).off('listening', onListening);
      how();
    };
    const onError = (error: Error) => settle(() => reject(error));
    const onListening = () => settle(resolve);
    server.on('error', onError).on('listening', onListening);
    server.listen({ host: formatAddress(host), port });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    // Without a listener there is nothing to close, and that is told as an error.
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
