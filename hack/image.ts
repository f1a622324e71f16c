import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { execa } from 'execa';
import { withFileLock } from './cluster/lock.ts';
import { step, stderrProgress, type Progress } from './cluster/progress.ts';

/** The name under which the manifests in config/ ask for the image; the local cluster's build bears the same. */
export const IMAGE = 'ghcr.io/weft-dev/weft:v0.1.0';

/**
 * Builds weft's image from the project's Dockerfile and what `npm run build` put into dist/, for machines without
 * a container engine and without a registry: on a base made of Debian packages, with this project's own Node.
 * Answers the path of an OCI archive for `ctr images import`. What has not changed is not built again: the base
 * by its packages, the image by the content of Dockerfile, of what that starts, and of dist/. All lies in a cache outside
 * the checkout. Safe to call from several processes at once.
 * Throws ImageBuildError.
 */
export async function buildImage(progress: Progress = stderrProgress()): Promise<string> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'weft', 'image');
  await mkdir(cache, { recursive: true });
  return withFileLock(
    join(cache, '.lock'),
    async () => {
      const base = `localhost/weft-base:${await baseKey()}`;
      const archive = join(cache, `weft-${await imageKey(base)}.oci.tar`);
      if (await exists(archive)) return archive;
      if (!(await hasImage(cache, base))) {
        await step(progress, "building the image's base of Debian packages", () => buildBase(cache, base));
      }
      await step(progress, `building ${IMAGE}`, () => buildFrom(cache, base, archive));
      await removeOlder(cache, archive);
      return archive;
    },
    () => {
      progress('waiting for another process that builds the image');
    },
  );
}

/** A program that builds the image failed; the message ends with the last lines of what it printed. */
export class ImageBuildError extends Error {
  override name = 'ImageBuildError' as const;
  readonly command: string;

  constructor(command: string, output: string, options?: ErrorOptions) {
    const last = output.split('\n').slice(-15).join('\n');
    super(`${command} failed. Its last lines:\n${last}`, options);
    this.command = command;
  }
}

const ROOT = join(import.meta.dirname, '..');
const DIST = join(ROOT, 'dist');
const DOCKERFILE = join(ROOT, 'Dockerfile');
const IMAGE_ROOT_SCRIPT = join(ROOT, 'hack/image-root.sh');
const NODE = join(ROOT, 'node_modules', 'node', 'bin', 'node');
const NODE_LICENCE = join(ROOT, `node_modules/node/node_modules/node-linux-${process.arch}/LICENSE`);

/** What the agent starts, and what Node links to. */
const PACKAGES = ['nftables', 'iptables', 'conntrack', 'libstdc++6'];
const SUITE = 'bookworm';

/** With Node and its licence where Node's own images have them. */
const BASE_RECIPE = `FROM scratch
ADD base.tar /
COPY node /usr/local/bin/node
COPY LICENSE /usr/local/LICENSE
`;

async function baseKey(): Promise<string> {
  const { stdout: version } = await execa(NODE, ['--version']);
  return hashOf([SUITE, process.arch, version, BASE_RECIPE, ...PACKAGES]);
}

async function imageKey(base: string): Promise<string> {
  const parts = [base, await readFile(DOCKERFILE, 'utf8'), await readFile(IMAGE_ROOT_SCRIPT, 'utf8')];
  const files = (await readdir(DIST, { recursive: true, withFileTypes: true }).catch(missingDist))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    // What .dockerignore leaves out.
    .filter((file) => !/\.map$|(^|\/)\.|^kubectl/.test(relative(DIST, file)))
    .sort();
  for (const file of files) {
    const { mode } = await stat(file);
    parts.push(
      relative(DIST, file),
      String(mode),
      createHash('sha256')
        .update(await readFile(file))
        .digest('hex'),
    );
  }
  return hashOf(parts);
}

function missingDist(cause: unknown): never {
  throw new ImageBuildError('reading dist/', 'there is no dist/ yet: run npm run build first', { cause });
}

function hashOf(parts: readonly string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 16);
}

/** Debian's packages, by debootstrap's quicker sister; a proxy is taken from the environment (http_proxy). */
async function buildBase(cache: string, base: string): Promise<void> {
  const context = await mkdtemp(join(cache, '.base-'));
  try {
    const include = `--include=${PACKAGES.join(',')}`;
    await run('mmdebstrap', ['--variant=essential', include, SUITE, join(context, 'base.tar')]);
    await copyFile(NODE, join(context, 'node'));
    await copyFile(NODE_LICENCE, join(context, 'LICENSE'));
    await writeFile(join(context, 'Containerfile'), BASE_RECIPE);
    await buildah(cache, ['bud', '--isolation', 'chroot', '--tag', base, context]);
  } finally {
    await rm(context, { recursive: true, force: true });
  }
}

/** The layers of the base and of what did not change come from the storage; an upgrade adds small ones. */
async function buildFrom(cache: string, base: string, archive: string): Promise<void> {
  const context = await mkdtemp(join(cache, '.push-'));
  try {
    const options = ['--isolation', 'chroot', '--layers', '--build-arg', `BASE=${base}`];
    await buildah(cache, ['bud', ...options, '--tag', IMAGE, '--file', DOCKERFILE, ROOT]);
    const draft = join(context, 'image.tar');
    await buildah(cache, ['push', IMAGE, `oci-archive:${draft}:${IMAGE}`]);
    await rename(draft, archive);
  } finally {
    await rm(context, { recursive: true, force: true });
  }
}

async function removeOlder(cache: string, newest: string): Promise<void> {
  const archives = (await readdir(cache)).filter((name) => name.endsWith('.oci.tar'));
  for (const name of archives) {
    if (join(cache, name) !== newest) await rm(join(cache, name));
  }
  // A build that failed or was killed leaves its container, and no image that one stands on can be removed.
  await buildah(cache, ['rm', '--all']);
  await buildah(cache, ['rmi', '--prune']);
}

async function hasImage(cache: string, name: string): Promise<boolean> {
  const images = await buildah(cache, ['images', '--format', '{{.Name}}:{{.Tag}}']);
  return images.split('\n').includes(name);
}

/** buildah with a storage of this project's own, which is gone when the cache is removed. */
function buildah(cache: string, args: readonly string[]): Promise<string> {
  const storage = ['--root', join(cache, 'storage'), '--runroot', join(cache, 'run')];
  return run('buildah', [...storage, ...args]);
}

async function run(program: string, args: readonly string[]): Promise<string> {
  const result = await execa(program, args, { all: true, reject: false });
  if (result.failed) throw new ImageBuildError([program, ...args].join(' '), result.all, { cause: result });
  return result.stdout;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  process.stdout.write(`${await buildImage()}\n`);
}
