import { compareRevisions } from './objects.ts';

/** How far a resource's store was known to be when a create was sent. */
export interface Mark {
  readonly highest: string | undefined;
  /** How often the store has gone back until then. */
  readonly era: number;
  /** In doubt: how far the lists were that have been read since; undefined: none. */
  readonly listed: string | undefined;
}

/**
 * How far the store of one resource is, and whether a list or a watch of it can be believed. When etcd is put back to
 * an older snapshot (design, section 5), an apiserver that is not restarted goes on serving the objects and
 * revisions from before, in consistent lists too, and its watches are silent until etcd is past them. Only what reads or
 * writes etcd itself, a GET and a create, tells the truth then. Pure.
 *
 * | state    | a list is as far as     | a watch is as far as    | a create is answered                        |
 * |----------|-------------------------|-------------------------|---------------------------------------------|
 * | trusted  | counts                  | counts                  | below what was known when it was sent: sign |
 * | doubtful | before, or more: it may | the lists since then:   | the same, by answers to creates since;      |
 * |          | be of the state before  | does not count          | no more than the lists: still doubtful      |
 * | doubtful | less: trusted again     | more: trusted again     | more than the lists that were read when it  |
 * |          |                         |                         | was sent: trusted again                     |
 *
 * Doubt ends: revisions of etcd only rise, also where the restore has raised them (`--bump-revision`). Either a list is
 * of the new state before etcd is past the old one, or etcd gets past it, and then the next create after a list, and
 * each event and bookmark after one, is above that list. It ends for revisions above that list alone: what was written
 * below is in the gap that an apiserver has not read which was kept running, and need never be shown.
 */
export interface Timeline {
  /** The highest revision that the store surely has; undefined where none is known. */
  readonly highest: string | undefined;
  /** Whether lists and watches may be of a state that is no more. */
  readonly isDoubtful: boolean;
  /**
   * Whether revisions tell what was written at this one from what a list or a watch shows. Not in doubt, and not for
   * what was written in the gap.
   */
  counts(revision: string): boolean;
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
  /** In doubt: the furthest list since the store went back. */
  let listedInDoubt: string | undefined;
  /** Where doubt ended by revisions above it: up to here writes need not have been shown. */
  let gapEnd: string | undefined;
  let era = 0;

  const advance = (revision: string) => {
    highest = later(highest, revision);
  };
  const trust = (gap: string | undefined) => {
    before = undefined;
    listedInDoubt = undefined;
    gapEnd = gap;
  };
  /** Only an etcd that is past what was listed can have said that revision. */
  const endDoubtAbove = (revision: string) => {
    if (before === undefined || listedInDoubt === undefined) return;
    if (compareRevisions(revision, listedInDoubt) > 0) trust(listedInDoubt);
  };

  return {
    get highest() {
      return highest;
    },
    get isDoubtful() {
      return before !== undefined;
    },
    counts: (revision) =>
      before === undefined && (gapEnd === undefined || compareRevisions(revision, gapEnd) > 0),
    mark: () => ({ highest, era, listed: listedInDoubt }),

    created(revision, sentAt) {
      // Of several that were under way, one has told.
      const isSameEra = sentAt.era === era;
      if (isSameEra && sentAt.highest !== undefined && compareRevisions(revision, sentAt.highest) < 0) {
        return true;
      }
      // One that was sent before the first list may be below what an apiserver of the state before has reached.
      if (isSameEra && sentAt.listed !== undefined) endDoubtAbove(revision);
      advance(revision);
      return false;
    },

    listed(revision) {
      if (before !== undefined) {
        // An apiserver that has not noticed is at least as far as it was; from the new state it would say less. One of
        // several may be less far than another that has not noticed either, so no such list raises what was before.
        if (compareRevisions(revision, before) >= 0) {
          listedInDoubt = later(listedInDoubt, revision);
          return;
        }
        trust(undefined);
      }
      advance(revision);
    },

    watched(revision) {
      if (before !== undefined) {
        endDoubtAbove(revision);
        if (before !== undefined) return;
      }
      advance(revision);
    },

    wentBack() {
      if (highest !== undefined) before = later(before, highest);
      highest = undefined;
      listedInDoubt = undefined;
      gapEnd = undefined;
      era += 1;
    },
  };
}

function later(a: string | undefined, b: string): string {
  return a === undefined || compareRevisions(b, a) > 0 ? b : a;
}
