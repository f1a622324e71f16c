import { expect, it } from 'vitest';
import { createEventMetrics, createMetricsRegistry, createRequestMetrics } from '../../src/metrics/index.ts';
import { parseExposition } from './exposition.ts';

function start() {
  const registry = createMetricsRegistry();
  let nowMs = 1_000;
  const observe = createRequestMetrics(registry, { nowMs: () => nowMs });
  return {
    registry,
    observe,
    wait: (ms: number) => (nowMs += ms),
    scrape: async () => parseExposition(await registry.text()),
  };
}

it('has what every cluster sees from the start', async () => {
  const { value } = await start().scrape();
  for (const verb of ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete']) {
    expect(value('weft_api_requests_total', { verb, code: 'unreachable' }), verb).toBe(0);
    expect(value('weft_api_request_duration_seconds_count', { verb }), verb).toBe(0);
  }
  expect(value('weft_api_requests_total', { verb: 'create', code: '409' })).toBe(0);
});

it('counts and times requests that overlap, each by its own end', async () => {
  const { observe, wait, scrape } = start();
  const first = observe('create');
  wait(20);
  const second = observe('create');
  wait(10);
  first(201);
  wait(400);
  second('aborted');
  observe('get')(503);
  const { value } = await scrape();
  expect(value('weft_api_requests_total', { verb: 'create', code: '201' })).toBe(1);
  expect(value('weft_api_requests_total', { verb: 'create', code: 'aborted' })).toBe(1);
  expect(value('weft_api_requests_total', { verb: 'get', code: '503' })).toBe(1);
  expect(value('weft_api_request_duration_seconds_sum', { verb: 'create' })).toBeCloseTo(0.44);
  expect(value('weft_api_request_duration_seconds_bucket', { verb: 'create', le: '0.05' })).toBe(1);
});

it('counts Events by what became of them', async () => {
  const { registry, scrape } = start();
  const observe = createEventMetrics(registry);
  expect((await scrape()).value('weft_events_total', { result: 'dropped' })).toBe(0);
  observe('dropped');
  observe('dropped');
  expect((await scrape()).value('weft_events_total', { result: 'dropped' })).toBe(2);
});
