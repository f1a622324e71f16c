import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { API_VERSION, IP_ALLOCATION, SUBNET_HOLD_ANNOTATION } from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import {
  allocationStore,
  listAll,
  pathOf,
  readLeaseAnnotations,
  watchAllocationsOfNode,
  type Informer,
  type KubeClient,
} from '../../src/kube/index.ts';
import type { IPAllocation } from '../../src/api/index.ts';
import type { RestoreOptions } from '../../hack/cluster/control-plane.ts';
import type { Clock } from '../../src/ipam/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { informerParts, keepingLog, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';
import { startLossyProxy } from './lossy-proxy.ts';

/** A real etcd that is put back to an older copy of its data (F16). */

const server = useApiserver();
const endings: (() => Promise<void>)[] = [];

/** Whether the apiserver has served what is no more since it was started. */
let isApiserverStale = false;

afterEach(async () => {
  for (const end of endings.splice(0)) await end();
  if (isApiserverStale) await server().plane.restartApiserver();
  isApiserverStale = false;
  await server().kubectl(['delete', 'ipallocations,leases', '--all']);
});

describe('an informer', () => {
  it('behind an apiserver that was kept running: lists show what is no more, reads by name and own writes the truth', async () => {
    const { store, informer, signs, copy, create } = await cluster();
    await create('10.1.0.3');
    await restore(copy, { restartApiserver: false });
    // What makes all of this necessary; if it fails one day, the better.
    const listed = await listAll(server().client, { path: pathOf(IP_ALLOCATION) });
    expect(JSON.stringify(listed.items)).toContain('10.1.0.3');
    expect(await store.get('10.1.0.3')).toBeUndefined();

    expect(signs).toEqual([]);
    await create('10.1.0.4');
    expect(signs).toEqual([expect.stringContaining('the create of 10.1.0.4 was answered with revision')]);
    expect(informer.has('10.1.0.4')).toBe(true);
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(20_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.3', '10.1.0.4']);
    await informer.reread(['10.1.0.1', '10.1.0.2', '10.1.0.3', '10.1.0.9'], AbortSignal.timeout(20_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.4']);
    await create('10.1.0.5');
    expect(signs).toHaveLength(1);

    // When it is restarted after all, the informer finds back to its lists by itself.
    await server().plane.restartApiserver();
    isApiserverStale = false;
    await allocationStore(server().client).create(specOf('10.1.0.6'));
    await informer.waitFor(() => informer.has('10.1.0.6'), AbortSignal.timeout(40_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.4', '10.1.0.5', '10.1.0.6']);
    expect(signs).toHaveLength(1);
  });

  it('behind an apiserver that was restarted: lists the truth after the first create', async () => {
    const { informer, signs, copy, create } = await cluster();
    await create('10.1.0.3');
    await restore(copy, { restartApiserver: true });
    expect(informer.has('10.1.0.3')).toBe(true);
    await create('10.1.0.4');
    expect(signs).toHaveLength(1);
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(20_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.4']);
    await allocationStore(server().client).create(specOf('10.1.0.5'));
    await informer.waitFor(() => informer.has('10.1.0.5'), AbortSignal.timeout(20_000));
  });

  it.each([false, true])(
    'after a restore as the README says lists the truth by itself (apiserver restarted: %s)',
    async (restartApiserver) => {
      const { informer, signs, copy, create } = await cluster();
      await create('10.1.0.3');
      await restore(copy, { restartApiserver, raiseRevisions: true });
      // Watches from before are compacted away: the apiserver, too, has to list anew.
      isApiserverStale = false;
      await eventually(
        'the cache to be what etcd is',
        () => [...informer.keys()].sort().join() === '10.1.0.1,10.1.0.2',
        40_000,
      );
      await create('10.1.0.4');
      expect(signs).toEqual([]);

      // What a sign elsewhere starts has an end, too: the watch is resumed, not listed again, when it breaks.
      informer.startAfresh();
      await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(20_000));
      await create('10.1.0.5');
      await allocationStore(server().client).create(specOf('10.1.0.6'));
      await informer.waitFor(() => informer.has('10.1.0.6'), AbortSignal.timeout(20_000));
      expect([...informer.keys()].sort()).toEqual([1, 2, 4, 5, 6].map((n) => `10.1.0.${n}`));
      expect(signs).toEqual([]);
    },
  );

  it('that is told its revision is too large gets over it, and lists what there is', async () => {
    const proxy = await startLossyProxy(server().plane, server().dir);
    endings.push(() => proxy.stop());
    const client = await server().connect({ server: proxy.url });
    const { informer, signs, copy, create, log } = await cluster(client, hasty(60));
    await create('10.1.0.3');
    await restore(copy, { restartApiserver: true });
    // The watch has to list again, and asks for what it has seen.
    let isGone = false;
    proxy.setFault(({ path }) => {
      if (isGone || !path.includes('watch=')) return 'none';
      isGone = true;
      return { status: 410 };
    });
    proxy.resetConnections();
    await eventually('the sign', () => signs.length > 0, 40_000);
    expect(signs).toEqual([expect.stringContaining('has not reached revision')]);
    expect(log.lines.map(({ facts }) => String((facts as { err?: unknown }).err)).join('\n')).toContain(
      'Too large resource version',
    );
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(20_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.2']);
    await create('10.1.0.4');
    expect(signs).toHaveLength(1);
  });
});

describe('the leader', () => {
  it.each([
    { restartApiserver: false, raiseRevisions: false },
    { restartApiserver: true, raiseRevisions: false },
    { restartApiserver: false, raiseRevisions: true },
    { restartApiserver: true, raiseRevisions: true },
  ])(
    'holds claims of subnets through its Lease for a while (apiserver restarted: $restartApiserver, revisions raised: $raiseRevisions)',
    async (how) => {
      startController();
      await server().kubectl(['create', '-f', '-'], {
        apiVersion: API_VERSION,
        kind: 'IPPool',
        metadata: { name: 'told' },
        spec: { cidrs: ['10.3.0.0/24'] },
      });
      const hold = async () => (await readLeaseAnnotations(server().client, LEASE))?.[SUBNET_HOLD_ANNOTATION];
      await vi.waitFor(async () => {
        expect(await readLeaseAnnotations(server().client, LEASE)).toBeDefined();
      }, 20_000);
      const copy = await server().plane.backUpStore();
      await writeMuch();
      // It has renewed the Lease since.
      const before = await leaseRevision();
      await vi.waitFor(async () => expect(await leaseRevision()).not.toBe(before), 20_000);
      expect(await hold()).toBeUndefined();
      await restore(copy, how);
      await vi.waitFor(async () => expect(await hold()).toMatch(/^since /), {
        timeout: 30_000,
        interval: 50,
      });
      await vi.waitFor(async () => expect(await hold()).toBeUndefined(), { timeout: 30_000, interval: 200 });
      await vi.waitFor(async () => {
        const { stdout } = await server().kubectl(['get', 'events', '-n', 'default']);
        expect(String(stdout)).toMatch(
          /Warning +EtcdWentBack +ippool\/told .*etcd is back at an older state/,
        );
      }, 20_000);
      await server().kubectl(['delete', 'events', '--all', '-n', 'default']);
    },
  );
});

async function restore(snapshot: string, how: RestoreOptions): Promise<void> {
  isApiserverStale = !how.restartApiserver;
  await server().plane.restoreStore(snapshot, how);
}

/** A clock on which so much more time passes. */
function hasty(times: number): Clock {
  const clock = createSystemClock();
  return {
    ...clock,
    nowMs: () => clock.nowMs() * times,
    sleep: (ms, signal) => clock.sleep(ms / times, signal),
  };
}

const LEASE = { namespace: 'default', name: 'restored' };

async function leaseRevision(): Promise<string> {
  const found = await server().kubectl([
    'get',
    'lease',
    LEASE.name,
    '-o',
    'jsonpath={.metadata.resourceVersion}',
  ]);
  return String(found.stdout);
}

function startController(): void {
  const stop = new AbortController();
  const ended = runController(
    parseControllerFlags([
      '--identity=one',
      `--namespace=${LEASE.namespace}`,
      `--lease-name=${LEASE.name}`,
      `--probe-socket=${join(server().dir, 'restore.sock')}`,
      `--kubeconfig=${server().plane.kubeconfig}`,
      '--lease-seconds=6',
      '--subnet-hold-seconds=5',
    ]),
    { clock: createSystemClock(), random: Math.random, env: {}, log: keepingLog(), signal: stop.signal },
  );
  endings.push(async () => {
    stop.abort(new Error('the test has ended'));
    await ended;
  });
}

/** Takes etcd further than it comes by itself after a restore: what the apiserver writes must not hide that. */
async function writeMuch(): Promise<void> {
  const store = allocationStore(server().client);
  for (let i = 0; i < 100; i++) {
    const made = await store.create({ ...specOf('10.2.0.1'), nodeName: 'node-2' });
    if (made.kind === 'created') await store.delete(made.object);
  }
}

const specOf = (address: string) => ({
  address: parseAddress(address),
  pool: 'p',
  nodeName: 'node-1',
  holder: 'h',
});

/** Two allocations that the copy holds, of which one has gone since, and an informer that has seen it all. */
async function cluster(through?: KubeClient, clock = createSystemClock()) {
  const client = through ?? (await server().connect());
  const log = keepingLog();
  const signs: string[] = [];
  const informer: Informer<IPAllocation> = watchAllocationsOfNode(
    informerParts(client, {
      onWentBack: (sign) => void signs.push(sign),
      clock,
      log,
      idleTimeoutMs: 3_600_000,
    }),
    'node-1',
  );
  endings.push(() => informer.stop());
  await informer.synced;
  const store = allocationStore(client, informer);
  const create = async (address: string) => {
    const outcome = await store.create(specOf(address));
    if (outcome.kind !== 'created') throw new Error(`${address} is taken`);
    return outcome.object;
  };
  await create('10.1.0.1');
  await create('10.1.0.2');
  const copy = await server().plane.backUpStore();
  const second = await store.get('10.1.0.2');
  if (second === undefined) throw new Error('10.1.0.2 has gone');
  await store.delete(second);
  await writeMuch();
  return { store, informer, signs, copy, create, log };
}
