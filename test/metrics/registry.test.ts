import { describe, expect, it } from 'vitest';
import { createMetricsRegistry } from '../../src/metrics/index.ts';
import { parseExposition } from './exposition.ts';

const ANIMAL = { name: 'animals_total', help: 'Animals that came by.', labels: ['kind', 'colour'] };

function start() {
  const registry = createMetricsRegistry();
  return { registry, scrape: async () => parseExposition(await registry.text()) };
}

describe('a counter', () => {
  it('is there with 0 from the start, with every combination that is known', async () => {
    const { registry, scrape } = start();
    registry.count({ name: 'days_total', help: 'Days.' });
    registry.counts({
      ...ANIMAL,
      known: [
        ['cat', 'black'],
        ['dog', 'brown'],
      ],
    });
    const { series } = await scrape();
    expect([...series]).toEqual([
      ['days_total', 0],
      ['animals_total{colour="black",kind="cat"}', 0],
      ['animals_total{colour="brown",kind="dog"}', 0],
    ]);
  });

  it('counts, one at a time or many, and takes combinations that nobody knew', async () => {
    const { registry, scrape } = start();
    const animals = registry.counts({ ...ANIMAL, known: [['cat', 'black']] });
    const blackCat = animals('cat', 'black');
    blackCat();
    blackCat(3);
    animals('cow', 'white')();
    animals('cow', 'white')(0);
    const { value } = await scrape();
    expect(value('animals_total', { kind: 'cat', colour: 'black' })).toBe(4);
    expect(value('animals_total', { kind: 'cow', colour: 'white' })).toBe(1);
  });

  it('may be kept by somebody else, who is asked at each scrape', async () => {
    const { registry, scrape } = start();
    let seconds = 1.5;
    registry.readCount({ name: 'seconds_total', help: 'Seconds.' }, () => seconds);
    expect((await scrape()).value('seconds_total')).toBe(1.5);
    seconds = 4;
    expect((await scrape()).value('seconds_total')).toBe(4);
  });
});

describe('a histogram', () => {
  it('is there with empty buckets from the start, and sorts into them', async () => {
    const { registry, scrape } = start();
    const observe = registry.histogram({
      name: 'wait_seconds',
      help: 'Waits.',
      labels: ['who'],
      known: [['a'], ['b']],
      buckets: [0.1, 1],
    });
    const before = await scrape();
    expect(before.value('wait_seconds_bucket', { who: 'b', le: '+Inf' })).toBe(0);
    for (const value of [0.1, 0.5, 7]) observe('a')(value);
    const { value } = await scrape();
    const buckets = ['0.1', '1', '+Inf'].map((le) => value('wait_seconds_bucket', { who: 'a', le }));
    expect(buckets).toEqual([1, 2, 3]);
    expect(value('wait_seconds_sum', { who: 'a' })).toBe(7.6);
    expect(value('wait_seconds_count', { who: 'b' })).toBe(0);
  });
});

describe('a gauge', () => {
  it('is read at each scrape, and what is not named then is not there', async () => {
    const { registry, scrape } = start();
    let pools = ['a', 'b'];
    registry.gauge({ name: 'pools', help: 'Pools.', labels: ['pool'] }, () =>
      pools.map((pool) => ({ labels: [pool], value: 1 })),
    );
    expect((await scrape()).series.size).toBe(2);
    pools = ['b'];
    expect([...(await scrape()).series.keys()]).toEqual(['pools{pool="b"}']);
  });

  it('takes counts of IPv6 addresses', async () => {
    const { registry, scrape } = start();
    registry.gauge({ name: 'addresses', help: 'Addresses.' }, () => [{ value: 2n ** 96n }]);
    expect((await scrape()).value('addresses')).toBe(2 ** 96);
  });
});

it('renders label values with quotes, backslashes and line ends so that they can be read', async () => {
  const { registry, scrape } = start();
  registry.counts(ANIMAL)('a "b" \\ c\nd', '')();
  expect((await scrape()).value('animals_total', { kind: 'a "b" \\ c\nd', colour: '' })).toBe(1);
});

it('keeps what each metric is, for its documentation', () => {
  const { registry } = start();
  registry.counts(ANIMAL);
  registry.gauge({ name: 'pools', help: 'Pools.' }, () => []);
  expect(registry.metrics).toEqual([
    { ...ANIMAL, type: 'counter' },
    { name: 'pools', help: 'Pools.', type: 'gauge' },
  ]);
});

it('refuses a name that is there already', () => {
  const { registry } = start();
  registry.counts(ANIMAL);
  expect(() => registry.counts(ANIMAL)).toThrow('animals_total');
});
