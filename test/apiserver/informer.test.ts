import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { IPAllocation, type IPAllocationSpec } from '../../src/api/index.ts';
import {
  allocationStore,
  listAll,
  startInformer,
  watchAllAllocations,
  watchAllocationsOfNode,
  type Informer,
  type InformerParts,
  type KubeClient,
} from '../../src/kube/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { informerParts, keepingLog, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';
import { startLossyProxy, type LossyProxy } from './lossy-proxy.ts';

const PATH = '/apis/ipam.weft.dev/v1alpha1/ipallocations';
const server = useApiserver();
let proxy: LossyProxy;
let through: KubeClient;
const running = new Set<Informer<unknown>>();

beforeAll(async () => {
  proxy = await startLossyProxy(server().plane, server().dir);
  through = await server().connect({ server: proxy.url });
});
afterAll(() => proxy.stop());
afterEach(async () => {
  await proxy.setDown(false);
  proxy.setFault(() => 'none');
  for (const informer of running) await informer.stop();
  running.clear();
  await server().client.request({ method: 'DELETE', path: PATH });
});

const kept = <T>(informer: Informer<T>): Informer<T> => {
  running.add(informer);
  return informer;
};
const held = (address: string, nodeName = 'node-1'): IPAllocationSpec => ({
  address: parseAddress(address),
  pool: 'p',
  nodeName,
  holder: 'h',
});
/** An informer whose connections go through the proxy. */
const watching = async (options: Partial<InformerParts> = {}): Promise<Informer<IPAllocation>> => {
  const informer = kept(watchAllocationsOfNode(informerParts(through, options), 'node-1'));
  await informer.synced;
  await eventually('the watch to open', () => informer.isAlive());
  return informer;
};
const store = () => allocationStore(server().client);
const within = (ms: number) => AbortSignal.timeout(ms);
const lists = () =>
  proxy.requests.filter(({ path }) => path.startsWith(PATH) && !path.includes('watch=true'));
const watches = () =>
  proxy.requests.filter(({ path }) => path.startsWith(PATH) && path.includes('watch=true'));

describe('an informer', () => {
  it('lists what is there and follows what changes, of its node alone', async () => {
    await store().create(held('10.0.0.1'));
    await store().create(held('10.0.0.2', 'node-2'));
    const informer = await watching();
    expect([...informer.keys()]).toEqual(['10.0.0.1']);
    const told: string[] = [];
    informer.onChange(({ key, before, after }) => {
      told.push(`${key} ${before?.status?.releasedAt ?? '-'} ${after?.status?.releasedAt ?? '-'}`);
    });
    await store().create(held('10.0.0.3'));
    await informer.waitFor(() => informer.has('10.0.0.3'), within(5_000));
    const third = informer.get('10.0.0.3');
    if (third === undefined) throw new Error('it was just there');
    await store().markReleased(third, new Date('2030-01-01T00:00:00Z'));
    await informer.waitFor(() => informer.get('10.0.0.3')?.status !== undefined, within(5_000));
    const released = informer.get('10.0.0.3');
    if (released === undefined) throw new Error('it was just there');
    await store().delete(released);
    await informer.waitFor(() => !informer.has('10.0.0.3'), within(5_000));
    expect(told).toEqual([
      '10.0.0.3 - -',
      '10.0.0.3 - 2030-01-01T00:00:00.000Z',
      '10.0.0.3 2030-01-01T00:00:00.000Z -',
    ]);
  });

  it('reads long lists page by page, at one revision', async () => {
    for (let n = 1; n <= 5; n++) await store().create(held(`10.0.1.${n}`));
    proxy.requests.length = 0;
    const listed = await listAll(through, { path: PATH, pageSize: 2 });
    expect(listed.items.map((item) => IPAllocation.parse(item).metadata.name)).toEqual(
      [1, 2, 3, 4, 5].map((n) => `10.0.1.${n}`),
    );
    expect(lists()).toHaveLength(3);
  });

  it('resumes a broken watch where it was, without a list', async () => {
    const informer = await watching();
    const revision = informer.revision;
    proxy.requests.length = 0;
    proxy.resetConnections();
    const created = await store().create(held('10.0.2.1'));
    await informer.waitFor(() => informer.has('10.0.2.1'), within(5_000));
    expect(created.kind).toBe('created');
    expect(lists()).toEqual([]);
    expect(watches()[0]?.path).toContain(`resourceVersion=${revision}`);
  });

  it('keeps its cache while the apiserver is away, knows that it is deaf, and then catches up', async () => {
    const { object: gone } = (await store().create(held('10.0.3.1'))) as { object: IPAllocation };
    const informer = await watching();
    await proxy.setDown(true);
    await eventually('the watch to be known as broken', () => !informer.isAlive());
    await store().delete(gone);
    await store().create(held('10.0.3.2'));
    expect([...informer.keys()]).toEqual(['10.0.3.1']);
    expect(informer.isSynced).toBe(true);
    proxy.requests.length = 0;
    await proxy.setDown(false);
    await informer.waitFor(() => informer.has('10.0.3.2') && !informer.has('10.0.3.1'), within(20_000));
    expect(lists()).toEqual([]);
    expect(informer.isAlive()).toBe(true);
  });

  it('takes a watch that says nothing for broken, and resumes it', async () => {
    const log = keepingLog();
    const informer = await watching({ idleTimeoutMs: 400, log });
    proxy.requests.length = 0;
    await eventually('three more watches', () => watches().length >= 3);
    expect(lists()).toEqual([]);
    expect(JSON.stringify(log.lines)).toContain('WatchIdleError');
    await store().create(held('10.0.4.1'));
    await informer.waitFor(() => informer.has('10.0.4.1'), within(5_000));
  });

  it('tries on when the apiserver refuses, and syncs when it no longer does', async () => {
    proxy.setFault(() => ({ status: 500 }));
    const log = keepingLog();
    const informer = kept(watchAllocationsOfNode(informerParts(through, { log }), 'node-1'));
    await eventually('some refusals', () => log.lines.length >= 3);
    expect(informer.isSynced).toBe(false);
    expect(informer.isAlive()).toBe(false);
    proxy.setFault(() => 'none');
    await informer.synced;
  });

  it('shows own writes at once, and ends where the apiserver stands', async () => {
    const informer = await watching();
    await proxy.setDown(true); // nothing is heard from now on
    const own = allocationStore(server().client, informer);
    const created = await own.create(held('10.0.5.1'));
    if (created.kind === 'taken') throw new Error('taken');
    expect(informer.get('10.0.5.1')?.metadata.uid).toBe(created.object.metadata.uid);
    await expect(informer.waitDelivered('10.0.5.1', within(200))).rejects.toThrow();
    expect(await own.markReleased(created.object, new Date())).toBe('done');
    expect(informer.get('10.0.5.1')?.status?.releasedAt).toBeDefined();
    const released = informer.get('10.0.5.1');
    if (released === undefined) throw new Error('it was just there');
    expect(await own.delete(released)).toBe('done');
    expect(informer.has('10.0.5.1')).toBe(false);
    const next = await own.create(held('10.0.5.1'));
    if (next.kind === 'taken') throw new Error('taken');
    expect(informer.get('10.0.5.1')?.metadata.uid).toBe(next.object.metadata.uid);
    const other = await own.create(held('10.0.5.2'));
    if (other.kind === 'taken') throw new Error('taken');
    expect(await own.delete(other.object)).toBe('done');

    // Now it hears of all that: at no moment may it show what was deleted, or lose what was made last.
    const shown = new Set<string>();
    informer.onChange(({ key, after }) => shown.add(`${key} ${after?.metadata.uid ?? 'none'}`));
    await proxy.setDown(false);
    await informer.waitDelivered('10.0.5.1', within(20_000));
    await eventually('the end of the other', () => {
      const reached = informer.revision ?? '';
      return reached.length >= other.object.metadata.resourceVersion.length && !informer.has('10.0.5.2');
    });
    expect(informer.get('10.0.5.1')?.metadata.uid).toBe(next.object.metadata.uid);
    expect([...shown]).not.toContain(`10.0.5.1 none`);
    expect([...shown]).not.toContain(`10.0.5.1 ${created.object.metadata.uid}`);
    expect([...shown]).not.toContain(`10.0.5.2 ${other.object.metadata.uid}`);
  });

  it('keeps the name of an object that it cannot read, says so, and reads the others', async () => {
    const created = await store().create(held('10.0.6.1'));
    if (created.kind !== 'created') throw new Error('10.0.6.1 was taken');
    await store().create(held('10.0.6.2'));
    const log = keepingLog();
    const informer = kept(
      startInformer(informerParts(through, { log }), {
        path: PATH,
        parse(object) {
          const allocation = IPAllocation.parse(object);
          if (allocation.metadata.name === '10.0.6.1') throw new Error('from the future');
          return allocation;
        },
      }),
    );
    await informer.synced;
    expect(informer.has('10.0.6.1')).toBe(true);
    expect(informer.get('10.0.6.1')).toBeUndefined();
    expect([...informer.unreadable]).toEqual([['10.0.6.1', created.object.metadata.uid]]);
    expect(informer.list().map(({ metadata }) => metadata.name)).toEqual(['10.0.6.2']);
    expect(log.lines.some(({ level, message }) => level === 'error' && message.includes('left alone'))).toBe(
      true,
    );
  });

  it('survives a listener that fails, and keeps no more of an object than it is told to', async () => {
    const log = keepingLog();
    const informer = kept(watchAllAllocations(informerParts(through, { log }), ({ spec }) => spec.nodeName));
    await informer.synced;
    informer.onChange(() => {
      throw new Error('listener');
    });
    await store().create(held('10.0.7.1', 'node-7'));
    await informer.waitFor(() => informer.get('10.0.7.1') === 'node-7', within(5_000));
    expect(log.lines.some(({ message }) => message.includes('listener'))).toBe(true);
  });
});

describe('a sticky allocation that its node empties and binds again', () => {
  it('is gone from the cache at once and there again at once, however far the watch is', async () => {
    const informer = await watching();
    const ours = allocationStore(server().client, informer);
    const attachment = { network: 'weft', containerID: 'c', ifName: 'eth0', kind: 'Interface' as const };
    const pod = { namespace: 'shop', name: 'db-0' };
    const spec = {
      address: parseAddress('10.9.0.1'),
      pool: 'p',
      nodeName: 'node-1',
      attachment,
      sticky: 'shop/db-0',
    };
    const created = await ours.create(spec);
    if (created.kind !== 'created') throw new Error(created.kind);
    let seen = created.object;
    for (const watchComesFirst of [false, true, false, true]) {
      expect(await ours.empty(seen)).toBe('done');
      expect(informer.has('10.9.0.1')).toBe(false);
      // Something later that the watch shows: then it has shown this, too.
      if (watchComesFirst) await shownAfter(informer);
      expect(informer.has('10.9.0.1')).toBe(false);
      const kept = await ours.get('10.9.0.1');
      if (kept === undefined) throw new Error('it is gone');
      const bound = await ours.bind(kept, { nodeName: 'node-1', attachment, pod });
      if (bound.kind !== 'done') throw new Error(bound.kind);
      expect(informer.get('10.9.0.1')?.spec.pod).toEqual(pod);
      if (watchComesFirst) await shownAfter(informer);
      expect(informer.get('10.9.0.1')?.metadata.resourceVersion).toBe(bound.object.metadata.resourceVersion);
      seen = bound.object;
    }
  });

  let last = 10;
  /** Lets the watch come as far as an object that is made now. */
  async function shownAfter(informer: Informer<IPAllocation>): Promise<void> {
    const name = `10.9.1.${last++}`;
    await store().create(held(name));
    await informer.waitDelivered(name, within(10_000));
  }
});
