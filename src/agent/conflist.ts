import { mkdir, open, readdir, readFile, rename, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** The file by which container runtimes find weft. */
export const CONFLIST_FILE = '10-weft.conflist';

/** A folder beside it, where it is written before it is renamed into place. */
export const CONFLIST_STAGING = '.weft';

/** The name of weft's own network; the `network` of its attachments. */
export const NETWORK_NAME = 'weft';

/** The directory of network configurations cannot be written safely. */
export class ConflistDirectoryError extends Error {
  override name = 'ConflistDirectoryError' as const;
  readonly directory: string;

  constructor(directory: string, reason: string) {
    super(`The CNI configuration directory ${directory} ${reason}`);
    this.directory = directory;
  }
}

/** The reference plugin that limits how much pods send and receive; chained behind weft where the agent is told to. */
export const BANDWIDTH_PLUGIN = 'bandwidth';

/**
 * The conflist as shipped: weft alone, or with the plugin that obeys the annotations of bandwidth. It names its versions
 * so that runtimes that know only older ones still take it: those refuse a plain 1.1.0.
 */
export function renderConflist({ bandwidth = false }: { readonly bandwidth?: boolean } = {}): string {
  const conflist = {
    cniVersion: '1.0.0',
    cniVersions: ['0.4.0', '1.0.0', '1.1.0'],
    name: NETWORK_NAME,
    plugins: [
      { type: 'weft', capabilities: { portMappings: true } },
      ...(bandwidth ? [{ type: BANDWIDTH_PLUGIN, capabilities: { bandwidth: true } }] : []),
    ],
  };
  return `${JSON.stringify(conflist, undefined, 2)}\n`;
}

/**
 * Writes the conflist if it differs from what is there. Runtimes watch the directory and load any file in it, so
 * the text is written in a subdirectory and renamed into place whole.
 * @returns whether the file changed
 * @throws ConflistDirectoryError where others than root own or may write the directory
 */
export async function writeConflist(directory: string, text: string): Promise<boolean> {
  const target = join(directory, CONFLIST_FILE);
  if ((await readIfThere(target)) === text) return false;
  await requireRootDirectory(directory);
  const staging = join(directory, CONFLIST_STAGING);
  await makeDirectory(staging);
  const draft = join(staging, CONFLIST_FILE);
  await writeDurably(draft, text);
  await rename(draft, target);
  await rmdir(staging);
  return true;
}

/** Configurations that a runtime would load instead of ours, because their names sort before it. */
export async function earlierConfigurations(directory: string): Promise<string[]> {
  const names = await readdir(directory);
  return names.filter((name) => /\.(conf|conflist|json)$/.test(name) && name < CONFLIST_FILE).sort();
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Not with the option `recursive`, by which a disk that can only be read is told as a directory that is not there. */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    // A crash has left it.
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
}

async function requireRootDirectory(directory: string): Promise<void> {
  const facts = await stat(directory).catch((error: unknown) => {
    if (isMissing(error)) throw new ConflistDirectoryError(directory, 'is missing; mount it into the agent');
    throw error;
  });
  if (facts.uid !== 0) {
    throw new ConflistDirectoryError(directory, `belongs to uid ${facts.uid}; give it to root (chown 0:0)`);
  }
  if ((facts.mode & 0o022) !== 0) {
    throw new ConflistDirectoryError(directory, 'may be written by others than root; chmod it to 0755');
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
