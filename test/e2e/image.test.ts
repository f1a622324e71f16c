import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, relative } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildForImage } from '../../hack/build.ts';
import { buildImage } from '../../hack/image.ts';

/** What agent and controller run in (S20): whoever gets into a container of weft's finds nothing there to go on with. */

let dir: string;
let root: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-image-'));
  root = join(dir, 'root');
  await buildForImage();
  await unpack(await buildImage());
});

afterAll(() => rm(dir, { recursive: true, force: true }));

describe('the image', () => {
  it('holds no program but those that agent and controller start', async () => {
    const programs: string[] = [];
    for (const { path, begin } of await files()) {
      expect(begin.subarray(0, 2).toString(), `${path} is a script`).not.toBe('#!');
      if (isELF(begin) && !/\.so(\.\d+)*$|\.node$/.test(path)) programs.push(path);
    }
    expect(programs.sort()).toEqual([
      'usr/local/bin/node',
      'usr/sbin/conntrack',
      'usr/sbin/nft',
      'usr/sbin/xtables-legacy-multi',
      'usr/sbin/xtables-nft-multi',
      'weft/cni/bandwidth',
      'weft/cni/weft',
    ]);
    const { stdout } = await execa('find', [root, '-perm', '/6000']);
    expect(stdout, 'nothing changes who runs it').toBe('');
  });

  it('starts every one of them, and each finds all that it is linked to', async () => {
    for (const command of [
      ['node', '--version'],
      ['nft', '--version'],
      ['conntrack', '--version'],
      ['iptables', '--version'],
      ['ip6tables', '--version'],
      ['iptables-legacy', '--version'],
      ['ip6tables-legacy', '--version'],
    ]) {
      const { stdout } = await inImage(command);
      expect(stdout, command.join(' ')).toMatch(/v\d+\.\d+/);
    }
    const loader = (await files()).find(({ path }) => /\/ld-linux[^/]*\.so\.\d+$/.test(path));
    if (loader === undefined) throw new Error('the image has no loader');
    for (const { path, begin } of await files()) {
      // What is for another C library is loaded where that is.
      if (!isDynamic(begin) || path === loader.path || path.includes('/musl_')) continue;
      const { all, failed } = await inImage([`/${loader.path}`, '--list', `/${path}`]);
      expect([path, failed, /not found/.exec(String(all))?.[0]], String(all)).toEqual([
        path,
        false,
        undefined,
      ]);
    }
  });

  it('lets iptables set and read the rules that the agent needs, and nft whole tables', async () => {
    const rule = ['-i', 'weft+', '-m', 'comment', '--comment', 'weft-accept', '-j', 'ACCEPT'];
    for (const program of ['iptables', 'ip6tables']) {
      // One namespace for both, so that the second sees what the first has set.
      const script = `iptables=$1; shift; root=$1; shift
        chroot $root $iptables -w -I FORWARD "$@" && chroot $root $iptables -w -S FORWARD`;
      const { stdout } = await execa('unshare', ['-n', 'sh', '-c', script, 'sh', program, root, ...rule]);
      expect(stdout).toContain('-A FORWARD -i weft+ -m comment --comment weft-accept -j ACCEPT');
    }
    const table = JSON.stringify({ nftables: [{ add: { table: { family: 'inet', name: 'weft' } } }] });
    // A container has /dev/stdin of its runtime.
    await writeFile(join(root, 'table.json'), table);
    await execa('unshare', ['-n', 'chroot', root, 'nft', '-j', '-f', '/table.json']);
  });

  it('tells scanners which packages it is made of, and ships their licences', async () => {
    const packages = await readdir(join(root, 'var/lib/dpkg/status.d'));
    expect(packages).toEqual(expect.arrayContaining(['conntrack', 'iptables', 'libc6', 'nftables']));
    for (const name of packages) {
      const status = await readFile(join(root, 'var/lib/dpkg/status.d', name), 'utf8');
      expect(status).toMatch(/^Version: \S+$/m);
      expect((await readFile(join(root, 'usr/share/doc', name, 'copyright'), 'utf8')).length).toBeGreaterThan(
        100,
      );
    }
    expect(await readFile(join(root, 'etc/os-release'), 'utf8')).toContain('VERSION_ID=');
  });
});

/** In a network of its own: whatever it does is gone with it. */
function inImage([program = '', ...args]: readonly string[]) {
  return execa('unshare', ['-n', 'chroot', root, program, ...args], { all: true, reject: false });
}

const isELF = (begin: Buffer) => begin.subarray(0, 4).toString('latin1') === '\u007fELF';

/** Whether anything is loaded for it: not for what Go makes. By the program headers, which stand at a file's beginning. */
function isDynamic(begin: Buffer): boolean {
  if (!isELF(begin)) return false;
  const [from, size, count] = [
    Number(begin.readBigUInt64LE(32)),
    begin.readUInt16LE(54),
    begin.readUInt16LE(56),
  ];
  const DYNAMIC = 2;
  return Array.from({ length: count }, (_, i) => begin.readUInt32LE(from + i * size)).includes(DYNAMIC);
}

async function files(): Promise<{ readonly path: string; readonly begin: Buffer }[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(
    paths.map(async (path) => ({ path: relative(root, path), begin: await firstBytes(path, 4096) })),
  );
}

async function firstBytes(path: string, count: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(count), 0, count, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** The layers of an OCI archive, one over the other. None of them takes away what an earlier one has. */
async function unpack(archive: string): Promise<void> {
  const layout = join(dir, 'layout');
  await mkdir(layout);
  await mkdir(root);
  await execa('tar', ['-xf', archive, '-C', layout]);
  const blob = (digest: string) => join(layout, 'blobs/sha256', basename(digest.replace(':', '/')));
  const readJSON = async (path: string) => JSON.parse(await readFile(path, 'utf8')) as unknown;
  const index = (await readJSON(join(layout, 'index.json'))) as { manifests: { digest: string }[] };
  const [manifest] = index.manifests;
  if (manifest === undefined) throw new Error(`${archive} has no image`);
  const { layers } = (await readJSON(blob(manifest.digest))) as { layers: { digest: string }[] };
  for (const { digest } of layers) await execa('tar', ['-xf', blob(digest), '-C', root]);
}
