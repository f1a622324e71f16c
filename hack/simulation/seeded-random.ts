/**
 * Numbers from 0 to 1 that one seed decides, good enough for choosing what happens next (mulberry32). Seeds that are
 * neighbours, or were drawn from another of these, give numbers that have nothing to do with each other.
 */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
