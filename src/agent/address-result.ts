import type { IPPool } from '../api/index.ts';
import type { AddressConfiguration, AddResult, ResultRoute } from '../cni/index.ts';
import { placeOf, SubnetUnavailableError, type Place } from '../ipam/index.ts';
import { FAMILIES, formatAddress, type Family, type IPAddress } from '../net/index.ts';

export interface AddressFacts {
  readonly configuration: AddressConfiguration;
  readonly addresses: readonly IPAddress[];
  /** Undefined where it has gone since. */
  readonly pool: IPPool | undefined;
  /** The families in which the sandbox has a default route by another interface. */
  readonly routedOtherwise: readonly Family[];
}

/**
 * What ADD of weft-ipam answers: each address with the prefix and the gateway of its network, and no interface. The routes
 * are the configuration's own where it names any. Else the first interface of a sandbox gets the default route, and a
 * further one, whose default route would take the first one's place, what it needs to reach its own pool on other nodes;
 * a LAN is reached without any.
 * @throws SubnetUnavailableError where the pool has changed since the address was drawn
 */
export function addressResult({ configuration, addresses, pool, routedOtherwise }: AddressFacts): AddResult {
  const places = FAMILIES.flatMap((family) => addresses.filter((address) => address.family === family)).map(
    (address) => ({ address, ...placeIn(pool, address, configuration.pool) }),
  );
  return {
    interfaces: [],
    ips: places,
    routes:
      configuration.routes ??
      places.flatMap(({ address: { family }, gateway }): ResultRoute[] =>
        routedOtherwise.includes(family)
          ? poolRoutes(pool, family, gateway)
          : [{ destination: { family, first: 0n, prefixLength: 0 }, gateway }],
      ),
    dns: configuration.dns,
  };
}

function placeIn(pool: IPPool | undefined, address: IPAddress, poolName: string): Place {
  const place = pool === undefined ? undefined : placeOf(address, pool);
  if (place !== undefined) return place;
  throw new SubnetUnavailableError(
    poolName,
    address.family,
    `the pool has changed while ${formatAddress(address)} was drawn from it. Try again`,
  );
}

function poolRoutes(pool: IPPool | undefined, family: Family, gateway: IPAddress): ResultRoute[] {
  if (pool?.spec.use !== 'Bridge') return [];
  return pool.spec.cidrs
    .filter((cidr) => cidr.family === family)
    .map((destination) => ({ destination, gateway }));
}
