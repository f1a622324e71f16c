import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, it } from 'vitest';

/** What the script collects is looked at in the image itself (test/e2e/image.test.ts); here is what it must not pass over. */

const SCRIPT = join(import.meta.dirname, '../../hack/image-root.sh');

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-image-root-'));
});
afterEach(() => rm(dir, { recursive: true }));

it.each([
  ['says that it found one only', 'libc.so.6 => /lib/libc.so.6 (0x1)\n\tlibnowhere.so.1 => not found', 0],
  ['fails', 'not a dynamic executable', 1],
])('ends with an error that names the program where ldd %s', async (_, said, status) => {
  await writeFile(join(dir, 'ldd'), `#!/bin/sh\nprintf '\\t%s\\n' '${said}'\nexit ${status}\n`, {
    mode: 0o755,
  });
  const { exitCode, stderr } = await execa('sh', [SCRIPT, join(dir, 'root')], {
    env: { PATH: `${dir}:${process.env.PATH ?? ''}` },
    reject: false,
  });
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/^image-root: \S*\/node\b/);
  expect(stderr).toContain(said.split('\n\t').at(-1));
});
