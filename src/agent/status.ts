import { DataPathBrokenError, NotServingError } from '../cni/index.ts';

/** What STATUS is decided by. */
export interface ServingFacts {
  /** Whether this node has been able to serve once since it booted. */
  readonly servedSinceBoot: boolean;
  /** What is being waited for, for the message. */
  readonly waitingFor: string;
  /** For how long the node's data path has been broken, and why; undefined while it is whole. */
  readonly broken: { readonly forMs: number; readonly reason: string } | undefined;
}

/** A failing STATUS takes the node's pods out of their Services: a broken data path must last to be worth that. */
export const BROKEN_FOR_MS = 60_000;

/**
 * STATUS: fails only until the agent has been able to serve once since boot, or when the data path has been broken
 * for a minute. A full pool, an apiserver that is away and a restarting agent are no reasons.
 * @throws NotServingError, DataPathBrokenError
 */
export function createStatus(facts: () => ServingFacts): () => Promise<void> {
  return async () => {
    const { servedSinceBoot, waitingFor, broken } = facts();
    if (!servedSinceBoot) throw new NotServingError(`weft cannot serve on this node yet: ${waitingFor}`);
    if (broken !== undefined && broken.forMs >= BROKEN_FOR_MS) {
      throw new DataPathBrokenError(
        `this node's data path has been broken for ${Math.round(broken.forMs / 1000)} s: ${broken.reason}`,
      );
    }
  };
}
