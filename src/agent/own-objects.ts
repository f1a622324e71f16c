import type { StoredMetadata } from '../api/index.ts';
import type { Clock } from '../ipam/index.ts';

/** An object of this node, as the cache shows it. */
export interface OwnObject {
  /** For messages. */
  readonly kind: string;
  readonly metadata: Pick<StoredMetadata, 'name' | 'uid' | 'creationTimestamp'>;
  /** Whether the watch that shows it lives: a broken one shows what is no more, and that says nothing of etcd. */
  readonly isWatched: () => boolean;
  /** Reads the uid that etcd has under its name; undefined: none. */
  readonly read: (signal: AbortSignal) => Promise<string | undefined>;
}

export interface OwnObjectsParts {
  /** This node's objects as its caches show them now. */
  readonly objects: () => readonly OwnObject[];
  readonly onWentBack: (sign: string) => void;
  readonly clock: Clock;
}

/** How long a watch may take to show that an object has gone. */
const WATCH_LAG_MS = 5_000;
const LOOK_MS = 250;

/**
 * Asks etcd itself, one object at each call, whether it is as the cache shows it. Where it is not, and a watch that
 * lives does not tell so either, etcd is back at an older state (design, section 5): the sign for a node that creates
 * nothing. All objects have their turn, the youngest first, since those are what an older snapshot lacks.
 */
export function createOwnObjectsCheck(parts: OwnObjectsParts): (signal: AbortSignal) => Promise<void> {
  const { clock } = parts;
  let asked = new Set<string>();
  /** Shown at the call before: what came since needs no asking, and an ADD under way is left alone. */
  let shown: ReadonlySet<string> = new Set();

  return async (signal) => {
    const object = next();
    if (object === undefined) return;
    const { name, uid } = object.metadata;
    const found = await object.read(signal);
    if (found === uid) return;
    // Deleted as objects are: the watch tells within moments, once it lives.
    let sinceMs = clock.nowMs();
    while (isShown(uid)) {
      if (!object.isWatched()) sinceMs = clock.nowMs();
      if (clock.nowMs() - sinceMs >= WATCH_LAG_MS) {
        const what = found === undefined ? 'is not there' : `has the uid ${found}`;
        return parts.onWentBack(`${object.kind} ${name} ${what}, and its watch still shows the uid ${uid}`);
      }
      await clock.sleep(LOOK_MS, signal);
    }
  };

  function next(): OwnObject | undefined {
    const all = [...parts.objects()].sort(youngestFirst);
    const objects = all.filter(({ metadata }) => shown.has(metadata.uid));
    shown = new Set(all.map(({ metadata }) => metadata.uid));
    const left = objects.filter(({ metadata }) => !asked.has(metadata.uid));
    // Those that have gone are forgotten with each turn.
    if (left.length === 0) asked = new Set();
    const [object] = left.length === 0 ? objects : left;
    if (object !== undefined) asked.add(object.metadata.uid);
    return object;
  }

  function isShown(uid: string): boolean {
    return parts.objects().some(({ metadata }) => metadata.uid === uid);
  }
}

function youngestFirst(a: OwnObject, b: OwnObject): number {
  return Date.parse(b.metadata.creationTimestamp) - Date.parse(a.metadata.creationTimestamp);
}
