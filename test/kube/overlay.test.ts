import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareRevisions } from '../../src/kube/objects.ts';
import { createOverlay, type Entry } from '../../src/kube/overlay.ts';

const entry = (uid: string, resourceVersion: string, key = 'a'): Entry<string> => ({
  key,
  uid,
  resourceVersion,
  value: `${uid} at ${resourceVersion}`,
});

describe('own writes', () => {
  it('count at once, and until the watch has come as far', () => {
    const overlay = createOverlay<string>();
    overlay.wrote(entry('u1', '10'), '9');
    expect(overlay.over('a', undefined)?.value).toBe('u1 at 10');
    expect(overlay.pending('a')).toBe(true);
    expect(overlay.reached('9')).toEqual([]);
    expect(overlay.reached('10')).toEqual(['a']);
    expect(overlay.over('a', entry('u1', '10'))?.value).toBe('u1 at 10');
    expect(overlay.pending('a')).toBe(false);
  });

  it('that the watch has shown before the answer came are no news', () => {
    const overlay = createOverlay<string>();
    overlay.wrote(entry('u1', '10'), '10');
    expect(overlay.over('a', undefined)).toBeUndefined();
    overlay.wrote(entry('u1', '99'), '100');
    expect(overlay.over('a', undefined)).toBeUndefined();
  });

  it('stand in the order of their versions, whatever the order of their answers', () => {
    const overlay = createOverlay<string>();
    overlay.wrote(entry('u1', '12'), '9');
    overlay.wrote(entry('u1', '11'), '9');
    expect(overlay.over('a', undefined)?.resourceVersion).toBe('12');
  });

  it('that delete hide that object, not the next of its name', () => {
    const overlay = createOverlay<string>();
    overlay.removed('u1', 'a');
    expect(overlay.over('a', entry('u1', '10'))).toBeUndefined();
    expect(overlay.over('a', entry('u2', '11'))?.uid).toBe('u2');
  });

  it('that delete what was just created leave nothing, also when both are shown later', () => {
    const overlay = createOverlay<string>();
    overlay.wrote(entry('u1', '10'), '9');
    overlay.removed('u1', 'a');
    expect(overlay.over('a', undefined)).toBeUndefined();
    expect(overlay.over('a', entry('u1', '10'))).toBeUndefined();
    // A late answer to an earlier write must not bring it back.
    overlay.wrote(entry('u1', '10'), '9');
    expect(overlay.over('a', undefined)).toBeUndefined();
    overlay.ended('u1', '12');
    overlay.wrote(entry('u1', '10'), '9');
    expect(overlay.over('a', undefined)).toBeUndefined();
  });

  it('that delete are forgotten when a list no longer has the object', () => {
    const overlay = createOverlay<string>();
    overlay.removed('u1', 'a');
    overlay.listed([entry('u1', '10')]);
    expect(overlay.over('a', entry('u1', '10'))).toBeUndefined();
    overlay.listed([entry('u2', '11')]);
    // It cannot come back, so this is only to see that nothing is kept for ever.
    expect(overlay.over('a', entry('u1', '10'))).toBeDefined();
  });

  it('that delete are forgotten when the watch has shown the end, before or after the answer', () => {
    const overlay = createOverlay<string>();
    overlay.removed('u1', 'a');
    overlay.ended('u1', '12');
    overlay.ended('u2', '13');
    overlay.removed('u2', 'a');
    // Neither can come back, so this is only to see that nothing is kept for ever.
    expect(overlay.over('a', entry('u1', '10'))).toBeDefined();
    expect(overlay.over('a', entry('u2', '11'))).toBeDefined();
  });

  it('that take an object out of the selection hide it until the watch does, and may bring it back', () => {
    const overlay = createOverlay<string>();
    overlay.wrote({ ...entry('u1', '11'), left: true }, '10');
    expect(overlay.over('a', entry('u1', '10'))).toBeUndefined();
    expect(overlay.reached('11')).toEqual(['a']);
    overlay.ended('u1', '11');
    overlay.wrote(entry('u1', '10'), '9');
    expect(overlay.over('a', undefined)).toBeUndefined();
    overlay.wrote(entry('u1', '12'), '11');
    expect(overlay.over('a', undefined)?.value).toBe('u1 at 12');
  });

  it('never show an older state than the watch, and all of one’s own, for any order of delivery', () => {
    /** What happened in the apiserver to one key, in order; who did it; and when we and the watch heard of it. */
    const step = fc.record({ own: fc.boolean(), type: fc.constantFrom('write', 'delete', 'leave') });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 12 }),
        fc.array(fc.boolean(), { maxLength: 40 }),
        (steps, order) => {
          const overlay = createOverlay<string>();
          const history = historyOf(steps);
          let shown: Entry<string> | undefined;
          let revision = '100';
          let delivered = 0; // by the watch
          let answered = 0; // to us
          for (const watchFirst of [...order, ...Array<boolean>(40).fill(true)]) {
            const next = watchFirst ? history[delivered] : undefined;
            if (next !== undefined) {
              shown = next.entry;
              if (next.ended !== undefined) overlay.ended(next.ended, next.revision);
              revision = next.revision;
              overlay.reached(revision);
              delivered += 1;
            } else {
              const done = history[answered];
              if (done?.own === true && done.entry !== undefined) overlay.wrote(done.entry, revision);
              if (done?.own === true && done.ended !== undefined) {
                if (done.left) overlay.wrote({ ...entry(done.ended, done.revision), left: true }, revision);
                else overlay.removed(done.ended, 'a');
              }
              answered += 1;
            }
            const now = overlay.over('a', shown);
            if (now !== undefined && shown !== undefined) {
              expect(compareRevisions(now.resourceVersion, shown.resourceVersion)).toBeGreaterThanOrEqual(0);
            }
          }
          expect(overlay.over('a', shown)).toEqual(shown);
        },
      ),
    );
  });
});

interface Happened {
  readonly own: boolean;
  readonly revision: string;
  /** What stands afterwards. */
  readonly entry: Entry<string> | undefined;
  /** The uid that ended by it. */
  readonly ended: string | undefined;
  /** It is still there, and only not selected any more: a write brings it back. */
  readonly left: boolean;
}

function historyOf(steps: readonly { own: boolean; type: string }[]): Happened[] {
  let standing: Entry<string> | undefined;
  let outside: string | undefined;
  return steps.map(({ own, type }, at) => {
    const revision = String(101 + at);
    const ended = type === 'write' ? undefined : standing?.uid;
    standing = type === 'write' ? entry(standing?.uid ?? outside ?? `u${at}`, revision) : undefined;
    outside = type === 'leave' ? (ended ?? outside) : undefined;
    return { own, revision, entry: standing, ended, left: type === 'leave' };
  });
}

describe('revisions', () => {
  it('are compared as numbers of any length', () => {
    expect(compareRevisions('9', '10')).toBeLessThan(0);
    expect(compareRevisions('18446744073709551616', '18446744073709551615')).toBeGreaterThan(0);
    expect(compareRevisions('7', '7')).toBe(0);
  });
});
