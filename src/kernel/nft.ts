import { createHash } from 'node:crypto';
import * as z from 'zod';
import { CommandError, type CommandRunner } from './command.ts';

/** A table of nftables. */
export interface NftTable {
  readonly family: 'ip' | 'ip6' | 'inet' | 'netdev' | 'bridge' | 'arp';
  readonly name: string;
}

/** `nft -j`'s envelope: a list of objects with one key each (`table`, `chain`, `rule`, …). */
export interface NftDocument {
  readonly nftables: readonly Readonly<Record<string, unknown>>[];
}

const document = z.object({ nftables: z.array(z.record(z.string(), z.unknown())) });

/**
 * Applies one transaction: all of it, or nothing. A string is nft's own language, a document its JSON.
 * @throws CommandError with nft's explanation
 */
export async function applyNft(run: CommandRunner, transaction: string | NftDocument): Promise<void> {
  if (typeof transaction === 'string') await run('nft', ['-f', '-'], transaction);
  else await run('nft', ['-j', '-f', '-'], JSON.stringify(transaction));
}

/** The table with chains, rules, sets and elements, without counters; undefined if there is no such table. */
export async function listNftTable(run: CommandRunner, table: NftTable): Promise<NftDocument | undefined> {
  const listing = await listTableText(run, table);
  return listing === undefined ? undefined : parseNft(listing);
}

/** The elements of one set of the table, as `nft -j` prints them; undefined if there is no such table or set. */
export async function listNftSet(
  run: CommandRunner,
  { family, name: table }: NftTable,
  set: string,
): Promise<readonly unknown[] | undefined> {
  const listing = await listText(run, ['list', 'set', family, table, set]);
  if (listing === undefined) return undefined;
  return setListing.parse(JSON.parse(listing)).nftables.flatMap((object) => object.set?.elem ?? []);
}

const setListing = z.object({
  nftables: z.array(z.object({ set: z.object({ elem: z.array(z.unknown()).optional() }).optional() })),
});

/** What a table holds, as a hash, and elements of some of its sets. */
export interface NftTableContent {
  /** Of the listing, in the kernel's own order and spelling, without the elements of those sets. */
  readonly hash: string;
  /** Those elements as `nft -j` prints them, by the set's name. */
  readonly elements: ReadonlyMap<string, readonly unknown[]>;
}

/**
 * The content of the table; undefined if there is no such table. A hash taken right after applying it tells whether
 * someone has changed the table since: what was rendered is never compared with what is listed. `apart`: sets whose
 * elements come and go one by one, and which the kernel lists in any order.
 */
export async function readNftTable(
  run: CommandRunner,
  table: NftTable,
  { apart = [] }: { readonly apart?: readonly string[] } = {},
): Promise<NftTableContent | undefined> {
  const listing = await listTableText(run, table);
  if (listing === undefined) return undefined;
  const elements = new Map<string, readonly unknown[]>();
  const rest = parseNft(listing).nftables.map((object) => {
    const { success, data } = listedSet.safeParse(object.set);
    if (!success || !apart.includes(data.name)) return object;
    elements.set(data.name, data.elem ?? []);
    return { set: { ...data, elem: undefined } };
  });
  return { hash: createHash('sha256').update(JSON.stringify(rest)).digest('hex'), elements };
}

const listedSet = z.looseObject({ name: z.string(), elem: z.array(z.unknown()).optional() });

/** What `nft -j` printed. @throws ZodError if it is not of that form */
export function parseNft(text: string): NftDocument {
  return document.parse(JSON.parse(text));
}

function listTableText(run: CommandRunner, { family, name }: NftTable): Promise<string | undefined> {
  return listText(run, ['list', 'table', family, name]);
}

/** Undefined: what is to be listed is not there. */
async function listText(run: CommandRunner, what: readonly string[]): Promise<string | undefined> {
  try {
    return await run('nft', ['-j', '-s', ...what]);
  } catch (error) {
    if (error instanceof CommandError && error.stderr.includes('No such file or directory')) return undefined;
    throw error;
  }
}
