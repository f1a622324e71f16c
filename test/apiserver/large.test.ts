import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { API_VERSION, IP_ALLOCATION, IP_POOL, NODE_SUBNET, type Resource } from '../../src/api/index.ts';
import { runCheck } from '../../src/cli/check/run-check.ts';
import {
  allocationStore,
  InvalidError,
  listAll,
  MERGE_PATCH,
  pathOf,
  watchAllocationsOfNode,
  type KubeClient,
} from '../../src/kube/index.ts';
import { poolStore } from '../../src/kube/ippools.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { informerParts, mustSucceed, useApiserver } from './apiserver.ts';
import { startLossyProxy, type LossyProxy, type ProxiedRequest } from './lossy-proxy.ts';

/** Objects that are large or many, and names that nobody chose, as a real apiserver treats them. */

/** Without its own cache the apiserver forgets a revision as soon as etcd does. */
const server = useApiserver({ extraApiserverArgs: ['--watch-cache=false'] });
let proxy: LossyProxy;
let through: KubeClient;
beforeAll(async () => {
  proxy = await startLossyProxy(server().plane, server().dir);
  through = await server().connect({ server: proxy.url });
});
afterAll(() => proxy.stop());

const NODE = 'node-1';
const MANY = 10_000;
/** As many as a page of a list has, and one of an informer's first list. */
const PAGE = 500;
const INFORMER_PAGE = 5_000;
/** Not all at once: each create has so long for its answer, from when it was asked for. */
const CREATES_AT_ONCE = 32;

describe('more objects than a page has (B26)', () => {
  beforeAll(async () => {
    const store = allocationStore(server().client);
    const left = Array.from({ length: MANY }, (_, i) => addressOf(i)).values();
    const creators = Array.from({ length: CREATES_AT_ONCE }, async () => {
      for (const address of left) await store.create(held(address));
    });
    await Promise.all(creators);
  }, 240_000);

  it('are listed by 500, all of one revision', async () => {
    proxy.requests.length = 0;
    const { items, resourceVersion } = await listAll(through, { path: pathOf(IP_ALLOCATION) });
    expect(namesOf(items)).toEqual(expectedNames());
    const pages = proxy.requests.filter(isList).map(({ path }) => new URL(path, proxy.url).searchParams);
    expect(pages.map((query) => query.get('limit'))).toEqual(pagesOf(MANY, PAGE).map(() => String(PAGE)));
    expect(pages.map((query) => query.has('continue'))).toEqual(pagesOf(MANY, PAGE));
    expect(Number(resourceVersion)).toBeGreaterThan(0);
  });

  it('are watched from a list of larger pages', async () => {
    proxy.requests.length = 0;
    const informer = watchAllocationsOfNode(informerParts(through), NODE);
    await informer.synced;
    const pages = proxy.requests.filter(isList).map(({ path }) => new URL(path, proxy.url).searchParams);
    const expected = pagesOf(MANY, INFORMER_PAGE);
    expect(pages.map((query) => query.get('limit'))).toEqual(expected.map(() => String(INFORMER_PAGE)));
    expect(pages.map((query) => query.has('continue'))).toEqual(expected);
    expect([...informer.keys()].sort()).toEqual(expectedNames());
    await informer.stop();
  });

  it('are listed anew where the apiserver forgets the first page’s revision before the last one is read', async () => {
    const store = allocationStore(server().client);
    let compacted: Promise<void> | undefined;
    proxy.requests.length = 0;
    proxy.setFault((request) => {
      if (!request.path.includes('continue=') || compacted !== undefined) return 'none';
      // A list of now, and not of when it began, is what is asked for.
      compacted = store.create(held(addressOf(MANY))).then((outcome) => {
        if (outcome.kind === 'taken') throw new Error('the name was taken');
        return compact(outcome.object.metadata.resourceVersion);
      });
      return { delayMs: 2_000 };
    });
    const { items } = await listAll(through, { path: pathOf(IP_ALLOCATION) });
    proxy.setFault(() => 'none');
    await compacted;
    expect(namesOf(items)).toEqual(expectedNames(MANY + 1));
    const pages = proxy.requests.filter(isList).map(({ path }) => path.includes('continue='));
    expect(pages).toEqual([false, true, ...pagesOf(MANY + 1, PAGE)]);
  });

  it('are not asked for on and on where that happens each time', async () => {
    proxy.requests.length = 0;
    proxy.setFault(({ path }) => (path.includes('continue=') ? { status: 410 } : 'none'));
    await expect(listAll(through, { path: pathOf(IP_ALLOCATION) })).rejects.toThrow('the proxy says so');
    expect(proxy.requests.filter(isList)).toHaveLength(6);
    // And who checks the cluster is told that it could not be read, not that all is well.
    const result = await runCheck({
      client: through,
      exec: () => Promise.resolve(''),
      clock: createSystemClock(),
      namespace: 'weft-system',
      graceMs: 0,
      confirmMs: 0,
      recountMs: 0,
      signal: new AbortController().signal,
    });
    proxy.setFault(() => 'none');
    expect(result.couldNot).toContain('the proxy says so');
  });
});

describe('an object with as many annotations as the apiserver takes (B26)', () => {
  /** All annotations of an object together may have 256 KiB. */
  const NOTES = { 'example.com/notes': 'x'.repeat(250_000) };

  it('is an address like any other: seen, released, deleted', async () => {
    const store = allocationStore(server().client);
    const created = await store.create({ ...held('10.2.0.1'), nodeName: 'node-2' });
    if (created.kind === 'taken') throw new Error('the name was taken');
    await annotate(IP_ALLOCATION, '10.2.0.1', NOTES);
    const informer = watchAllocationsOfNode(informerParts(through), 'node-2');
    await informer.synced;
    const seen = informer.get('10.2.0.1');
    expect(seen?.metadata.annotations).toEqual(NOTES);
    if (seen === undefined) throw new Error('it is not seen');
    expect(await store.markReleased(seen, new Date())).toBe('done');
    const isMarked = () => informer.get('10.2.0.1')?.status?.releasedAt !== undefined;
    await informer.waitFor(isMarked, AbortSignal.timeout(20_000));
    const marked = informer.get('10.2.0.1');
    if (marked === undefined) throw new Error('it is not seen');
    expect(await store.delete(marked)).toBe('done');
    await informer.waitFor(() => !informer.has('10.2.0.1'), AbortSignal.timeout(20_000));
    await informer.stop();
  });

  it('is a pool like any other: its finalizer and its status are written', async () => {
    const store = poolStore(server().client);
    await mustSucceed(
      server().kubectl(['apply', '--server-side', '-f', '-'], {
        apiVersion: API_VERSION,
        kind: IP_POOL.kind,
        metadata: { name: 'noted', annotations: NOTES },
        spec: { cidrs: ['10.2.0.0/16'] },
      }),
    );
    const found = await store.get('noted');
    if (found === undefined) throw new Error('there is no pool');
    expect(await store.addFinalizer(found)).toBe('done');
    const finalized = await store.get('noted');
    if (finalized === undefined) throw new Error('there is no pool');
    const usage = {
      capacity: '65536',
      allocated: 1,
      resting: 0,
      reserved: '1',
      free: '65534',
      nodeSubnets: 1,
      freeSubnets: '1023',
    };
    expect(await store.writePoolStatus(finalized, { ipv4: usage, conditions: [] })).toBe('done');
    const after = await store.get('noted');
    expect(after?.metadata.annotations).toEqual(NOTES);
    expect(after?.status?.ipv4).toEqual(usage);
  });

  it('is refused by the apiserver where it is larger', async () => {
    const writing = annotate(IP_POOL, 'noted', { 'example.com/notes': 'x'.repeat(1_000_000) });
    await expect(writing).rejects.toThrow(/Too long: may not be more than 262144 bytes/);
  });
});

describe('a generated name (B26)', () => {
  it.each([
    {
      resource: IP_ALLOCATION,
      spec: { address: '10.3.0.1', pool: 'p', holder: 'somebody' },
      rule: 'metadata.name must be spec.address',
    },
    {
      resource: NODE_SUBNET,
      spec: {
        cidr: '10.3.0.0/26',
        pool: 'p',
        poolUID: 'u',
        nodeName: NODE,
        nodeUID: 'u',
        nextHops: ['192.0.2.1'],
      },
      rule: 'metadata.name must be spec.cidr',
    },
  ])('of a $resource.kind would lock nothing, and is refused', async ({ resource, spec, rule }) => {
    const error: unknown = await generate(resource, spec).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(InvalidError);
    expect(error instanceof InvalidError ? error.detail : '').toContain(rule);
  });

  it('of an IPPool is a name like any other', async () => {
    const created = (await generate(IP_POOL, { cidrs: ['10.4.0.0/16'] })) as { metadata: { name: string } };
    expect(created.metadata.name).toMatch(/^made-/);
  });
});

const addressOf = (i: number) => `10.1.${Math.floor(i / 250)}.${(i % 250) + 1}`;

const held = (address: string) => ({
  address: parseAddress(address),
  pool: 'p',
  nodeName: NODE,
  holder: 'somebody',
});

const expectedNames = (count = MANY) => Array.from({ length: count }, (_, i) => addressOf(i)).sort();

/** A list of so many objects, page by page: whether it goes on with one that was begun. */
const pagesOf = (count: number, size: number) =>
  Array.from({ length: Math.ceil(count / size) }, (_, i) => i > 0);

function namesOf(items: readonly unknown[]): string[] {
  return items.map((item) => (item as { metadata: { name: string } }).metadata.name).sort();
}

function isList({ method, path }: ProxiedRequest): boolean {
  return method === 'GET' && path.startsWith(`${pathOf(IP_ALLOCATION)}?`) && !path.includes('watch=true');
}

async function annotate(
  resource: Resource,
  name: string,
  annotations: Readonly<Record<string, string>>,
): Promise<void> {
  const path = `${pathOf(resource)}/${name}`;
  const body = { metadata: { annotations } };
  await server().client.request({ method: 'PATCH', path, contentType: MERGE_PATCH, body });
}

function generate(resource: Resource, spec: object): Promise<unknown> {
  const metadata = { generateName: 'made-' };
  const body = { apiVersion: API_VERSION, kind: resource.kind, metadata, spec };
  return server().client.request({ method: 'POST', path: pathOf(resource), body });
}

/** Until nothing before that revision can be read any more. */
async function compact(revision: string): Promise<void> {
  const answer = await fetch(`${server().plane.etcdUrl}/v3/kv/compaction`, {
    method: 'POST',
    body: JSON.stringify({ revision, physical: true }),
  });
  if (!answer.ok) throw new Error(await answer.text());
}
