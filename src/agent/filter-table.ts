import { FILTER_TABLE, renderFilter, type FilterState } from '../dataplane/index.ts';
import { applyNft, nftTableHash, type CommandRunner, type NftTable } from '../kernel/index.ts';

/** Our nft table, kept as it was applied. */
export interface FilterTable {
  /**
   * Exchanges the table in one transaction if other rules are desired, or, where `verify` is set, if someone has
   * changed it since: by a hash of the listing taken right after our own apply.
   * @throws CommandError with nft's explanation
   */
  apply(state: FilterState, options: { readonly verify: boolean }): Promise<FilterOutcome>;
  /** Whether the kernel holds what was applied for this state, and nobody has changed it. Changes nothing. */
  holds(state: FilterState): Promise<boolean>;
}

/** `repaired`: what was desired already had been changed by someone else. */
export type FilterOutcome = 'unchanged' | 'applied' | 'repaired';

export function createFilterTable(run: CommandRunner): FilterTable {
  let applied: { readonly text: string; readonly hash: string | undefined } | undefined;
  return {
    async apply(state, { verify }) {
      const document = renderFilter(state);
      const text = JSON.stringify(document);
      const same = applied?.text === text;
      if (same && (!verify || (await nftTableHash(run, TABLE)) === applied?.hash)) return 'unchanged';
      // Should this fail halfway, the next call applies again.
      applied = undefined;
      await applyNft(run, document);
      applied = { text, hash: await nftTableHash(run, TABLE) };
      return same ? 'repaired' : 'applied';
    },
    async holds(state) {
      const hash = await nftTableHash(run, TABLE);
      return (
        applied?.text === JSON.stringify(renderFilter(state)) && hash !== undefined && applied.hash === hash
      );
    },
  };
}

const TABLE: NftTable = { family: 'inet', name: FILTER_TABLE };
