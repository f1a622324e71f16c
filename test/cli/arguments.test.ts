import { describe, expect, it } from 'vitest';
import { parseCommandLine, type Request } from '../../src/cli/arguments.ts';
import type { Command } from '../../src/cli/command.ts';
import { UsageError } from '../../src/cli/errors.ts';

const command = (words: string, rest: Partial<Command> = {}): Command => ({
  words: words.split(' '),
  summary: `does ${words}`,
  about: '',
  operands: [],
  flags: [],
  run: async () => 0,
  ...rest,
});

const COMMANDS = [
  command('thing make', {
    operands: [{ name: 'NAME' }],
    flags: [{ name: 'owner', value: 'WHO', about: '' }],
  }),
  command('thing list', {
    operands: [{ name: 'NAME', isOptional: true }],
    flags: [
      { name: 'owner', about: '' },
      { name: 'output', short: 'o', value: 'FORMAT', about: '' },
    ],
  }),
  command('show', { operands: [{ name: 'NAME', isOptional: true, isRepeated: true }] }),
];

describe('parseCommandLine', () => {
  it('reads words, operands and flags, wherever the flags stand', () => {
    for (const line of [
      'thing make n --owner me --context c',
      '--context=c thing --owner=me make n',
      'thing --owner me make --context c n',
    ]) {
      const { command, call } = runOf(line);
      expect(command.words).toEqual(['thing', 'make']);
      expect(call.operands).toEqual(['n']);
      expect([call.text('owner'), call.text('context'), call.text('kubeconfig')]).toEqual([
        'me',
        'c',
        undefined,
      ]);
    }
  });

  it('reads a flag as the command has it: two may mean different things by one name', () => {
    const { call } = runOf('thing list --owner x -o json');
    expect([call.isSet('owner'), call.text('owner'), call.text('output')]).toEqual([true, undefined, 'json']);
    expect(call.operands).toEqual(['x']);
    expect(runOf('thing list -ojson').call.text('output')).toBe('json');
  });

  it('takes the last of two, and what follows -- for operands', () => {
    expect(runOf('thing make n --owner a --owner b').call.text('owner')).toBe('b');
    expect(runOf('show a -- --owner').call.operands).toEqual(['a', '--owner']);
  });

  it.each([
    ['', { kind: 'help', words: [] }],
    ['--help', { kind: 'help', words: [] }],
    ['-h thing', { kind: 'help', words: ['thing'] }],
    ['thing make --help', { kind: 'help', words: ['thing', 'make'] }],
    ['--version', { kind: 'version' }],
  ])('answers %j', (line, request) => {
    expect(parse(line)).toEqual(request);
  });

  it.each([
    ['thing', 'kubectl weft thing needs one more word: make, list', 'thing'],
    ['thong', 'there is no command "thong": after "kubectl weft" comes thing, show', ''],
    ['thing burn', 'there is no command "thing burn": after "kubectl weft thing" comes make, list', 'thing'],
    ['thing make', '"thing make" needs NAME', 'thing make'],
    ['thing make a b', '"b" is one word too many for "thing make"', 'thing make'],
    ['show --owner x', 'there is no flag --owner of "show"', 'show'],
    ['thing make n -x', 'there is no flag -x of "thing make"', 'thing make'],
    ['--nothing', 'there is no flag --nothing', ''],
    ['show --version', 'there is no flag --version of "show"', 'show'],
    ['thing make n --owner', '--owner needs a value: --owner WHO', 'thing make'],
    ['thing make n --owner=', '--owner needs a value: --owner WHO', 'thing make'],
    ['thing make n --owner --context c', '--owner needs a value: --owner WHO', 'thing make'],
    ['thing list --owner=x', '--owner takes no value', 'thing list'],
  ])('refuses %j', (line, message, words) => {
    let failure: unknown;
    try {
      parse(line);
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(UsageError);
    expect((failure as UsageError).message).toBe(message);
    expect((failure as UsageError).words.join(' ')).toBe(words);
  });
});

function parse(line: string): Request {
  return parseCommandLine(line === '' ? [] : line.split(' '), COMMANDS);
}

function runOf(line: string): Extract<Request, { kind: 'run' }> {
  const request = parse(line);
  if (request.kind !== 'run') throw new Error(`${line}: ${request.kind}`);
  return request;
}
