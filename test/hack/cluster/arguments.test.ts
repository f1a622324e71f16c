import { describe, expect, it } from 'vitest';
import { parseArguments } from '../../../hack/cluster/arguments.ts';

describe('parseArguments', () => {
  it.each([
    { line: 'up', request: { verb: 'up', options: { name: 'weft' } } },
    {
      line: 'up --nodes 5 --segments 2 --bare --name b',
      request: { verb: 'up', options: { name: 'b', nodes: 5, segments: 2, bare: true } },
    },
    { line: 'up --nodes 1', request: { verb: 'up', options: { name: 'weft', nodes: 1, segments: 1 } } },
    {
      line: 'up --pool 10.0.0.0/8 --pool fd00::/48',
      request: { verb: 'up', options: { name: 'weft', poolCidrs: ['10.0.0.0/8', 'fd00::/48'] } },
    },
    { line: 'down --name x', request: { verb: 'down', name: 'x' } },
    { line: 'env', request: { verb: 'env', name: 'weft' } },
    {
      line: 'exec node-1 --name x -- ip --json route -- --name y',
      request: {
        verb: 'exec',
        name: 'x',
        place: 'node-1',
        command: ['ip', '--json', 'route', '--', '--name', 'y'],
      },
    },
  ])('reads $line', ({ line, request }) => {
    expect(parseArguments(line.split(' '))).toEqual(request);
  });

  it.each([
    { line: '', says: 'what is to be done' },
    { line: 'start', says: 'unknown verb "start"' },
    { line: 'up now', says: 'unexpected "now"' },
    { line: 'up --nodes 0', says: '--nodes 0 is not a number from 1 to 50' },
    { line: 'up --nodes 3x', says: '--nodes 3x is not a number' },
    { line: 'up --nodes 2 --segments 3', says: '--segments 3 is more than there are nodes (2)' },
    { line: 'up --speed 9', says: "Unknown option '--speed'" },
    { line: 'down --bare', says: '--bare belongs to up, not to down' },
    { line: 'exec -- ip route', says: 'exec takes one NODE' },
    { line: 'exec node-1', says: 'exec node-1 has no command' },
    { line: 'env -- ip', says: 'env takes no command' },
  ])('refuses "$line"', ({ line, says }) => {
    expect(() => parseArguments(line.split(' ').filter(Boolean))).toThrow(
      expect.objectContaining({ name: 'UsageError', message: expect.stringContaining(says) as unknown }),
    );
  });
});
