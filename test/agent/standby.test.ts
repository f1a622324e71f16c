import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { waitForLock } from '../../src/agent/standby.ts';
import { allElse, createFakeClock } from '../ipam/fake-clock.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-standby-'));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

test('one agent serves; the next stands by, says so once, and follows when the first has ended', async () => {
  const { wait, clock, said } = setUp();
  const first = await wait();
  let isSecond = false;
  const second = wait().then((lock) => {
    isSecond = true;
    return lock;
  });
  await clock.advance(60_000);
  expect(isSecond).toBe(false);
  expect(said).toEqual(['another agent serves this node: standing by']);
  first.release();
  await clock.advance(100);
  expect(isSecond).toBe(true);
  (await second).release();
});

test('a waiting one ends with its signal', async () => {
  const { wait, clock, end } = setUp();
  const first = await wait();
  const ended = expect(wait()).rejects.toThrow('stopped');
  await clock.advance(1_000);
  end.abort(new Error('stopped'));
  await allElse();
  await ended;
  first.release();
});

function setUp() {
  const clock = createFakeClock();
  const end = new AbortController();
  const said: string[] = [];
  const tell = (_: object, message: string) => {
    said.push(message);
  };
  const log = { info: tell, warn: tell, error: tell };
  return {
    clock,
    end,
    said,
    wait: () => waitForLock(join(directory, 'agent.lock'), { clock, log, signal: end.signal }),
  };
}
