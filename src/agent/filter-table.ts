import {
  FILTER_TABLE,
  NODE_SET_NAMES,
  nodeSetChanges,
  nodeSetElements,
  REMOVE_HOLD,
  renderFilter,
  renderHold,
  withoutNodes,
  type AttachmentRules,
  type FilterState,
  type NodeSetChange,
} from '../dataplane/index.ts';
import { applyNft, NetlinkError, readNftTable, type CommandRunner, type NftTable } from '../kernel/index.ts';

/** Our nft table, kept as it was applied. */
export interface FilterTable {
  /**
   * Exchanges the table in one transaction, while another one holds what drops (renderHold), if other rules are desired, or,
   * where `verify` is set, if someone has changed it since: by a hash of the listing taken right after our own apply. Where
   * nodes alone have come or gone, it is their addresses that are added and taken out. `inForce` is called as soon as the
   * kernel filters by this state; what is listed after that is for the next verification.
   * @throws CommandError with nft's explanation
   */
  apply(
    state: FilterState,
    options: { readonly verify: boolean; readonly inForce?: () => void },
  ): Promise<FilterOutcome>;
  /**
   * The same for the state that was applied last, verified. What is applied meanwhile does not wait for the listing.
   * @throws CommandError, or FilterNotAppliedError before the first apply
   */
  verify(): Promise<FilterOutcome>;
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

export interface FilterTableParts {
  /**
   * The rules that attachments have of their own, as the kernel's links record them. They are read right before each
   * exchange, and exchanges go one after the other, so none takes out what another has brought.
   */
  readonly attachments?: () => readonly AttachmentRules[];
  /**
   * Changes sets of the table as one transaction.
   * @throws NetlinkError
   */
  readonly changeElements: (table: NftTable, changes: readonly NodeSetChange[]) => void;
}

/** `run` starts nft. */
export function createFilterTable(
  run: CommandRunner,
  { attachments = () => [], changeElements }: FilterTableParts,
): FilterTable {
  let applied: Applied | undefined;
  let latest: FilterState | undefined;
  let last: Promise<unknown> = Promise.resolve();
  let waiting: Promise<void> | undefined;
  let isHoldGone = false;
  /** Another one before and after each change of the table: what was listed under one is what stood then. */
  let generation = 0;

  async function exchange(
    state: FilterState,
    { listed, inForce }: { readonly listed?: () => Promise<Listed>; readonly inForce?: () => void },
  ): Promise<FilterOutcome> {
    const rules = attachments();
    const text = rulesText(state, rules);
    const before = applied?.text === text ? applied : undefined;
    if (before !== undefined && (listed === undefined || isAsApplied(before, await listed()))) {
      const changes = nodeSetChanges(before.state, state);
      if (changes.length === 0) return 'unchanged';
      generation++;
      applied = undefined;
      if (hasTaken(changes)) {
        applied = { ...before, state };
        return 'applied';
      }
    }
    // Should this fail halfway, the next call applies again.
    generation++;
    applied = undefined;
    const hold = renderHold(state, rules);
    if (hold !== undefined) await applyNft(run, hold);
    await applyNft(run, renderFilter(state, rules));
    inForce?.();
    // The first time also what an agent has left that was killed in between.
    if (hold !== undefined || !isHoldGone) await applyNft(run, REMOVE_HOLD);
    isHoldGone = true;
    applied = { text, state, hash: (await readTable())?.hash };
    generation++;
    return before === undefined ? 'applied' : 'repaired';
  }

  /** False where the kernel refuses: what the sets held before is not what we gave them. */
  function hasTaken(changes: readonly NodeSetChange[]): boolean {
    try {
      changeElements(TABLE, changes);
      return true;
    } catch (error) {
      if (error instanceof NetlinkError) return false;
      throw error;
    }
  }

  const readTable = () => readNftTable(run, TABLE, { apart: NODE_SET_NAMES });

  /** What was listed before its turn had come, if nothing of ours has changed since. */
  async function verifyAside(): Promise<FilterOutcome | undefined> {
    const listedAt = generation;
    const content = await readTable();
    return inTurn(async () =>
      generation === listedAt
        ? exchange(appliedLast(), { listed: () => Promise.resolve(content) })
        : undefined,
    );
  }

  function appliedLast(): FilterState {
    if (latest === undefined) throw new FilterNotAppliedError();
    return latest;
  }

  function isAsApplied({ state, hash }: Applied, content: Listed): boolean {
    return (
      content !== undefined &&
      content.hash === hash &&
      [...nodeSetElements(state)].every(([name, addresses]) =>
        haveSameElements(content.elements.get(name) ?? [], addresses),
      )
    );
  }

  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = last.then(work);
    last = mine.catch(() => undefined);
    return mine;
  }

  return {
    apply: (state, { verify, inForce = () => undefined }) =>
      inTurn(async () => {
        latest = state;
        const outcome = await exchange(state, { inForce, ...(verify ? { listed: readTable } : {}) });
        inForce();
        return outcome;
      }),
    async verify() {
      appliedLast();
      return (await verifyAside()) ?? inTurn(() => exchange(appliedLast(), { listed: readTable }));
    },
    attachmentsChanged() {
      waiting ??= new Promise((resolve, reject) => {
        const exchanged = inTurn(async () => {
          waiting = undefined;
          // The listing that follows is for later: where it fails, the next apply exchanges the table again.
          await exchange(appliedLast(), { inForce: resolve });
        });
        exchanged.then(resolve, reject);
      });
      return waiting;
    },
    holds: (given) =>
      inTurn(async () => {
        const state = given ?? latest;
        if (state === undefined) return false;
        return (
          applied?.text === rulesText(state, attachments()) &&
          nodeSetChanges(applied.state, state).length === 0 &&
          isAsApplied(applied, await readTable())
        );
      }),
  };
}

/** The table as it stands; undefined where there is none. */
type Listed = Awaited<ReturnType<typeof readNftTable>>;

/** What the kernel was given last. */
interface Applied {
  /** All of it but the addresses of nodes. */
  readonly text: string;
  readonly state: FilterState;
  /** Of the listing without those, in the kernel's own order and spelling. */
  readonly hash: string | undefined;
}

function rulesText(state: FilterState, attachments: readonly AttachmentRules[]): string {
  return JSON.stringify(renderFilter(withoutNodes(state), attachments));
}

/** In whatever order the kernel lists them. */
function haveSameElements(listed: readonly unknown[], desired: readonly string[]): boolean {
  const elements = new Set(listed);
  return elements.size === desired.length && desired.every((address) => elements.has(address));
}

const TABLE: NftTable = { family: 'inet', name: FILTER_TABLE };
