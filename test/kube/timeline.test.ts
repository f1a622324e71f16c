import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createTimeline } from '../../src/kube/timeline.ts';

describe('a create', () => {
  test('that is answered with a higher revision than was known when it was sent is no sign', () => {
    const timeline = createTimeline();
    timeline.listed('99');
    const sentAt = timeline.mark();
    // Its answer may come after the watch has shown later things.
    timeline.watched('130');
    expect(timeline.created('110', sentAt)).toBe(false);
    expect(timeline.highest).toBe('130');
  });

  test('that is answered with a lower one than was known when it was sent proves that etcd went back', () => {
    const timeline = createTimeline();
    timeline.listed('1000');
    expect(timeline.created('999', timeline.mark())).toBe(true);
  });

  test('before anything was listed is no sign', () => {
    const timeline = createTimeline();
    expect(timeline.created('5', timeline.mark())).toBe(false);
  });

  test('that was under way when another told is no second sign', () => {
    const timeline = createTimeline();
    timeline.listed('1000');
    const [first, second] = [timeline.mark(), timeline.mark()];
    expect(timeline.created('500', first)).toBe(true);
    timeline.wentBack();
    expect(timeline.created('501', second)).toBe(false);
    expect(timeline.highest).toBe('501');
  });

  test('with revisions that a float cannot tell apart', () => {
    const timeline = createTimeline();
    timeline.listed('9007199254740993');
    expect(timeline.created('9007199254740992', timeline.mark())).toBe(true);
  });
});

describe('after etcd went back', () => {
  const doubtful = () => {
    const timeline = createTimeline();
    timeline.listed('1000');
    timeline.wentBack();
    return timeline;
  };

  test('lists and watches from before are in doubt, and do not count', () => {
    const timeline = doubtful();
    timeline.watched('1001');
    timeline.listed('1001');
    timeline.watched('1001');
    expect(timeline.isDoubtful).toBe(true);
    expect(timeline.highest).toBeUndefined();
    // Else every create from now on would be a sign again.
    expect(timeline.created('501', timeline.mark())).toBe(false);
    timeline.listed('1000');
    expect(timeline.created('502', timeline.mark())).toBe(false);
  });

  test('a list of a lower revision is of the new state, and all counts again', () => {
    const timeline = doubtful();
    timeline.listed('510');
    expect(timeline.isDoubtful).toBe(false);
    timeline.watched('520');
    expect(timeline.highest).toBe('520');
    expect(timeline.created('519', timeline.mark())).toBe(true);
  });

  test('a list that is further than what was seen before may be of the state before', () => {
    const timeline = doubtful();
    timeline.listed('1030');
    expect(timeline.isDoubtful).toBe(true);
    // By another apiserver that has not noticed either.
    timeline.listed('1020');
    timeline.watched('1021');
    expect(timeline.isDoubtful).toBe(true);
    timeline.listed('999');
    expect(timeline.isDoubtful).toBe(false);
  });

  test('it may go back once more: own creates tell that, too', () => {
    const timeline = doubtful();
    timeline.created('600', timeline.mark());
    expect(timeline.created('550', timeline.mark())).toBe(true);
  });

  test('a watch past the list since then is of an etcd that is past it, and what was written in the gap is told apart', () => {
    const timeline = doubtful();
    timeline.listed('1010');
    expect(timeline.counts('2000')).toBe(false);
    timeline.watched('1011');
    expect(timeline.isDoubtful).toBe(false);
    expect(timeline.counts('1010')).toBe(false);
    expect(timeline.counts('1011')).toBe(true);
    expect(timeline.highest).toBe('1011');
  });

  test('a create above the lists that had been read when it was sent ends the doubt; one from before them does not', () => {
    const timeline = doubtful();
    const early = timeline.mark();
    timeline.listed('5000');
    expect(timeline.created('5002', early)).toBe(false);
    expect(timeline.isDoubtful).toBe(true);
    expect(timeline.created('5003', timeline.mark())).toBe(false);
    expect(timeline.isDoubtful).toBe(false);
    expect(timeline.counts('5003')).toBe(true);
  });

  test('ends whatever was seen before, once etcd is past the old state: at the next list and what comes after it', () => {
    const revision = fc.integer({ min: 1, max: 2_000 });
    const step = fc.record({ what: fc.constantFrom('listed', 'watched', 'created', 'wentBack'), revision });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 30 }),
        fc.integer({ min: 2_001, max: 10_000 }),
        fc.constantFrom('watched', 'created'),
        (steps, now, then) => {
          const timeline = createTimeline();
          for (const { what, revision: at } of steps) {
            if (what === 'wentBack') timeline.wentBack();
            else if (what !== 'created') timeline[what](String(at));
            else if (timeline.created(String(at), timeline.mark())) timeline.wentBack();
          }
          timeline.listed(String(now));
          if (then === 'watched') timeline.watched(String(now + 1));
          else expect(timeline.created(String(now + 1), timeline.mark())).toBe(false);
          expect(timeline.isDoubtful).toBe(false);
          expect(timeline.highest).toBe(String(now + 1));
          expect(timeline.counts(String(now + 1))).toBe(true);
        },
      ),
    );
  });
});
