import { mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildForImage } from '../../hack/build.ts';
import { buildImage } from '../../hack/image.ts';
import { createFilterTable } from '../../src/agent/filter-table.ts';
import { desiredNodeState } from '../../src/dataplane/index.ts';
import {
  changeNftElements,
  createCommandRunner,
  ensureAccepted,
  forgetHostPortFlows,
  openNftablesSocket,
  type CommandRunner,
} from '../../src/kernel/index.ts';
import { parseAddress, parseCIDR, type Family } from '../../src/net/index.ts';
import { input, subnet } from '../dataplane/objects.ts';
import { useThrowaways, type Throwaway } from '../kernel/throwaway.ts';
import {
  entriesBelow,
  isDynamic,
  isELF,
  isLibrary,
  unpackImage,
  type ImageEntry,
  type Layer,
} from './unpacked-image.ts';

/** What agent and controller run in (S20): whoever gets into a container of weft's finds nothing there to go on with. */

const { own, make } = useThrowaways();
let dir: string;
let root: string;
let layers: Layer[];
let entries: ImageEntry[];
let host: Throwaway;
/** Runs programs of the image, in a network of their own. */
let run: CommandRunner;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-image-'));
  root = join(dir, 'root');
  await buildForImage();
  layers = await unpackImage(await buildImage(), join(dir, 'layout'), root);
  entries = await entriesBelow(root);
  // What a runtime adds: `nft -j` opens /dev/stdin by name, iptables-legacy has a lock in /run.
  for (const folder of ['dev', 'proc', 'run']) await mkdir(join(root, folder));
  await symlink('/proc/self/fd/0', join(root, 'dev/stdin'));
  host = make('image');
  const enter = 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"';
  run = createCommandRunner({ prefix: ['ip', 'netns', 'exec', host.name, 'sh', '-euc', enter, root] });
});

afterAll(() => rm(dir, { recursive: true, force: true }));

describe('the image', () => {
  it('holds no program but Node, those of filters and flows, and those for the host, under no other names', async () => {
    const programs = entries.filter((entry) => (isELF(entry) || entry.executable) && !isLibrary(entry));
    expect(programs.map(({ path }) => path)).toEqual([
      'usr/local/bin/node',
      'usr/sbin/conntrack',
      'usr/sbin/nft',
      'usr/sbin/xtables-legacy-multi',
      'usr/sbin/xtables-nft-multi',
      'weft/cni/bandwidth',
      'weft/cni/weft',
    ]);
    const names = entries.filter(({ target }) => target?.startsWith('/') === true);
    expect(names.map(({ path, target }) => [path, target])).toEqual([
      ['usr/sbin/ip6tables', '/usr/sbin/xtables-nft-multi'],
      ['usr/sbin/ip6tables-legacy', '/usr/sbin/xtables-legacy-multi'],
      ['usr/sbin/iptables', '/usr/sbin/xtables-nft-multi'],
      ['usr/sbin/iptables-legacy', '/usr/sbin/xtables-legacy-multi'],
    ]);
    const others = entries.filter(({ target }) => target !== undefined && !target.startsWith('/'));
    for (const { path, target } of others) {
      expect(`${path} -> ${target}`).toMatch(
        /^(bin|sbin|lib\w*) -> usr\/\1$|^etc\/os-release -> \.\.\/usr\/lib\/os-release$/,
      );
    }
    for (const { path, begin } of entries) expect(begin.toString('latin1', 0, 2), path).not.toBe('#!');
    const { stdout } = await execa('find', [root, '-perm', '/6000']);
    expect(stdout, 'nothing changes who runs it').toBe('');
  });

  it('has all that its programs and libraries are linked to', async () => {
    const loader = entries.find(({ path }) => /\/ld-linux[^/]*\.so\.\d+$/.test(path));
    if (loader === undefined) throw new Error('the image has no loader');
    const linked = entries.filter((entry) => isDynamic(entry) && entry !== loader);
    expect(linked.filter(({ path }) => path.includes('/xtables/')).length).toBeGreaterThan(100);
    for (const { path } of linked) {
      const { all, failed } = await execa('chroot', [root, `/${loader.path}`, '--list', `/${path}`], {
        all: true,
        reject: false,
      });
      expect([failed, all], path).toEqual([false, expect.not.stringContaining('not found')]);
    }
  });

  it('starts all of them', async () => {
    expect(await run('node', ['--version'])).toMatch(/^v24\./);
    expect(await run('nft', ['--version'])).toMatch(/^nftables v1\./);
    expect(await run('conntrack', ['--version'])).toMatch(/^conntrack v1\./);
    for (const name of ['iptables', 'ip6tables']) {
      expect(await run(name, ['-V'])).toMatch(/^ip6?tables v1\..*\(nf_tables\)/);
      expect(await run(`${name}-legacy`, ['-V'])).toMatch(/^ip6?tables v1\..*\(legacy\)/);
    }
    for (const bundle of ['agent', 'controller']) {
      expect(await run('node', [`/weft/${bundle}.mjs`, '--help'])).toMatch(/^usage/i);
    }
  });

  it("sets the agent's own filters, and finds them as it set them", async () => {
    const subnets = [subnet('10.64.0.0/26', 'a', ['192.168.1.1']), subnet('fd64::/122', 'b', ['fd02::3'])];
    const { filter } = desiredNodeState(input({ subnets }));
    using nftables = openNftablesSocket({ own, namespace: host.namespace });
    const table = createFilterTable(run, {
      changeElements: (...change) => changeNftElements(nftables, ...change),
    });
    expect(await table.apply(filter, { verify: false })).toBe('applied');
    expect(await table.holds(filter)).toBe(true);
    host.sh('nft flush chain inet weft input');
    expect(await table.apply(filter, { verify: true })).toBe('repaired');
  });

  it.each<{ programs: string[]; legacy: string[]; inserted: number }>([
    { programs: ['iptables', 'ip6tables'], legacy: [], inserted: 13 },
    { programs: ['iptables-legacy', 'ip6tables-legacy'], legacy: ['filter'], inserted: 13 },
  ])('lets through what others drop by $programs', async ({ programs, legacy, inserted }) => {
    const options = {
      run,
      ownTable: 'weft',
      legacyTables: (_: Family) => Promise.resolve(legacy),
    };
    const traffic = {
      vxlan: { port: 4789, underlay: 'ipv4' as const },
      families: ['ipv4', 'ipv6'] as const,
      forwarded: ['10.65.0.0/16', 'fd65::/64'].map(parseCIDR),
    };
    // Rules of others, by extensions that are files of their own.
    for (const program of programs) {
      for (const chain of ['FORWARD', 'INPUT']) {
        await run(program, [
          '-w',
          '-A',
          chain,
          '-p',
          'tcp',
          '-m',
          'multiport',
          '--dports',
          '80,443',
          '-j',
          'ACCEPT',
        ]);
        await run(program, ['-w', '-A', chain, '-j', 'REJECT']);
      }
    }
    const first = await ensureAccepted(traffic, options);
    expect(first.inserted).toHaveLength(inserted);
    expect(first.unhandled).toEqual([]);
    expect(await ensureAccepted(traffic, options)).toEqual({ inserted: [], removed: [], unhandled: [] });
    for (const program of programs) {
      expect(await run(program, ['-w', '-S', 'FORWARD'])).toContain(
        '-A FORWARD -i weft+ -m comment --comment weft-accept -j ACCEPT\n',
      );
      for (const chain of ['FORWARD', 'INPUT']) await run(program, ['-w', '-D', chain, '-j', 'REJECT']);
    }
    expect((await ensureAccepted(traffic, options)).removed).toHaveLength(inserted);
  });

  it('forgets flows of a host port', async () => {
    const flows = host.namespace.socket;
    const port = { protocol: 'udp', hostPort: 53, hostAddress: undefined, podPort: 53 } as const;
    const podAddress = parseAddress('10.64.0.2');
    host.sh('nft add table ip t; nft "add chain ip t c { type filter hook output priority 0; }"');
    host.sh('nft add rule ip t c ct state new accept');
    host.sh('echo | socat - UDP4:127.0.0.1:53 2>/dev/null || true');
    expect(host.sh('conntrack -L -p udp 2>/dev/null')).toContain('dport=53');
    await forgetHostPortFlows(flows, run, [{ ...port, podAddress }]);
    expect(host.sh('conntrack -L -p udp 2>/dev/null')).not.toContain('dport=53');
  });

  it('tells scanners which packages it is made of, and ships their licences', async () => {
    const packages = await readdir(join(root, 'var/lib/dpkg/status.d'));
    expect(packages).toEqual(
      expect.arrayContaining(['base-files', 'conntrack', 'iptables', 'libc6', 'libgcc-s1', 'nftables']),
    );
    for (const name of packages) {
      const status = await readFile(join(root, 'var/lib/dpkg/status.d', name), 'utf8');
      expect(status).toContain(`Package: ${name}\n`);
      expect(status).toMatch(/^Version: \S+$/m);
      const copyright = await readFile(join(root, 'usr/share/doc', name, 'copyright'), 'utf8');
      expect(copyright.length).toBeGreaterThan(100);
      for (const [path] of copyright.matchAll(/\/usr\/share\/common-licenses\/[\w.-]*\w/g)) {
        expect((await readFile(join(root, path), 'utf8')).length, path).toBeGreaterThan(1_000);
      }
    }
    expect(await readFile(join(root, 'usr/local/LICENSE'), 'utf8')).toMatch(/^Node\.js is licensed/);
    expect(await readFile(join(root, 'etc/os-release'), 'utf8')).toContain('VERSION_ID=');
  });

  it('has the same layers whenever it is built, but for the bundles: an upgrade moves these alone', async () => {
    const [debian, node, cni, koffi, ...bundles] = layers;
    expect(bundles).toHaveLength(1);
    const held = [
      [debian, 'usr/sbin/nft'],
      [node, 'usr/local/bin/node'],
      [cni, 'weft/cni/weft'],
      [koffi, `weft/koffi/linux_${process.arch}/koffi.node`],
    ] as const;
    for (const [layer, path] of held) {
      const { stdout } = await execa('tar', ['--utc', '-tvf', layer?.tar ?? '']);
      const lines = stdout.split('\n');
      expect(
        lines.some((line) => line.endsWith(` ${path}`)),
        path,
      ).toBe(true);
      expect(lines.filter((line) => !line.includes(' 1970-01-01 00:00 '))).toEqual([]);
    }
  });
});
