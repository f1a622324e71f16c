import { InvalidAnnotationError } from './errors.ts';

/** On a namespace: the pools its pods are bound to. On a pod: which of those it wants. Names, with commas between. */
export const POOLS_ANNOTATION = 'ipam.weft.dev/pools';

/** Where an annotation stands, for messages: `Namespace shop`, `Pod shop/web-0`. */
export type AnnotationPlace = string;

/**
 * The pools that an annotation names; undefined where there is none.
 * @throws InvalidAnnotationError
 */
export function parsePoolNames(
  annotations: Readonly<Record<string, string>>,
  place: AnnotationPlace,
): readonly string[] | undefined {
  const text = annotations[POOLS_ANNOTATION];
  if (text === undefined) return undefined;
  const names = text.split(',').map((name) => name.trim());
  const wrong = names.find((name) => !POOL_NAME.test(name) || name.length > 63);
  if (wrong !== undefined) {
    throw new InvalidAnnotationError(
      place,
      POOLS_ANNOTATION,
      text,
      `"${wrong}" is no name of an IPPool; expected names with commas between, such as "blue,green"`,
    );
  }
  return [...new Set(names)];
}

const POOL_NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
