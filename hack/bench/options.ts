import { parseArgs } from 'node:util';

export const PARTS = ['add', 'claims', 'startup', 'pods', 'memory', 'network', 'scale'] as const;
export type Part = (typeof PARTS)[number];

/** So many nodes, so many allocations on each: what grows with nodes shows from the first on. */
export const SCALE_SIZES = [
  { nodes: 200, each: 110 },
  { nodes: 1_000, each: 110 },
  { nodes: 5_000, each: 30 },
] as const;

/** What runs where nothing is named: scale needs most of the machine's memory and half an hour of its own. */
const USUAL: readonly Part[] = PARTS.filter((part) => part !== 'scale');

export type Options = {
  /** In the order in which they run, which is always that of PARTS: memory last, when most has happened. */
  readonly parts: readonly Part[];
  readonly output: 'table' | 'json';
  /** A file that gets the JSON too. */
  readonly outputFile: string | undefined;
  readonly clusterName: string;
  /** Whether the cluster stays. One that was there before always does. */
  readonly keep: boolean;
  /** Whether attachments get an address of each family instead of IPv4 alone. */
  readonly dual: boolean;
  /** ADDs one at a time, and as many DELs, of each plugin. */
  readonly rounds: number;
  /** How long the attachments have stood when memory is measured. */
  readonly minutes: number;
  /** Of scale only the size with so many nodes; undefined: all, one after the other. */
  readonly nodes: number | undefined;
};

/** Reads the words after `npm run bench --`. Throws UsageError. */
export function parseOptions(words: readonly string[]): Options {
  const { values, positionals } = parsed(words);
  const unknown = positionals.filter((name) => !isPart(name));
  if (unknown.length > 0) throw new UsageError(`there is no part ${unknown.join(', ')}`);
  if (values.format !== undefined && values.format !== 'json') {
    throw new UsageError(`-o ${values.format}: only json can be asked for; without it there is a table`);
  }
  return {
    parts: positionals.length === 0 ? USUAL : PARTS.filter((part) => positionals.includes(part)),
    output: values.format ?? 'table',
    outputFile: values.output,
    clusterName: values.name,
    keep: values.keep,
    dual: values.dual,
    rounds: wholeNumber('rounds', values.rounds),
    minutes: positive('minutes', values.minutes),
    nodes: values.nodes === undefined ? undefined : sizeOf(values.nodes),
  };
}

export const USAGE = `npm run bench -- [options] [${PARTS.join('] [')}]
  -o json          JSON on stdout instead of a table
  --output FILE    write the JSON to FILE too
  --rounds N       how often each plugin is measured one at a time (default 300)
  --minutes N      how long 110 attachments stand before memory is measured (default 10)
  --dual           addresses of both families; default IPv4 alone, for all plugins
  --nodes N        of scale only the size with so many nodes: ${SCALE_SIZES.map(({ nodes }) => nodes).join(', ')}
  --name NAME      the cluster to use or make (default weft-bench)
  --keep           leave the cluster running
Without names all parts but scale: up to 5,000 simulated nodes, by name alone.`;

/** The command line cannot be used; the message ends with how to use it. */
export class UsageError extends Error {
  override name = 'UsageError' as const;
  constructor(reason: string, options?: ErrorOptions) {
    super(`${reason}\n${USAGE}`, options);
  }
}

function parsed(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        format: { type: 'string', short: 'o' },
        output: { type: 'string' },
        name: { type: 'string', default: 'weft-bench' },
        keep: { type: 'boolean', default: false },
        dual: { type: 'boolean', default: false },
        rounds: { type: 'string', default: '300' },
        minutes: { type: 'string', default: '10' },
        nodes: { type: 'string' },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

const isPart = (name: string): name is Part => PARTS.some((part) => part === name);

function sizeOf(text: string): number {
  const found = SCALE_SIZES.find(({ nodes }) => String(nodes) === text);
  if (found === undefined) throw new UsageError(`--nodes=${text}: there is no such size`);
  return found.nodes;
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (!/^[0-9.]+$/.test(text) || !(value > 0)) throw new UsageError(`--${flag}=${text} is no number above 0`);
  return value;
}

function wholeNumber(flag: string, text: string): number {
  const value = positive(flag, text);
  if (!Number.isInteger(value)) throw new UsageError(`--${flag}=${text} is no whole number`);
  return value;
}
