import {
  FILTER_TABLE,
  renderFilter,
  type AttachmentRules,
  type FilterState,
  type NftDocument,
} from '../dataplane/index.ts';
import { applyNft, nftTableHash, type CommandRunner, type NftTable } from '../kernel/index.ts';

/** Our nft table, kept as it was applied. */
export interface FilterTable {
  /**
   * Exchanges the table in one transaction if other rules are desired, or, where `verify` is set, if someone has
   * changed it since: by a hash of the listing taken right after our own apply.
   * @throws CommandError with nft's explanation
   */
  apply(state: FilterState, options: { readonly verify: boolean }): Promise<FilterOutcome>;
  /**
   * Exchanges the table if attachments ask for other rules now than when it was applied last. All who ask while one
   * exchange is under way share the one after it.
   * @throws CommandError, or FilterNotAppliedError before the first apply
   */
  attachmentsChanged(): Promise<void>;
  /**
   * Whether the kernel holds what was applied for this state (that of the last apply, unless told), and nobody has
   * changed it. Changes nothing.
   */
  holds(state?: FilterState): Promise<boolean>;
}

/** `repaired`: what was desired already had been changed by someone else. */
export type FilterOutcome = 'unchanged' | 'applied' | 'repaired';

/** The node's filters have not been set since the agent started. */
export class FilterNotAppliedError extends Error {
  override name = 'FilterNotAppliedError' as const;

  constructor() {
    super("this node's filters have not been set yet: the agent has just started, try again");
  }
}

/**
 * `attachments`: the rules that attachments have of their own, as the kernel's links record them. They are read
 * right before each exchange, and exchanges go one after the other, so none takes out what another has brought.
 */
export function createFilterTable(
  run: CommandRunner,
  attachments: () => readonly AttachmentRules[] = () => [],
): FilterTable {
  let applied: { readonly text: string; readonly hash: string | undefined } | undefined;
  let latest: FilterState | undefined;
  let last: Promise<unknown> = Promise.resolve();
  let waiting: Promise<void> | undefined;

  async function exchange(
    document: NftDocument,
    { verify, inForce }: { readonly verify: boolean; readonly inForce?: () => void },
  ): Promise<FilterOutcome> {
    const text = JSON.stringify(document);
    const same = applied?.text === text;
    if (same && (!verify || (await nftTableHash(run, TABLE)) === applied?.hash)) return 'unchanged';
    // Should this fail halfway, the next call applies again.
    applied = undefined;
    await applyNft(run, document);
    inForce?.();
    applied = { text, hash: await nftTableHash(run, TABLE) };
    return same ? 'repaired' : 'applied';
  }

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = last.then(work);
    last = mine.catch(() => undefined);
    return mine;
  }

  return {
    apply: (state, { verify }) =>
      inTurn(() => {
        latest = state;
        return exchange(renderFilter(state, attachments()), { verify });
      }),
    attachmentsChanged() {
      waiting ??= new Promise((resolve, reject) => {
        const exchanged = inTurn(async () => {
          waiting = undefined;
          if (latest === undefined) throw new FilterNotAppliedError();
          // The listing that follows is for later: where it fails, the next apply exchanges the table again.
          await exchange(renderFilter(latest, attachments()), { verify: false, inForce: resolve });
        });
        exchanged.then(resolve, reject);
      });
      return waiting;
    },
    holds: (given) =>
      inTurn(async () => {
        const state = given ?? latest;
        if (state === undefined) return false;
        const hash = await nftTableHash(run, TABLE);
        const text = JSON.stringify(renderFilter(state, attachments()));
        return applied?.text === text && hash !== undefined && applied.hash === hash;
      }),
  };
}

const TABLE: NftTable = { family: 'inet', name: FILTER_TABLE };
