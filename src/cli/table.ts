import type { Paint } from './style.ts';

/** A cell: its text, and how a terminal shows it. Widths are those of the text. */
export type Cell = string | { readonly text: string; readonly paint: Paint };

export interface TableOptions {
  /** Columns whose cells are aligned to the right: numbers. */
  readonly right?: ReadonlySet<number>;
  /** Before every line. */
  readonly indent?: string;
}

/**
 * Rows as one aligned table, one line each and a newline behind; a row without cells is an empty line. An empty cell
 * of a row that goes on shows as it is: whoever wants a mark there puts one.
 */
export function renderTable(
  rows: readonly (readonly Cell[])[],
  { right = new Set(), indent = '' }: TableOptions = {},
): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, textOf(cell).length);
    });
  }
  return rows
    .map((row) => {
      const cells = row.map((cell, column) => {
        const gap = ' '.repeat((widths[column] ?? 0) - textOf(cell).length);
        const shown = typeof cell === 'string' ? cell : cell.paint(cell.text);
        if (right.has(column)) return `${gap}${shown}`;
        return column === row.length - 1 ? shown : `${shown}${gap}`;
      });
      return row.length === 0 ? '\n' : `${indent}${cells.join('   ').trimEnd()}\n`;
    })
    .join('');
}

function textOf(cell: Cell): string {
  return typeof cell === 'string' ? cell : cell.text;
}
