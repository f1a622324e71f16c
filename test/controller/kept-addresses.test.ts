import { beforeEach, describe, expect, it } from 'vitest';
import type { StatefulSetSize } from '../../src/ipam/index.ts';
import { indexedAllocation, type IndexedAllocation } from '../../src/controller/allocation-index.ts';
import { createKeptAddresses } from '../../src/controller/kept-addresses.ts';
import type { Reconcile } from '../../src/controller/queue.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';
import { allocation, pool } from './objects.ts';

const KEEP_MS = 300_000;
const SET = 'shop/db';
const signal = new AbortController().signal;
const pods = pool('pods', ['10.0.0.0/16']);

let clock: FakeClock;
let kept: Map<string, IndexedAllocation>;
let size: StatefulSetSize | undefined;
/** Pods that are there, and whether they ask to keep their addresses. */
let asking: Map<string, boolean>;
let calls: string[];
let isBoundMeanwhile: boolean;
let reuseDelayMs: number;
let reconcile: Reconcile;

beforeEach(() => {
  clock = createFakeClock();
  kept = new Map();
  size = { start: 0, replicas: 2 };
  calls = [];
  asking = new Map();
  isBoundMeanwhile = false;
  reuseDelayMs = 30_000;
  for (const ordinal of [0, 1, 2]) keep(ordinal);
  reconcile = createKeptAddresses({
    clock,
    keepMs: KEEP_MS,
    mayDelete: async () => undefined,
    onFreed: (_statefulSet, { metadata }) => calls.push(`freed ${metadata.name}`),
    cluster: {
      keptFor: () => [...kept.values()],
      sizeOf: async (statefulSet) => {
        calls.push(`get ${statefulSet}`);
        return size;
      },
      asksToKeep: async (pod) => {
        calls.push(`ask ${pod}`);
        return asking.get(pod);
      },
      reuseDelayMs: () => reuseDelayMs,
      async deleteAllocation({ metadata: { name } }) {
        if (isBoundMeanwhile) return 'changed';
        return kept.delete(name) ? 'done' : 'gone';
      },
    },
  });
});

function keep(ordinal: number): void {
  const address = `10.0.0.${10 + ordinal}`;
  const one = allocation(pods, address, 'n1', { holder: 'sticky' });
  const spec = { ...one.spec, sticky: `shop/db-${ordinal}` };
  kept.set(address, indexedAllocation({ ...one, spec }));
}

/** Lets the time pass in the steps that it asks for. */
async function letPass(ms: number): Promise<void> {
  const endMs = clock.nowMs() + ms;
  for (;;) {
    const result = await reconcile(SET, signal);
    const leftMs = endMs - clock.nowMs();
    if (result.kind === 'done' || leftMs <= 0) return;
    await clock.advance(Math.min(result.ms, leftMs));
  }
}

describe('addresses that are kept for the pods of a StatefulSet', () => {
  it('that is smaller by now are freed, those of its other pods stay for ever', async () => {
    await letPass(KEEP_MS - 1);
    expect(kept.size).toBe(3);
    await letPass(1);
    expect([...kept.keys()]).toEqual(['10.0.0.10', '10.0.0.11']);
    expect(calls.filter((call) => call.startsWith('freed'))).toEqual(['freed 10.0.0.12']);
    await letPass(10 * KEEP_MS);
    expect(kept.size).toBe(2);
  });

  it('that is gone are all freed, after a read right before', async () => {
    size = undefined;
    await letPass(KEEP_MS);
    expect(kept.size).toBe(0);
    expect(calls.at(-4)).toBe(`get ${SET}`);
  });

  it('rest for as long as their pool says, where that is longer', async () => {
    size = undefined;
    reuseDelayMs = 2 * KEEP_MS;
    await letPass(2 * KEEP_MS - 1);
    expect(kept.size).toBe(3);
    await letPass(1);
    expect(kept.size).toBe(0);
  });

  it('that counts from another ordinal are those of its range', async () => {
    size = { start: 1, replicas: 2 };
    await letPass(KEEP_MS);
    expect([...kept.keys()]).toEqual(['10.0.0.11', '10.0.0.12']);
  });

  it('that grows again in time stay, and the time starts anew when it shrinks again', async () => {
    await letPass(KEEP_MS - 60_000);
    size = { start: 0, replicas: 3 };
    await letPass(60_000);
    size = { start: 0, replicas: 2 };
    await letPass(KEEP_MS - 60_000);
    expect(kept.size).toBe(3);
    await letPass(120_000);
    expect(kept.size).toBe(2);
  });

  it('whose pod is there and does not ask any more are freed, those of its other pods stay', async () => {
    size = { start: 0, replicas: 3 };
    asking.set('shop/db-0', false).set('shop/db-1', true);
    await letPass(KEEP_MS - 1);
    expect(kept.size).toBe(3);
    await letPass(1);
    expect([...kept.keys()]).toEqual(['10.0.0.11', '10.0.0.12']);
    expect(calls.slice(-5)).toEqual([
      `get ${SET}`,
      'ask shop/db-0',
      'ask shop/db-1',
      'ask shop/db-2',
      'freed 10.0.0.10',
    ]);
    await letPass(10 * KEEP_MS);
    expect(kept.size).toBe(2);
  });

  it('whose pod asks again in time stay', async () => {
    size = { start: 0, replicas: 3 };
    asking.set('shop/db-0', false);
    await letPass(KEEP_MS - 60_000);
    asking.set('shop/db-0', true);
    await letPass(60_000);
    asking.set('shop/db-0', false);
    await letPass(KEEP_MS - 60_000);
    expect(kept.size).toBe(3);
  });

  it('that a sandbox gets at the last moment stay: the delete meets another version', async () => {
    isBoundMeanwhile = true;
    await letPass(KEEP_MS + 60_000);
    expect(kept.size).toBe(3);
    expect(calls.filter((call) => call.startsWith('freed'))).toEqual([]);
  });

  it('are forgotten where none is kept', async () => {
    kept.clear();
    expect(await reconcile(SET, signal)).toEqual({ kind: 'done' });
    expect(calls).toEqual([]);
  });
});
