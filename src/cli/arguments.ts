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
  const { words, flags } = tokensOf(argv, commands);
  const command = commands.find((one) => one.words.every((word, i) => words[i] === word));
  const understood = command?.words ?? groupOf(words, commands);
  const allowed = [...COMMON_FLAGS, ...(command?.flags ?? [VERSION_FLAG])];
  for (const { flag, value } of flags) {
    if (flag.isKnown === false || !allowed.some(({ name }) => name === flag.name)) {
      const where = command === undefined ? '' : ` of "${command.words.join(' ')}"`;
      throw new UsageError(`there is no flag ${flag.shown}${where}`, understood);
    }
    checkValue(flag, value, understood);
  }
  const valueOf = (name: string) => flags.findLast(({ flag }) => flag.name === name)?.value;
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

/** How a command is written in its help. */
export function synopsisOf({ words, operands }: Command): string {
  const shown = operands.map(({ name, isOptional, isRepeated }) => {
    const one = `${name}${isRepeated === true ? '...' : ''}`;
    return isOptional === true ? `[${one}]` : one;
  });
  return [...words, ...shown].join(' ');
}

interface GivenFlag {
  readonly name: string;
  /** As it was written, for messages. */
  readonly shown: string;
  readonly isKnown: boolean;
  /** What its value is called; absent for a switch. */
  readonly placeholder: string | undefined;
}

interface Tokens {
  readonly words: readonly string[];
  readonly flags: readonly { readonly flag: GivenFlag; readonly value: string | true | undefined }[];
}

/** The words that are no flags, and the flags of all commands: which command it is tells only the whole line. */
function tokensOf(argv: readonly string[], commands: readonly Command[]): Tokens {
  const known = new Map(
    [...COMMON_FLAGS, VERSION_FLAG, ...commands.flatMap(({ flags }) => flags)].map((flag) => [flag.name, flag]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: Object.fromEntries(
      [...known.values()].map(({ name, short, value }) => [
        name,
        { type: value === undefined ? 'boolean' : 'string', ...(short === undefined ? {} : { short }) } as const,
      ]),
    ),
  });
  return {
    words: tokens.flatMap((token) => (token.kind === 'positional' ? [token.value] : [])),
    flags: tokens.flatMap((token) => {
      if (token.kind !== 'option') return [];
      const flag = known.get(token.name);
      const given = {
        name: token.name,
        shown: token.rawName,
        isKnown: flag !== undefined,
        placeholder: flag?.value,
      };
      return [{ flag: given, value: token.value ?? (flag?.value === undefined ? true : undefined) }];
    }),
  };
}

function checkValue(flag: GivenFlag, value: string | true | undefined, words: readonly string[]): void {
  if (flag.placeholder === undefined) {
    if (value !== true) throw new UsageError(`${flag.shown} takes no value`, words);
  } else if (value === undefined || value === '' || (value !== true && /^--?[a-z]/.test(value))) {
    throw new UsageError(`${flag.shown} needs a value: ${flag.shown} ${flag.placeholder}`, words);
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
