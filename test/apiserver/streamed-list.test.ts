import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IP_ALLOCATION } from '../../src/api/index.ts';
import { allocationStore, pathOf, watchAllAllocations, type KubeClient } from '../../src/kube/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { informerParts, useApiserver } from './apiserver.ts';
import { startLossyProxy, type LossyProxy } from './lossy-proxy.ts';

/** How the controller comes to know all IPAllocations of a cluster, by each kind of apiserver that there is. */

const MANY = 3_000;
const CREATES_AT_ONCE = 32;
const soon = () => AbortSignal.timeout(30_000);

describe.each([
  { what: 'as they are', args: [], isStreamed: true },
  { what: 'without a cache of their own', args: ['--watch-cache=false'], isStreamed: true },
  { what: 'that stream no lists', args: ['--feature-gates=WatchList=false'], isStreamed: false },
])('all IPAllocations by apiservers $what', ({ args, isStreamed }) => {
  const server = useApiserver({ extraApiserverArgs: args });
  let proxy: LossyProxy;
  let through: KubeClient;

  beforeAll(async () => {
    proxy = await startLossyProxy(server().plane, server().dir);
    through = await server().connect({ server: proxy.url });
    const left = Array.from({ length: MANY }, (_, index) => index).values();
    const creators = Array.from({ length: CREATES_AT_ONCE }, async () => {
      for (const index of left) await create(index);
    });
    await Promise.all(creators);
  }, 240_000);
  afterAll(() => proxy.stop());

  it('are listed once, whole, and followed from there', async () => {
    proxy.requests.length = 0;
    const informer = watchAllAllocations(informerParts(through), ({ spec }) => spec.holder);
    await informer.synced;
    expect([...informer.keys()].sort()).toEqual(Array.from({ length: MANY }, (_, i) => nameOf(i)).sort());
    const asked = proxy.requests
      .filter(({ path }) => path.startsWith(pathOf(IP_ALLOCATION)))
      .map(({ path }) => new URL(path, proxy.url).searchParams);
    const streams = asked.filter((query) => query.get('sendInitialEvents') === 'true');
    expect(streams).toHaveLength(1);
    expect(asked.filter((query) => query.has('limit'))).toHaveLength(isStreamed ? 0 : 2);

    await create(MANY);
    await informer.waitFor(() => informer.has(nameOf(MANY)), soon());
    const found = await allocationStore(server().client).get(nameOf(7));
    if (found === undefined) throw new Error('it was made');
    await allocationStore(server().client).delete(found);
    await informer.waitFor(() => !informer.has(nameOf(7)), soon());
    await informer.stop();
  });

  it('are listed again where the list did not come through', async () => {
    let isBroken = false;
    proxy.setFault(({ path }) => {
      const isList = path.includes('sendInitialEvents=true') || path.includes('continue=');
      if (!isList || isBroken) return 'none';
      isBroken = true;
      return 'lose-request';
    });
    const informer = watchAllAllocations(informerParts(through), ({ spec }) => spec.holder);
    await informer.synced;
    expect(isBroken).toBe(true);
    expect([...informer.keys()]).toHaveLength(MANY);
    proxy.setFault(() => 'none');
    await informer.stop();
  });

  async function create(index: number): Promise<void> {
    const address = parseAddress(nameOf(index));
    const outcome = await allocationStore(server().client).create({
      address,
      pool: 'many',
      holder: 'a test',
    });
    expect(outcome.kind).toBe('created');
  }
});

function nameOf(index: number): string {
  return `10.3.${Math.floor(index / 250)}.${index % 250}`;
}
