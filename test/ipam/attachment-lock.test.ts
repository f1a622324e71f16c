import { describe, expect, test } from 'vitest';
import { attachmentID, createAttachmentLocks, SupersededError } from '../../src/ipam/index.ts';
import { allElse } from './fake-clock.ts';

const key = { containerID: 'c1', ifName: 'eth0' };

describe('one attachment', () => {
  test('is worked on by one at a time, in order', async () => {
    const locks = createAttachmentLocks();
    const events: string[] = [];
    const gates = new Map(['a', 'b', 'c'].map((name) => [name, Promise.withResolvers<string>()]));
    const runs = [...gates].map(([name, gate]) =>
      locks.run(key, async () => {
        events.push(`${name} begins`);
        const answer = await gate.promise;
        events.push(`${name} ends`);
        return answer;
      }),
    );
    for (const name of ['c', 'b', 'a']) gates.get(name)?.resolve(name);
    expect(await Promise.all(runs)).toEqual(['a', 'b', 'c']);
    expect(events).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  });

  test('goes on after a failure, which only its own caller sees', async () => {
    const locks = createAttachmentLocks();
    const failing = locks.run(key, () => Promise.reject(new Error('no such namespace')));
    const next = locks.run(key, () => Promise.resolve('fine'));
    await expect(failing).rejects.toThrow('no such namespace');
    expect(await next).toBe('fine');
  });

  test('is in flight from the call to the end, and forgotten then', async () => {
    const locks = createAttachmentLocks();
    const gate = Promise.withResolvers<undefined>();
    const run = locks.run(key, () => gate.promise);
    expect([...locks.inFlight()]).toEqual([attachmentID(key)]);
    gate.resolve(undefined);
    await run;
    await allElse();
    expect(locks.inFlight().size).toBe(0);
  });
});

test.each([
  { name: 'containers', other: { containerID: 'c2', ifName: 'eth0' } },
  { name: 'interfaces of a container', other: { containerID: 'c1', ifName: 'net1' } },
])('different $name do not wait for each other', async ({ other }) => {
  const locks = createAttachmentLocks();
  const gate = Promise.withResolvers<undefined>();
  const slow = locks.run(key, () => gate.promise);
  expect(await locks.run(other, () => Promise.resolve('fine'))).toBe('fine');
  gate.resolve(undefined);
  await slow;
});

describe('a DEL', () => {
  test('aborts the ADD in flight, and begins when that has cleaned up', async () => {
    const locks = createAttachmentLocks();
    const events: string[] = [];
    const add = locks.run(key, async (signal) => {
      await new Promise((resolve) => {
        signal.addEventListener('abort', resolve);
      });
      await allElse();
      events.push('ADD undone');
      throw signal.reason;
    });
    await allElse();
    const del = locks.run(
      key,
      async () => {
        events.push('DEL');
      },
      { abortPrevious: true },
    );
    await expect(add).rejects.toThrow(SupersededError);
    await del;
    expect(events).toEqual(['ADD undone', 'DEL']);
  });

  test('ends an ADD that still waits: it never begins', async () => {
    const locks = createAttachmentLocks();
    const gate = Promise.withResolvers<undefined>();
    let hasBegun = false;
    const first = locks.run(key, () => gate.promise);
    await allElse();
    const waiting = locks.run(key, async () => {
      hasBegun = true;
    });
    const del = locks.run(key, () => Promise.resolve('deleted'), { abortPrevious: true });
    await expect(waiting).rejects.toThrow(/c1\/eth0 is being deleted/);
    // It gave up at once, but the DEL still waits for the one that runs.
    gate.resolve(undefined);
    await first;
    expect(await del).toBe('deleted');
    expect(hasBegun).toBe(false);
  });

  test('does not abort an earlier DEL', async () => {
    const locks = createAttachmentLocks();
    const signals: AbortSignal[] = [];
    const del = () =>
      locks.run(
        key,
        async (signal) => {
          signals.push(signal);
          await allElse();
        },
        { abortPrevious: true },
      );
    await Promise.all([del(), del()]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false]);
  });

  test('does not overtake: while one runs, the next of that attachment waits though one before it gave up', async () => {
    const locks = createAttachmentLocks();
    const gate = Promise.withResolvers<undefined>();
    const running: string[] = [];
    const first = locks.run(key, async () => {
      running.push('first');
      await gate.promise;
      running.push('first ended');
    });
    const caller = new AbortController();
    const second = locks.run(key, () => Promise.resolve(), { signal: caller.signal });
    const third = locks.run(key, async () => {
      running.push('third');
    });
    caller.abort(new Error('the runtime hung up'));
    await expect(second).rejects.toThrow('the runtime hung up');
    await allElse();
    expect(running).toEqual(['first']);
    gate.resolve(undefined);
    await Promise.all([first, third]);
    expect(running).toEqual(['first', 'first ended', 'third']);
  });
});

test("the caller's signal is handed on", async () => {
  const locks = createAttachmentLocks();
  const caller = new AbortController();
  const run = locks.run(
    key,
    (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          reject(signal.reason as Error);
        });
      }),
    { signal: caller.signal },
  );
  await allElse();
  caller.abort(new Error('the runtime hung up'));
  await expect(run).rejects.toThrow('the runtime hung up');
});
