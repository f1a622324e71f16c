import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { afterAll, expect, test } from 'vitest';
import { tryLockFile } from '../../src/kernel/index.ts';

const folder = mkdtempSync(join(tmpdir(), 'weft-lock-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

test('a lock is held once, also against other processes, and can be taken after its release', () => {
  const path = join(folder, 'agent.lock');
  const lock = tryLockFile(path);
  expect(lock).toBeDefined();
  expect(tryLockFile(path)).toBeUndefined();
  expect(() => execFileSync('flock', ['-n', path, 'true'])).toThrow();
  lock?.release();
  expect(execFileSync('flock', ['-n', path, 'echo', 'free'], { encoding: 'utf8' })).toBe('free\n');
  expect(existsSync(path)).toBe(true);
  tryLockFile(path)?.release();
});

test('it goes with its holder, however that ends', async () => {
  const path = join(folder, 'killed.lock');
  const script = `
    import { tryLockFile } from '${process.cwd()}/src/kernel/index.ts';
    console.log(tryLockFile('${path}') !== undefined);
    setInterval(() => {}, 1000);`;
  const holder = spawn('node', ['--input-type=module-typescript', '-e', script]);
  await once(holder.stdout, 'data');
  expect(tryLockFile(path)).toBeUndefined();
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  const lock = tryLockFile(path);
  expect(lock).toBeDefined();
  lock?.release();
});
