import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { openAuthority } from '../../hack/cluster/certificates.ts';
import type { IPAllocationSpec } from '../../src/api/index.ts';
import {
  allocationStore,
  createKubeClient,
  ForbiddenError,
  inClusterConnection,
  KubeConfigError,
  loadConnection,
  NotFoundError,
  ServerError,
  TooManyRequestsError,
  UnauthorizedError,
  UnreachableError,
  type KubeClient,
  type RequestObserver,
} from '../../src/kube/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { mustSucceed, useApiserver } from './apiserver.ts';
import { startLossyProxy, type LossyProxy } from './lossy-proxy.ts';

const server = useApiserver();
let proxy: LossyProxy;
let through: KubeClient;
beforeAll(async () => {
  proxy = await startLossyProxy(server().plane, server().dir);
  through = await server().connect({ server: proxy.url });
});
afterEach(async () => {
  proxy.setFault(() => 'none');
  await proxy.setDown(false);
});
afterAll(() => proxy.stop());

const NAMESPACE = { method: 'GET', path: '/api/v1/namespaces/default' } as const;
const held = (address: string, holder = 'h'): IPAllocationSpec => ({
  address: parseAddress(address),
  pool: 'p',
  holder,
});

async function thrown(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('connections', () => {
  it('are kept: 300 requests one after the other need no more than two', async () => {
    const before = proxy.connectionsOpened;
    const client = await server().connect({ server: proxy.url });
    for (let n = 0; n < 300; n++) await client.request(NAMESPACE);
    // A second one where a request comes in the very moment in which the answer before it ends.
    expect(proxy.connectionsOpened - before).toBeLessThanOrEqual(2);
  });

  it('are at most as many as was said, however many requests are under way', async () => {
    const before = proxy.connectionsOpened;
    const client = await server().connect({ server: proxy.url, connections: 4 });
    await Promise.all(Array.from({ length: 100 }, () => client.request(NAMESPACE)));
    expect(proxy.connectionsOpened - before).toBe(4);
  });

  it('of watches are not those of requests', async () => {
    const client = await server().connect({ server: proxy.url, connections: 1 });
    const ended = new AbortController();
    const watching = Array.from({ length: 3 }, () =>
      thrown(
        client.stream({
          path: '/api/v1/namespaces',
          query: { watch: true },
          signal: ended.signal,
          onLine: () => undefined,
        }),
      ),
    );
    await client.request(NAMESPACE);
    ended.abort(new Error('enough'));
    for (const error of await Promise.all(watching)) expect(error).toEqual(new Error('enough'));
  });

  it('ignore proxies that the environment names', async () => {
    vi.stubEnv('HTTPS_PROXY', 'http://127.0.0.1:1');
    vi.stubEnv('https_proxy', 'http://127.0.0.1:1');
    const client = await server().connect();
    await client.request(NAMESPACE);
    vi.unstubAllEnvs();
  });
});

describe('an answer that is lost', () => {
  it('leaves the object behind, and says that this is not known', async () => {
    proxy.setFault(({ method }) => (method === 'POST' ? 'lose-answer' : 'none'));
    const store = allocationStore(through);
    const error = await thrown(store.create(held('10.0.0.1', 'mine')));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error).toMatchObject({ sent: true });
    expect(String(error)).toContain('whether it was carried out is not known');
    proxy.setFault(() => 'none');
    // The same name is tried again: taken, by ourselves.
    expect(await store.create(held('10.0.0.1', 'mine'))).toEqual({ kind: 'taken' });
    expect((await store.get('10.0.0.1'))?.spec.holder).toBe('mine');
  });

  it('is never sent again by the client itself', async () => {
    proxy.setFault(({ method }) => (method === 'POST' ? 'lose-request' : 'none'));
    proxy.requests.length = 0;
    expect(await thrown(allocationStore(through).create(held('10.0.0.2')))).toBeInstanceOf(UnreachableError);
    expect(proxy.requests.filter(({ method }) => method === 'POST')).toHaveLength(1);
    proxy.setFault(() => 'none');
    expect((await allocationStore(through).create(held('10.0.0.2'))).kind).toBe('created');
  });
});

describe('refusals', () => {
  it.each([
    [{ status: 429, retryAfterSeconds: 7 }, TooManyRequestsError, { retryAfterMs: 7_000 }],
    [{ status: 429 }, TooManyRequestsError, { retryAfterMs: 1_000 }],
    [{ status: 500 }, ServerError, { statusCode: 500 }],
    [{ status: 503 }, ServerError, { statusCode: 503 }],
  ] as const)('%j are told apart', async (fault, kind, fields) => {
    proxy.setFault(() => fault);
    const error = await thrown(allocationStore(through).create(held('10.0.0.3')));
    expect(error).toBeInstanceOf(kind);
    expect(error).toMatchObject(fields);
  });

  it('name what was asked and what the apiserver says', async () => {
    await expect(
      server().client.request({ method: 'GET', path: '/api/v1/namespaces/nowhere' }),
    ).rejects.toThrow('GET /api/v1/namespaces/nowhere: namespaces "nowhere" not found (404 NotFound)');
    expect(await thrown(server().client.request({ method: 'GET', path: '/api/nothing' }))).toBeInstanceOf(
      NotFoundError,
    );
  });

  it('say that nothing was sent where nothing listens', async () => {
    await proxy.setDown(true);
    await thrown(through.request(NAMESPACE)); // may still have met a connection that was open
    const error = await thrown(through.request(NAMESPACE));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error).toMatchObject({ sent: false });
    expect(String(error)).toContain('ECONNREFUSED');
  });

  it('come at once for who gives up waiting', async () => {
    proxy.setFault(() => ({ delayMs: 3_000 }));
    const beganAtMs = performance.now();
    const waiting = through.request({ ...NAMESPACE, signal: AbortSignal.timeout(200) });
    await expect(waiting).rejects.toThrow(/timeout/);
    expect(performance.now() - beganAtMs).toBeLessThan(1_500);
  });

  it('come after the time an apiserver may be silent', async () => {
    proxy.setFault(() => ({ delayMs: 10_000 }));
    expect(await thrown(through.request({ ...NAMESPACE, timeoutMs: 500 }))).toBeInstanceOf(UnreachableError);
  }, 20_000);
});

describe('an observer', () => {
  it('is told of each request by verb, and how it ended', async () => {
    const { told, observe } = recorder();
    const client = await server().connect({ server: proxy.url, observe });
    const store = allocationStore(client);
    await store.create(held('10.0.0.20'));
    await store.create(held('10.0.0.20'));
    const seen = await store.get('10.0.0.20');
    if (seen === undefined) throw new Error('created above');
    await store.markReleased(seen, new Date());
    await store.delete(seen);
    await store.get('10.0.0.21');
    await store.listOfNode('nobody');
    expect(told).toEqual([
      'create 201',
      'create 409',
      'get 200',
      'patch 200',
      'delete 409',
      'get 404',
      'list 200',
    ]);
  });

  it('is told where no answer came, and where nobody waited for one', async () => {
    const { told, observe } = recorder();
    const client = await server().connect({ server: proxy.url, observe });
    proxy.setFault(() => 'lose-answer');
    await thrown(client.request(NAMESPACE));
    proxy.setFault(() => ({ delayMs: 3_000 }));
    await thrown(client.request({ ...NAMESPACE, signal: AbortSignal.timeout(100) }));
    proxy.setFault(() => ({ status: 503 }));
    await thrown(client.request(NAMESPACE));
    expect(told).toEqual(['get unreachable', 'get aborted', 'get 503']);
  });

  it('is told of a watch when it begins, and not again when it ends or breaks', async () => {
    const { told, observe } = recorder();
    const client = await server().connect({ server: proxy.url, observe });
    const watch = (signal: AbortSignal, onOpen: () => void) =>
      client.stream({
        path: '/api/v1/namespaces',
        query: { watch: true },
        signal,
        onOpen,
        onLine: () => undefined,
      });
    for (const end of [(stop: AbortController) => stop.abort(), () => proxy.resetConnections()]) {
      const stop = new AbortController();
      const opened = Promise.withResolvers<undefined>();
      const watching = thrown(watch(stop.signal, () => opened.resolve(undefined)));
      await opened.promise;
      end(stop);
      await watching;
    }
    expect(told).toEqual(['watch 200', 'watch 200']);
    proxy.setFault(() => 'lose-request');
    await thrown(watch(new AbortController().signal, () => undefined));
    expect(told.at(-1)).toBe('watch unreachable');
  });

  function recorder(): { told: string[]; observe: RequestObserver } {
    const told: string[] = [];
    return { told, observe: (verb) => (outcome) => told.push(`${verb} ${outcome}`) };
  }
});

describe('who we are', () => {
  const account = async (): Promise<string> =>
    (await mustSucceed(server().kubectl(['create', 'token', 'default', '-n', 'default']))).trim();

  beforeAll(async () => {
    await mustSucceed(
      server()
        .kubectl(['create', 'serviceaccount', 'default', '-n', 'default'])
        .then(async (made) => {
          return made.exitCode === 0 ? made : server().kubectl(['get', 'serviceaccount', 'default']);
        }),
    );
  });

  it('is read again once after a 401', async () => {
    const good = await account();
    const asked: boolean[] = [];
    const ca = await readFile(server().plane.authority.certificateFile);
    const client = createKubeClient({
      server: new URL(server().plane.url),
      tls: { ca },
      freshTLS: async () => ({ ca }),
      async token({ fresh }) {
        asked.push(fresh);
        return fresh ? good : 'expired';
      },
    });
    // Known now, and with no right to look.
    expect(await thrown(client.request(NAMESPACE))).toBeInstanceOf(ForbiddenError);
    expect(asked).toEqual([false, true]);
    await client.close();
    const stranger = createKubeClient({
      server: new URL(server().plane.url),
      tls: { ca },
      freshTLS: async () => ({ ca }),
      token: async () => 'bad',
    });
    expect(await thrown(stranger.request(NAMESPACE))).toBeInstanceOf(UnauthorizedError);
    await stranger.close();
  });

  it('comes from the pod’s service account inside a cluster, as its file says now', async () => {
    const folder = await mkdtemp(join(server().dir, 'account-'));
    const url = new URL(server().plane.url);
    const env = { KUBERNETES_SERVICE_HOST: url.hostname, KUBERNETES_SERVICE_PORT: url.port };
    await expect(inClusterConnection({ env, clock: createSystemClock() }, folder)).rejects.toThrow(
      /cannot read .*token: the pod needs a service account/,
    );
    await writeFile(join(folder, 'ca.crt'), await readFile(server().plane.authority.certificateFile));
    await writeFile(join(folder, 'token'), 'an older token\n');
    const client = createKubeClient(await inClusterConnection({ env, clock: createSystemClock() }, folder));
    await writeFile(join(folder, 'token'), `${await account()}\n`);
    expect(await thrown(client.request(NAMESPACE))).toBeInstanceOf(ForbiddenError);
    await client.close();
  });
});

describe('whom we trust', () => {
  it('is read again where a certificate cannot be verified, and is kept where it says the same (F32)', async () => {
    const good = await readFile(server().plane.authority.certificateFile);
    const other = await openAuthority(join(server().dir, 'another-authority'));
    let file = await readFile(other.certificateFile);
    let reads = 0;
    const client = createKubeClient({
      server: new URL(server().plane.url),
      tls: { ca: file },
      async freshTLS() {
        reads++;
        return { ca: file };
      },
      token: async () => 'bad',
    });
    expect(await thrown(client.request(NAMESPACE))).toBeInstanceOf(UnreachableError);
    expect(reads).toBe(1);
    file = good;
    // Known by its certificate now, and it does not know us.
    expect(await thrown(client.request(NAMESPACE))).toBeInstanceOf(UnauthorizedError);
    expect(reads).toBe(2);
    await thrown(client.request(NAMESPACE));
    expect(reads).toBe(2);
    await client.close();
  });

  it('is only an apiserver whose certificate is the configured authority’s', async () => {
    const stranger = createKubeClient({
      server: new URL(server().plane.url),
      tls: {},
      freshTLS: async () => ({}),
      token: async () => undefined,
    });
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
    const error = await thrown(stranger.request(NAMESPACE));
    vi.unstubAllEnvs();
    expect(error).toBeInstanceOf(UnreachableError);
    expect(String(error)).toMatch(/certificate/);
    await stranger.close();
  });

  it.each([
    [{ server: 'http://127.0.0.1:8080' }, 'it must be an https URL'],
    [{ server: 'https://127.0.0.1:1', 'insecure-skip-tls-verify': true }, 'sets insecure-skip-tls-verify'],
    [{ server: 'https://127.0.0.1:1', 'proxy-url': 'http://127.0.0.1:1' }, 'sets proxy-url'],
  ])('is not a kubeconfig with %j', async (cluster, message) => {
    const file = join(await mkdtemp(join(server().dir, 'kubeconfig-')), 'config');
    await writeFile(
      file,
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'c', cluster }],
        users: [{ name: 'u', user: { token: 't' } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      }),
    );
    const loading = loadConnection({ kubeconfig: file, env: {}, clock: createSystemClock() });
    await expect(loading).rejects.toThrow(KubeConfigError);
    await expect(loading).rejects.toThrow(message);
  });

  it('is no kubeconfig that is not there', async () => {
    const loading = loadConnection({ kubeconfig: '/nowhere', env: {}, clock: createSystemClock() });
    await expect(loading).rejects.toThrow('cannot read the kubeconfig /nowhere');
  });
});
