/** One scrape, read as Prometheus reads it. */
export interface Scrape {
  /** The value of one series; undefined if it is not there. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
  /** The names of all families. */
  readonly names: readonly string[];
  /** Each series as text, its labels in alphabetical order. */
  readonly series: ReadonlyMap<string, number>;
}

/**
 * Reads Prometheus' text format and refuses what Prometheus would, and what `promtool check metrics` warns of: families
 * that are torn apart, series told twice, counters that are not called so, buckets that do not add up.
 */
export function parseExposition(text: string): Scrape {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const families = new Map<string, Family>();
  const series = new Map<string, number>();
  let current: Family | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const help = /^# HELP (\S+) (.+)$/.exec(line);
    const type = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (help !== null) {
      const [, name = ''] = help;
      if (families.has(name)) throw new Error(`${name} is told twice`);
      current = { name, type: undefined, samples: [] };
      families.set(name, current);
    } else if (type !== null) {
      if (current === undefined || type[1] !== current.name || current.type !== undefined)
        throw new Error(`out of place: ${line}`);
      current.type = type[2];
    } else {
      const sample = parseSample(line);
      if (current?.type === undefined || !belongs(sample.name, current)) {
        throw new Error(`of no family, or not beside its family: ${line}`);
      }
      const key = seriesText(sample.name, sample.labels);
      if (series.has(key)) throw new Error(`told twice: ${key}`);
      series.set(key, sample.value);
      current.samples.push(sample);
    }
  }
  for (const family of families.values()) checkFamily(family);
  return {
    value: (name, labels = {}) => series.get(seriesText(name, labels)),
    names: [...families.keys()],
    series,
  };
}

interface Family {
  readonly name: string;
  type: string | undefined;
  readonly samples: Sample[];
}

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

function parseSample(line: string): Sample {
  const [, name = '', labelText = '', valueText = ''] =
    /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
  if (name === '') throw new Error(`no sample: ${line}`);
  const labels: Record<string, string> = {};
  let rest = labelText;
  while (rest !== '') {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest);
    const [whole = '', key = '', value = ''] = label ?? [];
    if (label === null || key in labels) throw new Error(`labels that cannot be read: ${line}`);
    labels[key] = value.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped));
    rest = rest.slice(whole.length);
  }
  const value = valueText === '+Inf' ? Infinity : Number(valueText);
  if (Number.isNaN(value)) throw new Error(`no number: ${line}`);
  return { name, labels, value };
}

function belongs(name: string, { name: family, type }: Family): boolean {
  if (type !== 'histogram') return name === family;
  return ['_bucket', '_sum', '_count'].some((suffix) => name === family + suffix);
}

function checkFamily({ name, type, samples }: Family): void {
  if (type === undefined) throw new Error(`${name} has no type`);
  if ((type === 'counter') !== name.endsWith('_total')) throw new Error(`${name} is called as no ${type} is`);
  if (type === 'counter' && samples.some(({ value }) => value < 0)) throw new Error(`${name} is below 0`);
  if (type === 'histogram') checkHistogram(name, samples);
}

function checkHistogram(name: string, samples: readonly Sample[]): void {
  const count = (labels: Sample['labels']) =>
    samples.find(
      (one) => one.name === `${name}_count` && seriesText('', one.labels) === seriesText('', labels),
    );
  const last = new Map<string, { bound: number; value: number }>();
  for (const { name: its, labels, value } of samples) {
    if (its !== `${name}_bucket`) continue;
    const { le = '', ...others } = labels;
    const key = seriesText('', others);
    const bound = le === '+Inf' ? Infinity : Number(le);
    const before = last.get(key) ?? { bound: -Infinity, value: 0 };
    if (!(bound > before.bound) || value < before.value) throw new Error(`${name}: buckets that do not rise`);
    last.set(key, { bound, value });
    if (bound === Infinity && count(others)?.value !== value)
      throw new Error(`${name}: +Inf is not the count`);
  }
  if ([...last.values()].some(({ bound }) => bound !== Infinity)) throw new Error(`${name} has no +Inf`);
}

function seriesText(name: string, labels: Readonly<Record<string, string>>): string {
  const text = Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return text.length === 0 ? name : `${name}{${text.join(',')}}`;
}
