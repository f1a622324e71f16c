import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import * as z from 'zod';
import { shippedPackages } from './build.ts';
import { ensureBinaries } from './cluster/binaries.ts';

/**
 * The bill of materials of what `npm run build` makes, as CycloneDX 1.5: the packages whose code is in it, and no others.
 * (`npm sbom` lists what is installed, of which most is left out of the bundles, and leaves out bun, whose runtime is in the
 * executable.) The Go modules are those of the plugin bandwidth, as it says itself. Two runs on the same sources answer the
 * same. The rest of the image says its packages itself, as Debian does (/var/lib/dpkg/status.d).
 */
export async function billOfMaterials(): Promise<BillOfMaterials> {
  const lock = await readLock();
  const root = Package.parse(lock.packages['']);
  const folders = await shippedPackages();
  const entries = folders.map((folder) => ({ folder, entry: entryOf(lock, folder) }));
  const dependsOn = (folder: string, { dependencies, optionalDependencies }: Package) => {
    const names = Object.keys({ ...dependencies, ...optionalDependencies });
    const found = names.flatMap((name) => resolve(name, folder, folders) ?? []);
    return found.map((dependency) => reference(dependency, entryOf(lock, dependency))).sort();
  };
  // bun is no dependency of the sources: what it compiles has it inside.
  const itself = { ...root, dependencies: { ...root.dependencies, bun: '' } };
  const modules = await goModules();
  const ref = `pkg:npm/weft@${root.version}`;
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      component: {
        'bom-ref': ref,
        type: 'application',
        name: 'weft',
        version: root.version,
        purl: ref,
        licenses: licences(root.license),
      },
    },
    components: [
      ...entries.map(({ folder, entry }): Component => ({
        'bom-ref': reference(folder, entry),
        type: folder === 'node_modules/bun' ? 'platform' : 'library',
        name: nameOf(folder),
        version: entry.version,
        scope: 'required',
        purl: reference(folder, entry),
        licenses: licences(entry.license),
        hashes: [{ alg: 'SHA-512', content: sha512(folder, entry) }],
      })),
      ...modules,
    ],
    dependencies: [
      { ref, dependsOn: [...dependsOn('', itself), ...modules.map((one) => one['bom-ref'])] },
      ...entries.map(({ folder, entry }) => ({
        ref: reference(folder, entry),
        dependsOn: dependsOn(folder, entry),
      })),
    ],
  };
}

export interface BillOfMaterials {
  readonly bomFormat: 'CycloneDX';
  readonly specVersion: '1.5';
  readonly version: 1;
  readonly metadata: { readonly component: object };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
}

export interface Component {
  readonly 'bom-ref': string;
  readonly type: 'library' | 'platform';
  readonly name: string;
  readonly version: string;
  readonly scope: 'required';
  readonly purl: string;
  readonly licenses: readonly object[];
  readonly hashes?: readonly { readonly alg: 'SHA-512'; readonly content: string }[];
  readonly properties?: readonly { readonly name: string; readonly value: string }[];
}

/** By `go version -m`: `mod PATH VERSION h1:…` is the plugin's, `dep …` each other module; the first line ends with Go's version. */
async function goModules(): Promise<Component[]> {
  const binary = join(await ensureBinaries(['bandwidth']), 'bandwidth');
  const { stdout } = await execa('go', ['version', '-m', binary]);
  const [, go] = /: go(\S+)$/m.exec(stdout) ?? [];
  if (go === undefined)
    throw new Error(`go version -m does not say by which Go ${binary} was made:\n${stdout}`);
  const modules = [...stdout.matchAll(/^\t(?:mod|dep)\t(\S+)\t(\S+)\t(\S+)$/gm)];
  return [
    goModule('stdlib', go),
    ...modules.map(([, path = '', version = '', sum]) => goModule(path, version, sum)),
  ];
}

function goModule(path: string, version: string, sum?: string): Component {
  const purl = `pkg:golang/${path}@${version}`;
  return {
    'bom-ref': purl,
    type: path === 'stdlib' ? 'platform' : 'library',
    name: path,
    version,
    scope: 'required',
    purl,
    // A binary does not say it.
    licenses: [],
    ...(sum === undefined ? {} : { properties: [{ name: 'go.sum', value: sum }] }),
  };
}

const Package = z.object({
  version: z.string(),
  integrity: z.string().optional(),
  license: z.string().optional(),
  dependencies: z.record(z.string(), z.string()).default({}),
  optionalDependencies: z.record(z.string(), z.string()).default({}),
});
type Package = z.output<typeof Package>;

const Lock = z.object({ packages: z.record(z.string(), z.unknown()) });
type Lock = z.output<typeof Lock>;

const CHECKOUT = join(import.meta.dirname, '..');

async function readLock(): Promise<Lock> {
  return Lock.parse(JSON.parse(await readFile(join(CHECKOUT, 'package-lock.json'), 'utf8')));
}

function entryOf(lock: Lock, folder: string): Package {
  const entry = lock.packages[folder];
  if (entry === undefined)
    throw new Error(`${folder} is in what was built and not in package-lock.json: run npm ci`);
  return Package.parse(entry);
}

function licences(expression: string | undefined): object[] {
  return expression === undefined ? [] : [{ expression }];
}

/** npm writes hashes as `sha512-` and base64, CycloneDX wants hexadecimal digits. */
function sha512(folder: string, { integrity }: Package): string {
  const [, base64] = /^sha512-(\S+)$/.exec(integrity ?? '') ?? [];
  if (base64 === undefined) throw new Error(`package-lock.json has no sha512 of ${folder}`);
  return Buffer.from(base64, 'base64').toString('hex');
}

function reference(folder: string, { version }: Package): string {
  return `pkg:npm/${nameOf(folder).replace('@', '%40')}@${version}`;
}

function nameOf(folder: string): string {
  return folder.slice(folder.lastIndexOf('node_modules/') + 'node_modules/'.length);
}

/** As Node looks for a package: beside the one that asks, then in each folder above it. */
function resolve(name: string, from: string, folders: readonly string[]): string | undefined {
  for (let at = from; ; at = at.slice(0, Math.max(at.lastIndexOf('/node_modules/'), 0))) {
    const folder = at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`;
    if (folders.includes(folder)) return folder;
    if (at === '') return undefined;
  }
}

if (import.meta.main) console.log(JSON.stringify(await billOfMaterials(), undefined, 2));
