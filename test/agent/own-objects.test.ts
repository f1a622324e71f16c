import { expect, test } from 'vitest';
import { createOwnObjectsCheck } from '../../src/agent/own-objects.ts';
import { createFakeClock } from '../ipam/fake-clock.ts';

test('each object has its turn, the youngest first, and then all again', async () => {
  const { check, asked, cache } = setUp({ a: 'u-a', b: 'u-b', c: 'u-c' });
  for (let i = 0; i < 5; i++) await check();
  expect(asked).toEqual(['c', 'b', 'a', 'c']);
  // Not before it has been there for a while.
  cache.set('d', 'u-d');
  for (let i = 0; i < 3; i++) await check();
  expect(asked.slice(4)).toEqual(['b', 'd', 'a']);
});

test('nothing to ask for is no sign', async () => {
  const { check, signs } = setUp({});
  for (let i = 0; i < 2; i++) await check();
  expect(signs).toEqual([]);
});

test.each([
  ['is gone', undefined, 'is not there'],
  ['has another uid', 'u-other', 'has the uid u-other'],
])('an object that %s while its watch still shows it is a sign', async (_, stored, text) => {
  const { check, signs, store } = setUp({ a: 'u-a' });
  store('a', stored);
  for (let i = 0; i < 2; i++) await check();
  expect(signs).toEqual([expect.stringContaining(`Thing a ${text}`)]);
});

test('an object that its watch shows to be gone within seconds is no sign', async () => {
  const { check, checking, signs, store, cache, clock } = setUp({ a: 'u-a' });
  await check();
  store('a', undefined);
  const running = checking();
  await clock.advance(3_000);
  cache.delete('a');
  await clock.until(running);
  expect(signs).toEqual([]);
});

test('a watch that is broken shows what is no more, and that is no sign until it lives again', async () => {
  const { check, checking, signs, store, clock, watch } = setUp({ a: 'u-a' });
  await check();
  store('a', undefined);
  watch.lives = false;
  const running = checking();
  await clock.advance(60_000);
  expect(signs).toEqual([]);
  watch.lives = true;
  await clock.advance(4_000);
  expect(signs).toEqual([]);
  await clock.until(running);
  expect(signs).toHaveLength(1);
});

function setUp(objects: Record<string, string>) {
  const clock = createFakeClock();
  const cache = new Map(Object.entries(objects));
  const stored = new Map<string, string | undefined>();
  const asked: string[] = [];
  const signs: string[] = [];
  const watch = { lives: true };
  const check = createOwnObjectsCheck({
    objects: () =>
      [...cache].map(([name, uid]) => ({
        kind: 'Thing',
        metadata: { name, uid, creationTimestamp: `2026-01-0${name.charCodeAt(0) - 96}T00:00:00Z` },
        isWatched: () => watch.lives,
        read: () => {
          asked.push(name);
          return Promise.resolve(stored.has(name) ? stored.get(name) : uid);
        },
      })),
    onWentBack: (sign) => void signs.push(sign),
    clock,
  });
  const checking = () => check(new AbortController().signal);
  return {
    clock,
    cache,
    asked,
    signs,
    watch,
    store: (name: string, uid: string | undefined) => void stored.set(name, uid),
    checking,
    check: () => clock.until(checking()),
  };
}
