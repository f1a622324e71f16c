import { readdirSync } from 'node:fs';
import { VERSION } from '../version.ts';
import type { MetricsRegistry } from './registry.ts';

/**
 * What there is to know of the process itself, under the names that every dashboard knows. Read at each scrape and
 * at no other time: the library's own set keeps a timer of ten milliseconds running for it.
 */
export function addProcessMetrics(registry: MetricsRegistry, part: 'agent' | 'controller'): void {
  registry.gauge(
    {
      name: 'weft_build_info',
      help: 'Always 1: which part of weft this is, of which version, on which Node.',
      labels: ['part', 'version', 'node_version'],
    },
    () => [{ labels: [part, VERSION, process.version], value: 1 }],
  );
  registry.readCount(
    { name: 'process_cpu_seconds_total', help: 'CPU time that the process has used, in seconds.' },
    () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    },
  );
  registry.gauge(
    {
      name: 'process_resident_memory_bytes',
      help: 'Memory that the process holds, in bytes. Growth over days is a leak.',
    },
    () => [{ value: process.memoryUsage.rss() }],
  );
  registry.gauge(
    {
      name: 'process_open_fds',
      help: 'Open file descriptors. Growth over days is a leak: of connections, or of namespaces of pods.',
    },
    // One of them is the reading itself.
    () => [{ value: readdirSync('/proc/self/fd').length - 1 }],
  );
  registry.gauge(
    {
      name: 'process_start_time_seconds',
      help: 'When the process started, in seconds since 1970. A change is a restart.',
    },
    () => [{ value: performance.timeOrigin / 1000 }],
  );
}
