import { ADDRESS_BITS, type CIDR, type Family } from '../net/index.ts';

/** CIDRs, each as often as it was added. Which of them overlap another is told without a look at all. */
export interface CIDRIndex {
  add(cidr: CIDR): void;
  /** Of a CIDR that was added. */
  remove(cidr: CIDR): void;
  overlaps(cidr: CIDR): boolean;
}

/** The CIDRs of one prefix length, and how many longer ones lie in each block of that size, by its first address. */
interface Level {
  readonly at: Map<bigint, number>;
  readonly inside: Map<bigint, number>;
}

export function createCIDRIndex(): CIDRIndex {
  const families: Readonly<Record<Family, Map<number, Level>>> = { ipv4: new Map(), ipv6: new Map() };

  /** A cluster has few prefix lengths, so to begin with one is rare. */
  function levelOf({ family, prefixLength }: CIDR): Level {
    const levels = families[family];
    const known = levels.get(prefixLength);
    if (known !== undefined) return known;
    const inside = new Map<bigint, number>();
    for (const [length, { at }] of levels) {
      if (length < prefixLength) continue;
      for (const [first, count] of at) bump(inside, blockOf(first, family, prefixLength), count);
    }
    const level = { at: new Map<bigint, number>(), inside };
    levels.set(prefixLength, level);
    return level;
  }

  function change(cidr: CIDR, step: 1 | -1): void {
    const { family, first, prefixLength } = cidr;
    bump(levelOf(cidr).at, first, step);
    for (const [length, { inside }] of families[family]) {
      if (length < prefixLength) bump(inside, blockOf(first, family, length), step);
    }
  }

  return {
    add: (cidr) => change(cidr, 1),
    remove: (cidr) => change(cidr, -1),
    overlaps(cidr) {
      const { family, first, prefixLength } = cidr;
      // Of two that overlap, one holds the other.
      if (levelOf(cidr).inside.has(first)) return true;
      for (const [length, { at }] of families[family]) {
        if (length <= prefixLength && at.has(blockOf(first, family, length))) return true;
      }
      return false;
    },
  };
}

function blockOf(address: bigint, family: Family, prefixLength: number): bigint {
  const hostBits = BigInt(ADDRESS_BITS[family] - prefixLength);
  return (address >> hostBits) << hostBits;
}

function bump(counts: Map<bigint, number>, key: bigint, step: number): void {
  const count = (counts.get(key) ?? 0) + step;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}
