import { expect, it } from 'vitest';
import { addProcessMetrics, createMetricsRegistry } from '../../src/metrics/index.ts';
import { VERSION } from '../../src/version.ts';
import { parseExposition } from './exposition.ts';

it('tells what this process is and what it uses', async () => {
  const registry = createMetricsRegistry();
  addProcessMetrics(registry, 'agent');
  const scrape = async () => parseExposition(await registry.text());
  const { value } = await scrape();
  expect(value('weft_build_info', { part: 'agent', version: VERSION, node_version: process.version })).toBe(
    1,
  );
  expect(value('process_resident_memory_bytes')).toBeGreaterThan(10e6);
  expect(value('process_open_fds')).toBeGreaterThan(2);
  const startedAt = value('process_start_time_seconds') ?? 0;
  expect(Math.abs(Date.now() / 1000 - process.uptime() - startedAt)).toBeLessThan(2);
  const before = value('process_cpu_seconds_total') ?? 0;
  expect(before).toBeGreaterThan(0);
  const usedBefore = process.cpuUsage();
  while (process.cpuUsage(usedBefore).user < 30_000) Math.sqrt(performance.now());
  const used = ((await scrape()).value('process_cpu_seconds_total') ?? 0) - before;
  expect(used).toBeGreaterThan(0.0299);
});
