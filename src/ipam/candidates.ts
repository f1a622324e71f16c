import { addressOfAllocationName, allocationName, type NodeSubnet } from '../api/index.ts';
import { cidrHasAddress, compareCIDRs, type IPAddress } from '../net/index.ts';
import { usableRange } from './subnets.ts';

/**
 * The names of allocations that are in use. A Set of names is one, and so is a Map by name, such as the cache of
 * this node's IPAllocations with its own writes laid over it. Read anew at each step, so hand over the living one.
 */
export interface NamesInUse {
  has(name: string): boolean;
  keys(): Iterable<string>;
  readonly size: number;
}

/**
 * Where each subnet's ring stands: the address handed out last. One for the life of the process, so that a
 * container that crashes in a loop does not get its last address again.
 */
export interface RingCursor {
  /** The address handed out last in this subnet, as a number; undefined if none was. */
  last(subnet: NodeSubnet): bigint | undefined;
  handedOut(subnet: NodeSubnet, address: IPAddress): void;
  /** The address of an allocation's name, remembered: names are counted at every claim. */
  addressOf(name: string): IPAddress;
}

export interface CandidateSearch {
  /** The subnets to draw from: of one family. */
  readonly subnets: readonly NodeSubnet[];
  readonly inUse: NamesInUse;
  readonly cursor: RingCursor;
  /** Asked before each candidate: whether the subnet is still drawn from. Default: yes. */
  readonly stillDrawable?: ((subnet: NodeSubnet) => boolean) | undefined;
}

export interface Candidate {
  readonly address: IPAddress;
  /** The name of its allocation. */
  readonly name: string;
  readonly subnet: NodeSubnet;
}

/**
 * The addresses to try, one after the other: the fullest subnet first, else none would ever get empty; in it
 * round the ring, from behind the address handed out last; never the first one, which is the node's own. Lazy:
 * a subnet may hold 2^64 addresses.
 */
export function* addressCandidates({
  subnets,
  inUse,
  cursor,
  stillDrawable = () => true,
}: CandidateSearch): Generator<Candidate, undefined> {
  for (const subnet of fullestFirst({ subnets, inUse, cursor })) {
    const { first, last } = usableRange(subnet);
    const { family } = subnet.spec.cidr;
    const handedOut = cursor.last(subnet) ?? last;
    // Outside the ring, the walk would never come back to where it began.
    const previous = handedOut < first || handedOut > last ? last : handedOut;
    let value = previous;
    do {
      value = value >= last ? first : value + 1n;
      const address: IPAddress = { family, value };
      const name = allocationName(address);
      if (inUse.has(name)) continue;
      if (!stillDrawable(subnet)) break;
      yield { address, name, subnet };
    } while (value !== previous);
  }
  return undefined;
}

export function createRingCursor(): RingCursor {
  const lastOf = new Map<string, bigint>();
  const addresses = new Map<string, IPAddress>();
  return {
    last: (subnet) => lastOf.get(subnet.metadata.name),
    handedOut(subnet, address) {
      lastOf.set(subnet.metadata.name, address.value);
    },
    addressOf(name) {
      const known = addresses.get(name);
      if (known !== undefined) return known;
      if (addresses.size >= MOST_REMEMBERED) addresses.clear();
      const address = addressOfAllocationName(name);
      addresses.set(name, address);
      return address;
    },
  };
}

/** How many of the names lie among the addresses that the subnet hands out. */
export function countInUse(subnet: NodeSubnet, inUse: NamesInUse, cursor: RingCursor): number {
  let count = 0;
  for (const name of inUse.keys()) {
    const address = cursor.addressOf(name);
    if (cidrHasAddress(subnet.spec.cidr, address) && address.value !== subnet.spec.cidr.first) count++;
  }
  return count;
}

/** A bound for the memory of parsed names: more than a node ever has at once, less than matters. */
const MOST_REMEMBERED = 65_536;

function fullestFirst({ subnets, inUse, cursor }: CandidateSearch): readonly NodeSubnet[] {
  // The usual case, one subnet, needs no counting.
  if (subnets.length < 2) return subnets;
  const counted = subnets.map((subnet) => {
    const { first, last } = usableRange(subnet);
    return { subnet, free: last - first + 1n - BigInt(countInUse(subnet, inUse, cursor)) };
  });
  counted.sort((a, b) =>
    a.free !== b.free ? (a.free < b.free ? -1 : 1) : compareCIDRs(a.subnet.spec.cidr, b.subnet.spec.cidr),
  );
  return counted.map(({ subnet }) => subnet);
}
