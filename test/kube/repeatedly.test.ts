import { expect, test } from 'vitest';
import { repeatedly } from '../../src/kube/repeatedly.ts';
import { SchemaRevisionError } from '../../src/kube/index.ts';
import { createFakeClock } from '../ipam/fake-clock.ts';

test('tries until it succeeds, ever more slowly, and says each time why not', async () => {
  const { clock, parts, said } = setUp();
  const atMs: number[] = [];
  const answer = await clock.until(
    repeatedly(() => {
      atMs.push(clock.nowMs());
      return atMs.length < 12 ? Promise.reject(new Error('away')) : Promise.resolve('there');
    }, parts),
  );
  expect(answer).toBe('there');
  const pauses = atMs.slice(1).map((ms, i) => ms - (atMs[i] ?? 0));
  expect(pauses[0]).toBeLessThanOrEqual(200);
  expect(Math.max(...pauses)).toBeLessThanOrEqual(5_000);
  expect(pauses.at(-1)).toBeGreaterThan(pauses[0] ?? 0);
  expect(said).toEqual(Array.from({ length: 11 }, () => 'warn'));
});

test('CRDs that are too old are waited for, and are an error to look at', async () => {
  const { clock, parts, said } = setUp();
  let count = 0;
  await clock.until(
    repeatedly(() => {
      count++;
      return count === 1 ? Promise.reject(schemaError()) : Promise.resolve();
    }, parts),
  );
  expect(said).toEqual(['error']);
});

test('ends with its signal', async () => {
  const { clock, parts, end } = setUp();
  const trying = repeatedly(() => Promise.reject(new Error('away')), parts);
  const ended = expect(trying).rejects.toThrow('stopped');
  await clock.advance(1_000);
  end.abort(new Error('stopped'));
  await ended;
});

function schemaError(): SchemaRevisionError {
  return Object.assign(Object.create(SchemaRevisionError.prototype) as SchemaRevisionError, {
    message: 'too old',
  });
}

function setUp() {
  const clock = createFakeClock();
  const end = new AbortController();
  const said: string[] = [];
  const log = {
    info: () => said.push('info'),
    warn: () => said.push('warn'),
    error: () => said.push('error'),
  };
  return { clock, end, said, parts: { clock, random: () => 0.5, log, signal: end.signal } };
}
