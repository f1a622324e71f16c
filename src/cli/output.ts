import type { Call, Flag, World } from './command.ts';
import { UsageError } from './errors.ts';
import { renderYAML, type Plain } from './yaml.ts';

const FORMATS = ['table', 'json', 'yaml'] as const;
export type Format = (typeof FORMATS)[number];

/** For commands whose answer a script may read. */
export const OUTPUT_FLAG: Flag = {
  name: 'output',
  short: 'o',
  value: 'FORMAT',
  about: 'table (for people), json or yaml (for scripts); default table',
  values: FORMATS,
};

/** @throws UsageError */
export function formatOf(call: Call): Format {
  const text = call.text('output') ?? 'table';
  const format = FORMATS.find((one) => one === text);
  if (format === undefined) throw new UsageError(`-o ${text}: it must be one of ${FORMATS.join(', ')}`);
  return format;
}

/** Writes an answer: its data, or what a person reads. */
export async function answer(
  world: World,
  format: Format,
  { data, text }: { readonly data: Plain; readonly text: () => string },
): Promise<void> {
  const rendered =
    format === 'table' ? text() : format === 'json' ? `${JSON.stringify(data, null, 2)}\n` : renderYAML(data);
  await world.stdout.write(rendered);
}
