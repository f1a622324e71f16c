import { compareRevisions, type Identity } from './objects.ts';

/** One object of a cache: who it is, and what it was read as. */
export interface Entry<T> extends Identity {
  readonly value: T;
  /** An own update took it out of what the cache selects: it stands here to be left out. */
  readonly left?: true;
}

/**
 * Lays this process's own writes over what its watch has delivered so far: a watch lags, and one's own writes count
 * at once (design section 1). Creates and updates are told from what the watch delivers by resourceVersion,
 * deletes by uid, since a delete answers no version. Pure: it holds no object that the watch has shown.
 */
export interface Overlay<T> {
  /** A create or update was answered. `revision`: how far the watch is. */
  wrote(entry: Entry<T>, revision: string | undefined): void;
  /** A delete was answered. */
  removed(uid: string, key: string): void;
  /**
   * The watch, or a list, is as far as this revision: own writes up to it have been shown, where `counts` says of the
   * revision that they were written at that it can be compared.
   */
  reached(revision: string, counts?: (written: string) => boolean): string[];
  /** A list has shown exactly this version. */
  matched(version: Identity): void;
  /** The watch has shown this one object at that revision: what was written before is no news. */
  delivered(key: string, revision: string): void;
  /** At that revision the watch has shown the end of this object, or that it is no longer selected. */
  ended(uid: string, revision: string): void;
  /** A complete list has been read, and these are all there are. */
  listed(all: Iterable<Identity>): void;
  /** The apiserver has gone back to an older state: own writes since then are no more. */
  forget(): void;
  /** What stands under that key, `shown` being what the watch has delivered. */
  over(key: string, shown: Entry<T> | undefined): Entry<T> | undefined;
  /** Whether an own write under that key has not been shown yet. */
  pending(key: string): boolean;
}

/** How many ended objects are remembered, for a delete whose answer comes after the watch has shown it. */
const ENDED_REMEMBERED = 1_000;

export function createOverlay<T>(): Overlay<T> {
  const written = new Map<string, Entry<T>>();
  const removedUIDs = new Set<string>();
  /** At which revision each ended. What was only taken out of the selection may come back under its uid. */
  const endedUIDs = new Map<string, string>();

  return {
    wrote(entry, revision) {
      if (revision !== undefined && compareRevisions(entry.resourceVersion, revision) <= 0) return;
      if (removedUIDs.has(entry.uid)) return;
      const ended = endedUIDs.get(entry.uid);
      if (ended !== undefined && compareRevisions(entry.resourceVersion, ended) <= 0) return;
      const earlier = written.get(entry.key);
      if (earlier !== undefined && compareRevisions(entry.resourceVersion, earlier.resourceVersion) < 0)
        return;
      written.set(entry.key, entry);
    },

    removed(uid, key) {
      if (written.get(key)?.uid === uid) written.delete(key);
      if (!endedUIDs.has(uid)) removedUIDs.add(uid);
    },

    reached(revision, counts = () => true) {
      const shown = [...written.values()].filter(
        ({ resourceVersion }) => compareRevisions(resourceVersion, revision) <= 0 && counts(resourceVersion),
      );
      for (const { key } of shown) written.delete(key);
      return shown.map(({ key }) => key);
    },

    matched({ key, uid, resourceVersion }) {
      const own = written.get(key);
      if (own?.uid === uid && own.resourceVersion === resourceVersion) written.delete(key);
    },

    delivered(key, revision) {
      const own = written.get(key);
      if (own !== undefined && compareRevisions(own.resourceVersion, revision) <= 0) written.delete(key);
    },

    ended(uid, revision) {
      removedUIDs.delete(uid);
      endedUIDs.set(uid, revision);
      if (endedUIDs.size > ENDED_REMEMBERED) {
        for (const oldest of endedUIDs.keys()) {
          endedUIDs.delete(oldest);
          break;
        }
      }
    },

    listed(all) {
      if (removedUIDs.size === 0) return;
      const uids = new Set(Array.from(all, ({ uid }) => uid));
      for (const uid of removedUIDs) if (!uids.has(uid)) removedUIDs.delete(uid);
    },

    forget() {
      written.clear();
      removedUIDs.clear();
      // What had ended since then may be there again.
      endedUIDs.clear();
    },

    over(key, shown) {
      const own = written.get(key);
      if (own !== undefined) return own.left === true ? undefined : own;
      return shown !== undefined && removedUIDs.has(shown.uid) ? undefined : shown;
    },

    pending: (key) => written.has(key),
  };
}
