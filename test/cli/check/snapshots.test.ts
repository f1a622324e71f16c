import { describe, expect, test } from 'vitest';
import { ExecError } from '../../../src/cli/check/kubectl.ts';
import { readSnapshots, SNAPSHOT_COMMAND } from '../../../src/cli/check/snapshots.ts';

const signal = new AbortController().signal;
const agents = [
  { name: 'agent-a', nodeName: 'a', isReady: true },
  { name: 'agent-b-old', nodeName: 'b', isReady: false },
  { name: 'agent-b-new', nodeName: 'b', isReady: true },
];

const snapshot = (nodeName: string) => ({
  format: 1,
  nodeName,
  nodeUID: 'u',
  bootID: 'boot',
  takenAt: '2026-01-01T00:00:00Z',
  sandboxes: [],
  inFlight: [],
  namespaces: [],
  strays: [],
  kernel: { missing: [], extra: [], diverting: [] },
  fromALaterVersion: true,
});

describe('a node', () => {
  test.each<{ name: string; answer: () => Promise<string>; reason: RegExp | undefined }>([
    { name: 'that answers', answer: async () => JSON.stringify(snapshot('a')), reason: undefined },
    {
      name: 'whose agent cannot be asked',
      answer: () => Promise.reject(new ExecError('kubectl exec: forbidden')),
      reason: /^kubectl exec: forbidden$/,
    },
    { name: 'whose agent speaks otherwise', answer: async () => 'Hello', reason: /no JSON: Hello/ },
    {
      name: 'whose agent is of another format',
      answer: async () => JSON.stringify({ ...snapshot('a'), format: 2 }),
      reason: /another version.*format/,
    },
    {
      name: 'whose agent says nonsense',
      answer: async () =>
        JSON.stringify({
          ...snapshot('a'),
          sandboxes: [{ network: 'weft', containerID: 'c', ifName: 'eth0', link: 'l', addresses: ['10.1'] }],
        }),
      reason: /another version.*10\.1/,
    },
    {
      name: 'whose agent is of another node',
      answer: async () => JSON.stringify(snapshot('z')),
      reason: /speaks for node z/,
    },
  ])('$name', async ({ answer, reason }) => {
    const { snapshots, unknownNodes } = await readSnapshots(['a'], { agents, exec: answer, signal });
    expect(snapshots.map(({ nodeName }) => nodeName)).toEqual(reason === undefined ? ['a'] : []);
    expect(unknownNodes).toEqual(
      reason === undefined ? [] : [{ name: 'a', reason: expect.stringMatching(reason) as string }],
    );
  });

  test('without an agent is unknown; of two agents the ready one is asked', async () => {
    const asked: string[] = [];
    const exec = async (pod: string, command: readonly string[]) => {
      asked.push([pod, ...command].join(' '));
      return JSON.stringify(snapshot(pod.slice(6, 7)));
    };
    const { snapshots, unknownNodes } = await readSnapshots(['a', 'b', 'c'], { agents, exec, signal });
    expect(asked).toEqual([
      `agent-a ${SNAPSHOT_COMMAND.join(' ')}`,
      `agent-b-new ${SNAPSHOT_COMMAND.join(' ')}`,
    ]);
    expect(snapshots).toHaveLength(2);
    expect(unknownNodes).toEqual([{ name: 'c', reason: 'no weft-agent runs there' }]);
  });
});

test('twenty nodes are asked at a time', async () => {
  const many = Array.from({ length: 50 }, (_, i) => ({
    name: `agent-${i}`,
    nodeName: `n${i}`,
    isReady: true,
  }));
  let [running, most] = [0, 0];
  const exec = async (pod: string) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    return JSON.stringify(snapshot(`n${pod.slice(6)}`));
  };
  const names = many.map(({ nodeName }) => nodeName);
  const { snapshots } = await readSnapshots(names, { agents: many, exec, signal });
  expect(snapshots).toHaveLength(50);
  expect(most).toBe(20);
});

test('a failure that no node is to blame for is thrown', async () => {
  const exec = () => Promise.reject(new TypeError('a mistake of ours'));
  await expect(readSnapshots(['a'], { agents, exec, signal })).rejects.toThrow('a mistake of ours');
});
