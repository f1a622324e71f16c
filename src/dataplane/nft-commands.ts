import { FAMILIES, formatAddress, type Family, type Range } from '../net/index.ts';
import type { AddressSet } from './address-set.ts';

/** Our one table, in family inet. */
export const FILTER_TABLE = 'weft';

/** There only while that one is exchanged (renderHold). */
export const HOLD_TABLE = 'weft_hold';

/** Input of `nft -j`. */
export interface NftDocument {
  readonly nftables: readonly NftCommand[];
}

/** One of its commands, or an expression of one. */
export type NftCommand = Readonly<Record<string, unknown>>;

export const PRIORITY_FILTER = 0;

/** Counted, so that people see what is lost where. */
export const DROP: readonly NftCommand[] = [{ counter: { packets: 0, bytes: 0 } }, { drop: null }];

export const NFT_FAMILY = {
  ipv4: { protocol: 'ip', type: 'ipv4_addr', suffix: '4' },
  ipv6: { protocol: 'ip6', type: 'ipv6_addr', suffix: '6' },
} as const satisfies Readonly<Record<Family, object>>;

/** One set of addresses for each family: `NAME4` and `NAME6`. */
export function addSets(name: string, addresses: AddressSet): readonly NftCommand[] {
  return FAMILIES.map((family) =>
    addSet(name, family, {
      type: addressType(family),
      flags: ['interval'],
      elements: addresses[family].map((range) => element(family, range)),
    }),
  );
}

/** A set of any type of key that begins with an address. */
export function addSet(
  name: string,
  family: Family,
  { elements, ...definition }: { readonly elements: readonly unknown[] } & NftCommand,
): NftCommand {
  return add('set', { name: setName(name, family), ...definition, ...elem(elements) });
}

/** What becomes of a packet by an address of it. */
export function addVerdictMap(
  name: string,
  family: Family,
  verdicts: readonly { readonly range: Range; readonly verdict: NftCommand }[],
): NftCommand {
  const elements = verdicts.map(({ range, verdict }) => [element(family, range), verdict]);
  return add('map', {
    name: setName(name, family),
    type: addressType(family),
    map: 'verdict',
    flags: ['interval'],
    ...elem(elements),
  });
}

export function addChain(name: string): NftCommand {
  return add('chain', { name });
}

export function addBaseChain(name: string, type: 'filter' | 'nat', hook: string, prio: number): NftCommand {
  return add('chain', { name, type, hook, prio, policy: 'accept' });
}

export function addRule(chain: string, comment: string, expr: readonly unknown[]): NftCommand {
  return add('rule', { chain, comment, expr });
}

export function match(op: '==' | '!=', left: unknown, right: unknown): NftCommand {
  return { match: { op, left, right } };
}

export function payload(protocol: string, field: string): NftCommand {
  return { payload: { protocol, field } };
}

export function address(family: Family, field: 'saddr' | 'daddr'): NftCommand {
  return payload(NFT_FAMILY[family].protocol, field);
}

/** How rules name the set, or map, of that family. */
export function set(name: string, family: Family): string {
  return `@${setName(name, family)}`;
}

/** The type of an address in sets. */
export function addressType(family: Family): string {
  return NFT_FAMILY[family].type;
}

export function setName(name: string, family: Family): string {
  return name + NFT_FAMILY[family].suffix;
}

function add(kind: 'set' | 'map' | 'chain' | 'rule', definition: NftCommand): NftCommand {
  return { add: { [kind]: { family: 'inet', table: FILTER_TABLE, ...definition } } };
}

/** nft takes no empty list. */
function elem(elements: readonly unknown[]): NftCommand {
  return elements.length === 0 ? {} : { elem: elements };
}

function element(family: Family, { first, last }: Range): unknown {
  const from = formatAddress({ family, value: first });
  return first === last ? from : { range: [from, formatAddress({ family, value: last })] };
}
