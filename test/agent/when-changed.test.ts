import { describe, expect, test } from 'vitest';
import { whenChanged } from '../../src/agent/when-changed.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

const EVERY_MS = 10_000;
const GATHER_MS = 200;

describe('the work is done', () => {
  test('at once, and then every so often', async () => {
    const { clock, runs } = start();
    await allElse();
    expect(runs()).toBe(1);
    await clock.advance(EVERY_MS);
    expect(runs()).toBe(1);
    await clock.advance(GATHER_MS);
    expect(runs()).toBe(2);
  });

  test('once for a burst of changes, soon after', async () => {
    const { clock, runs, change } = start();
    await allElse();
    change();
    change();
    await clock.advance(GATHER_MS / 2);
    change();
    expect(runs()).toBe(1);
    await clock.advance(GATHER_MS / 2);
    expect(runs()).toBe(2);
    await clock.advance(GATHER_MS * 5);
    expect(runs()).toBe(2);
  });

  test('again for what changed while it ran', async () => {
    const pause = Promise.withResolvers<void>();
    const { clock, runs, change } = start({ work: () => pause.promise });
    await allElse();
    change();
    await clock.advance(GATHER_MS * 5);
    expect(runs()).toBe(1);
    pause.resolve();
    await clock.advance(GATHER_MS);
    expect(runs()).toBe(2);
  });

  test('again after it failed, which is reported', async () => {
    const broken = new Error('no');
    const { clock, runs, errors } = start({ work: () => Promise.reject(broken) });
    await clock.advance(EVERY_MS + GATHER_MS);
    expect(runs()).toBe(2);
    expect(errors).toEqual([broken, broken]);
  });
});

test('ends with its signal, also while it sleeps, and reports no failure that comes of it', async () => {
  const { done, stop, runs, errors } = start({ work: (signal) => Promise.resolve(signal.throwIfAborted()) });
  await allElse();
  stop();
  await done;
  expect(runs()).toBe(1);
  expect(errors).toEqual([]);
});

function start({ work }: { work?: (signal: AbortSignal) => Promise<void> } = {}) {
  const clock = createFakeClock();
  const end = new AbortController();
  const listeners: (() => void)[] = [];
  const errors: unknown[] = [];
  let runs = 0;
  const ignore = () => undefined;
  const done = whenChanged(
    (listener) => listeners.push(listener),
    async () => {
      runs++;
      await work?.(end.signal);
    },
    {
      everyMs: EVERY_MS,
      clock,
      log: { info: ignore, warn: ignore, error: (facts) => errors.push((facts as { err: unknown }).err) },
      signal: end.signal,
    },
  );
  return {
    clock,
    done,
    errors,
    runs: () => runs,
    change: () => listeners.forEach((listener) => listener()),
    stop: () => end.abort(new Error('stopped')),
  };
}
