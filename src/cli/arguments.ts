import { parseArgs } from 'node:util';
import type { Call, Command, Flag } from './command.ts';
import { UsageError } from './errors.ts';

/** What a command line asks for. */
export type Request =
  | { readonly kind: 'run'; readonly command: Command; readonly call: Call }
  | { readonly kind: 'help'; readonly words: readonly string[] }
  | { readonly kind: 'version' };

/** Every command takes these. */
export const COMMON_FLAGS: readonly Flag[] = [
  { name: 'kubeconfig', value: 'FILE', about: "the kubeconfig; default: kubectl's" },
  { name: 'context', value: 'NAME', about: 'the context of the kubeconfig; default: its current one' },
  { name: 'help', short: 'h', about: 'how the command is used' },
];

/** Of the program itself. */
export const VERSION_FLAG: Flag = { name: 'version', about: 'the version of kubectl-weft' };

/**
 * Reads a command line. Flags may stand anywhere, before the command's words too.
 * @throws UsageError
 */
export function parseCommandLine(argv: readonly string[], commands: readonly Command[]): Request {
  const { command, words, flags } = readTokens(argv, commands);
  const understood = command?.words ?? groupOf(words, commands);
  for (const { name, shown, flag, value } of flags) {
    if (flag === undefined) {
      const where = command === undefined ? '' : ` of "${command.words.join(' ')}"`;
      throw new UsageError(`there is no flag ${shown}${where}`, understood);
    }
    if (name !== 'help') checkValue(shown, flag, value, understood);
  }
  const valueOf = (name: string) => flags.findLast((one) => one.name === name)?.value;
  if (valueOf('help') !== undefined) return { kind: 'help', words: understood };
  if (valueOf('version') !== undefined) return { kind: 'version' };
  if (command === undefined) return { kind: 'help', words: requireGroup(words, understood, commands) };
  const operands = words.slice(command.words.length);
  checkOperands(operands, command);
  return {
    kind: 'run',
    command,
    call: {
      operands,
      text: (name) => {
        const value = valueOf(name);
        return typeof value === 'string' ? value : undefined;
      },
      isSet: (name) => valueOf(name) === true,
    },
  };
}

/** A command line taken apart, the flags read as those of its command: two may mean different things by one name. */
export interface Tokens {
  readonly command: Command | undefined;
  /** What is no flag, the command's own words included. */
  readonly words: readonly string[];
  readonly flags: readonly GivenFlag[];
}

export interface GivenFlag {
  readonly name: string;
  /** As it was written, for messages. */
  readonly shown: string;
  /** Absent: there is no such flag. */
  readonly flag: Flag | undefined;
  /** True for a switch; undefined where a value is missing. */
  readonly value: string | true | undefined;
}

/** Never fails: what is wrong shows in the tokens. */
export function readTokens(argv: readonly string[], commands: readonly Command[]): Tokens {
  for (const command of commands) {
    const tokens = tokensOf(argv, [...COMMON_FLAGS, ...command.flags]);
    if (command.words.every((word, i) => tokens.words[i] === word)) return { command, ...tokens };
  }
  const all = [...COMMON_FLAGS, VERSION_FLAG, ...commands.flatMap(({ flags }) => flags)];
  return { command: undefined, ...tokensOf(argv, all) };
}

/** How a command is written in its help. */
export function synopsisOf({ words, operands }: Command): string {
  const shown = operands.map(({ name, isOptional, isRepeated }) => {
    const one = `${name}${isRepeated === true ? '...' : ''}`;
    return isOptional === true ? `[${one}]` : one;
  });
  return [...words, ...shown].join(' ');
}

function tokensOf(argv: readonly string[], flags: readonly Flag[]): Omit<Tokens, 'command'> {
  const known = new Map(flags.map((flag) => [flag.name, flag]));
  const { tokens } = parseArgs({
    args: [...argv],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: Object.fromEntries(
      [...known.values()].map(({ name, short, value }) => [
        name,
        {
          type: value === undefined ? 'boolean' : 'string',
          ...(short === undefined ? {} : { short }),
        } as const,
      ]),
    ),
  });
  return {
    words: tokens.flatMap((token) => (token.kind === 'positional' ? [token.value] : [])),
    flags: tokens.flatMap((token) => {
      if (token.kind !== 'option') return [];
      const flag = known.get(token.name);
      const value = token.value ?? (flag?.value === undefined ? true : undefined);
      return [{ name: token.name, shown: token.rawName, flag, value }];
    }),
  };
}

function checkValue(
  shown: string,
  flag: Flag,
  value: string | true | undefined,
  words: readonly string[],
): void {
  if (flag.value === undefined) {
    if (value !== true) throw new UsageError(`${shown} takes no value`, words);
    // The parser gives a flag that lacks its value the next one.
  } else if (value === undefined || value === '' || value === true || /^--?[a-z]/.test(value)) {
    throw new UsageError(`${shown} needs a value: ${shown} ${flag.value}`, words);
  }
}

/** As many of the words as begin some command. */
function groupOf(words: readonly string[], commands: readonly Command[]): readonly string[] {
  const lengths = commands.map((command) => {
    const end = command.words.findIndex((word, i) => words[i] !== word);
    return end === -1 ? command.words.length : end;
  });
  return words.slice(0, Math.max(0, ...lengths));
}

/** Without any word the whole help is what is wanted; anything else is a mistake that a script must notice. */
function requireGroup(
  words: readonly string[],
  group: readonly string[],
  commands: readonly Command[],
): readonly string[] {
  if (words.length === 0) return [];
  const next = commands
    .filter((command) => group.every((word, i) => command.words[i] === word))
    .map((command) => command.words[group.length] ?? '');
  const choice = [...new Set(next)].join(', ');
  const unknown = words[group.length];
  const name = ['kubectl weft', ...group].join(' ');
  throw new UsageError(
    unknown === undefined
      ? `${name} needs one more word: ${choice}`
      : `there is no command "${[...group, unknown].join(' ')}": after "${name}" comes ${choice}`,
    group,
  );
}

function checkOperands(operands: readonly string[], { words, operands: wanted }: Command): void {
  const missing = wanted.find(({ isOptional }, i) => isOptional !== true && operands[i] === undefined);
  if (missing !== undefined) throw new UsageError(`"${words.join(' ')}" needs ${missing.name}`, words);
  const extra = operands[wanted.length];
  if (extra !== undefined && wanted.at(-1)?.isRepeated !== true) {
    throw new UsageError(`"${extra}" is one word too many for "${words.join(' ')}"`, words);
  }
}
