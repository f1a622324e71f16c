import { addressOfAllocationName, allocationName, type IPPool, type NodeSubnet } from '../api/index.ts';
import { compareCIDRs, countAddresses, rangesHave, type IPAddress, type Range } from '../net/index.ts';
import { usableRanges } from './subnets.ts';

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
  /** What it reserves is left out. */
  readonly pool: IPPool;
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
  pool,
  subnets,
  inUse,
  cursor,
  stillDrawable = () => true,
}: CandidateSearch): Generator<Candidate, undefined> {
  for (const subnet of fullestFirst({ pool, subnets, inUse, cursor })) {
    const { family } = subnet.spec.cidr;
    for (const value of ring(usableRanges(subnet, pool), cursor.last(subnet))) {
      const address: IPAddress = { family, value };
      const name = allocationName(address);
      if (inUse.has(name)) continue;
      if (!stillDrawable(subnet)) break;
      yield { address, name, subnet };
    }
  }
  return undefined;
}

/** Every value of the ranges once: those behind the one handed out last, then those up to it. */
function* ring(ranges: readonly Range[], handedOut = -1n): Generator<bigint, undefined> {
  for (const { first, last } of ranges) {
    for (let value = first > handedOut ? first : handedOut + 1n; value <= last; value++) yield value;
  }
  for (const { first, last } of ranges) {
    for (let value = first; value <= last && value <= handedOut; value++) yield value;
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

/** How many addresses that the subnet hands out have no name among those in use. */
export function countUnused({ pool, inUse, cursor }: CandidateSearch, subnet: NodeSubnet): bigint {
  const ranges = usableRanges(subnet, pool);
  const { family } = subnet.spec.cidr;
  let used = 0n;
  for (const name of inUse.keys()) {
    const address = cursor.addressOf(name);
    if (address.family === family && rangesHave(ranges, address.value)) used++;
  }
  return countAddresses(ranges) - used;
}

/** A bound for the memory of parsed names: more than a node ever has at once, less than matters. */
const MOST_REMEMBERED = 65_536;

function fullestFirst(search: CandidateSearch): readonly NodeSubnet[] {
  const { subnets } = search;
  // The usual case, one subnet, needs no counting.
  if (subnets.length < 2) return subnets;
  const counted = subnets.map((subnet) => ({ subnet, free: countUnused(search, subnet) }));
  counted.sort((a, b) =>
    a.free !== b.free ? (a.free < b.free ? -1 : 1) : compareCIDRs(a.subnet.spec.cidr, b.subnet.spec.cidr),
  );
  return counted.map(({ subnet }) => subnet);
}
