import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  installExecutable,
  linkExecutable,
  MissingPluginError,
  providePlugin,
  requireRunnableHost,
  UnsupportedHostError,
} from '../../src/agent/install.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weft-install-'));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe('a host', () => {
  const V2 = 'flags\t\t: fpu cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx2\n';

  test.each([
    ['x64', 'lib64/ld-linux-x86-64.so.2', V2],
    ['arm64', 'lib/ld-linux-aarch64.so.1', ''],
  ])('%s with glibc can run the executable', async (architecture, loader, cpuinfo) => {
    await makeFile(loader);
    await requireRunnableHost({ architecture, root: directory, cpuinfo });
  });

  test('of another architecture cannot', async () => {
    await makeFile('lib64/ld-linux-x86-64.so.2');
    await expect(runnable('riscv64', V2)).rejects.toThrow(
      "weft's executable is made for x86-64 and arm64, and this node is riscv64",
    );
  });

  test("whose loader is a link to a file of the host's own can run it", async () => {
    await mkdir(join(directory, 'lib64'), { recursive: true });
    await symlink('/lib/no-such-machine/ld-2.31.so', join(directory, 'lib64/ld-linux-x86-64.so.2'));
    await requireRunnableHost({ architecture: 'x64', root: directory, cpuinfo: V2 });
  });

  test('without the loader cannot: what it needs is named', async () => {
    await makeFile('lib/ld-musl-x86_64.so.1');
    await expect(runnable('x64', V2)).rejects.toThrow(
      'needs glibc 2.17 or newer, and this node has no /lib64/ld-linux-x86-64.so.2',
    );
  });

  test('with an older processor cannot: what it lacks is named', async () => {
    await makeFile('lib64/ld-linux-x86-64.so.2');
    const older = V2.replace('popcnt ', '').replace('sse4_2 ', '');
    await expect(runnable('x64', older)).rejects.toThrow("this node's lacks popcnt, sse4_2");
    await expect(runnable('x64', older)).rejects.toThrow(UnsupportedHostError);
  });

  test('this very one can', async () => {
    const cpuinfo = await readFile('/proc/cpuinfo', 'utf8');
    await requireRunnableHost({ architecture: process.arch, root: '/', cpuinfo });
  });

  function runnable(architecture: string, cpuinfo: string): Promise<void> {
    return requireRunnableHost({ architecture, root: directory, cpuinfo });
  }
});

describe('the executable', () => {
  test('is copied: root may write it, everyone run it, and no draft stays', async () => {
    const source = await makeFile('source', 'one');
    const bin = await makeDirectory('bin');
    expect(await installExecutable(source, bin, 'weft')).toBe(true);
    expect(await readFile(join(bin, 'weft'), 'utf8')).toBe('one');
    const { mode, uid, gid } = await stat(join(bin, 'weft'));
    expect({ mode: mode & 0o7777, uid, gid }).toEqual({ mode: 0o755, uid: 0, gid: 0 });
    expect(await readdir(bin)).toEqual(['weft']);
  });

  test('that is the same already is left alone', async () => {
    const source = await makeFile('source', 'one');
    const bin = await makeDirectory('bin');
    await installExecutable(source, bin, 'weft');
    const { ino } = await stat(join(bin, 'weft'));
    expect(await installExecutable(source, bin, 'weft')).toBe(false);
    expect((await stat(join(bin, 'weft'))).ino).toBe(ino);
  });

  test.each([
    ['another content', async (path: string) => writeFile(path, 'two')],
    ['a mode that lets others write', async (path: string) => chmod(path, 0o777)],
    ['a set-uid bit', async (path: string) => chmod(path, 0o4755)],
  ])('with %s is replaced', async (_, spoil) => {
    const source = await makeFile('source', 'one');
    const bin = await makeDirectory('bin');
    await installExecutable(source, bin, 'weft');
    await spoil(join(bin, 'weft'));
    expect(await installExecutable(source, bin, 'weft')).toBe(true);
    expect(await readFile(join(bin, 'weft'), 'utf8')).toBe('one');
    expect((await stat(join(bin, 'weft'))).mode & 0o7777).toBe(0o755);
  });

  test('is replaced while it runs, and what runs goes on (text busy)', async () => {
    const bin = await makeDirectory('bin');
    const target = join(bin, 'weft');
    await copyFile('/bin/sleep', target);
    await chmod(target, 0o755);
    const running = spawn(target, ['30']);
    await once(running, 'spawn');
    try {
      // This is why it is not simply overwritten.
      await expect(writeFile(target, 'two')).rejects.toThrow(/ETXTBSY/);
      const source = await makeFile('source', 'two');
      expect(await installExecutable(source, bin, 'weft')).toBe(true);
      expect(await readFile(target, 'utf8')).toBe('two');
      expect(running.exitCode).toBeNull();
      expect(await readFile(`/proc/${String(running.pid)}/comm`, 'utf8')).toBe('weft\n');
    } finally {
      running.kill('SIGKILL');
      await once(running, 'exit');
    }
  });

  test('has a second name, which is the same file', async () => {
    const source = await makeFile('source', 'one');
    const bin = await makeDirectory('bin');
    await installExecutable(source, bin, 'weft');
    expect(await linkExecutable(bin, 'weft', 'weft-ipam')).toBe(true);
    expect(await linkExecutable(bin, 'weft', 'weft-ipam')).toBe(false);
    expect((await stat(join(bin, 'weft-ipam'))).ino).toBe((await stat(join(bin, 'weft'))).ino);
    expect((await readdir(bin)).sort()).toEqual(['weft', 'weft-ipam']);
  });

  test.each([
    ['its last version', async (bin: string) => writeFile(join(bin, 'weft-ipam'), 'old')],
    ['a symbolic link to it', async (bin: string) => symlink('weft', join(bin, 'weft-ipam'))],
  ])('takes the second name from %s', async (_, before) => {
    const source = await makeFile('source', 'two');
    const bin = await makeDirectory('bin');
    await before(bin);
    await installExecutable(source, bin, 'weft');
    expect(await linkExecutable(bin, 'weft', 'weft-ipam')).toBe(true);
    expect((await lstat(join(bin, 'weft-ipam'))).ino).toBe((await stat(join(bin, 'weft'))).ino);
    expect((await readdir(bin)).sort()).toEqual(['weft', 'weft-ipam']);
  });

  test('that cannot be copied leaves the old one, and no draft', async () => {
    const bin = await makeDirectory('bin');
    await writeFile(join(bin, 'weft'), 'old');
    await expect(installExecutable(join(directory, 'missing'), bin, 'weft')).rejects.toThrow(/ENOENT/);
    expect(await readdir(bin)).toEqual(['weft']);
    expect(await readFile(join(bin, 'weft'), 'utf8')).toBe('old');
  });
});

async function makeDirectory(name: string): Promise<string> {
  const path = join(directory, name);
  await mkdir(path, { recursive: true });
  return path;
}

async function makeFile(name: string, text = ''): Promise<string> {
  const path = join(directory, name);
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, text);
  return path;
}

describe('a plugin of others', () => {
  const image = () => join(directory, 'image');
  const host = () => join(directory, 'host');

  beforeEach(async () => {
    await mkdir(image());
    await mkdir(host());
  });

  test("is the host's own where it has one, and is left alone", async () => {
    await writeFile(join(image(), 'bandwidth'), 'ours');
    await writeFile(join(host(), 'bandwidth'), 'theirs');
    expect(await providePlugin(image(), host(), 'bandwidth')).toBe('is the host’s own');
    expect(await readFile(join(host(), 'bandwidth'), 'utf8')).toBe('theirs');
  });

  test('is copied from the image else, for all to run', async () => {
    await writeFile(join(image(), 'bandwidth'), 'ours');
    expect(await providePlugin(image(), host(), 'bandwidth')).toBe('installed');
    expect(await readFile(join(host(), 'bandwidth'), 'utf8')).toBe('ours');
    expect((await stat(join(host(), 'bandwidth'))).mode & 0o777).toBe(0o755);
  });

  test('that is nowhere is an error that names both ways out', async () => {
    await expect(providePlugin(image(), host(), 'bandwidth')).rejects.toThrow(MissingPluginError);
    await expect(providePlugin(image(), host(), 'bandwidth')).rejects.toThrow(
      /npm run build without --without-bandwidth/,
    );
    await expect(providePlugin(image(), host(), '../bandwidth')).rejects.toThrow(MissingPluginError);
  });
});
