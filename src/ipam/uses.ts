import { nodeAddressIn, type IPPool, type PoolUse } from '../api/index.ts';
import {
  ADDRESS_BITS,
  cidrHasAddress,
  cidrOf,
  cidrSize,
  lastValue,
  rangesHave,
  sameAddress,
  type CIDR,
  type Family,
  type IPAddress,
  type Range,
} from '../net/index.ts';

/**
 * What a pool's use means for its addresses (design, section 3):
 *
 * | use    | never handed out                                    | the result's prefix | its gateway           |
 * |--------|-----------------------------------------------------|---------------------|-----------------------|
 * | Pods   | of a subnet: the first, its node's own              | (weft wires it)     | (weft wires it)       |
 * | Bridge | of a subnet: network, gateway, broadcast            | the subnet's        | the subnet's second   |
 * | Lan    | of the pool's CIDR: network, broadcast; the gateway | the CIDR's          | that of `spec.gateway` |
 *
 * The network address is the first one: in IPv6 the anycast address of the subnet's routers. IPv6 has no broadcast
 * address, so the last one is handed out there. CIDRs of one or two addresses have neither (RFC 3021, RFC 6164).
 */

/** How many addresses at the beginning and at the end of each node subnet are never handed out. */
export interface Edges {
  readonly head: bigint;
  readonly tail: bigint;
}

const EDGES: Readonly<Record<PoolUse, Readonly<Record<Family, Edges>>>> = {
  Pods: { ipv4: { head: 1n, tail: 0n }, ipv6: { head: 1n, tail: 0n } },
  Bridge: { ipv4: { head: 2n, tail: 1n }, ipv6: { head: 2n, tail: 0n } },
  Lan: { ipv4: { head: 0n, tail: 0n }, ipv6: { head: 0n, tail: 0n } },
};

export function edgesOf({ spec }: IPPool, family: Family): Edges {
  return EDGES[spec.use][family];
}

/** What is never handed out wherever the nodes' subnets lie: of a LAN its network, broadcast and gateway. */
export function lanReserves({ spec }: IPPool, family: Family): Range[] {
  if (spec.use !== 'Lan') return [];
  const gateway = spec.gateway?.[family];
  return [
    ...spec.cidrs.filter((cidr) => cidr.family === family).flatMap(networkAndBroadcast),
    ...(gateway === undefined ? [] : [only(gateway.value)]),
  ];
}

/** How an interface with an address stands in its network. */
export interface Place {
  readonly prefixLength: number;
  readonly gateway: IPAddress;
}

/**
 * The place of an address that another plugin's interface gets. Undefined where the pool has none: it is weft's own
 * to wire, or lies in a CIDR that the pool does not list (any more).
 */
export function placeOf(address: IPAddress, { spec }: IPPool): Place | undefined {
  const { family } = address;
  if (spec.use === 'Pods') return undefined;
  if (spec.use === 'Bridge') {
    // All subnets of a pool have one size and lie at multiples of it.
    const subnet = cidrOf(address, spec.nodeSubnetPrefixLength[family]);
    return { prefixLength: subnet.prefixLength, gateway: nodeAddressIn(subnet, spec.use) };
  }
  const lan = spec.cidrs.find((cidr) => cidrHasAddress(cidr, address));
  const gateway = spec.gateway?.[family];
  return lan === undefined || gateway === undefined ? undefined : { prefixLength: lan.prefixLength, gateway };
}

/** What an address of other plugins' pools is in its network, where that is never handed out. */
export function keptBackAs(
  address: IPAddress,
  pool: IPPool,
): 'network address' | 'broadcast address' | 'gateway' | undefined {
  const place = placeOf(address, pool);
  if (place === undefined) return undefined;
  if (sameAddress(address, place.gateway)) return 'gateway';
  const network = cidrOf(address, place.prefixLength);
  if (!rangesHave(networkAndBroadcast(network), address.value)) return undefined;
  return address.value === network.first ? 'network address' : 'broadcast address';
}

function networkAndBroadcast(cidr: CIDR): Range[] {
  if (cidrSize(cidr) <= 2n) return [];
  return [only(cidr.first), ...(ADDRESS_BITS[cidr.family] === 32 ? [only(lastValue(cidr))] : [])];
}

function only(value: bigint): Range {
  return { first: value, last: value };
}
