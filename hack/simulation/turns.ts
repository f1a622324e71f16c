import { seededRandom } from './seeded-random.ts';

/** One operation that is to come, and what it draws by. */
export interface Turn<T> {
  readonly operation: T;
  readonly random: () => number;
}

/**
 * At least `count` turns: each operation as often as its weight says, and once at the least, in an order that `random`
 * decides. Each draws by numbers of its own, so that what is asked for is the same however the turns interleave.
 */
export function drawTurns<T extends { readonly weight: number }>(
  operations: readonly T[],
  count: number,
  random: () => number,
): Turn<T>[] {
  const total = operations.reduce((sum, { weight }) => sum + weight, 0);
  return operations
    .flatMap((operation) =>
      Array.from({ length: Math.ceil((count * operation.weight) / total) }, () => ({
        operation,
        at: random(),
      })),
    )
    .sort((a, b) => a.at - b.at)
    .map(({ operation }) => ({ operation, random: seededRandom(Math.floor(random() * 2 ** 32)) }));
}
