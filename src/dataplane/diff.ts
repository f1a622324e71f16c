import {
  ADDRESS_BITS,
  cidrHasAddress,
  cidrOf,
  firstAddress,
  formatCIDR,
  parseCIDR,
  sameAddress,
  type CIDR,
  type IPAddress,
} from '../net/index.ts';
import { NODE_ROUTE_PROTOCOL } from './state.ts';

/** What must be done so that the kernel is as desired. Additions come first: replacing leaves no gap. */
export interface Difference<Desired, Listed = Desired> {
  readonly add: readonly Desired[];
  readonly remove: readonly Listed[];
}

/** A route as the kernel has it, links by index; kernel/rtnetlink's Route fits. */
export interface RouteFacts {
  readonly dst: CIDR;
  readonly type: string;
  readonly via?: IPAddress | undefined;
  readonly oif?: number | undefined;
  readonly prefSrc?: IPAddress | undefined;
  readonly metric: number;
  readonly protocol: number;
}

/**
 * The routes of node state to add and to remove. A listed route without our protocol number is another's and
 * never removed. Where destination and metric of an added and a removed one agree, the added one takes the
 * other's place. `keep`: destinations whose `unreachable` route stays though nothing asks for it.
 */
export function diffRoutes<Desired extends RouteFacts, Listed extends RouteFacts>(
  desired: readonly Desired[],
  listed: readonly Listed[],
  keep: readonly CIDR[] = [],
): Difference<Desired, Listed> {
  const kept = new Set(keep.map(formatCIDR));
  const ours = listed.filter(({ protocol }) => protocol === NODE_ROUTE_PROTOCOL);
  const { add, remove } = difference(desired, ours, routeIdentity);
  return {
    add,
    remove: remove.filter(({ dst, type }) => type !== 'unreachable' || !kept.has(formatCIDR(dst))),
  };
}

/**
 * Which routes of others take packets for the pods of another node elsewhere than ours does: longer ones inside of its
 * subnet, and those of the very subnet with a lower metric. One with the metric of ours is refused by the kernel, and told
 * by that.
 */
export function divertingRoutes<Other extends RouteFacts>(
  desired: readonly RouteFacts[],
  others: readonly Other[],
): Other[] {
  const block = (cidr: CIDR) => `${cidr.family} ${cidr.first}/${cidr.prefixLength}`;
  const toPeers = new Map(
    desired.filter(({ type }) => type === 'unicast').map((route) => [block(route.dst), route]),
  );
  const lengths = [...new Set([...toPeers.values()].map(({ dst }) => dst.prefixLength))];
  return others.filter((other) =>
    lengths.some((length) => {
      if (length > other.dst.prefixLength) return false;
      const ours = toPeers.get(block(cidrOf(firstAddress(other.dst), length)));
      if (ours === undefined || leadsTheSameWay(ours, other)) return false;
      return length < other.dst.prefixLength || other.metric < ours.metric;
    }),
  );
}

function leadsTheSameWay(ours: RouteFacts, other: RouteFacts): boolean {
  return (
    other.type === 'unicast' &&
    other.oif === ours.oif &&
    (other.via === undefined
      ? ours.via === undefined
      : ours.via !== undefined && sameAddress(other.via, ours.via))
  );
}

/** An address on a link; kernel/rtnetlink's LinkAddress fits. */
export interface AddressFacts {
  readonly address: IPAddress;
  readonly prefixLength: number;
}

/**
 * The addresses to add to our own device and to remove from it. Everything on it is ours, but for the link-local
 * address that it gave itself; `keep`: subnets whose first address stays though nothing asks for it.
 */
export function diffAddresses<Listed extends AddressFacts>(
  desired: readonly IPAddress[],
  listed: readonly Listed[],
  keep: readonly CIDR[] = [],
): Difference<AddressFacts, Listed> {
  const hosts = desired.map((address) => ({ address, prefixLength: ADDRESS_BITS[address.family] }));
  const { add, remove } = difference<AddressFacts, Listed>(
    hosts,
    listed,
    ({ address, prefixLength }) => `${numberOf(address)}/${prefixLength}`,
  );
  return {
    add,
    remove: remove.filter(
      ({ address }) =>
        !cidrHasAddress(LINK_LOCAL, address) && !keep.some((subnet) => cidrHasAddress(subnet, address)),
    ),
  };
}

/** Who has an address; kernel/rtnetlink's Neighbour fits. */
export interface NeighbourFacts {
  readonly address: IPAddress;
  readonly mac: string | undefined;
  readonly permanent: boolean;
}

/**
 * The neighbours to set on our own device and to remove from it: all permanent ones there are ours; what the
 * kernel learned or looks for is no state of anyone. Setting replaces the MAC of the same address.
 */
export function diffNeighbours<Listed extends NeighbourFacts>(
  desired: readonly { readonly address: IPAddress; readonly mac: string }[],
  listed: readonly Listed[],
): Difference<{ readonly address: IPAddress; readonly mac: string }, Listed> {
  const wanted = new Set(desired.map(({ address }) => numberOf(address)));
  const permanent = listed.filter((entry) => entry.permanent);
  const { add, remove } = difference<{ address: IPAddress; mac: string | undefined }, Listed>(
    desired,
    permanent,
    ({ address, mac }) => `${numberOf(address)} ${mac}`,
  );
  return {
    add: add.flatMap(({ address, mac }) => (mac === undefined ? [] : [{ address, mac }])),
    remove: remove.filter(({ address }) => !wanted.has(numberOf(address))),
  };
}

/** Behind which node a MAC is; kernel/rtnetlink's FdbEntry fits. */
export interface ForwardingFacts {
  readonly mac: string;
  readonly destination: IPAddress;
}

/** The FDB entries to set on our own device and to remove from it. Setting replaces those of the same MAC. */
export function diffFdb<Listed extends ForwardingFacts>(
  desired: readonly ForwardingFacts[],
  listed: readonly Listed[],
): Difference<ForwardingFacts, Listed> {
  return difference<ForwardingFacts, Listed>(
    desired,
    listed,
    ({ mac, destination }) => `${mac} ${numberOf(destination)}`,
  );
}

const LINK_LOCAL = parseCIDR('fe80::/10');

/** What is only in the one and what is only in the other. */
function difference<Desired, Listed>(
  desired: readonly Desired[],
  listed: readonly Listed[],
  identity: (item: Desired | Listed) => string,
): { readonly add: Desired[]; readonly remove: Listed[] } {
  const wanted = new Set(desired.map(identity));
  const present = new Set(listed.map(identity));
  return {
    add: desired.filter((item) => !present.has(identity(item))),
    remove: listed.filter((item) => !wanted.has(identity(item))),
  };
}

function routeIdentity({ dst, type, via, oif, prefSrc, metric }: RouteFacts): string {
  const text = (address: IPAddress | undefined) => (address === undefined ? '-' : numberOf(address));
  const destination = `${numberOf({ family: dst.family, value: dst.first })}/${dst.prefixLength}`;
  return `${destination} ${type} ${text(via)} ${oif ?? '-'} ${text(prefSrc)} ${metric}`;
}

/** Only to tell one from another: what people read takes ten times as long, and there may be tens of thousands. */
function numberOf({ family, value }: IPAddress): string {
  return `${family} ${value.toString(16)}`;
}
