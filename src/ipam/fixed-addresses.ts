import { nodeAddressIn, type IPAllocation, type IPPool } from '../api/index.ts';
import {
  cidrHasAddress,
  cidrOf,
  FAMILIES,
  formatAddress,
  rangesHave,
  sameAddress,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { FixedAddressError } from './errors.ts';
import { whyNotDrawn, type PoolChoice } from './pools.ts';
import { reservedRanges } from './subnets.ts';

/** One address of each family that a pod names. */
export type NamedAddresses = Readonly<Partial<Record<Family, IPAddress>>>;

/**
 * The pool from which a pod gets the addresses that it names: the first of those that it may draw from which has them
 * all (design, section 4). `pools` are what choosePools answered to `choice`, which says why others are not among them.
 * @throws FixedAddressError
 */
export function poolOfNamed(addresses: NamedAddresses, pools: readonly IPPool[], choice: PoolChoice): IPPool {
  const named = FAMILIES.flatMap((family) => addresses[family] ?? []);
  const having = pools.filter((pool) => named.every((address) => has(pool, address)));
  const allowing = having.find(({ spec }) => spec.fixedAddresses);
  for (const address of named) {
    const reason =
      having.length === 0 ? whyNowhere(address, pools, choice) : whyNotOf(address, allowing ?? having[0]);
    if (reason !== undefined) throw new FixedAddressError(address, reason);
  }
  const [first] = named;
  if (allowing !== undefined) return allowing;
  if (first === undefined) throw new TypeError('no address is named');
  // Each lies in some pool, and no pool has all of them.
  throw new FixedAddressError(first, `no IPPool has all of ${named.map(formatAddress).join(', ')}`);
}

/** Whether an address that was kept for a pod may still be given to it from the pools that it may draw from. */
export function isStillGiven({ spec }: IPAllocation, pools: readonly IPPool[]): boolean {
  const pool = pools.find(({ metadata }) => metadata.name === spec.pool);
  return pool !== undefined && has(pool, spec.address) && !isReserved(pool, spec.address);
}

function has({ spec }: IPPool, address: IPAddress): boolean {
  return spec.cidrs.some((cidr) => cidrHasAddress(cidr, address));
}

function isReserved(pool: IPPool, { family, value }: IPAddress): boolean {
  return rangesHave(reservedRanges(pool, family), value);
}

/**
 * Of another tenant's pool its name is told and whom it admits, as to who names the pool itself; nothing of who is in it.
 */
function whyNowhere(address: IPAddress, pools: readonly IPPool[], choice: PoolChoice): string | undefined {
  if (pools.some((pool) => has(pool, address))) return undefined;
  const foreign = choice.pools
    .filter((pool) => has(pool, address))
    .map((pool) => {
      const reason = whyNotDrawn(pool, choice) ?? 'it does not suit what else the pod asks for';
      return `in IPPool ${pool.metadata.name}, from which this pod may not draw here and now: ${reason}`;
    });
  return foreign.length === 0
    ? 'it lies in no IPPool. Name an address of a pool'
    : `it lies ${foreign.join('; and ')}. Name an address of ` +
        `${pools.map(({ metadata }) => metadata.name).join(' or ')}`;
}

function whyNotOf(address: IPAddress, pool: IPPool | undefined): string | undefined {
  if (pool === undefined) return undefined;
  const { name } = pool.metadata;
  if (!pool.spec.fixedAddresses) {
    return `IPPool ${name} does not allow it. Its owner can, by spec.fixedAddresses: true`;
  }
  if (isReserved(pool, address)) return `IPPool ${name} reserves it (spec.reserved). Name another one`;
  const { nodeSubnetPrefixLength, use } = pool.spec;
  const piece = cidrOf(address, nodeSubnetPrefixLength[address.family]);
  if (!sameAddress(address, nodeAddressIn(piece, use))) return undefined;
  return `it is the first of a /${piece.prefixLength} of IPPool ${name}, which is a node's own. Name another one`;
}
