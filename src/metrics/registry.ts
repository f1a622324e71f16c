import { setImmediate } from 'node:timers/promises';
import PromCounter from 'prom-client/lib/counter.js';
import PromGauge from 'prom-client/lib/gauge.js';
import PromHistogram from 'prom-client/lib/histogram.js';
import PromRegistry from 'prom-client/lib/registry.js';

/** What a metric is called, and what it tells the one who reads it. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
  /**
   * Combinations of label values, in the order of `labels`, that are there with 0 from the start: the first of an
   * event that nobody has counted before is no increase to Prometheus. Where there are others, they come by themselves.
   */
  readonly known?: readonly (readonly string[])[];
}

export interface HistogramMetric extends Metric {
  /** Upper bounds, rising; that of all values comes by itself. */
  readonly buckets: readonly number[];
}

/** A metric as it was made, for its documentation. */
export interface DescribedMetric extends Metric {
  readonly type: 'counter' | 'gauge' | 'histogram';
}

/** What a gauge says for one combination of label values. */
export interface Sample {
  /** In the order of the metric's labels; absent where it has none. */
  readonly labels?: readonly string[];
  /** May be a count of IPv6 addresses: metrics are floats, and that is exact enough for a graph. */
  readonly value: number | bigint;
}

/** Adds 1, or as many as it is told. */
export type Count = (by?: number) => void;
export type Observe = (value: number) => void;

/** The metrics of one process, and the only door to the library that renders them. */
export interface MetricsRegistry {
  /** A counter without labels. */
  count(metric: Omit<Metric, 'labels' | 'known'>): Count;
  /** The counts by label values. Each is made once: who counts often keeps it. */
  counts(metric: Metric): (...values: string[]) => Count;
  /** The same for a histogram. */
  histogram(metric: HistogramMetric): (...values: string[]) => Observe;
  /** A gauge that is read at each scrape; what it does not name then is not there. */
  gauge(metric: Metric, read: () => Iterable<Sample>): void;
  /** A counter whose value somebody else keeps. */
  readCount(metric: Omit<Metric, 'labels' | 'known'>, read: () => number): void;
  /** All of them in Prometheus' text format. */
  text(): Promise<string>;
  readonly contentType: string;
  /** In the order in which they were made. */
  readonly metrics: readonly DescribedMetric[];
}

export function createMetricsRegistry(): MetricsRegistry {
  const registry = new PromRegistry();
  const registers = [registry];
  const metrics: DescribedMetric[] = [];

  const counter = (metric: Metric) => {
    metrics.push({ ...metric, type: 'counter' });
    return new PromCounter({ ...named(metric), registers });
  };

  return {
    count: (metric) => {
      const made = counter(metric);
      return (by = 1) => made.inc(by);
    },
    counts(metric) {
      const made = counter(metric);
      const of = remembered((...values) => {
        const { inc } = made.labels(...values);
        return (by = 1) => inc(by);
      });
      for (const values of metric.known ?? []) of(...values)(0);
      return of;
    },
    histogram(metric) {
      metrics.push({ ...metric, type: 'histogram' });
      const made = new PromHistogram({ ...named(metric), buckets: [...metric.buckets], registers });
      for (const values of metric.known ?? []) made.zero(labelled(metric, values));
      return remembered((...values) => made.labels(...values).observe);
    },
    gauge(metric, read) {
      metrics.push({ ...metric, type: 'gauge' });
      new PromGauge({
        ...named(metric),
        registers,
        collect() {
          this.reset();
          for (const { labels = [], value } of read()) this.set(labelled(metric, labels), Number(value));
        },
      });
    },
    readCount(metric, read) {
      metrics.push({ ...metric, type: 'counter' });
      new PromCounter({
        ...named(metric),
        registers,
        collect() {
          this.reset();
          this.inc(read());
        },
      });
    },
    async text() {
      // One at a time, and others may come between: a scrape of some milliseconds must not keep an ADD waiting, nor
      // have all that rendering leaves behind in memory at once.
      const texts: string[] = [];
      for (const { name } of metrics) {
        texts.push(await registry.getSingleMetricAsString(name));
        await setImmediate();
      }
      return `${texts.join('\n\n')}\n`;
    },
    contentType: registry.contentType,
    metrics,
  };
}

function named({ name, help, labels = [] }: Metric): { name: string; help: string; labelNames: string[] } {
  return { name, help, labelNames: [...labels] };
}

function labelled({ labels = [] }: Metric, values: readonly string[]): Record<string, string> {
  return Object.fromEntries(labels.map((label, i) => [label, values[i] ?? '']));
}

/** A child for each combination of values, made at its first use. */
function remembered<T>(make: (...values: string[]) => T): (...values: string[]) => T {
  const made = new Map<string, T>();
  return (...values) => {
    const key = values.join('\0');
    const known = made.get(key);
    if (known !== undefined) return known;
    const child = make(...values);
    made.set(key, child);
    return child;
  };
}
