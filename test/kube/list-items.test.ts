import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createListText } from '../../src/kube/list-items.ts';

function apart(text: string, cuts: readonly number[]) {
  const items: string[] = [];
  const list = createListText((item) => items.push(item));
  const ends = [...cuts.map((cut) => cut % (text.length + 1)), text.length].sort((a, b) => a - b);
  ends.forEach((end, i) => {
    list.read(text.slice(ends[i - 1] ?? 0, end));
  });
  return { items, rest: list.rest() };
}

// What would mislead a reader that looks at characters alone.
const word = fc.oneof(
  fc.string({ unit: 'grapheme' }),
  fc.constantFrom('items', '"items":[', '\\', '"', '{', ']', '},{', '\\"', '\u2028'),
);
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(word, fc.integer(), fc.boolean(), fc.constant(null)),
    fc.array(tie('any'), { maxLength: 3 }),
    fc.dictionary(word, tie('any'), { maxKeys: 3 }),
  ),
})).any;
const object = fc.dictionary(word, value, { maxKeys: 4 }).map((fields) => JSON.stringify(fields));
const field = fc
  .tuple(
    word.filter((name) => name !== 'items'),
    value,
  )
  .map(([name, its]) => `${JSON.stringify(name)}:${JSON.stringify(its)}`);
const fields = fc.array(field, { maxLength: 3 });

describe('the text of a list', () => {
  it('comes apart into its items and the rest, wherever its pieces are cut and whatever is in them', () => {
    const cuts = fc.array(fc.nat(), { maxLength: 12 });
    const space = fc.constantFrom('', ' ', '\n  ');
    const items = fc.array(object, { maxLength: 6 });
    fc.assert(
      fc.property(fields, items, fields, space, cuts, (before, its, after, between, where) => {
        const whole = (content: string) =>
          `{${[...before, `"items":${between}[${content}]`, ...after].join(`${between},${between}`)}}`;
        const text = whole(`${between}${its.join(`${between},${between}`)}${between}`);
        const { items: found, rest } = apart(text, where);
        expect(found).toEqual(its);
        expect(rest).toBe(whole(''));
      }),
      { numRuns: 2_000 },
    );
  });

  it('of what is no list is all rest', () => {
    for (const what of [
      { kind: 'Status', message: '"items":[{}]' },
      { items: null },
      { items: { items: [{}] } },
    ]) {
      expect(apart(JSON.stringify(what), [5])).toEqual({ items: [], rest: JSON.stringify(what) });
    }
  });

  it('that ends too early is no JSON', () => {
    const { items, rest } = apart('{"items":[{"a":1},{"b"', []);
    expect(items).toEqual(['{"a":1}']);
    expect(() => JSON.parse(rest) as unknown).toThrow(SyntaxError);
  });
});
