import type { IPPool, PoolUsage } from '../../api/index.ts';
import { FAMILIES, type Family } from '../../net/index.ts';
import { countingFor, poolUsage } from '../usage.ts';
import { foreignOf, type Book } from './book.ts';
import type { Finding } from './finding.ts';
import { areSettled } from './settled.ts';

/**
 * Invariant 9: the status of each pool equals a recount of the objects. A status is written some time after what it
 * counts, so a difference means something only if it stands while nothing changes.
 */
export function auditCounts(book: Book): Finding[] {
  const foreign = foreignOf(book);
  const nodes = new Map(book.nodes.map((node) => [node.name, node]));
  const labelsOf = (nodeName: string) => nodes.get(nodeName)?.labels;
  const byPool = Map.groupBy(book.allocations, ({ spec }) => spec.pool);
  const withoutNode = book.allocations.filter(({ nodeName }) => nodeName === undefined);
  return book.pools.flatMap((pool) => {
    if (!areSettled(book, pool.metadata.creationTimestamp)) return [];
    const counts = countingFor(pool, book.pools, book.subnets);
    const allocations = [
      ...[...byPool].flatMap(([name, its]) => (counts(name) ? its : [])),
      ...withoutNode.filter(({ spec }) => !counts(spec.pool)),
    ];
    const counted = poolUsage({ ...book, pool, allocations, foreign, labelsOf });
    return wrongCounts(pool, counted, book.serviceCIDRs === undefined ? WITHOUT_RANGES : ALL);
  });
}

const ALL: readonly (keyof PoolUsage)[] = [
  'capacity',
  'allocated',
  'resting',
  'reserved',
  'free',
  'nodeSubnets',
  'freeSubnets',
];

/** What can be recounted where the ranges of Services are not known: what they take away is not among it. */
const WITHOUT_RANGES: readonly (keyof PoolUsage)[] = ['capacity', 'allocated', 'resting', 'nodeSubnets'];

function wrongCounts(
  pool: IPPool,
  counted: Partial<Record<Family, PoolUsage>>,
  fields: readonly (keyof PoolUsage)[],
): Finding[] {
  const { name, uid } = pool.metadata;
  const finding = {
    invariant: 9,
    severity: 'warning',
    object: { kind: 'IPPool', name, uid },
    pool: name,
  } as const;
  const wayOut = 'see whether weft-controller runs, and its log';
  if (pool.status === undefined) {
    return [{ ...finding, reason: 'NoStatus', message: `IPPool ${name} has no status: ${wayOut}` }];
  }
  const told = pool.status;
  const differences = FAMILIES.flatMap((family) =>
    fields
      .filter((field) => told[family]?.[field] !== counted[family]?.[field])
      .map(
        (field) =>
          `${family}.${field} is ${shown(told, family, field)} and counts ${shown(counted, family, field)}`,
      ),
  );
  if (differences.length === 0) return [];
  return [
    {
      ...finding,
      reason: 'WrongCount',
      message: `the status of IPPool ${name} differs from a recount: ${differences.join(', ')}: ${wayOut}`,
    },
  ];
}

function shown(
  usage: Readonly<Partial<Record<Family, PoolUsage | undefined>>>,
  family: Family,
  field: keyof PoolUsage,
): string | number {
  return usage[family]?.[field] ?? 'absent';
}
