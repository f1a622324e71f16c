import { FAMILIES, formatAddress, type Family, type Range } from '../net/index.ts';
import { setWithout, type AddressSet } from './address-set.ts';
import type { FilterState } from './filter.ts';
import {
  addressType,
  addSet,
  changeElements,
  setName,
  type NftCommand,
  type NftDocument,
} from './nft-commands.ts';

/**
 * The sets that tell nodes apart change whenever a node comes or goes, and there may be thousands. They hold single
 * addresses and no intervals: of such a set nft adds an element without reading all others first, and the kernel finds
 * one by its hash.
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
    addSet(name, family, { type: addressType(family), elements: addressesIn(family, of(state)) }),
  );
}

/** The filter with none of its nodes: two that are equal in this differ by elements alone. */
export function withoutNodes(state: FilterState): FilterState {
  const none: AddressSet = { ipv4: [], ipv6: [] };
  return { ...state, nodes: none, directNodes: none };
}

/** What makes the one's sets the other's, as one transaction; undefined where they are equal already. */
export function nodeSetChanges(before: NodeAddresses, now: NodeAddresses): NftDocument | undefined {
  const changes = each().flatMap(({ name, family, of }) => [
    ...changeElements('delete', name, family, addressesIn(family, setWithout(of(before), of(now)))),
    ...changeElements('add', name, family, addressesIn(family, setWithout(of(now), of(before)))),
  ]);
  return changes.length === 0 ? undefined : { nftables: changes };
}

/** What each of the sets holds, by its name in the kernel. */
export function nodeSetElements(state: NodeAddresses): ReadonlyMap<string, readonly string[]> {
  return new Map(
    each().map(({ name, family, of }) => [setName(name, family), addressesIn(family, of(state))]),
  );
}

/** Each was an object's address once, so that there are no more of them than of objects. */
function addressesIn(family: Family, set: AddressSet): string[] {
  return set[family].flatMap((range) => valuesIn(range).map((value) => formatAddress({ family, value })));
}

function valuesIn({ first, last }: Range): bigint[] {
  const values: bigint[] = [];
  for (let value = first; value <= last; value++) values.push(value);
  return values;
}
