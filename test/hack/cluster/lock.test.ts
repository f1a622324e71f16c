import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LockError, withFileLock } from '../../../hack/cluster/lock.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-lock-'));
});
afterEach(() => rm(directory, { recursive: true }));

describe('withFileLock', () => {
  it('lets one in at a time, and says that it waits', async () => {
    const events: string[] = [];
    const hold = (name: string) =>
      withFileLock(
        join(directory, 'lock'),
        async () => {
          events.push(`${name} in`);
          await sleep(50);
          events.push(`${name} out`);
        },
        () => events.push('waits'),
      );
    await Promise.all([hold('a'), hold('b')]);
    const order = events.filter((event) => event !== 'waits').join(' ');
    expect(['a in a out b in b out', 'b in b out a in a out']).toContain(order);
    expect(events.filter((event) => event === 'waits')).toHaveLength(1);
  });

  it('drops the lock when the work throws', async () => {
    const failing = withFileLock(
      join(directory, 'lock'),
      () => Promise.reject(new Error('no')),
      () => undefined,
    );
    await expect(failing).rejects.toThrow('no');
    await expect(
      withFileLock(
        join(directory, 'lock'),
        async () => 'in',
        () => undefined,
      ),
    ).resolves.toBe('in');
  });

  it('says so when the file cannot be locked at all', async () => {
    await expect(
      withFileLock(
        directory + '/lock/',
        async () => 'in',
        () => undefined,
      ),
    ).rejects.toThrow(LockError);
  });
});
