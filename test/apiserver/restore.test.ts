import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { IP_ALLOCATION, SUBNET_HOLD_ANNOTATION } from '../../src/api/index.ts';
import { parseControllerFlags } from '../../src/controller/flags.ts';
import { runController } from '../../src/controller/run.ts';
import {
  allocationStore,
  listAll,
  pathOf,
  readLeaseAnnotations,
  watchAllocationsOfNode,
  type Informer,
} from '../../src/kube/index.ts';
import type { IPAllocation } from '../../src/api/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { createSystemClock } from '../../src/system-clock.ts';
import { informerParts, keepingLog, useApiserver } from './apiserver.ts';
import { eventually } from './eventually.ts';

/** A real etcd that is put back to an older copy of its data (F16). */

const server = useApiserver();
const endings: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of endings.splice(0)) await end();
  // One that was kept running serves what is no more until then.
  await server().plane.restartApiserver();
  await server().kubectl(['delete', 'ipallocations,leases', '--all']);
});

describe('an informer', () => {
  it('behind an apiserver that was kept running: lists show what is no more, reads by name and own writes the truth', async () => {
    const { store, informer, signs, copy, create } = await cluster();
    await create('10.1.0.3');
    await server().plane.restoreStore(copy, { restartApiserver: false });
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
    await allocationStore(server().client).create(specOf('10.1.0.6'));
    await informer.waitFor(() => informer.has('10.1.0.6'), AbortSignal.timeout(40_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.4', '10.1.0.5', '10.1.0.6']);
    expect(signs).toHaveLength(1);
  });

  it('behind an apiserver that was restarted: lists the truth after the first create', async () => {
    const { informer, signs, copy, create } = await cluster();
    await create('10.1.0.3');
    await server().plane.restoreStore(copy, { restartApiserver: true });
    expect(informer.has('10.1.0.3')).toBe(true);
    await create('10.1.0.4');
    expect(signs).toHaveLength(1);
    await informer.waitFor(() => !informer.isStartingAfresh, AbortSignal.timeout(20_000));
    expect([...informer.keys()].sort()).toEqual(['10.1.0.1', '10.1.0.2', '10.1.0.4']);
    await allocationStore(server().client).create(specOf('10.1.0.5'));
    await informer.waitFor(() => informer.has('10.1.0.5'), AbortSignal.timeout(20_000));
  });
});

describe('the leader', () => {
  it.each([false, true])(
    'holds claims of subnets through its Lease for a while (apiserver restarted: %s)',
    async (restartApiserver) => {
      startController();
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
      await server().plane.restoreStore(copy, { restartApiserver });
      await vi.waitFor(async () => expect(await hold()).toMatch(/^since /), {
        timeout: 30_000,
        interval: 50,
      });
      await vi.waitFor(async () => expect(await hold()).toBeUndefined(), { timeout: 30_000, interval: 200 });
    },
  );
});

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
async function cluster() {
  const client = await server().connect();
  const signs: string[] = [];
  const informer: Informer<IPAllocation> = watchAllocationsOfNode(
    informerParts(client, { onWentBack: (sign) => void signs.push(sign) }),
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
  // etcd was away for a moment.
  await eventually('the watch to live', () => informer.isAlive());
  const second = await store.get('10.1.0.2');
  if (second === undefined) throw new Error('10.1.0.2 has gone');
  await store.delete(second);
  await writeMuch();
  return { store, informer, signs, copy, create };
}
