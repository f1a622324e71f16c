import { createHash, randomUUID } from 'node:crypto';
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { build, type BuildOptions } from 'esbuild';
import { execa } from 'execa';

/**
 * Builds into dist/ what the cluster runs, the executable and a bundle each of agent and controller, and what people
 * run, kubectl-weft. They need no node_modules beside them. What has not changed since the last build is left alone. Answers the files built or
 * kept. `only` restricts it to targets of those names.
 */
export async function buildAll(only?: readonly string[]): Promise<BuiltFile[]> {
  const built: BuiltFile[] = [];
  for (const target of [...TARGETS, BANDWIDTH]) {
    const wanted = only === undefined ? TARGETS.includes(target) : only.includes(target.name);
    if (!wanted) continue;
    const fresh = await buildIfChanged(target);
    for (const path of target.files) {
      built.push({ path: join(CHECKOUT, path), bytes: (await stat(join(CHECKOUT, path))).size, fresh });
    }
  }
  return built;
}

/** Builds the executable if its sources have changed, and answers its path. Safe to call from several processes. */
export async function buildExecutable(): Promise<string> {
  await buildAll([EXECUTABLE.name]);
  return join(CHECKOUT, EXECUTABLE_PATH);
}

/** All that the image holds: what buildAll makes, and the reference plugin for the overlay config/bandwidth, which needs Go. */
export async function buildForImage(): Promise<BuiltFile[]> {
  return [...(await buildAll()), ...(await buildAll([BANDWIDTH.name]))];
}

/** The same for kubectl-weft. */
export async function buildCLI(): Promise<string> {
  await buildAll([CLI.name]);
  return join(CHECKOUT, 'dist/kubectl-weft');
}

/**
 * The folders below the checkout (node_modules/zod) of all packages that something built has in it: code that bundles keep
 * after what nobody calls was dropped, the native part of koffi, and bun, whose runtime is in what it compiles.
 */
export async function shippedPackages(): Promise<string[]> {
  const programs = [...BUNDLES, EXECUTABLE, CLI];
  const analysed = await Promise.all(
    programs.map(({ name, entry }) =>
      build({ ...bundleOptions(entry, `dist/${name}.mjs`), write: false, metafile: true }),
    ),
  );
  const kept = analysed
    .flatMap(({ metafile }) => Object.values(metafile?.outputs ?? {}))
    .flatMap(({ inputs }) => Object.entries(inputs))
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .flatMap(([path]) => packageOf(path) ?? []);
  return [...new Set([...kept, NATIVE_PACKAGE, 'node_modules/bun'])].sort();
}

/** The package's folder of a file of one, which may be nested in another's. */
export function packageOf(path: string): string | undefined {
  return /^.*\bnode_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path)?.[0];
}

/**
 * Compiles a program to one executable with its runtime inside. Without the last two flags it would obey files in
 * whatever directory a container runtime happens to stand in. Renamed into place: one that runs is left alone. The
 * same sources give the same bytes, on another machine too: the executable has its first name in it, but not its folder's.
 */
export async function compile(entry: string, outfile: string): Promise<void> {
  const flags = ['--compile', '--minify', '--bytecode', '--format=esm'];
  const autoloadNothing = ['--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig'];
  const folder = join(dirname(outfile), `.${randomUUID()}`);
  const draft = join(folder, basename(outfile));
  await mkdir(folder, { recursive: true });
  try {
    await execa('bun', ['build', ...flags, ...autoloadNothing, entry, '--outfile', draft], {
      cwd: CHECKOUT,
      preferLocal: true,
      localDir: CHECKOUT,
    });
    await chmod(draft, 0o755);
    await rename(draft, outfile);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

export interface BuiltFile {
  readonly path: string;
  readonly bytes: number;
  /** Built now, not kept from an earlier build. */
  readonly fresh: boolean;
}

interface Target {
  readonly name: string;
  readonly entry: string;
  /** What it makes, relative to the checkout. */
  readonly files: readonly string[];
  readonly make: (entry: string) => Promise<void>;
}

const CHECKOUT = join(import.meta.dirname, '..');
const EXECUTABLE_PATH = 'dist/cni/weft';

const EXECUTABLE: Target = {
  name: 'executable',
  entry: 'src/cni/main.ts',
  files: [EXECUTABLE_PATH],
  make: (entry) => compile(join(CHECKOUT, entry), join(CHECKOUT, EXECUTABLE_PATH)),
};

/**
 * Compiled too, although it needs no speed: who has kubectl need not have Node, and one file without anything beside
 * it is what kubectl's plugins are. The second file is how kubectl completes the plugin.
 */
const CLI: Target = {
  name: 'cli',
  entry: 'src/cli/main.ts',
  files: ['dist/kubectl-weft', 'dist/kubectl_complete-weft'],
  async make(entry) {
    await compile(join(CHECKOUT, entry), join(CHECKOUT, 'dist/kubectl-weft'));
    await copyFile(
      join(CHECKOUT, 'src/cli/kubectl_complete-weft'),
      join(CHECKOUT, 'dist/kubectl_complete-weft'),
    );
  },
};

/** koffi's native part for glibc, where its loader looks for it; see `bundle`. */
const NATIVE_PACKAGE = `node_modules/@koromix/koffi-linux-${process.arch}`;
const NATIVE_MODULE = `linux_${process.arch}/koffi.node`;

/** Imported by who was given a kubeconfig, never in a pod: a bundle of its own, which costs 17 MB of memory to load. */
const KUBECONFIG_READER = 'src/kube/kubeconfig.ts';

const BUNDLES = [
  { name: 'agent', entry: 'src/agent/main.ts' },
  { name: 'controller', entry: 'src/controller/main.ts' },
  { name: 'probe', entry: 'src/probe.ts' },
  { name: 'snapshot', entry: 'src/snapshot.ts' },
  { name: 'kubeconfig', entry: KUBECONFIG_READER },
];

/** Not weft's own: the reference plugin for the overlay config/bandwidth, made by Go at the version of the local cluster. */
const BANDWIDTH: Target = {
  name: 'bandwidth',
  entry: 'hack/cluster/binaries/containerd/go.mod',
  files: ['dist/cni/bandwidth'],
  async make() {
    const { ensureBinaries } = await import('./cluster/binaries.ts');
    const binaries = await ensureBinaries(['bandwidth']);
    const target = join(CHECKOUT, 'dist/cni/bandwidth');
    await mkdir(dirname(target), { recursive: true });
    await copyFile(join(binaries, 'bandwidth'), target);
    await chmod(target, 0o755);
  },
};

const TARGETS: readonly Target[] = [
  EXECUTABLE,
  CLI,
  {
    name: 'native',
    entry: `${NATIVE_PACKAGE}/package.json`,
    files: [`dist/koffi/${NATIVE_MODULE}`],
    make: copyNativeModule,
  },
  ...BUNDLES.map(({ name, entry }) => ({
    name,
    entry,
    files: [`dist/${name}.mjs`],
    make: () => bundle(entry, `dist/${name}.mjs`),
  })),
];

async function bundle(entry: string, outfile: string): Promise<void> {
  await build(bundleOptions(entry, outfile));
}

function bundleOptions(entry: string, outfile: string): BuildOptions {
  return {
    absWorkingDir: CHECKOUT,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    sourcemap: 'external',
    logLevel: 'warning',
    // undici leaves its second parser for HTTP/1, which nothing here uses, out of bundles that say what they are.
    define: { esbuildDetection: 'true' },
    plugins: [
      {
        name: 'kubeconfig-apart',
        setup(plugins) {
          plugins.onResolve({ filter: /\/kubeconfig\.ts$/ }, ({ kind }) =>
            kind === 'dynamic-import' ? { path: './kubeconfig.mjs', external: true } : undefined,
          );
        },
      },
    ],
    // CommonJS dependencies want a require; koffi looks for its native part under koffi/ in resourcesPath.
    banner: {
      js: [
        "import { createRequire as makeRequire } from 'node:module';",
        'const require = makeRequire(import.meta.url);',
        'process.resourcesPath ??= import.meta.dirname;',
      ].join('\n'),
    },
  };
}

async function copyNativeModule(entry: string): Promise<void> {
  const target = join(CHECKOUT, 'dist/koffi', NATIVE_MODULE);
  await mkdir(dirname(target), { recursive: true });
  await copyFile(join(CHECKOUT, entry, '..', NATIVE_MODULE), target);
}

async function buildIfChanged(target: Target): Promise<boolean> {
  const stamp = join(CHECKOUT, 'dist/.stamps', target.name);
  const hash = await sourceHash(target);
  if ((await readIfThere(stamp)) === hash && (await allThere(target.files))) return false;
  await target.make(target.entry);
  await mkdir(dirname(stamp), { recursive: true });
  await writeFile(stamp, hash);
  return true;
}

/** Of everything that the result depends on: all sources, what they import from outside, and this file. */
async function sourceHash(target: Target): Promise<string> {
  const hash = createHash('sha256').update(process.arch);
  const sources = await readdir(join(CHECKOUT, 'src'), { recursive: true, withFileTypes: true });
  const files = sources
    .filter((entry) => entry.isFile())
    .map((entry) => relative(CHECKOUT, join(entry.parentPath, entry.name)))
    .filter((path) => target !== EXECUTABLE || path.startsWith('src/cni/'))
    .sort();
  for (const path of [...files, 'package-lock.json', 'hack/build.ts', target.entry]) {
    hash.update(`${path}\0`).update(await readFile(join(CHECKOUT, path)));
  }
  return hash.digest('hex');
}

async function allThere(paths: readonly string[]): Promise<boolean> {
  const found = await Promise.all(paths.map((path) => stat(join(CHECKOUT, path)).catch(() => undefined)));
  return found.every((facts) => facts !== undefined);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

if (import.meta.main) {
  // Who has no Go, and never limits bandwidth by this image, goes without.
  const without = '--without-bandwidth';
  const [unknown] = process.argv.slice(2).filter((word) => word !== without);
  if (unknown !== undefined) throw new Error(`unknown argument ${unknown}: there is only ${without}`);
  const built = await (process.argv.includes(without) ? buildAll() : buildForImage());
  for (const { path, bytes, fresh } of built) {
    const size =
      bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(0)} kB` : `${(bytes / 1024 / 1024).toFixed(1)} MB`;
    console.log(`${relative(CHECKOUT, path).padEnd(32)} ${size.padStart(9)}${fresh ? '' : '  unchanged'}`);
  }
}
