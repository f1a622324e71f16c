import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, link, lstat, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** What the host must offer for the executable to run there. */
export interface HostFacts {
  /** Node's name of the architecture: x64, arm64, … */
  readonly architecture: string;
  /** Where the host's root directory, or at least its lib and lib64, can be seen. */
  readonly root: string;
  /** The text of /proc/cpuinfo. */
  readonly cpuinfo: string;
}

/** The executable cannot run on this host. */
export class UnsupportedHostError extends Error {
  override name = 'UnsupportedHostError' as const;
}

const LOADERS: Readonly<Record<string, string>> = {
  x64: 'lib64/ld-linux-x86-64.so.2',
  arm64: 'lib/ld-linux-aarch64.so.1',
};

/** What x86-64-v2 adds to the first x86-64, by the kernel's names. */
const X86_64_V2_FLAGS = ['cx16', 'lahf_lm', 'popcnt', 'sse4_1', 'sse4_2', 'ssse3'];

/**
 * Refuses hosts where the executable would not start, in one sentence, before any conflist points to it.
 * @throws UnsupportedHostError
 */
export async function requireRunnableHost(host: HostFacts): Promise<void> {
  const loader = LOADERS[host.architecture];
  if (loader === undefined) {
    throw new UnsupportedHostError(
      `weft's executable is made for x86-64 and arm64, and this node is ${host.architecture}`,
    );
  }
  try {
    // Not followed: distributions link it by an absolute path, which from here would lead into this container.
    await lstat(join(host.root, loader));
  } catch (cause) {
    throw new UnsupportedHostError(
      `weft's executable needs glibc 2.17 or newer, and this node has no /${loader} (a musl or static system?)`,
      { cause },
    );
  }
  if (host.architecture !== 'x64') return;
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(host.cpuinfo)?.[1]?.split(/\s+/));
  const missing = X86_64_V2_FLAGS.filter((flag) => !flags.has(flag));
  if (missing.length > 0) {
    throw new UnsupportedHostError(
      `weft's executable needs an x86-64-v2 processor, and this node's lacks ${missing.join(', ')}`,
    );
  }
}

/**
 * Copies an executable into the host's CNI directory if what is there differs, by rename, so that no runtime ever
 * starts half of it and one that runs is left alone.
 * @returns whether it was copied
 */
export async function installExecutable(source: string, directory: string, name: string): Promise<boolean> {
  const target = join(directory, name);
  if ((await digest(target)) === (await digest(source)) && (await isOwnedExecutable(target))) return false;
  const draft = join(directory, `.${name}.${randomBytes(6).toString('hex')}`);
  try {
    await copyFile(source, draft, constants.COPYFILE_EXCL);
    const file = await open(draft, 'r+');
    try {
      await file.chown(0, 0);
      await file.chmod(0o755);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, target);
  } finally {
    await rm(draft, { force: true });
  }
  return true;
}

/** A plugin of others that is to be chained is neither on the host nor in the image. */
export class MissingPluginError extends Error {
  override name = 'MissingPluginError' as const;

  constructor(directory: string, name: string) {
    super(
      `the plugin ${name} is neither in ${directory} nor in this image: install the reference CNI plugins on the node, ` +
        'or take an image that was built with it (npm run build without --without-bandwidth)',
    );
  }
}

/**
 * Sees to a plugin of others that the conflist will name: the host's own is left as it is, else the image's is copied.
 * @throws MissingPluginError
 */
export async function providePlugin(
  source: string,
  directory: string,
  name: string,
): Promise<'is the host’s own' | 'installed'> {
  if (!/^[a-z][a-z0-9-]*$/.test(name)) throw new MissingPluginError(directory, name);
  if ((await digest(join(directory, name))) !== undefined) return 'is the host’s own';
  if ((await digest(join(source, name))) === undefined) throw new MissingPluginError(directory, name);
  await installExecutable(join(source, name), directory, name);
  await linkExecutable(directory, name, `${OURS_PREFIX}${name}`);
  return 'installed';
}

/** A second name of a plugin that came with weft, by which an uninstall knows it from the host's own. */
export const OURS_PREFIX = 'weft-';

/**
 * Gives the executable in that directory a second name, by rename like the first: a runtime finds the one file under
 * both, or under the old name its last version.
 * @returns whether the name was set
 */
export async function linkExecutable(directory: string, name: string, alias: string): Promise<boolean> {
  const source = join(directory, name);
  const target = join(directory, alias);
  if (await isSameFile(source, target)) return false;
  const draft = join(directory, `.${alias}.${randomBytes(6).toString('hex')}`);
  try {
    await link(source, draft);
    await rename(draft, target);
  } finally {
    await rm(draft, { force: true });
  }
  return true;
}

async function isSameFile(a: string, b: string): Promise<boolean> {
  try {
    const [one, other] = [await stat(a), await lstat(b)];
    return one.ino === other.ino && one.dev === other.dev;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw error;
  }
}

async function digest(path: string): Promise<string | undefined> {
  try {
    return createHash('sha256')
      .update(await readFile(path))
      .digest('hex');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

async function isOwnedExecutable(path: string): Promise<boolean> {
  const facts = await stat(path);
  return facts.uid === 0 && (facts.mode & 0o7777) === 0o755;
}
