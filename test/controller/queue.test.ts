import { describe, expect, it } from 'vitest';
import {
  createWorkQueue,
  TerminalError,
  type QueueObserver,
  type Reconcile,
} from '../../src/controller/queue.ts';
import { createFakeClock } from './fake-clock.ts';

function start(reconcile: Reconcile, observer?: QueueObserver) {
  const clock = createFakeClock();
  const failures: string[] = [];
  const queue = createWorkQueue({
    reconcile,
    clock,
    random: () => 1,
    onFailure: (key, error) => failures.push(`${key}: ${(error as Error).message}`),
    ...(observer === undefined ? {} : { observer }),
  });
  const stop = new AbortController();
  const ended = queue.run(stop.signal);
  return { clock, failures, queue, stop, ended };
}

describe('the work queue', () => {
  it('reconciles a key once for many events', async () => {
    const seen: string[] = [];
    const { clock, queue } = start(async (key) => {
      seen.push(key);
      return { kind: 'done' };
    });
    queue.add('a');
    queue.add('b');
    queue.add('a');
    await clock.advance(0);
    expect(seen).toEqual(['a', 'b']);
  });

  it('reconciles a key again that was added while it was being reconciled', async () => {
    const gate = Promise.withResolvers<undefined>();
    let runs = 0;
    const { clock, queue } = start(async () => {
      runs++;
      await gate.promise;
      return { kind: 'done' };
    });
    queue.add('a');
    await clock.advance(0);
    queue.add('a');
    gate.resolve(undefined);
    await clock.advance(0);
    expect(runs).toBe(2);
  });

  it('brings a failed key back after 1 s, then 2, then 4, and from the start again after a success', async () => {
    const at: number[] = [];
    let fail = true;
    const { clock, failures, queue } = start(async () => {
      at.push(clock.nowMs());
      if (fail) throw new Error('no');
      return { kind: 'done' };
    });
    queue.add('a');
    await clock.advance(7_500);
    expect(at.map((ms) => ms - (at[0] ?? 0))).toEqual([0, 1_000, 3_000, 7_000]);
    expect(failures[0]).toBe('a: no');
    fail = false;
    await clock.advance(8_000);
    fail = true;
    at.length = 0;
    queue.add('a');
    await clock.advance(1_500);
    expect(at.map((ms) => ms - (at[0] ?? 0))).toEqual([0, 1_000]);
  });

  it('does not try a terminal failure again', async () => {
    let runs = 0;
    const { clock, failures, queue } = start(async () => {
      runs++;
      throw new TerminalError('never');
    });
    queue.add('a');
    await clock.advance(600_000);
    expect(runs).toBe(1);
    expect(failures).toEqual(['a: never']);
  });

  it('lets the earlier of two times win, and an event before both', async () => {
    const at: number[] = [];
    const { clock, queue } = start(async () => {
      at.push(clock.nowMs());
      return { kind: 'done' };
    });
    const startMs = clock.nowMs();
    queue.addAfter('a', 5_000);
    queue.addAfter('a', 3_000);
    queue.addAfter('a', 9_000);
    await clock.advance(20_000);
    expect(at.map((ms) => ms - startMs)).toEqual([3_000]);
    queue.addAfter('a', 5_000);
    queue.add('a');
    await clock.advance(20_000);
    expect(at).toHaveLength(2);
    queue.add('a');
    queue.addAfter('a', 5_000);
    await clock.advance(20_000);
    expect(at).toHaveLength(3);
  });

  it('comes back when the reconciler asks for it', async () => {
    const at: number[] = [];
    const { clock, queue } = start(async () => {
      at.push(clock.nowMs());
      return at.length < 3 ? { kind: 'requeueAfter', ms: 500 } : { kind: 'done' };
    });
    queue.add('a');
    await clock.advance(5_000);
    expect(at.map((ms) => ms - (at[0] ?? 0))).toEqual([0, 500, 1_000]);
  });

  it('tells what waits, what came, and how each ended after how long', async () => {
    const told: string[] = [];
    const { clock, queue, stop, ended } = start(
      async (key) => {
        await clock.sleep(20);
        if (key === 'bad') throw new TerminalError('never');
        if (key === 'weak' && !told.includes('retried 20')) throw new Error('not now');
        return { kind: 'done' };
      },
      {
        waiting: (keys) => told.push(`waiting ${keys}`),
        added: () => told.push('added'),
        reconciled: (outcome, ms) => told.push(`${outcome} ${ms}`),
      },
    );
    queue.add('weak');
    queue.add('bad');
    queue.add('bad');
    await clock.advance(500);
    expect(told).toEqual([
      ...['added', 'waiting 1', 'added', 'waiting 2', 'waiting 2'],
      ...['waiting 1', 'retried 20', 'waiting 0', 'given up 20'],
    ]);
    told.splice(0, told.length - 4);
    await clock.advance(2_000);
    expect(told.slice(4)).toEqual(['added', 'waiting 1', 'waiting 0', 'done 20']);
    queue.add('left');
    stop.abort();
    await clock.advance(100);
    await ended;
    expect(told.at(-1)).toBe('waiting 0');
  });

  it('ends when it is stopped, without a failure and without anything to come', async () => {
    let runs = 0;
    const { clock, ended, failures, queue, stop } = start(
      (_key, signal) =>
        new Promise((_resolve, reject) => {
          runs++;
          signal.addEventListener('abort', () => {
            reject(new Error('stopped'));
          });
        }),
    );
    queue.add('a');
    queue.addAfter('b', 100);
    await clock.advance(0);
    stop.abort();
    await ended;
    expect(clock.sleeping).toBe(0);
    await clock.advance(10_000);
    expect(runs).toBe(1);
    expect(failures).toEqual([]);
  });
});
