import { mkdir, open, readdir, readFile, readlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { execa } from 'execa';
import { z } from 'zod';

/** A layer of an image: `tar` is its archive, compressed or not. */
export interface Layer {
  readonly tar: string;
}

/** A file or a link below the image's root, by its path without a slash at its head. */
export interface ImageEntry {
  readonly path: string;
  /** What a link names. */
  readonly target: string | undefined;
  readonly executable: boolean;
  /** The first bytes. */
  readonly begin: Buffer;
}

const Descriptor = z.object({ digest: z.string() });
const Index = z.object({ manifests: z.tuple([Descriptor]) });
const Manifest = z.object({ layers: z.array(Descriptor) });

/** Unpacks the one image of an OCI archive into `root`; none of its layers takes away what an earlier one has. */
export async function unpackImage(archive: string, layout: string, root: string): Promise<Layer[]> {
  for (const folder of [layout, root]) await mkdir(folder, { recursive: true });
  await execa('tar', ['-xf', archive, '-C', layout]);
  const blob = ({ digest }: z.output<typeof Descriptor>) => join(layout, 'blobs', ...digest.split(':'));
  const read = async <T>(schema: z.ZodType<T>, path: string) =>
    schema.parse(JSON.parse(await readFile(path, 'utf8')));
  const { manifests } = await read(Index, join(layout, 'index.json'));
  const { layers } = await read(Manifest, blob(manifests[0]));
  for (const layer of layers) await execa('tar', ['-xf', blob(layer), '-C', root]);
  return layers.map((layer) => ({ tar: blob(layer) }));
}

export async function entriesBelow(root: string): Promise<ImageEntry[]> {
  const found = await readdir(root, { recursive: true, withFileTypes: true });
  const entries = found
    .filter((entry) => !entry.isDirectory())
    .map(async (entry): Promise<ImageEntry> => {
      const full = join(entry.parentPath, entry.name);
      const path = relative(root, full);
      if (entry.isSymbolicLink()) {
        return { path, target: await readlink(full), executable: false, begin: Buffer.alloc(0) };
      }
      return { path, target: undefined, ...(await look(full)) };
    });
  return (await Promise.all(entries)).sort((a, b) => (a.path < b.path ? -1 : 1));
}

export const isELF = ({ begin }: ImageEntry) => begin.subarray(0, 4).toString('latin1') === '\u007fELF';

export const isLibrary = (entry: ImageEntry) => isELF(entry) && /\.so(\.\d+)*$|\.node$/.test(entry.path);

/** Whether anything is loaded for it: not for what Go makes. By the program headers, which stand at a file's beginning. */
export function isDynamic(entry: ImageEntry): boolean {
  if (!isELF(entry)) return false;
  const { begin } = entry;
  const from = Number(begin.readBigUInt64LE(32));
  const [size, count] = [begin.readUInt16LE(54), begin.readUInt16LE(56)];
  const DYNAMIC = 2;
  return Array.from({ length: count }, (_, i) => begin.readUInt32LE(from + i * size)).includes(DYNAMIC);
}

async function look(path: string): Promise<Pick<ImageEntry, 'executable' | 'begin'>> {
  const file = await open(path);
  try {
    const { mode } = await file.stat();
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4096), 0, 4096, 0);
    return { executable: (mode & 0o111) !== 0, begin: buffer.subarray(0, bytesRead) };
  } finally {
    await file.close();
  }
}
