import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  CONFLIST_FILE,
  ConflistDirectoryError,
  earlierConfigurations,
  renderConflist,
  writeConflist,
} from '../../src/agent/conflist.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-conflist-'));
  await chmod(directory, 0o755);
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe('the conflist', () => {
  test('holds weft alone, in a version that older runtimes take too', () => {
    expect(JSON.parse(renderConflist())).toEqual({
      cniVersion: '1.0.0',
      cniVersions: ['0.4.0', '1.0.0', '1.1.0'],
      name: 'weft',
      plugins: [{ type: 'weft', capabilities: { portMappings: true } }],
    });
  });

  test('chains the plugin bandwidth behind weft where it is asked for, with its own capability', () => {
    expect(JSON.parse(renderConflist({ bandwidth: true }))).toMatchObject({
      plugins: [
        { type: 'weft', capabilities: { portMappings: true } },
        { type: 'bandwidth', capabilities: { bandwidth: true } },
      ],
    });
  });

  test('is there whole, for root alone to write, with nothing beside it', async () => {
    expect(await writeConflist(directory, renderConflist())).toBe(true);
    expect(await readdir(directory)).toEqual([CONFLIST_FILE]);
    expect(await readFile(join(directory, CONFLIST_FILE), 'utf8')).toBe(renderConflist());
    expect((await stat(join(directory, CONFLIST_FILE))).mode & 0o777).toBe(0o600);
  });

  test('is left alone when it is as it should be, and put right when it is not', async () => {
    await writeConflist(directory, renderConflist());
    const { ino } = await stat(join(directory, CONFLIST_FILE));
    expect(await writeConflist(directory, renderConflist())).toBe(false);
    expect((await stat(join(directory, CONFLIST_FILE))).ino).toBe(ino);
    await writeFile(join(directory, CONFLIST_FILE), '{}');
    expect(await writeConflist(directory, renderConflist())).toBe(true);
    expect(await readFile(join(directory, CONFLIST_FILE), 'utf8')).toBe(renderConflist());
  });

  test('is written although a crash has left a draft', async () => {
    await mkdir(join(directory, '.weft'), { mode: 0o700 });
    await writeFile(join(directory, '.weft', CONFLIST_FILE), '{"half":');
    expect(await writeConflist(directory, renderConflist())).toBe(true);
    expect(await readdir(directory)).toEqual([CONFLIST_FILE]);
  });
});

describe('no conflist is written', () => {
  test('where others may write the directory', async () => {
    await chmod(directory, 0o777);
    await expect(writeConflist(directory, renderConflist())).rejects.toThrow(ConflistDirectoryError);
    await expect(writeConflist(directory, renderConflist())).rejects.toThrow('chmod it to 0755');
    expect(await readdir(directory)).toEqual([]);
  });

  test('where somebody else owns the directory', async () => {
    await chown(directory, 1000, 1000);
    await expect(writeConflist(directory, renderConflist())).rejects.toThrow('belongs to uid 1000');
    expect(await readdir(directory)).toEqual([]);
  });

  test('where there is no directory', async () => {
    const missing = join(directory, 'missing');
    await expect(writeConflist(missing, renderConflist())).rejects.toThrow('is missing; mount it');
  });
});

test('configurations that a runtime would load before weft are found, others are not', async () => {
  const before = ['00-first.conf', '05-other.conflist', '10-a.json', '10-weft.conf'];
  const after = ['10-weft.conflist', '20-later.conflist', '00-backup.conflist.bak', '05-readme'];
  for (const name of [...before, ...after]) await writeFile(join(directory, name), '{}');
  expect(await earlierConfigurations(directory)).toEqual(before);
});
