import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { DEFAULT_OPTIONS, type ClusterOptions } from './plan.ts';

/**
 * What a cluster is known by, written before anything of it is made, so that `down` knows what to remove also
 * after `up` was killed at any moment. Everything else of a cluster lives below its folder or ends with the
 * processes of its cgroup.
 */
const ClusterState = z.strictObject({
  id: z.string(),
  options: z.strictObject({
    name: z.string(),
    nodes: z.number(),
    segments: z.number(),
    bare: z.boolean(),
    poolCidrs: z.array(z.string()),
  }),
  /** The one link in the host's namespace, marked by `alias`. */
  hostLink: z.strictObject({
    name: z.string(),
    alias: z.string(),
    host: z.string(),
    controlPlane: z.string(),
  }),
  /** The cgroup that all processes of the cluster are in, below each hierarchy's root. */
  cgroup: z.string(),
});
export type ClusterState = z.infer<typeof ClusterState>;

/** The folder of a cluster. Throws ClusterNameError. */
export function stateDirectory(name: string): string {
  // The name is part of a link's name (15 bytes) and of paths.
  if (!/^[a-z][a-z0-9-]{0,9}$/.test(name)) throw new ClusterNameError(name);
  const directory = join(stateRoot(), name);
  if (directory.startsWith('/run/') || directory.startsWith('/sys/')) throw new StatePlaceError(directory);
  return directory;
}

/** A lock beside the folder, so that it outlives it. */
export const lockFile = (name: string): string => `${stateDirectory(name)}.lock`;

/** The states' common folder. */
function stateRoot(): string {
  return join(process.env.XDG_STATE_HOME ?? join(homedir(), '.local', 'state'), 'weft', 'clusters');
}

/** Undefined if there is no such cluster. Throws StateFileError if the file is not one of ours. */
export async function readState(name: string): Promise<ClusterState | undefined> {
  const file = stateFile(name);
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  try {
    return ClusterState.parse(JSON.parse(text));
  } catch (error) {
    throw new StateFileError(file, { cause: error });
  }
}

/** Writes the state of a cluster that is to be made. `hostNetwork` is the n of 198.19.n.0/30. */
export async function createState(options: ClusterOptions, hostNetwork: number): Promise<ClusterState> {
  const id = randomBytes(6).toString('hex');
  const state: ClusterState = {
    id,
    options: { ...options, poolCidrs: [...options.poolCidrs] },
    hostLink: {
      name: `${options.name}-api`,
      alias: `weft local cluster ${options.name} ${id}`,
      host: `198.19.${hostNetwork}.1`,
      controlPlane: `198.19.${hostNetwork}.2`,
    },
    cgroup: `weft-cluster-${options.name}`,
  };
  const file = stateFile(options.name);
  await mkdir(stateDirectory(options.name), { recursive: true, mode: 0o711 });
  await writeFile(`${file}.unfinished`, `${JSON.stringify(state, null, 2)}\n`);
  await rename(`${file}.unfinished`, file);
  return state;
}

const stateFile = (name: string) => join(stateDirectory(name), 'cluster.json');

export class ClusterNameError extends Error {
  override name = 'ClusterNameError' as const;
  constructor(value: string) {
    super(
      `cluster name ${JSON.stringify(value)} is not usable: it becomes part of a link's name, so it is 1 to 10 of ` +
        `a-z, 0-9 and -, beginning with a letter, like ${DEFAULT_OPTIONS.name}`,
    );
  }
}

export class StatePlaceError extends Error {
  override name = 'StatePlaceError' as const;
  constructor(directory: string) {
    super(
      `${directory} cannot hold a cluster: nodes have a /run and /sys of their own. Set XDG_STATE_HOME elsewhere`,
    );
  }
}

export class StateFileError extends Error {
  override name = 'StateFileError' as const;
  constructor(file: string, options: ErrorOptions) {
    super(
      `${file} is not the state of a cluster as this version writes it; look at it and remove its folder`,
      options,
    );
  }
}
