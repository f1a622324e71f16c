import * as z from 'zod';

/** What every stored object carries, as far as caches need it. */
const Stored = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    uid: z.string(),
    resourceVersion: z.string(),
  }),
});

export interface Identity {
  /** `name`, or `namespace/name`. */
  readonly key: string;
  readonly uid: string;
  readonly resourceVersion: string;
}

/** @throws ZodError for what is no stored object at all */
export function identityOf(object: unknown): Identity {
  const { metadata } = Stored.parse(object);
  const { namespace, name, uid, resourceVersion } = metadata;
  return { key: namespace === undefined ? name : `${namespace}/${name}`, uid, resourceVersion };
}

/**
 * Which of two revisions of one resource came first: negative if `a` did. They are decimal numbers that may pass
 * 2^53, without leading zeros.
 */
export function compareRevisions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}
