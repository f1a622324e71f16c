import { expect, test } from 'vitest';
import { judgeReleaseByHand } from '../../src/ipam/index.ts';
import { allocationOf, RELEASED } from './objects.ts';

const used = allocationOf('10.0.0.1');
const heldOnNode = allocationOf('10.0.0.1', { holder: 'cli:me@here' });
const { nodeName: _, ...nowhere } = heldOnNode.spec;
const heldNowhere = { ...heldOnNode, spec: nowhere };
const sticky = allocationOf('10.0.0.1', { holder: 'sticky' });

test.each([
  ['a living one', used, 30_000, 'refused'],
  ['a living one of a pool without a delay', used, 0, 'refused'],
  ['one that weft keeps for itself', sticky, 30_000, 'refused'],
  ['one that is held on a node', heldOnNode, 30_000, 'rest'],
  ['one that is held on a node, of a pool without a delay', heldOnNode, 0, 'delete'],
  ['one that is held nowhere', heldNowhere, 30_000, 'delete'],
  ['one that rests', { ...used, status: RELEASED }, 30_000, 'resting'],
  ['a held one that rests', { ...heldOnNode, status: RELEASED }, 30_000, 'resting'],
] as const)('%s', (_name, allocation, reuseDelayMs, verdict) => {
  expect(judgeReleaseByHand(allocation, { force: false, reuseDelayMs })).toBe(verdict);
  expect(judgeReleaseByHand(allocation, { force: true, reuseDelayMs })).toBe('delete');
});
