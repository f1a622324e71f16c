import { describe, expect, it } from 'vitest';
import { COMMANDS } from '../../src/cli/commands.ts';
import { completions } from '../../src/cli/complete.ts';
import { testWorld } from './world.ts';

/** The candidates without what they are about. */
const candidates = async (...words: string[]) => {
  const lines = (await completions(words, COMMANDS, testWorld())).split('\n');
  expect(lines.slice(-2)).toEqual([':4', '']);
  return lines.slice(0, -2).map((line) => line.split('\t')[0]);
};

describe('completions', () => {
  it.each([
    [[''], ['addr', 'pool', 'check', 'completion']],
    [['a'], ['addr']],
    [
      ['addr', ''],
      ['list', 'request', 'release'],
    ],
    [
      ['--context', 'c', 'addr', 're'],
      ['request', 'release'],
    ],
    [['addr', 'request', 'p', '--f'], ['--family']],
    [
      ['addr', 'request', 'p', '--family', ''],
      ['ipv4', 'ipv6'],
    ],
    [['addr', 'request', 'p', '--family=ipv6'], ['ipv6']],
    // As bash takes it apart.
    [['addr', 'request', 'p', '--family', '=', 'ipv4'], ['ipv4']],
    [
      ['addr', 'request', 'p', '--family', '='],
      ['ipv4', 'ipv6'],
    ],
    [
      ['addr', 'list', '-o', ''],
      ['table', 'json', 'yaml'],
    ],
    [
      ['completion', ''],
      ['bash', 'zsh'],
    ],
    [['completion', 'bash', ''], []],
    [['addr', 'list', '--pod', ''], []],
    [['nothing', ''], []],
  ])('of %j are %j', async (words, expected) => {
    expect(await candidates(...words)).toEqual(expected);
  });

  it('offer a flag once, and those of the command alone', async () => {
    const flags = await candidates('addr', 'request', 'p', '--node', 'n', '--');
    expect(flags).toEqual(['--kubeconfig', '--context', '--help', '--holder', '--family', '--output']);
    expect(await candidates('--v')).toEqual(['--version']);
  });

  it('say what a command is about', async () => {
    expect(await completions(['pool', ''], COMMANDS, testWorld())).toBe(
      'show\thow pools are used, by CIDR and by node\n:4\n',
    );
  });

  it('are none where there is no cluster to ask', async () => {
    expect(await candidates('pool', 'show', '')).toEqual([]);
    expect(await candidates('addr', 'list', '--node', 'n')).toEqual([]);
  });
});
