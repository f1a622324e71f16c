import type { IPPool } from '../api/index.ts';
import { cidrContains, formatCIDR, type CIDR } from '../net/index.ts';
import { ALLOWED_SOURCES_ANNOTATION } from './annotations.ts';

/** The pod asks to send from sources that none of its pools lets its pods have. */
export class SourcesRefusedError extends Error {
  override name = 'SourcesRefusedError' as const;
  readonly source: CIDR;

  constructor(source: CIDR, refusals: readonly string[]) {
    super(
      `the pod asks to send from ${formatCIDR(source)} by its annotation ${ALLOWED_SOURCES_ANNOTATION}, and may not: ` +
        `${refusals.join('; ')}. The owner of a pool can allow it by spec.allowedSources`,
    );
    this.source = source;
  }
}

/**
 * Of the pools those that let a pod send from these sources, in their order: annotations are tenants' input, so each
 * source must lie in one that the pool's owner lists.
 * @throws SourcesRefusedError if there is none
 */
export function poolsAllowing(pools: readonly IPPool[], sources: readonly CIDR[]): readonly IPPool[] {
  const refusedBy = (pool: IPPool) =>
    sources.find((source) => !(pool.spec.allowedSources ?? []).some((cidr) => cidrContains(cidr, source)));
  const allowing = pools.filter((pool) => refusedBy(pool) === undefined);
  const [first] = pools;
  const refused = first === undefined ? undefined : refusedBy(first);
  if (allowing.length > 0 || refused === undefined) return allowing;
  throw new SourcesRefusedError(
    refused,
    pools.slice(0, MOST_NAMED).map(({ metadata, spec: { allowedSources = [] } }) => {
      const listed = allowedSources.length === 0 ? 'none' : allowedSources.map(formatCIDR).join(', ');
      return `IPPool ${metadata.name} allows ${listed}`;
    }),
  );
}

/** A cluster may have a pool for each tenant. */
const MOST_NAMED = 10;
