import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { connect, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  createMetricsRegistry,
  parseMetricsAddress,
  serveMetrics,
  TRY_AGAIN_MS,
  type MetricsRegistry,
  type MetricsServer,
} from '../../src/metrics/index.ts';
import { createFakeClock, type FakeClock } from '../controller/fake-clock.ts';
import { parseExposition } from './exposition.ts';
import { freePort } from './scrape.ts';

let clock: FakeClock;
let port: number;
let log: string[];
let servers: MetricsServer[];
let sockets: Socket[];

beforeEach(async () => {
  clock = createFakeClock();
  port = await freePort();
  log = [];
  servers = [];
  sockets = [];
});

afterEach(async () => {
  vi.useRealTimers();
  for (const socket of sockets) socket.destroy();
  for (const server of servers) await server.close();
});

describe('a scrape', () => {
  it('gets all metrics, in the format that Prometheus asks for', async () => {
    const registry = createMetricsRegistry();
    registry.count({ name: 'days_total', help: 'Days.' })(3);
    await serve(registry);
    const { status, headers, body } = await ask();
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(parseExposition(body).value('days_total')).toBe(3);
  });

  it('may carry parameters, as some scrapers do', async () => {
    await serve();
    expect((await ask('/metrics?format=text')).status).toBe(200);
  });

  it('costs a rendering at most twice a second, however many there are', async () => {
    let renderings = 0;
    await serve({
      contentType: 'text/plain',
      text: async () => {
        renderings++;
        return 'x\n';
      },
    });
    await Promise.all([ask(), ask(), ask()]);
    await ask();
    expect(renderings).toBe(1);
    await clock.advance(500);
    await ask();
    expect(renderings).toBe(2);
  });

  it('is answered with 500, and the log says why, where a metric cannot be read', async () => {
    await serve({
      contentType: 'text/plain',
      text: async () => {
        throw new Error('no such gauge');
      },
    });
    expect((await ask()).status).toBe(500);
    expect(log).toContain('error the metrics could not be read');
    expect((await ask()).status).toBe(500);
  });
});

describe('anything else', () => {
  it.each([
    ['GET', '/', 404],
    ['GET', '/metrics/', 404],
    ['GET', '/debug', 404],
    ['POST', '/metrics', 405],
    ['DELETE', '/metrics', 405],
    ['HEAD', '/metrics', 405],
  ])('%s %s is answered with %i', async (method, path, expected) => {
    await serve();
    expect((await ask(path, method)).status).toBe(expected);
  });

  it('of great size is cut short', async () => {
    await serve();
    const { status } = await ask('/metrics', 'GET', { 'x-large': 'a'.repeat(20_000) });
    expect(status).toBe(431);
  });
});

describe('a caller that hurts', () => {
  it('by saying nothing, or half a request, is cut off after ten seconds', async () => {
    await serve();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const silent = await open();
    const half = await open();
    half.write('GET /metrics HTTP/1.1\r\nHost: a');
    // Both connections are known to the server when a third one has its answer.
    expect((await ask()).status).toBe(200);
    const ended = Promise.all([silent, half].map((socket) => once(socket, 'close')));
    vi.advanceTimersByTime(9_999);
    expect([silent.destroyed, half.destroyed]).toEqual([false, false]);
    vi.advanceTimersByTime(1);
    await ended;
    expect((await ask()).status).toBe(200);
  });

  it('by not reading its answer is cut off, too', async () => {
    await serve({ contentType: 'text/plain', text: async () => 'x'.repeat(64 * 1024 * 1024) });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const deaf = await open();
    deaf.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
    while (deaf.bytesRead === 0) await new Promise((resolve) => setImmediate(resolve));
    vi.advanceTimersByTime(10_000);
    deaf.resume();
    await once(deaf, 'close');
    expect(deaf.bytesRead).toBeLessThan(64 * 1024 * 1024);
  });

  it('by opening many connections gets eight of them', async () => {
    await serve();
    const greedy = await Promise.all(Array.from({ length: 8 }, open));
    const ninth = await open();
    await once(ninth, 'close');
    for (const socket of greedy) socket.destroy();
    await vi.waitFor(async () => {
      expect((await ask()).status).toBe(200);
    });
  });
});

describe('a port that is in use', () => {
  it('is reported once and tried again until it can be had', async () => {
    const other = await occupy();
    await serve(undefined, { bound: false });
    await vi.waitFor(() => {
      expect(log).toEqual(['warn metrics cannot be served there: all else works, trying again']);
    });
    for (let i = 0; i < 15; i++) await nextTry();
    expect(log).toHaveLength(1);
    await new Promise((resolve) => other.close(resolve));
    await nextTry();
    await vi.waitFor(() => {
      expect(log.at(-1)).toBe('info metrics are served');
    });
    expect((await ask()).status).toBe(200);
  });

  it('keeps nobody from ending', async () => {
    const other = await occupy();
    const server = await serve(undefined, { bound: false });
    await server.close();
    other.close();
    expect(clock.sleeping).toBe(0);
  });
});

it('without an address serves nothing, and ends all the same', async () => {
  const server = serveMetrics({
    address: undefined,
    registry: createMetricsRegistry(),
    clock,
    log: keeping(),
  });
  await server.close();
  expect(log).toEqual([]);
});

it('frees its port at its end, though a scraper holds on', async () => {
  const server = await serve();
  const held = await open();
  const ended = once(held, 'close');
  await server.close();
  await ended;
  const next = await occupy();
  next.close();
});

async function serve(
  registry: Pick<MetricsRegistry, 'text' | 'contentType'> = createMetricsRegistry(),
  { bound = true } = {},
): Promise<MetricsServer> {
  const address = parseMetricsAddress(`127.0.0.1:${port}`);
  const server = serveMetrics({ address, registry, clock, log: keeping() });
  servers.push(server);
  if (bound) {
    await vi.waitFor(() => {
      expect(log).toContain('info metrics are served');
    });
  }
  return server;
}

/** Lets the time pass until the next try, and that try fail or succeed. */
async function nextTry(): Promise<void> {
  await vi.waitFor(() => {
    expect(clock.sleeping).toBe(1);
  });
  await clock.advance(TRY_AGAIN_MS);
}

function keeping() {
  const keep = (level: string) => (_: object, message: string) => void log.push(`${level} ${message}`);
  return { info: keep('info'), warn: keep('warn'), error: keep('error') };
}

interface Answer {
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

function ask(path = '/metrics', method = 'GET', headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (piece: string) => (body += piece));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

async function open(): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

async function occupy(): Promise<Server> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
