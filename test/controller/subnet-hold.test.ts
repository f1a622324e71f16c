import { expect, test } from 'vitest';
import { SUBNET_HOLD_ANNOTATION } from '../../src/api/index.ts';
import { createSubnetHold } from '../../src/controller/subnet-hold.ts';
import { createFakeClock } from './fake-clock.ts';

const HOLD_MS = 90_000;

test('the Lease says nothing of a hold before there is one, and keeps what others wrote', () => {
  const hold = createSubnetHold({ clock: createFakeClock(), holdMs: HOLD_MS });
  expect(hold.annotations({})).toEqual({});
  expect(hold.annotations({ theirs: 'x' })).toEqual({ theirs: 'x' });
});

test('a hold is in the Lease for its time, with a value of its own each time', async () => {
  const clock = createFakeClock();
  const hold = createSubnetHold({ clock, holdMs: HOLD_MS });
  hold.begin();
  const first = hold.annotations({});
  expect(first[SUBNET_HOLD_ANNOTATION]).toMatch(/^since /);
  await clock.advance(HOLD_MS - 1);
  expect(hold.annotations({ ...first, theirs: 'x' })).toEqual({ ...first, theirs: 'x' });
  await clock.advance(1);
  expect(hold.annotations(first)).toEqual({});
  hold.begin();
  expect(hold.annotations({})).not.toEqual(first);
});

test('a hold of the leader before is kept for the whole time, from when it was first seen', async () => {
  const clock = createFakeClock();
  const hold = createSubnetHold({ clock, holdMs: HOLD_MS });
  const theirs = { [SUBNET_HOLD_ANNOTATION]: 'since noon' };
  expect(hold.annotations(theirs)).toEqual(theirs);
  await clock.advance(HOLD_MS - 1);
  expect(hold.annotations(theirs)).toEqual(theirs);
  await clock.advance(1);
  expect(hold.annotations(theirs)).toEqual({});
});
