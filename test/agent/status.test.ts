import { expect, test } from 'vitest';
import { createStatus, type ServingFacts } from '../../src/agent/status.ts';
import { cniErrorObject } from '../../src/cni/index.ts';

/**
 * | has served since boot | data path           | STATUS |
 * |-----------------------|---------------------|--------|
 * | no                    | -                   | 50     |
 * | yes                   | whole               | 0      |
 * | yes                   | broken for < 60 s   | 0      |
 * | yes                   | broken for >= 60 s  | 51     |
 */
test.each<[string, Partial<ServingFacts>, number]>([
  ['never served', { servedSinceBoot: false }, 50],
  ['never served, and broken', { servedSinceBoot: false, broken: { forMs: 90_000, reason: 'r' } }, 50],
  ['served', {}, 0],
  ['broken for a moment', { broken: { forMs: 59_999, reason: 'r' } }, 0],
  ['broken for a minute', { broken: { forMs: 60_000, reason: 'r' } }, 51],
])('%s', async (_, facts, code) => {
  const status = createStatus(() => ({
    servedSinceBoot: true,
    waitingFor: 'the apiserver',
    broken: undefined,
    ...facts,
  }));
  expect(await codeOf(status())).toBe(code);
});

test('says what is being waited for, and why the data path is broken', async () => {
  const waiting = createStatus(() => ({
    servedSinceBoot: false,
    waitingFor: 'the first complete lists',
    broken: undefined,
  }));
  await expect(waiting()).rejects.toThrow('weft cannot serve on this node yet: the first complete lists');
  const broken = createStatus(() => ({
    servedSinceBoot: true,
    waitingFor: '',
    broken: { forMs: 61_400, reason: 'nft is missing' },
  }));
  await expect(broken()).rejects.toThrow("this node's data path has been broken for 61 s: nft is missing");
});

async function codeOf(answer: Promise<void>): Promise<number> {
  return answer.then(
    () => 0,
    (error: unknown) => cniErrorObject(error, '1.1.0').code,
  );
}
