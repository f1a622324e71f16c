import type { IPPool, NodeSubnet } from '../api/index.ts';
import { cidrContains, compareCIDRs, lastValue, type CIDR, type Family, type Range } from '../net/index.ts';
import type { AddressSet } from './address-set.ts';

/** Whose addresses they are. `pool` is undefined where subnets name a pool that is not there (any more). */
export interface AddressOwner {
  readonly pool: IPPool | undefined;
  readonly addresses: AddressSet;
}

/**
 * Divides all that pools and subnets cover among the pools, no address twice: it belongs to the pool of its longest
 * NodeSubnet, else of the longest CIDR that holds it, of two pools that list the very CIDR to the older (design,
 * section 7). A pool made anew under the name of another is another. A subnet that no node routes to (disputed.ts) counts
 * only where no other one does: else one node's token could make another's pods those of any pool.
 */
export function addressOwners(
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
  isDisputed: (subnet: NodeSubnet) => boolean,
): AddressOwner[] {
  const ranges = new Map<string, Record<Family, Range[]>>();
  const give = (uid: string, { family }: CIDR, range: Range) => {
    const owned = ranges.get(uid) ?? { ipv4: [], ipv6: [] };
    ranges.set(uid, owned);
    const previous = owned[family].at(-1);
    // In order, so that only the last can touch it.
    if (previous !== undefined && previous.last + 1n === range.first) {
      owned[family][owned[family].length - 1] = { first: previous.first, last: range.last };
    } else {
      owned[family].push(range);
    }
  };

  // CIDRs nest or are disjoint: in this order, what holds a claim is on the stack when the claim comes.
  const around: Claim[] = [];
  /** The first address behind all that has been given. */
  let next = 0n;
  const giveTop = (last: bigint) => {
    const top = around.at(-1);
    if (top === undefined || next > last) return;
    give(top.poolUID, top.cidr, { first: next, last });
    next = last + 1n;
  };
  const leaveAllNotAround = (cidr: CIDR | undefined) => {
    for (let top = around.at(-1); top !== undefined; top = around.at(-1)) {
      if (cidr !== undefined && cidrContains(top.cidr, cidr)) return;
      giveTop(lastValue(top.cidr));
      around.pop();
    }
  };
  for (const claim of claimsInOrder(pools, subnets, isDisputed)) {
    leaveAllNotAround(claim.cidr);
    if (around.some(({ rank }) => rank > claim.rank)) continue;
    giveTop(claim.cidr.first - 1n);
    next = claim.cidr.first;
    around.push(claim);
  }
  leaveAllNotAround(undefined);

  const poolOf = new Map(pools.map((pool) => [pool.metadata.uid, pool]));
  return [...ranges].map(([uid, addresses]) => ({ pool: poolOf.get(uid), addresses }));
}

interface Claim {
  readonly cidr: CIDR;
  readonly poolUID: string;
  /** Inside one of a higher rank it means nothing. */
  readonly rank: number;
}

const RANK = { pool: 0, disputedSubnet: 1, subnet: 2 } as const;

/** By address, the wider first; of equal ones the one that counts last. */
function claimsInOrder(
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
  isDisputed: (subnet: NodeSubnet) => boolean,
): Claim[] {
  const youngestFirst = [...pools].sort(
    (a, b) =>
      Date.parse(b.metadata.creationTimestamp) - Date.parse(a.metadata.creationTimestamp) ||
      (a.metadata.name < b.metadata.name ? 1 : -1),
  );
  const claims: Claim[] = [
    ...youngestFirst.flatMap(({ metadata, spec }) =>
      spec.cidrs.map((cidr) => ({ cidr, poolUID: metadata.uid, rank: RANK.pool })),
    ),
    ...subnets.map((subnet) => ({
      cidr: subnet.spec.cidr,
      poolUID: subnet.spec.poolUID,
      rank: isDisputed(subnet) ? RANK.disputedSubnet : RANK.subnet,
    })),
  ];
  // Sorting is stable.
  return claims.sort((a, b) => compareCIDRs(a.cidr, b.cidr));
}
