import { describe, expect, it } from 'vitest';
import { parseOptions, PARTS, UsageError } from '../../../hack/bench/options.ts';

describe('parseOptions', () => {
  it('runs every part but scale on a cluster of its own that goes afterwards', () => {
    expect(parseOptions([])).toEqual({
      parts: PARTS.filter((part) => part !== 'scale'),
      output: 'table',
      outputFile: undefined,
      clusterName: 'weft-bench',
      keep: false,
      dual: false,
      rounds: 300,
      minutes: 10,
      nodes: undefined,
    });
  });

  it('keeps the order of parts, whatever the order of the words', () => {
    expect(
      parseOptions(['memory', 'add', '-o', 'json', '--output', 'x.json', '--minutes', '0.5']),
    ).toMatchObject({
      parts: ['add', 'memory'],
      output: 'json',
      outputFile: 'x.json',
      minutes: 0.5,
    });
  });

  it('measures one size of scale alone', () => {
    expect(parseOptions(['scale', '--nodes', '1000']).nodes).toBe(1_000);
  });

  it.each([
    [['ad'], /no part ad/],
    [['-o', 'yaml'], /-o yaml/],
    [['--rounds', '0'], /--rounds=0/],
    [['--rounds', '1.5'], /--rounds=1.5/],
    [['--minutes', 'ten'], /--minutes=ten/],
    [['--minutes', '1e3'], /--minutes=1e3/],
    [['--nodes', '300'], /--nodes=300/],
    [['--colour'], /--colour/],
  ])('refuses %j and says how it is used', (words, message) => {
    expect(() => parseOptions(words)).toThrow(UsageError);
    expect(() => parseOptions(words)).toThrow(message);
    expect(() => parseOptions(words)).toThrow(/npm run bench --/);
  });
});
