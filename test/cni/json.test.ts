import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseJSON } from '../../src/cni/json.ts';

describe('parseJSON', { timeout: 30_000 }, () => {
  it('reads what JSON.stringify writes, as JSON.parse does', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 3 }), fc.constantFrom(0, 2), (value, indent) => {
        const text = JSON.stringify(value, undefined, indent);
        fc.pre(!text.includes('"__proto__"'));
        expect(parseJSON(text, 'it')).toEqual(JSON.parse(text));
      }),
      { numRuns: 100 },
    );
  });

  it('takes and refuses the same texts as JSON.parse', () => {
    const pieces = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"',
      'a',
      '\\u00e9',
      '\\',
      '-',
      '0',
      '1',
      '.5',
      'e3',
      'true',
      'nul',
      ' ',
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 8 }), (chosen) => {
        const text = chosen.join('');
        expect(isReadable(() => parseJSON(text, 'it'))).toBe(isReadable(() => JSON.parse(text)));
      }),
      { numRuns: 1000 },
    );
  });

  it.each([
    ['', 0],
    ['{"a":1,}', 7],
    ['[1 2]', 3],
    ['"a\nb"', 2],
    ['"\\x"', 2],
    ['01', 1],
    ['{} x', 3],
    ['{a:1}', 1],
    ['{"a":1,"a":2}', 7],
    ['{"__proto__":1}', 1],
    ['\ufeff{}', 0],
  ])('names the position of the fault in %j', (text, position) => {
    expect(() => parseJSON(text, 'it')).toThrow(new RegExp(`^it is not JSON: .* at position ${position} `));
  });

  it('counts lines and columns from 1', () => {
    expect(() => parseJSON('{\n  "a": x}', 'it')).toThrow(/position 9 \(line 2, column 8\)/);
  });
});

function isReadable(read: () => unknown): boolean {
  try {
    read();
    return true;
  } catch (error) {
    // A key twice is what the one refuses and the other takes.
    return error instanceof Error && error.message.includes(' again at ');
  }
}
