import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { shippedPackages } from './build.ts';

/**
 * The bill of materials of what `npm run build` makes, as CycloneDX 1.5: the packages whose code is in it, and no others.
 * (`npm sbom` lists what is installed, of which most is left out of the bundles, and leaves out bun, whose runtime is in the
 * executable.) Two runs on the same sources answer the same. The rest of the image is its base's and Debian's to tell.
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
    components: entries.map(({ folder, entry }) => ({
      'bom-ref': reference(folder, entry),
      type: folder === 'node_modules/bun' ? 'platform' : 'library',
      name: nameOf(folder),
      version: entry.version,
      scope: 'required',
      purl: reference(folder, entry),
      licenses: licences(entry.license),
      hashes: [{ alg: 'SHA-512', content: sha512(folder, entry) }],
    })),
    dependencies: [
      { ref, dependsOn: dependsOn('', itself) },
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
  readonly hashes: readonly { readonly alg: 'SHA-512'; readonly content: string }[];
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
