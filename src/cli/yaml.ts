/** Data without functions, undefined or cycles: what JSON can say. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };

/**
 * Plain data as YAML, ending with a newline. Every string but the plainest is written as in JSON, which YAML reads as
 * it is: no word becomes a boolean, a number or a date that way.
 */
export function renderYAML(value: Plain): string {
  return `${isEmpty(value) || !isNested(value) ? scalar(value) : block(value, '')}\n`;
}

function block(value: Nested, indent: string): string {
  if (Array.isArray(value)) {
    return value.map((item: Plain) => `${indent}- ${entry(item, `${indent}  `, 'item')}`).join('\n');
  }
  return Object.entries(value)
    .map(([key, item]) => `${indent}${word(key)}:${entry(item, `${indent}  `, 'field')}`)
    .join('\n');
}

/** What stands behind a "-", on the same line, or behind a "key:", on lines of its own if it is nested. */
function entry(value: Plain, indent: string, place: 'item' | 'field'): string {
  const space = place === 'field' ? ' ' : '';
  if (!isNested(value) || isEmpty(value)) return `${space}${scalar(value)}`;
  const lines = block(value, indent);
  return place === 'item' ? lines.slice(indent.length) : `\n${lines}`;
}

type Nested = Extract<Plain, object>;

function isNested(value: Plain): value is Nested {
  return typeof value === 'object' && value !== null;
}

function isEmpty(value: Plain): boolean {
  return isNested(value) && Object.keys(value).length === 0;
}

function scalar(value: Plain): string {
  return typeof value === 'string' ? word(value) : JSON.stringify(value);
}

/** Words that no version of YAML takes for something else, as some take "e0" for a number. */
function word(text: string): string {
  const isPlain = /^[A-Za-z]{2}[A-Za-z0-9_]*(-[A-Za-z0-9_]+)*$/.test(text);
  const isSpecial = /^(y|n|yes|no|on|off|true|false|null|nan|inf)$/i.test(text);
  return isPlain && !isSpecial ? text : JSON.stringify(text);
}
