import { IP_POOL } from '../api/index.ts';
import { listNames, NAMESPACES, NODES, pathOf } from '../kube/index.ts';
import { COMMON_FLAGS, readTokens, VERSION_FLAG, type Tokens } from './arguments.ts';
import { withCluster } from './cluster.ts';
import type { Call, Command, Flag, Values, World } from './command.ts';

/** The word by which shells ask: `kubectl-weft __complete WORD... BEGUN`. */
export const COMPLETE_WORD = '__complete';

/** A shell waits for this: without an answer in that time there are no names. */
const NAMES_WITHIN_MS = 2_000;

/**
 * The candidates for the last of the words, a line each with a tab and what it is about, and `:4` at the end: no
 * files. It is the answer that kubectl, too, wants of a plugin. Whatever goes wrong, there are just no names.
 */
export async function completions(
  words: readonly string[],
  commands: readonly Command[],
  world: World,
): Promise<string> {
  const given = joined(words);
  const begun = given.at(-1) ?? '';
  const line = readLine(given.slice(0, -1), commands);
  const found = await candidates(begun, line, commands, world);
  const lines = found.map(({ word, about }) => (about === '' ? word : `${word}\t${about}`));
  return [...lines, ':4', ''].join('\n');
}

interface Candidate {
  readonly word: string;
  readonly about: string;
}

/** What stands before the word that is being completed. */
interface Line extends Tokens {
  /** The flag whose value comes next. */
  readonly open: Flag | undefined;
}

async function candidates(
  begun: string,
  line: Line,
  commands: readonly Command[],
  world: World,
): Promise<Candidate[]> {
  const flags = [...COMMON_FLAGS, ...(line.command?.flags ?? [VERSION_FLAG])];
  const [, inlineName, inlineBegun] = /^--([^=]+)=(.*)$/s.exec(begun) ?? [];
  if (inlineName !== undefined) {
    const values = flags.find(({ name }) => name === inlineName)?.values;
    return startingWith(inlineBegun ?? '', await valuesOf(values, line, world));
  }
  if (line.open !== undefined) return startingWith(begun, await valuesOf(line.open.values, line, world));
  if (begun.startsWith('-')) {
    const unused = flags.filter(({ name }) => !line.flags.some((given) => given.name === name));
    return startingWith(
      begun,
      unused.map(({ name, about }) => ({ word: `--${name}`, about })),
    );
  }
  if (line.command === undefined) return startingWith(begun, nextWords(line.words, commands));
  const { operands, words } = line.command;
  const position = line.words.length - words.length;
  const operand = operands[position] ?? operands.find(({ isRepeated }) => isRepeated === true);
  return startingWith(begun, await valuesOf(operand?.values, line, world));
}

function readLine(words: readonly string[], commands: readonly Command[]): Line {
  const tokens = readTokens(words, commands);
  const last = tokens.flags.at(-1);
  const isOpen = last?.flag?.value !== undefined && last.value === undefined;
  return { ...tokens, open: isOpen ? last.flag : undefined };
}

function nextWords(words: readonly string[], commands: readonly Command[]): Candidate[] {
  const next = new Map<string, string>();
  for (const { words: all, summary } of commands) {
    const word = all[words.length];
    if (word === undefined || !words.every((one, i) => all[i] === one)) continue;
    next.set(word, all.length === words.length + 1 ? summary : '');
  }
  return [...next].map(([word, about]) => ({ word, about }));
}

async function valuesOf(values: Values | undefined, line: Line, world: World): Promise<Candidate[]> {
  if (values === undefined) return [];
  const words = typeof values === 'string' ? await names(values, line, world) : values;
  return words.map((word) => ({ word, about: '' }));
}

const PATHS = { pools: pathOf(IP_POOL), nodes: NODES, namespaces: NAMESPACES } as const;

async function names(kind: keyof typeof PATHS, line: Line, world: World): Promise<string[]> {
  const call: Call = {
    operands: [],
    text: (name) => {
      const value = line.flags.findLast((given) => given.name === name)?.value;
      return typeof value === 'string' ? value : undefined;
    },
    isSet: () => false,
  };
  const signal = AbortSignal.any([world.signal, AbortSignal.timeout(NAMES_WITHIN_MS)]);
  try {
    return await withCluster(call, world, ({ client }) => listNames(client, PATHS[kind], signal));
  } catch {
    return []; // a shell that completes has no place for messages
  }
}

function startingWith(begun: string, found: readonly Candidate[]): Candidate[] {
  return found.filter(({ word }) => word.startsWith(begun));
}

/** bash takes "--node=n" for three words. */
function joined(words: readonly string[]): string[] {
  const whole: string[] = [];
  for (const word of words) {
    const previous = whole.at(-1);
    const isValue = previous?.startsWith('--') === true && (word === '=' || previous.endsWith('='));
    if (isValue) whole[whole.length - 1] = `${previous}${word}`;
    else whole.push(word);
  }
  return whole;
}
