import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';

/** From now on every `nft` of this mount namespace fails. Agents start programs with a PATH of their own. */
export async function breakNft(): Promise<{ mend(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-nft-'));
  const broken = join(directory, 'nft');
  await writeFile(broken, '#!/bin/sh\necho "nft is broken" >&2\nexit 1\n');
  await chmod(broken, 0o755);
  const inPlace = (await execa('sh', ['-c', 'command -v nft'])).stdout;
  await execa('mount', ['--bind', broken, inPlace]);
  return {
    async mend() {
      await execa('umount', [inPlace]);
      await rm(directory, { recursive: true });
    },
  };
}
