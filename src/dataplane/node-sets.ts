import { FAMILIES, formatAddress, type Family, type IPAddress, type Range } from '../net/index.ts';
import { setWithout, type AddressSet } from './address-set.ts';
import type { FilterState } from './filter.ts';
import { addressType, addSet, setName, type NftCommand } from './nft-commands.ts';

/**
 * The sets that tell nodes apart change whenever a node comes or goes, and there may be thousands. They hold single
 * addresses and no intervals: such a set gets an element, or loses one, without a look at the others, and the kernel
 * finds one by its hash.
 */
const NODE_SETS: readonly { readonly name: string; readonly of: (state: NodeAddresses) => AddressSet }[] = [
  { name: 'nodes', of: ({ nodes }) => nodes },
  { name: 'direct_nodes', of: ({ directNodes }) => directNodes },
];

const each = () => NODE_SETS.flatMap((set) => FAMILIES.map((family) => ({ ...set, family })));

/** What the sets are called in the kernel. */
export const NODE_SET_NAMES: readonly string[] = each().map(({ name, family }) => setName(name, family));

/** What of the filter follows from who the nodes are. */
export type NodeAddresses = Pick<FilterState, 'nodes' | 'directNodes'>;

export function addNodeSets(state: NodeAddresses): readonly NftCommand[] {
  return each().map(({ name, family, of }) =>
    addSet(name, family, { type: addressType(family), elements: textsOf(family, of(state)) }),
  );
}

/** The filter with none of its nodes: two that are equal in this differ by elements alone. */
export function withoutNodes(state: FilterState): FilterState {
  const none: AddressSet = { ipv4: [], ipv6: [] };
  return { ...state, nodes: none, directNodes: none };
}

/** Addresses that one of the sets gets, or loses. */
export interface NodeSetChange {
  readonly action: 'add' | 'delete';
  /** What the set is called in the kernel. */
  readonly set: string;
  readonly addresses: readonly IPAddress[];
}

/** What makes the one's sets the other's, to be done as one transaction; nothing where they are equal already. */
export function nodeSetChanges(before: NodeAddresses, now: NodeAddresses): NodeSetChange[] {
  return each()
    .flatMap(({ name, family, of }): NodeSetChange[] => {
      const set = setName(name, family);
      const only = (one: NodeAddresses, other: NodeAddresses) =>
        addressesIn(family, setWithout(of(one), of(other)));
      return [
        { action: 'delete', set, addresses: only(before, now) },
        { action: 'add', set, addresses: only(now, before) },
      ];
    })
    .filter(({ addresses }) => addresses.length > 0);
}

/** What each of the sets holds, by its name in the kernel. */
export function nodeSetElements(state: NodeAddresses): ReadonlyMap<string, readonly string[]> {
  return new Map(each().map(({ name, family, of }) => [setName(name, family), textsOf(family, of(state))]));
}

/** Each was an object's address once, so that there are no more of them than of objects. */
function addressesIn(family: Family, set: AddressSet): IPAddress[] {
  return set[family].flatMap((range) => valuesIn(range).map((value) => ({ family, value })));
}

function textsOf(family: Family, set: AddressSet): string[] {
  return addressesIn(family, set).map(formatAddress);
}

function valuesIn({ first, last }: Range): bigint[] {
  const values: bigint[] = [];
  for (let value = first; value <= last; value++) values.push(value);
  return values;
}
