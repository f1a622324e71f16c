import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { IP_ALLOCATION, type IPAllocation } from '../../src/api/index.ts';
import { allocationStore, watchAllocationsOfNode } from '../../src/kube/index.ts';
import { pathOf } from '../../src/kube/paths.ts';
import { parseAddress } from '../../src/net/index.ts';
import { informerParts, keepingLog, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';
import { startLossyProxy, type LossyProxy } from './lossy-proxy.ts';

/** Without its own cache the apiserver forgets a revision as soon as etcd does. */
const server = useApiserver({ extraApiserverArgs: ['--watch-cache=false'] });
let proxy: LossyProxy;
beforeAll(async () => {
  proxy = await startLossyProxy(server().plane, server().dir);
});
afterAll(() => proxy.stop());

it('lists again after 410 alone, after a jitter, its old cache in use until then', async () => {
  const store = allocationStore(server().client);
  const spec = (address: string) => ({
    address: parseAddress(address),
    pool: 'p',
    nodeName: 'node-1',
    holder: 'h',
  });
  const before = (await store.create(spec('10.0.0.1'))) as { object: IPAllocation };
  await store.create(spec('10.0.0.2'));
  const log = keepingLog();
  const through = await server().connect({ server: proxy.url });
  // The jitter is half of 4 s, as soon as the list is as old as that.
  const parts = informerParts(through, { log, relistJitterMs: 4_000, random: () => 0.5 });
  const informer = watchAllocationsOfNode(parts, 'node-1');
  await informer.synced;
  const listedAtMs = performance.now();
  const revision = informer.revision;
  await proxy.setDown(true);
  await store.delete(before.object);
  const after = (await store.create(spec('10.0.0.3'))) as { object: IPAllocation };
  await compact(after.object.metadata.resourceVersion);
  await sleep(4_000 - (performance.now() - listedAtMs));
  const told: string[] = [];
  informer.onChange(({ key, after: now }) => told.push(`${key} ${now === undefined ? 'gone' : 'there'}`));
  proxy.requests.length = 0;

  await proxy.setDown(false);
  await eventually('the 410', () => log.lines.some(({ message }) => message.includes('too far behind')));
  const goneAtMs = performance.now();
  expect([...informer.keys()].sort()).toEqual(['10.0.0.1', '10.0.0.2']);
  await informer.waitFor(() => informer.has('10.0.0.3'), AbortSignal.timeout(20_000));
  expect(performance.now() - goneAtMs).toBeGreaterThan(1_900);
  expect([...informer.keys()].sort()).toEqual(['10.0.0.2', '10.0.0.3']);
  expect(told).toEqual(['10.0.0.1 gone', '10.0.0.3 there']);
  const list = proxy.requests.find(
    ({ path }) => path.startsWith(pathOf(IP_ALLOCATION)) && !path.includes('watch=true'),
  );
  expect(list?.path).toContain(`resourceVersion=${revision}&resourceVersionMatch=NotOlderThan`);

  await store.create(spec('10.0.0.4'));
  await informer.waitFor(() => informer.has('10.0.0.4'), AbortSignal.timeout(20_000));
  await informer.stop();
});

async function compact(revision: string): Promise<void> {
  const answer = await fetch(`${server().plane.etcdUrl}/v3/kv/compaction`, {
    method: 'POST',
    body: JSON.stringify({ revision, physical: true }),
  });
  if (!answer.ok) throw new Error(await answer.text());
}
