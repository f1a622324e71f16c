import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import * as z from 'zod';

/** What `npm ci` is told to install: all of it is named by a hash, comes from the registry, and runs nothing of its own. */

const CHECKOUT = join(import.meta.dirname, '..');

const Versions = z.record(z.string(), z.string()).default({});
const Package = z.object({
  version: z.string(),
  resolved: z.string().optional(),
  integrity: z.string().optional(),
  link: z.boolean().optional(),
  inBundle: z.boolean().optional(),
  hasInstallScript: z.boolean().optional(),
  optional: z.boolean().optional(),
  dependencies: Versions,
  devDependencies: Versions,
  optionalDependencies: Versions,
});
type Package = z.output<typeof Package>;

let root: Package;
let packages: [folder: string, entry: Package][];
beforeAll(async () => {
  const text = await readFile(join(CHECKOUT, 'package-lock.json'), 'utf8');
  const lock = z.object({ packages: z.record(z.string(), Package) }).parse(JSON.parse(text));
  const { '': own, ...others } = lock.packages;
  root = Package.parse(own);
  packages = Object.entries(others);
});

const foldersWhere = (isWrong: (entry: Package) => boolean) =>
  packages.filter(([, entry]) => isWrong(entry)).map(([folder]) => folder);

describe('package-lock.json', () => {
  it('names every package by the SHA-512 of its archive', () => {
    expect(packages.length).toBeGreaterThan(100);
    expect(foldersWhere(({ integrity }) => !/^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? ''))).toEqual(
      [],
    );
  });

  it('takes none from git, another place than a registry, another folder, or out of another package', () => {
    const elsewhere = ({ resolved, link, inBundle }: Package) =>
      link === true ||
      inBundle === true ||
      // Without a place npm asks the registry that it is configured with; what it gets is known by its hash.
      resolved !== undefined;
    expect(foldersWhere(elsewhere)).toEqual([]);
    const wishes = [root, ...packages.map(([, entry]) => entry)].flatMap((entry) =>
      Object.entries({ ...entry.dependencies, ...entry.devDependencies, ...entry.optionalDependencies }),
    );
    expect(wishes.length).toBeGreaterThan(200);
    expect(wishes.filter(([, version]) => /[:/]/.test(version) && !version.startsWith('npm:'))).toEqual([]);
  });

  it('wants one version of what it names itself, not a range', () => {
    const own = Object.entries({ ...root.dependencies, ...root.devDependencies });
    expect(own.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
  });

  it('has scripts that run at installation only where we know of them, and npm runs none', async () => {
    expect(foldersWhere(({ hasInstallScript }) => hasInstallScript === true).sort()).toEqual(INSTALL_SCRIPTS);
    const settings = await readFile(join(CHECKOUT, '.npmrc'), 'utf8');
    expect(settings.split('\n')).toContain('ignore-scripts=true');
    const setup = await readFile(join(CHECKOUT, 'hack/setup.sh'), 'utf8');
    // Two are let, since they bring an executable by it.
    expect(setup.match(/npm rebuild [^;]*/g)).toEqual(['npm rebuild node bun --ignore-scripts=false']);
  });
});

/** esbuild's and koffi's are for places where their binary packages cannot be had, and never run. */
const INSTALL_SCRIPTS = ['bun', 'esbuild', 'koffi', 'node'].map((name) => `node_modules/${name}`);
