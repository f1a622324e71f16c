import { expect, test } from 'vitest';
import { createRecovery } from '../../src/agent/recovery.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

test('claims wait from the sign on until all is recovered, however often that takes', async () => {
  const { recovery, clock, runs, signs } = setUp();
  expect(await recovery.settled(never)).toBe(false);
  recovery.begin('a sign');
  let isSettled = false;
  const waiting = recovery.settled(never).then((waited) => {
    isSettled = true;
    return waited;
  });
  await allElse();
  expect(runs).toHaveLength(1);
  runs[0]?.reject(new Error('the apiserver is away'));
  await clock.advance(10_000);
  expect(runs).toHaveLength(2);
  expect(isSettled).toBe(false);
  runs[1]?.resolve();
  expect(await waiting).toBe(true);
  expect(await recovery.settled(never)).toBe(false);
  expect(signs).toEqual(['a sign']);
});

test('a sign that comes while one is under way makes it run once more', async () => {
  const { recovery, runs } = setUp();
  recovery.begin('one');
  await allElse();
  recovery.begin('two');
  runs[0]?.resolve();
  await allElse();
  expect(runs).toHaveLength(2);
  runs[1]?.resolve();
  await recovery.settled(never);
  expect(runs).toHaveLength(2);
});

test('who waits may give up', async () => {
  const { recovery } = setUp();
  recovery.begin('a sign');
  const ends = new AbortController();
  const waiting = recovery.settled(ends.signal);
  ends.abort(new Error('the runtime hung up'));
  await expect(waiting).rejects.toThrow('the runtime hung up');
});

const never = new AbortController().signal;

function setUp() {
  const clock = createFakeClock();
  const runs: PromiseWithResolvers<void>[] = [];
  const signs: string[] = [];
  const log = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const recovery = createRecovery({
    recover() {
      const run = Promise.withResolvers<void>();
      runs.push(run);
      return run.promise;
    },
    onSign: (sign) => void signs.push(sign),
    clock,
    random: () => 0.5,
    log,
    signal: never,
  });
  return { recovery, clock, runs, signs };
}
