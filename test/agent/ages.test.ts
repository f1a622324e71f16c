import { expect, test } from 'vitest';
import { createAttachmentAges } from '../../src/agent/ages.ts';

const key = { containerID: 'c1', ifName: 'eth0' };

test('an attachment is as old as its ADD, by its own name alone', () => {
  let nowMs = 5_000;
  const ages = createAttachmentAges(() => nowMs);
  nowMs = 8_000;
  ages.born(key);
  nowMs = 9_000;
  expect(ages.ageMs(key)).toBe(1_000);
  expect(ages.ageMs({ ...key, ifName: 'eth1' })).toBe(4_000);
});

test('one of an earlier process counts from the start of this one: a restart lengthens the grace', () => {
  let nowMs = 5_000;
  const ages = createAttachmentAges(() => nowMs);
  nowMs = 6_000;
  expect(ages.ageMs(key)).toBe(1_000);
});

test('this process knows what it made itself, until that is deleted', () => {
  const ages = createAttachmentAges(() => 0);
  expect(ages.isBornHere(key)).toBe(false);
  ages.born(key);
  expect(ages.isBornHere(key)).toBe(true);
  ages.forget(key);
  expect(ages.isBornHere(key)).toBe(false);
});

test('what was deleted is forgotten', () => {
  let nowMs = 0;
  const ages = createAttachmentAges(() => nowMs);
  nowMs = 1_000;
  ages.born(key);
  ages.forget(key);
  expect(ages.ageMs(key)).toBe(1_000);
});
