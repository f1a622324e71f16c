import type { Output, World } from './command.ts';

/** Colours the words that a terminal shows. In a pipe nothing is coloured. */
export interface Style {
  readonly bold: Paint;
  readonly dim: Paint;
  readonly red: Paint;
  readonly yellow: Paint;
  readonly green: Paint;
  readonly cyan: Paint;
}

export type Paint = (text: string) => string;

/** The style for one of the outputs: colours on a terminal alone, and not where NO_COLOR is set. */
export function styleFor(output: Pick<Output, 'isTerminal'>, env: World['env']): Style {
  const isColoured = output.isTerminal && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb';
  const paint =
    (code: number, end: number): Paint =>
    (text) =>
      isColoured && text !== '' ? `\u001b[${code}m${text}\u001b[${end}m` : text;
  return {
    bold: paint(1, 22),
    dim: paint(2, 22),
    red: paint(31, 39),
    yellow: paint(33, 39),
    green: paint(32, 39),
    cyan: paint(36, 39),
  };
}
