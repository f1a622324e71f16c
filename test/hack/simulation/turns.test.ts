import { expect, test } from 'vitest';
import { seededRandom } from '../../../hack/simulation/seeded-random.ts';
import { drawTurns } from '../../../hack/simulation/turns.ts';

const OPERATIONS = [
  { name: 'often', weight: 60 },
  { name: 'sometimes', weight: 39.9 },
  { name: 'hardly ever', weight: 0.1 },
];

const draw = (seed: number) => drawTurns(OPERATIONS, 200, seededRandom(seed));
const names = (seed: number) => draw(seed).map(({ operation }) => operation.name);

test('every operation comes as often as its weight says, and once at the least', () => {
  const count = (name: string) => names(1).filter((its) => its === name).length;
  expect(OPERATIONS.map(({ name }) => count(name))).toEqual([120, 80, 1]);
});

test('a seed decides the order and what each turn draws, whatever the others have drawn before', () => {
  const [one, again] = [draw(5), draw(5)];
  expect(one.map(({ operation }) => operation)).toEqual(again.map(({ operation }) => operation));
  const drawn = one.map(({ random }) => [random(), random()]);
  const drawnBackwards = again.reverse().map(({ random }) => [random(), random()]);
  expect(drawnBackwards.reverse()).toEqual(drawn);
});

test('neither neighbouring seeds nor neighbouring turns draw alike', () => {
  expect(names(5)).not.toEqual(names(6));
  const drawn = draw(5).map(({ random }) => ({ first: random(), second: random() }));
  // In tenths: from the second number of a turn to the first of the next one.
  const steps = drawn
    .slice(1)
    .map(({ first }, i) => Math.floor((1 + first - (drawn[i]?.second ?? NaN)) * 10) % 10);
  expect([...new Set(steps)].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
