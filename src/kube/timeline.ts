import { compareRevisions } from './objects.ts';

/** How far a resource's store was known to be when a create was sent. */
export interface Mark {
  readonly highest: string | undefined;
  /** How often the store has gone back until then. */
  readonly era: number;
}

/**
 * How far the store of one resource is, and whether a list or a watch of it can be believed. When etcd is put back to
 * an older snapshot (design, section 5), an apiserver that is not restarted goes on serving the objects and
 * revisions from before, in consistent lists too, and its watches are silent. Only what reads or writes etcd itself,
 * a GET and a create, tells the truth then. Pure.
 *
 * | state    | a list is as far as   | a watch is as far as   | a create is answered                        |
 * |----------|-----------------------|------------------------|---------------------------------------------|
 * | trusted  | counts                | counts                 | below what was known when it was sent: sign |
 * | doubtful | what was before, or   | does not count         | the same, by answers to creates since       |
 * |          | more: does not count  |                        |                                             |
 * | doubtful | less: trusted again   |                        |                                             |
 */
export interface Timeline {
  /** The highest revision that the store surely has; undefined where none is known. */
  readonly highest: string | undefined;
  /** Whether lists and watches may be of a state that is no more. */
  readonly isDoubtful: boolean;
  mark(): Mark;
  /** @returns whether the answer proves that the store has gone back since the create was sent */
  created(revision: string, sentAt: Mark): boolean;
  listed(revision: string): void;
  watched(revision: string): void;
  /** The store has gone back: nothing that is known so far counts any more. */
  wentBack(): void;
}

export function createTimeline(): Timeline {
  let highest: string | undefined;
  /** The highest revision of the state that is no more; undefined: lists and watches are trusted. */
  let before: string | undefined;
  let era = 0;

  const advance = (revision: string) => {
    highest = later(highest, revision);
  };

  return {
    get highest() {
      return highest;
    },
    get isDoubtful() {
      return before !== undefined;
    },
    mark: () => ({ highest, era }),

    created(revision, sentAt) {
      // Of several that were under way, one has told.
      const isSameEra = sentAt.era === era;
      if (isSameEra && sentAt.highest !== undefined && compareRevisions(revision, sentAt.highest) < 0) {
        return true;
      }
      advance(revision);
      return false;
    },

    listed(revision) {
      if (before !== undefined) {
        // An apiserver that has not noticed is at least as far as it was; from the new state it would say less.
        if (compareRevisions(revision, before) >= 0) {
          before = revision;
          return;
        }
        before = undefined;
      }
      advance(revision);
    },

    watched(revision) {
      if (before === undefined) advance(revision);
    },

    wentBack() {
      if (highest !== undefined) before = later(before, highest);
      highest = undefined;
      era += 1;
    },
  };
}

function later(a: string | undefined, b: string): string {
  return a === undefined || compareRevisions(b, a) > 0 ? b : a;
}
