/** Numbers from 0 to 1 that one seed decides, good enough for choosing what happens next. */
export function seededRandom(seed: number): () => number {
  const PRIME = 2 ** 31 - 1;
  let state = (seed % (PRIME - 1)) + 1;
  return () => {
    state = (state * 48_271) % PRIME;
    return state / PRIME;
  };
}
