import { verdictOf, type Figure, type Target } from './figures.ts';

/** The figures as one aligned table, with lines about machine and method above and below. Ends with a newline. */
export function renderTable(
  figures: readonly Figure[],
  above: readonly string[],
  below: readonly string[],
): string {
  const rows = [HEADINGS, ...figures.map(cellsOf)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        isText(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
  return `${[...above, '', ...lines, '', ...below].join('\n').trimEnd()}\n`;
}

const HEADINGS = ['part', 'what', 'of', 'n', 'p50', 'p99', 'rate', 'memory', 'ratio', 'to reach', ''];

/** Text is aligned to the left, numbers to the right. */
const isText = (column: number) => column < 3 || column > 8;

function cellsOf(figure: Figure): string[] {
  return [
    figure.part,
    figure.what,
    figure.who,
    String(figure.count),
    shown(figure.p50Ms, milliseconds),
    shown(figure.p99Ms, milliseconds),
    shown(figure.perSecond, (rate) => `${rounded(rate)}/s`) || shown(figure.bytesPerSecond, bytesText),
    shown(figure.megabytes, (size) => `${size.toFixed(1)} MB`),
    shown(figure.ratio, (ratio) => `${figure.ratioOf ?? ''} ${ratio.toFixed(2)}`.trimStart()),
    figure.target === undefined ? '' : targetText(figure.target),
    verdictOf(figure) ?? '',
  ];
}

const shown = (value: number | undefined, text: (value: number) => string): string =>
  value === undefined ? '' : text(value);

const milliseconds = (ms: number): string => (ms < 0.1 ? `${rounded(ms * 1000)} µs` : `${rounded(ms)} ms`);

const bytesText = (bytes: number): string =>
  bytes < 1e9 ? `${rounded(bytes)} B/s` : `${rounded(bytes / 1e9)} GB/s`;

/** Three digits that count, or all before the point. */
const rounded = (value: number): string => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

/** A ratio is named by the column beside. */
const NAMES = { p50Ms: 'p50', ratio: '', megabytes: '' } as const;
const UNITS = { p50Ms: ' ms', ratio: '', megabytes: ' MB' } as const;
function targetText({ value, bound, limit }: Target): string {
  const name = NAMES[value];
  return `${name} ${bound === 'at most' ? '≤' : '≥'} ${limit}${UNITS[value]}`.trimStart();
}
