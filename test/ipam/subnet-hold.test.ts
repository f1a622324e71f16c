import { expect, test } from 'vitest';
import { createSubnetHold } from '../../src/ipam/index.ts';
import { createFakeClock } from './fake-clock.ts';

const HOLD_MS = 90_000;

function setUp() {
  const clock = createFakeClock();
  const lease: { value: string | undefined } = { value: undefined };
  const hold = createSubnetHold({ read: () => Promise.resolve(lease.value), clock, holdMs: HOLD_MS });
  const { signal } = new AbortController();
  return { clock, lease, isHeld: () => hold.isHeld(signal) };
}

test('claims are held for as long as the Lease says so', async () => {
  const { lease, isHeld } = setUp();
  expect(await isHeld()).toBe(false);
  lease.value = 'since noon';
  expect(await isHeld()).toBe(true);
  lease.value = undefined;
  expect(await isHeld()).toBe(false);
});

test('a hold that its leader never takes back ends by our own clock, and another one begins anew', async () => {
  const { clock, lease, isHeld } = setUp();
  lease.value = 'since noon';
  expect(await isHeld()).toBe(true);
  await clock.advance(HOLD_MS - 1);
  expect(await isHeld()).toBe(true);
  await clock.advance(1);
  expect(await isHeld()).toBe(false);
  await clock.advance(HOLD_MS);
  expect(await isHeld()).toBe(false);
  lease.value = 'since midnight';
  expect(await isHeld()).toBe(true);
});
