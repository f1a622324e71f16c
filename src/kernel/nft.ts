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

/**
 * A hash of the table's listing; undefined if there is no such table. Taken right after applying it, it tells
 * whether someone has changed the table since: what was rendered is never compared with what is listed.
 */
export async function nftTableHash(run: CommandRunner, table: NftTable): Promise<string | undefined> {
  const listing = await listTableText(run, table);
  return listing === undefined ? undefined : createHash('sha256').update(listing).digest('hex');
}

/** What `nft -j` printed. @throws ZodError if it is not of that form */
export function parseNft(text: string): NftDocument {
  return document.parse(JSON.parse(text));
}

async function listTableText(run: CommandRunner, { family, name }: NftTable): Promise<string | undefined> {
  try {
    return await run('nft', ['-j', '-s', 'list', 'table', family, name]);
  } catch (error) {
    if (error instanceof CommandError && error.stderr.includes('No such file or directory')) return undefined;
    throw error;
  }
}
