import type { Clock } from '../ipam/index.ts';
import type { Log } from '../kube/index.ts';

export interface SilentAgentsParts {
  /** The nodes that hold subnets or addresses, and whose Node is there. */
  readonly holders: () => Iterable<string>;
  /** The nodes on which an agent is Ready; undefined while that is not known. */
  readonly served: () => ReadonlySet<string> | undefined;
  readonly clock: Clock;
  readonly everyMs: number;
  /** For so long an agent may be away without a word about it. */
  readonly afterMs: number;
  /** Told when an agent has been silent for so long, and every hour from then on. */
  readonly onSilent: (nodeName: string, forMs: number) => void;
  /** For how long the agents that are silent have been, by node; told after each look. */
  readonly onLooked: (forMs: ReadonlyMap<string, number>) => void;
  readonly log: Log;
}

/** Agents that do not speak for what their nodes hold. Nothing is ever freed for that: it is for people to know. */
export interface SilentAgents {
  /** Looks until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

const TOLD_AGAIN_MS = 3_600_000;

/**
 * While a Node exists its agent is the authority over what it holds (design, section 5): a node that is silent keeps
 * everything, for days if need be. Times are counted in memory, by this process: a new leader counts anew.
 */
export function createSilentAgents(parts: SilentAgentsParts): SilentAgents {
  const { clock, afterMs } = parts;
  const sinceMs = new Map<string, number>();
  const toldMs = new Map<string, number>();

  function look(): void {
    const served = parts.served();
    if (served === undefined) return;
    const nowMs = clock.nowMs();
    const silent = new Set([...parts.holders()].filter((nodeName) => !served.has(nodeName)));
    for (const nodeName of [...sinceMs.keys()].filter((one) => !silent.has(one))) {
      sinceMs.delete(nodeName);
      toldMs.delete(nodeName);
    }
    const forMs = new Map<string, number>();
    for (const nodeName of silent) {
      const since = sinceMs.get(nodeName) ?? nowMs;
      sinceMs.set(nodeName, since);
      if (nowMs - since < afterMs) continue;
      forMs.set(nodeName, nowMs - since);
      if (nowMs - (toldMs.get(nodeName) ?? -Infinity) < TOLD_AGAIN_MS) continue;
      toldMs.set(nodeName, nowMs);
      parts.onSilent(nodeName, nowMs - since);
    }
    parts.onLooked(forMs);
  }

  return {
    async run(signal) {
      while (!signal.aborted) {
        try {
          look();
          await clock.sleep(parts.everyMs, signal);
        } catch (error) {
          if (signal.aborted) return;
          parts.log.error({ err: error }, 'could not look for agents that are silent: trying again');
          await clock.sleep(parts.everyMs, signal).catch(() => undefined);
        }
      }
    },
  };
}
