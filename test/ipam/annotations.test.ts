import { describe, expect, test } from 'vitest';
import { InvalidAnnotationError, parsePoolNames, POOLS_ANNOTATION } from '../../src/ipam/index.ts';

describe('parsePoolNames', () => {
  test.each([
    { text: 'blue', names: ['blue'] },
    { text: 'blue, green', names: ['blue', 'green'] },
    { text: ' a.b-c ,blue,blue', names: ['a.b-c', 'blue'] },
  ])('$text: $names', ({ text, names }) => {
    expect(parsePoolNames({ [POOLS_ANNOTATION]: text }, 'Pod a/b')).toEqual(names);
  });

  test('no annotation is no list', () => {
    expect(parsePoolNames({ other: 'blue' }, 'Pod a/b')).toBeUndefined();
  });

  test.each(['', ',', 'blue,', '["blue"]', 'Blue', '-x', 'a b', '../x', 'x'.repeat(64), '10.0.0.0/8'])(
    'refuses %j, and says where it stands',
    (text) => {
      const parse = () => parsePoolNames({ [POOLS_ANNOTATION]: text }, 'Namespace shop');
      expect(parse).toThrow(InvalidAnnotationError);
      expect(parse).toThrow(
        /^Namespace shop has the annotation ipam\.weft\.dev\/pools: .* no name of an IPPool/,
      );
    },
  );

  test('shows no more of a long value than helps', () => {
    const parse = () => parsePoolNames({ [POOLS_ANNOTATION]: `${'x,'.repeat(5_000)}Y` }, 'Pod a/b');
    expect(parse).toThrow(/^.{1,400}$/);
  });
});
