import { parseArgs } from 'node:util';
import { DEFAULT_OPTIONS, type ClusterOptions } from './plan.ts';

export const USAGE = `
npm run cluster -- up [--nodes N] [--segments N] [--bare] [--pool CIDR]… [--name NAME]
npm run cluster -- exec NODE [--name NAME] -- COMMAND…   (NODE: node-1 …, router, control-plane, fabric)
npm run -s cluster -- env [--name NAME]                  (for eval "$(…)": KUBECONFIG, and kubectl, cnitool, ctr)
npm run cluster -- down [--name NAME]
`;

export type Request =
  | { readonly verb: 'up'; readonly options: Partial<ClusterOptions> }
  | {
      readonly verb: 'exec';
      readonly name: string;
      readonly place: string;
      readonly command: readonly string[];
    }
  | { readonly verb: 'env' | 'down'; readonly name: string };

/** Throws UsageError. */
export function parseArguments(args: readonly string[]): Request {
  // What follows the first -- belongs to the command, its own options too.
  const end = args.includes('--') ? args.indexOf('--') : args.length;
  const { values, positionals } = parsed(args.slice(0, end));
  const [verb, ...rest] = positionals;
  const command = args.slice(end + 1);
  const name = values.name ?? DEFAULT_OPTIONS.name;
  if (verb !== 'up') refuseOptions(values, verb);
  if (verb === 'exec') {
    const [place, ...more] = rest;
    if (place === undefined || more.length > 0)
      throw new UsageError('exec takes one NODE, then -- and the command');
    if (command.length === 0) throw new UsageError(`exec ${place} has no command after --`);
    return { verb, name, place, command };
  }
  if (rest.length > 0) throw new UsageError(`unexpected ${JSON.stringify(rest[0])}`);
  if (end < args.length) throw new UsageError(`${String(verb)} takes no command`);
  switch (verb) {
    case 'up':
      return { verb, options: upOptions(name, values) };
    case 'env':
    case 'down':
      return { verb, name };
    default:
      throw new UsageError(
        verb === undefined ? 'what is to be done?' : `unknown verb ${JSON.stringify(verb)}`,
      );
  }
}

export class UsageError extends Error {
  override name = 'UsageError' as const;
}

type Values = {
  readonly name?: string;
  readonly nodes?: string;
  readonly segments?: string;
  readonly bare?: boolean;
  readonly pool?: string[];
};

function parsed(args: readonly string[]): {
  readonly values: Values;
  readonly positionals: readonly string[];
} {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        name: { type: 'string' },
        nodes: { type: 'string' },
        segments: { type: 'string' },
        bare: { type: 'boolean' },
        pool: { type: 'string', multiple: true },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

function refuseOptions(values: Values, verb: string | undefined): void {
  const given = Object.keys(values).find((option) => option !== 'name');
  if (given !== undefined) throw new UsageError(`--${given} belongs to up, not to ${String(verb)}`);
}

/** Only what was said: the rest is the existing cluster's, or the defaults'. */
function upOptions(name: string, values: Values): Partial<ClusterOptions> {
  const nodes = values.nodes === undefined ? undefined : count('nodes', values.nodes, 50);
  const segments = values.segments === undefined ? undefined : count('segments', values.segments, 20);
  if (segments !== undefined && segments > (nodes ?? DEFAULT_OPTIONS.nodes)) {
    throw new UsageError(
      `--segments ${segments} is more than there are nodes (${nodes ?? DEFAULT_OPTIONS.nodes})`,
    );
  }
  return {
    name,
    ...(nodes === undefined ? {} : { nodes }),
    ...(segments !== undefined ? { segments } : nodes === 1 ? { segments: 1 } : {}),
    ...(values.bare === undefined ? {} : { bare: values.bare }),
    ...(values.pool === undefined ? {} : { poolCidrs: values.pool }),
  };
}

function count(option: string, value: string, most: number): number {
  const number = /^[1-9][0-9]*$/.test(value) ? Number(value) : 0;
  if (number < 1 || number > most)
    throw new UsageError(`--${option} ${value} is not a number from 1 to ${most}`);
  return number;
}
