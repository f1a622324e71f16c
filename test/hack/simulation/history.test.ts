import { beforeEach, expect, test } from 'vitest';
import { createHistory, type Claimed, type History } from '../../../hack/simulation/history.ts';
import { parseAddress } from '../../../src/net/index.ts';

/** Who judges a soak is judged here: each of its sentences, once broken and once kept. */

const REUSE_DELAY_MS = 1_000;
const ADDRESS = '10.0.0.7';

let nowMs: number;
let history: History;

beforeEach(() => {
  nowMs = 0;
  history = createHistory({
    nowMs: () => nowMs,
    reuseDelayMs: REUSE_DELAY_MS,
    mayEverDraw: (namespace, pool) => pool !== 'red' || namespace === 'red',
    whyNotGiven: ({ pool }) => (pool === 'drained' ? 'the pool gives it no more' : undefined),
  });
});

function wired(attachment: string, claim: Partial<Claimed> = {}, address = ADDRESS): void {
  history.wired({ address: parseAddress(address), pool: 'main', ...claim }, attachment, 'n1');
}

test('an address on two living attachments is a violation, with its story', () => {
  wired('a');
  expect(history.violations).toEqual([]);
  wired('b');
  expect(history.violations).toEqual([
    expect.stringContaining('10.0.0.7 is on a and on b (at 0 ms wired to a'),
  ]);
});

test('two addresses on two attachments are none, nor is one that comes back in time', () => {
  wired('a');
  wired('b', {}, '10.0.0.8');
  history.gone(ADDRESS, 'a');
  nowMs += REUSE_DELAY_MS;
  wired('c');
  expect(history.violations).toEqual([]);
  expect(history.wirings).toBe(3);
});

test('an address that comes back before its delay is a violation; a fixed or a kept one may', () => {
  wired('a');
  history.gone(ADDRESS, 'a');
  nowMs += REUSE_DELAY_MS - 1;
  wired('b');
  expect(history.violations).toEqual([
    expect.stringContaining('was given to b 999 ms after its last owner had it'),
  ]);
  history.gone(ADDRESS, 'b');
  nowMs += REUSE_DELAY_MS;
  for (const marks of [{ fixed: true } as const, { sticky: 'shop/db-0' }]) {
    wired('c', marks);
    history.gone(ADDRESS, 'c');
  }
  wired('d');
  expect(history.violations).toHaveLength(1);
});

test('the end of an attachment that has the address no more frees nothing', () => {
  wired('a');
  history.gone(ADDRESS, 'a');
  nowMs += REUSE_DELAY_MS;
  wired('b');
  history.gone(ADDRESS, 'a');
  expect(history.living('main')).toEqual([parseAddress(ADDRESS)]);
  wired('c');
  expect(history.violations).toEqual([expect.stringContaining('is on b and on c')]);
});

test("a tenant's address with a stranger is a violation, and one of what is given no more", () => {
  wired('a', { pool: 'red', pod: { namespace: 'red', name: 'p', uid: 'u' } });
  wired('b', { pool: 'red', pod: { namespace: 'blue', name: 'p', uid: 'u' } }, '10.0.0.8');
  wired('c', { pool: 'drained' }, '10.0.0.9');
  expect(history.violations).toEqual([
    'b of namespace blue has 10.0.0.8 of red',
    expect.stringContaining('c: the pool gives it no more'),
  ]);
});
