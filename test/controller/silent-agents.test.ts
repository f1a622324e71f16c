import { afterEach, beforeEach, expect, it } from 'vitest';
import { createSilentAgents } from '../../src/controller/silent-agents.ts';
import { createFakeClock, type FakeClock } from './fake-clock.ts';

const EVERY_MS = 60_000;
const AFTER_MS = 300_000;

let clock: FakeClock;
let holders: string[];
let served: Set<string> | undefined;
let told: [nodeName: string, minutes: number][];
let forMs: ReadonlyMap<string, number>;
let stop: AbortController;
let running: Promise<void>;

beforeEach(() => {
  clock = createFakeClock();
  holders = ['a', 'b', 'a'];
  served = new Set(['a', 'b', 'c']);
  told = [];
  forMs = new Map();
  stop = new AbortController();
  const silent = createSilentAgents({
    holders: () => holders,
    served: () => served,
    clock,
    everyMs: EVERY_MS,
    afterMs: AFTER_MS,
    onSilent: (nodeName, ms) => told.push([nodeName, ms / 60_000]),
    onLooked: (now) => (forMs = now),
    log: { info: () => undefined, warn: () => undefined, error: () => undefined },
  });
  running = silent.run(stop.signal);
});

afterEach(async () => {
  stop.abort();
  await running;
});

const minutes = (count: number) => clock.advance(count * 60_000);

it('says nothing of agents that serve, and of nodes that hold nothing', async () => {
  served = new Set(['a', 'b']);
  await minutes(120);
  holders = ['a'];
  served = new Set(['a']);
  await minutes(120);
  expect(told).toEqual([]);
  expect(forMs).toEqual(new Map());
});

it('tells of one that is silent when a while has passed, then every hour, and for how long', async () => {
  await minutes(1);
  served = new Set(['a']);
  await minutes(5);
  expect(told).toEqual([]);
  await minutes(1);
  expect(told).toEqual([['b', 5]]);
  expect(forMs).toEqual(new Map([['b', 300_000]]));
  await minutes(59);
  expect(told).toHaveLength(1);
  await minutes(2);
  expect(told).toEqual([
    ['b', 5],
    ['b', 65],
  ]);
});

it('counts anew when the agent has served meanwhile, and forgets it then', async () => {
  served = new Set(['a']);
  await minutes(4);
  served = new Set(['a', 'b']);
  await minutes(1);
  served = new Set(['a']);
  await minutes(5);
  expect(told).toEqual([]);
  await minutes(1);
  expect(told).toEqual([['b', 5]]);
  served = new Set(['a', 'b']);
  await minutes(1);
  expect(forMs).toEqual(new Map());
});

it('does not judge while it is not known who serves', async () => {
  served = undefined;
  await minutes(60);
  expect(told).toEqual([]);
  served = new Set(['a']);
  await minutes(4);
  expect(told).toEqual([]);
});
