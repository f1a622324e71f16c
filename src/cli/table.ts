import type { Paint } from './style.ts';

/** A cell: its text, and how a terminal shows it. Widths are those of the text. */
export type Cell = string | { readonly text: string; readonly paint: Paint };

export interface TableOptions {
  /** Columns whose cells are aligned to the right: numbers. */
  readonly right?: ReadonlySet<number>;
  /** Before every line. */
  readonly indent?: string;
  /** How wide it may be: the last column is cut, or left out where next to nothing of it would stay. */
  readonly fit?: number | undefined;
}

/** Rows as one aligned table, one line each and a newline behind; a row without cells is an empty line. */
export function renderTable(
  rows: readonly (readonly Cell[])[],
  { right = new Set(), indent = '', fit = Infinity }: TableOptions = {},
): string {
  const widths = widthsOf(rows);
  const lastRoom = fit - indent.length - tableWidth(widths.slice(0, -1)) - GAP.length;
  const fitting = rows.map((row) =>
    row.flatMap((cell, column) => (column < widths.length - 1 ? [cell] : cut(cell, lastRoom))),
  );
  return fitting.map((row) => lineOf(row, widths, right, indent)).join('');
}

/** How wide the rows are as a table. */
export function widthOf(rows: readonly (readonly Cell[])[]): number {
  return tableWidth(widthsOf(rows));
}

const GAP = '  ';

/** A column of which less than this would stay is left out. */
const LEAST = 12;

function widthsOf(rows: readonly (readonly Cell[])[]): number[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, textOf(cell).length);
    });
  }
  return widths;
}

function tableWidth(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width, 0) + GAP.length * Math.max(0, widths.length - 1);
}

function cut(cell: Cell, room: number): Cell[] {
  const text = textOf(cell);
  if (room < LEAST) return [];
  if (text.length <= room) return [cell];
  const shorter = `${text.slice(0, room - 1)}…`;
  return [typeof cell === 'string' ? shorter : { text: shorter, paint: cell.paint }];
}

function lineOf(
  row: readonly Cell[],
  widths: readonly number[],
  right: ReadonlySet<number>,
  indent: string,
): string {
  const cells = row.map((cell, column) => {
    const space = ' '.repeat((widths[column] ?? 0) - textOf(cell).length);
    const shown = typeof cell === 'string' ? cell : cell.paint(cell.text);
    if (right.has(column)) return `${space}${shown}`;
    return column === row.length - 1 ? shown : `${shown}${space}`;
  });
  return row.length === 0 ? '\n' : `${indent}${cells.join(GAP).trimEnd()}\n`;
}

function textOf(cell: Cell): string {
  return typeof cell === 'string' ? cell : cell.text;
}
