import { expect, test } from 'vitest';
import { hasOrdinal, statefulSetOf } from '../../src/ipam/index.ts';

test.each([
  ['shop/db-0', { namespace: 'shop', name: 'db', ordinal: 0 }],
  ['shop/db-1-12', { namespace: 'shop', name: 'db-1', ordinal: 12 }],
  ['shop/db', undefined],
  ['shop/db-01', undefined],
  ['shop/-1', undefined],
  ['db-0', undefined],
])('the pod %s', (pod, expected) => {
  expect(statefulSetOf(pod)).toEqual(expected);
});

test('a StatefulSet has the ordinals from its start on', () => {
  const set = { start: 2, replicas: 3 };
  expect([0, 1, 2, 4, 5].map((ordinal) => hasOrdinal(set, ordinal))).toEqual([
    false,
    false,
    true,
    true,
    false,
  ]);
  expect(hasOrdinal(undefined, 2)).toBe(false);
});
