import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { serveCni, type CniServer, type ServeOptions, type Verbs } from '../../src/agent/server.ts';
import type { AddResult, CallAnswer } from '../../src/cni/index.ts';

const RESULT: AddResult = { interfaces: [], ips: [], routes: [], dns: {} };
const STDIN = JSON.stringify({ cniVersion: '1.1.0', name: 'weft', type: 'weft' });
const ADD = call('ADD');

let directory: string;
let socketPath: string;
let servers: CniServer[];
let log: { level: string; facts: object; message: string }[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-server-'));
  socketPath = join(directory, 'run', 'agent.sock');
  servers = [];
  log = [];
});

afterEach(async () => {
  for (const server of servers) await server.close();
  await rm(directory, { recursive: true, force: true });
});

describe('the socket', () => {
  it("is root's alone, in a directory that is root's alone", async () => {
    await serve({});
    expect((await stat(socketPath)).mode & 0o777).toBe(0o600);
    expect((await stat(join(directory, 'run'))).mode & 0o777).toBe(0o700);
  });

  it('takes the place of what a crash left, and stays when its server ends', async () => {
    const first = await serve({});
    const older = await stat(socketPath);
    await serve({ add: async () => RESULT });
    expect((await stat(socketPath)).ino).not.toBe(older.ino);
    await first.close();
    expect(JSON.parse((await post(ADD)).stdout)).toMatchObject({ cniVersion: '1.1.0' });
    expect(await readdir(join(directory, 'run'))).toEqual(['agent.sock']);
  });

  it('takes the place of a file that is no socket', async () => {
    await serve({});
    await rm(socketPath);
    await writeFile(socketPath, '');
    await serve({ add: async () => RESULT });
    expect((await post(ADD)).exitCode).toBe(0);
  });
});

describe('a call', () => {
  it('waits for the preparation, which begins when the socket is open', async () => {
    const order: string[] = [];
    const opened = Promise.withResolvers<undefined>();
    const serving = serve(
      {
        add: async () => {
          order.push('served');
          return RESULT;
        },
      },
      {
        prepare: async () => {
          expect((await stat(socketPath)).isSocket()).toBe(true);
          opened.resolve(undefined);
          await sleep(100);
          order.push('prepared');
        },
      },
    );
    await opened.promise;
    expect(await get('/healthz')).toEqual({ status: 503, body: { serving: false } });
    await post(ADD);
    await serving;
    expect(order).toEqual(['prepared', 'served']);
    expect(await get('/healthz')).toEqual({ status: 200, body: { serving: true } });
  });

  it('is answered with the reason where the preparation fails', async () => {
    const failure = new Error('the folder of notes cannot be read');
    const called = Promise.withResolvers<CallAnswer>();
    const serving = serve(
      {},
      {
        prepare: async () => {
          called.resolve(post(ADD));
          await sleep(100);
          throw failure;
        },
      },
    );
    await expect(serving).rejects.toBe(failure);
    expect(JSON.parse((await called.promise).stdout)).toMatchObject({ code: 999, msg: failure.message });
  });

  it('whose caller goes aborts its verb', async () => {
    const aborted = Promise.withResolvers<unknown>();
    const begun = Promise.withResolvers<undefined>();
    await serve({
      add: (_request, signal) =>
        new Promise((_resolve, reject) => {
          begun.resolve(undefined);
          signal.addEventListener('abort', () => {
            aborted.resolve(signal.reason);
            reject(signal.reason as Error);
          });
        }),
    });
    const caller = request({ socketPath, path: '/cni', method: 'POST' });
    caller.on('error', () => undefined);
    caller.end(JSON.stringify(ADD));
    await begun.promise;
    caller.destroy();
    expect(await aborted.promise).toMatchObject({ name: 'CallerGoneError' });
    await expect.poll(() => log.map(({ message }) => message)).toEqual(['ADD failed']);
  });

  it('whose caller stays does not', async () => {
    let aborted = false;
    await serve({
      add: async (_request, signal) => {
        signal.addEventListener('abort', () => (aborted = true));
        await sleep(50);
        return RESULT;
      },
    });
    expect((await post(ADD)).exitCode).toBe(0);
    await sleep(50);
    expect(aborted).toBe(false);
  });

  it.each([
    ['says why', (signal: AbortSignal) => signal.reason as Error],
    ['only says that it was aborted', () => new DOMException('The operation was aborted', 'AbortError')],
  ])('that outlives its deadline is answered with code 11 where the verb %s', async (_name, reason) => {
    await serve(
      {
        add: (_request, signal) =>
          new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => reject(reason(signal)));
          }),
      },
      { deadlinesMs: { ADD: 50 } },
    );
    const answer = await post(ADD);
    expect(JSON.parse(answer.stdout)).toMatchObject({
      code: 11,
      msg: expect.stringMatching(/^ADD .* 0\.05 s/) as string,
    });
    expect(answer.exitCode).toBe(1);
  });

  it('of DEL never says that something was not found', async () => {
    await serve({
      del: async () => {
        throw new Error('link Not Found', { cause: new Error('ENOENT: no such file or directory, open x') });
      },
    });
    const answer = await post(call('DEL'));
    expect(JSON.parse(answer.stdout)).toEqual({
      cniVersion: '1.1.0',
      code: 999,
      msg: 'link missing',
      details: 'ENOENT: the path is missing, open x',
    });
  });

  it('that is no call of ours is an internal error', async () => {
    await serve({});
    for (const body of ['', '[]', '{"env": {"A": 1}, "stdin": ""}', '{"env": [], "stdin": ""}']) {
      const answer = await postText(body);
      expect(JSON.parse(answer.stdout)).toMatchObject({ code: 999 });
      expect(answer.exitCode).toBe(1);
    }
  });

  it('that is too long is refused without being kept', async () => {
    await serve({});
    const answer = await postText('x'.repeat(7 * 1024 * 1024));
    expect(JSON.parse(answer.stdout)).toMatchObject({
      code: 999,
      msg: expect.stringMatching(/more than/) as string,
    });
  });

  it('is told of when it has ended: its verb, its code, its time, and whether anybody was left to answer', async () => {
    const told: [string | undefined, unknown, number][] = [];
    const gone = Promise.withResolvers<undefined>();
    await serve(
      {
        add: async (_request, signal) => {
          if (told.length < 1) return RESULT;
          gone.resolve(undefined);
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          throw signal.reason;
        },
        status: async () => {
          await sleep(20);
          throw Object.assign(new Error('no'), { name: 'DataPathBrokenError' });
        },
      },
      { onCall: (verb, outcome, ms) => told.push([verb, outcome, ms]) },
    );
    await post(ADD);
    const caller = request({ socketPath, path: '/cni', method: 'POST' });
    caller.on('error', () => undefined);
    caller.end(JSON.stringify(ADD));
    await gone.promise;
    caller.destroy();
    await vi.waitFor(() => {
      expect(told).toHaveLength(2);
    });
    await post(call('STATUS'));
    await post(call('__proto__'));
    await postText('{}');
    expect(told.map(([verb, outcome]) => [verb, outcome])).toEqual([
      ['ADD', 'ok'],
      ['ADD', 'gone'],
      ['STATUS', 51],
      [undefined, 4],
      [undefined, 999],
    ]);
    expect(told[2]?.[2]).toBeGreaterThan(15);
  });

  it('that fails is logged with its error, one that succeeds with its time, and a STATUS not at all', async () => {
    await serve({ add: async () => RESULT, status: async () => undefined });
    await post(call('STATUS'));
    await post(ADD);
    await post(call('CHECK'));
    expect(log).toMatchObject([
      {
        level: 'info',
        message: 'ADD done',
        facts: { containerID: 'c0ffee', ms: expect.any(Number) as number },
      },
      { level: 'warn', message: 'CHECK failed', facts: { err: { name: 'InvalidConfigurationError' } } },
    ]);
  });
});

it('logs neither the configuration nor the environment of a call, whatever comes of it (S15)', async () => {
  const secret = 'eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2VjcmV0';
  await serve({ add: async () => RESULT });
  const carrying = (verb: string, changes: object) => {
    const { env } = call(verb);
    return {
      env: { ...env, CNI_ARGS: `K8S_POD_NAME=web;K8S_POD_NAMESPACE=default;IgnoreUnknown=1;TOKEN=${secret}` },
      stdin: JSON.stringify({ ...(JSON.parse(STDIN) as object), kubernetes: { token: secret }, ...changes }),
    };
  };
  await post(carrying('ADD', {}));
  await post(carrying('DEL', {}));
  await post(carrying('CHECK', {}));
  await post(carrying('ADD', { cniVersion: '9.9.9' }));
  await post({ ...carrying('ADD', {}), stdin: `{"cniVersion": "1.1.0", "token": "${secret}"` });
  await postText(`{"stdin": "${secret}"`);
  expect(log.length).toBeGreaterThan(4);
  expect(inspect(log, { depth: null })).not.toContain(secret);
});

describe('what else may be asked', () => {
  it('is answered as JSON, or with 404', async () => {
    await serve({}, { reads: { '/snapshot': async () => ({ links: 3 }) } });
    expect(await get('/snapshot')).toEqual({ status: 200, body: { links: 3 } });
    expect((await get('/cni')).status).toBe(404);
    expect((await get('/constructor')).status).toBe(404);
  });

  it('says so if it fails', async () => {
    await serve(
      {},
      {
        reads: {
          '/snapshot': async () => {
            throw new Error('no dump');
          },
        },
      },
    );
    expect(await get('/snapshot')).toEqual({ status: 500, body: { error: 'no dump' } });
  });
});

it('answers what is under way before it closes', async () => {
  const server = await serve({
    add: async () => {
      await sleep(100);
      return RESULT;
    },
  });
  const answer = post(ADD);
  await sleep(30);
  await server.close();
  expect((await answer).exitCode).toBe(0);
});

function call(verb: string): { readonly env: object; readonly stdin: string } {
  return {
    env: { CNI_COMMAND: verb, CNI_CONTAINERID: 'c0ffee', CNI_IFNAME: 'eth0', CNI_NETNS: '/run/netns/pod' },
    stdin: STDIN,
  };
}

async function serve(verbs: Partial<Verbs>, options: Partial<ServeOptions> = {}): Promise<CniServer> {
  const unexpected = async (): Promise<never> => {
    throw new Error('the test did not expect this verb');
  };
  const write = (level: string) => (facts: object, message: string) =>
    void log.push({ level, facts, message });
  const server = await serveCni({
    socketPath,
    verbs: {
      add: unexpected,
      addAddresses: unexpected,
      del: unexpected,
      check: unexpected,
      checkAddresses: unexpected,
      status: unexpected,
      gc: unexpected,
      ...verbs,
    },
    log: { info: write('info'), warn: write('warn'), error: write('error') },
    clock: { nowMs: () => performance.now() },
    ...options,
  });
  servers.push(server);
  return server;
}

const post = (body: object): Promise<CallAnswer> => postText(JSON.stringify(body));

async function postText(text: string): Promise<CallAnswer> {
  const { status, body } = await ask('POST', '/cni', text);
  expect(status).toBe(200);
  return body as CallAnswer;
}

const get = (path: string) => ask('GET', path);

function ask(
  method: string,
  path: string,
  text = '',
): Promise<{ status: number | undefined; body: unknown }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, method, agent: false }, (response) => {
      let answer = '';
      response.setEncoding('utf8');
      response.on('data', (piece: string) => (answer += piece));
      response.on('end', () => {
        resolve({ status: response.statusCode, body: JSON.parse(answer) });
      });
    });
    asked.on('error', reject);
    asked.end(text);
  });
}
