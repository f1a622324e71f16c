import { lstat, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ADDRESS_PLUGIN } from '../cni/index.ts';
import { OURS_PREFIX } from './install.ts';
import { namesIn } from './names-in.ts';

/**
 * Takes out of the host's CNI directory what the install command has put there, drafts of one that was killed included.
 * A plugin of others goes only while it is the very file that came with weft. Returns the paths of what went.
 */
export async function removeExecutables(directory: string): Promise<string[]> {
  const removed: string[] = [];
  const remove = async (name: string) => {
    await rm(join(directory, name));
    removed.push(join(directory, name));
  };
  const names = await namesIn(directory);
  const marks = names.filter((name) => name.startsWith(OURS_PREFIX) && name !== ADDRESS_PLUGIN);
  const plugins = marks.map((mark) => mark.slice(OURS_PREFIX.length));
  const own = ['weft', ADDRESS_PLUGIN, ...plugins, ...marks];
  for (const name of names.filter((one) => own.some((executable) => isDraftOf(executable, one)))) {
    await remove(name);
  }
  for (const [i, mark] of marks.entries()) {
    const plugin = plugins[i] ?? '';
    // The mark goes last: by it the next run knows what this one may have left.
    if (names.includes(plugin) && (await isSameFile(directory, plugin, mark))) await remove(plugin);
    await remove(mark);
  }
  for (const name of [ADDRESS_PLUGIN, 'weft']) if (names.includes(name)) await remove(name);
  return removed;
}

/** As installExecutable and linkExecutable name them. */
function isDraftOf(executable: string, name: string): boolean {
  return name.startsWith(`.${executable}.`) && /^[0-9a-f]{12}$/.test(name.slice(executable.length + 2));
}

async function isSameFile(directory: string, a: string, b: string): Promise<boolean> {
  const [one, other] = [await lstat(join(directory, a)), await lstat(join(directory, b))];
  return one.ino === other.ino && one.dev === other.dev;
}
