import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { renderYAML, type Plain } from '../../src/cli/yaml.ts';

describe('renderYAML', () => {
  it('writes plain data as a person would, and quotes what could be taken for something else', () => {
    const data = [
      { address: '10.0.0.1', pool: 'pod-network', node: 'node-1', holder: 'yes', since: '2026-01-01' },
      {
        usage: { free: '12', allocated: 3, drained: false },
        cidrs: [],
        nothing: null,
        nested: [['one', 1], []],
      },
    ];
    expect(renderYAML(data)).toBe(
      [
        '- address: "10.0.0.1"',
        '  pool: pod-network',
        '  node: node-1',
        '  holder: "yes"',
        '  since: "2026-01-01"',
        '- usage:',
        '    free: "12"',
        '    allocated: 3',
        '    drained: false',
        '  cidrs: []',
        '  nothing: null',
        '  nested:',
        '    - - one',
        '      - 1',
        '    - []',
        '',
      ].join('\n'),
    );
  });

  it.each(['1.1', '1.2'] as const)('is read as it was, by YAML %s', (version) => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const data = JSON.parse(JSON.stringify(value)) as Plain;
        expect(parse(renderYAML(data), { version })).toEqual(data);
      }),
    );
  });

  it.each([
    'n',
    'Off',
    'null',
    '~',
    '1e3',
    '0x1',
    '1_000',
    '12:30',
    '=',
    '',
    ' ',
    '- a',
    'a: b',
    '#',
    'NaN',
    'e0',
    'E5',
    '.inf',
  ])('keeps the string %j a string', (text) => {
    for (const version of ['1.1', '1.2'] as const) {
      expect(parse(renderYAML({ [text]: text }), { version })).toEqual({ [text]: text });
    }
  });
});
