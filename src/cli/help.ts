import { COMMON_FLAGS, synopsisOf, VERSION_FLAG } from './arguments.ts';
import type { Command, Flag } from './command.ts';

/** The help of the command of these words, or, where they only begin some, of those. */
export function helpText(words: readonly string[], commands: readonly Command[]): string {
  const begun = commands.filter((command) => words.every((word, i) => command.words[i] === word));
  const [command] = begun;
  if (command?.words.length === words.length) return commandHelp(command);
  return overview(begun);
}

function commandHelp(command: Command): string {
  return [
    `usage: kubectl weft ${synopsisOf(command)} [flags]`,
    '',
    `${capitalized(command.summary)}.`,
    ...(command.about === '' ? [] : ['', command.about]),
    '',
    ...aligned([...command.flags, ...COMMON_FLAGS].map((flag) => [flagText(flag), flag.about])),
    '',
  ].join('\n');
}

function overview(commands: readonly Command[]): string {
  return [
    'usage: kubectl weft COMMAND [flags]',
    '',
    'Looks at the addresses that weft gives out, and holds and releases some by hand.',
    '',
    ...aligned(commands.map((command) => [synopsisOf(command), command.summary])),
    '',
    ...aligned([...COMMON_FLAGS, VERSION_FLAG].map((flag) => [flagText(flag), flag.about])),
    '',
    'Exit code: 0 done, 1 refused, 2 not understood, 3 the apiserver cannot be reached.',
    'More about one command: kubectl weft COMMAND --help',
    '',
  ].join('\n');
}

function flagText({ name, short, value }: Flag): string {
  const long = `--${name}${value === undefined ? '' : ` ${value}`}`;
  return short === undefined ? `    ${long}` : `-${short}, ${long}`;
}

function aligned(lines: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...lines.map(([left]) => left.length));
  return lines.map(([left, right]) => `  ${left.padEnd(width)}   ${right}`);
}

function capitalized(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}
