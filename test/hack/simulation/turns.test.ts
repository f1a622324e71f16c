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

test('seeds that are neighbours order and draw differently', () => {
  expect(names(5)).not.toEqual(names(6));
  const first = [5, 6].map((seed) => draw(seed).map(({ random }) => random()));
  const [five = [], six = []] = first;
  const differences = five.map((one, i) => Math.abs(one - (six[i] ?? NaN)));
  // Two numbers from 0 to 1 that know nothing of each other are a third apart on average.
  const mean = differences.reduce((sum, one) => sum + one, 0) / differences.length;
  expect(mean).toBeGreaterThan(0.25);
  expect(mean).toBeLessThan(0.42);
});
