import { link, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { installExecutable, linkExecutable, providePlugin } from '../../src/agent/install.ts';
import { removeExecutables } from '../../src/agent/remove-executables.ts';

let image: string;
let host: string;

beforeEach(async () => {
  image = await mkdtemp(join(tmpdir(), 'weft-image-'));
  host = await mkdtemp(join(tmpdir(), 'weft-host-'));
  await writeFile(join(image, 'weft'), 'executable');
  await writeFile(join(image, 'bandwidth'), 'plugin');
});

afterEach(async () => {
  await rm(image, { recursive: true });
  await rm(host, { recursive: true });
});

async function install(): Promise<void> {
  await providePlugin(image, host, 'bandwidth');
  await installExecutable(join(image, 'weft'), host, 'weft');
  await linkExecutable(host, 'weft', 'weft-ipam');
}

test('what was installed goes, the plugin that came with it and drafts of a killed one included', async () => {
  await writeFile(join(host, 'bridge'), 'other');
  await writeFile(join(host, '.weftling.0123456789ab'), 'other');
  await install();
  await writeFile(join(host, '.weft.0123456789ab'), 'draft');
  await writeFile(join(host, '.bandwidth.0123456789ab'), 'draft');
  expect((await removeExecutables(host)).map((path) => path.slice(host.length + 1)).sort()).toEqual([
    '.bandwidth.0123456789ab',
    '.weft.0123456789ab',
    'bandwidth',
    'weft',
    'weft-bandwidth',
    'weft-ipam',
  ]);
  expect((await readdir(host)).sort()).toEqual(['.weftling.0123456789ab', 'bridge']);
  expect(await removeExecutables(host)).toEqual([]);
});

test("the host's own plugin stays, also where it is the same to the byte, or has replaced weft's since", async () => {
  await writeFile(join(host, 'bandwidth'), 'plugin');
  await install();
  await removeExecutables(host);
  expect(await readFile(join(host, 'bandwidth'), 'utf8')).toBe('plugin');

  await rm(join(host, 'bandwidth'));
  await install();
  await rm(join(host, 'bandwidth'));
  await writeFile(join(host, 'bandwidth'), 'newer');
  await removeExecutables(host);
  expect(await readdir(host)).toEqual(['bandwidth']);
});

test('a mark whose plugin has gone already goes too: a run was killed between them', async () => {
  await install();
  await rm(join(host, 'bandwidth'));
  await removeExecutables(host);
  expect(await readdir(host)).toEqual([]);
});

test('a plugin that came with weft is known again at the next installation', async () => {
  await install();
  await link(join(host, 'bandwidth'), join(host, 'kept'));
  expect(await providePlugin(image, host, 'bandwidth')).toBe('is the host’s own');
  await removeExecutables(host);
  expect(await readdir(host)).toEqual(['kept']);
});

test('a folder that is not there has nothing of weft', async () => {
  expect(await removeExecutables(join(host, 'none'))).toEqual([]);
});
