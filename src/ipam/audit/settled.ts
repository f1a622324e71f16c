import type { Book } from './book.ts';

/** Whether all of these are old enough to be judged. What does not say how old it is, is. */
export function areSettled(
  { settledBeforeMs = Infinity }: Pick<Book, 'settledBeforeMs'>,
  ...made: readonly (number | string | undefined)[]
): boolean {
  return made.every((time) => {
    const ms = typeof time === 'string' ? Date.parse(time) : (time ?? -Infinity);
    return ms <= settledBeforeMs;
  });
}
