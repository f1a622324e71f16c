import { constants, existsSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { renderServingMark } from '../cni/serving-mark.ts';
import type { Clock } from '../ipam/index.ts';
import { earlierConfigurations, renderConflist, writeConflist } from './conflist.ts';
import type { AgentParts } from './parts.ts';
import type { ServingFacts } from './status.ts';

/** Whether this agent serves, as the probes, STATUS and the container runtime see it. */
export interface Serving {
  waitsFor(what: string): void;
  ready(): void;
  whyNotReady(): string | undefined;
  facts(broken: ServingFacts['broken']): ServingFacts;
  /**
   * Once pods can be served: leaves the mark that STATUS goes by, and then, last of all, writes the conflist by
   * which the container runtime finds weft. Called again it puts back what has changed.
   */
  announce(canServe: boolean): Promise<void>;
  /** Tells the executable, which may find the socket away for a moment, that the agent lives. */
  touch(): Promise<void>;
}

export function createServing({
  flags,
  conflist,
  clock,
  uptimeMs,
  log,
}: {
  readonly flags: { readonly runDirectory: string; readonly confDirectory: string };
  /** The text of the network configuration; default: weft alone. */
  readonly conflist?: () => string;
  readonly clock: Clock;
  /** Since the machine booted. */
  readonly uptimeMs: () => number;
  readonly log: AgentParts['log'];
}): Serving {
  const mark = join(flags.runDirectory, 'serving');
  let waiting: string | undefined = 'the apiserver';
  // The directory is a tmpfs: the mark is there only if an agent has served since this boot.
  let served = existsSync(mark);
  let told = '';

  return {
    waitsFor(what) {
      waiting = what;
    },
    ready() {
      waiting = undefined;
    },
    whyNotReady: () => (waiting === undefined ? undefined : `waiting for ${waiting}`),
    facts: (broken) => ({
      servedSinceBoot: served,
      waitingFor: waiting ?? 'a subnet for this node: is there an IPPool? (kubectl get ippools)',
      broken,
    }),
    async announce(canServe) {
      if (!canServe) return;
      const isFirst = !served;
      if (isFirst) {
        await writeFile(mark, '', { mode: 0o600 });
        served = true;
      }
      if (await writeConflist(flags.confDirectory, conflist?.() ?? renderConflist())) {
        log.info({ directory: flags.confDirectory }, 'wrote the network configuration: pods can start');
      }
      const earlier = (await earlierConfigurations(flags.confDirectory)).join(', ');
      if (earlier !== '' && earlier !== told) {
        log.error(
          { files: earlier },
          'these network configurations sort before weft: the runtime uses them instead',
        );
      }
      told = earlier;
      // After the conflist, which a disk too full for this must not hold up.
      if (isFirst) await touch();
    },
    async touch() {
      if (served) await touch();
    },
  };

  async function touch(): Promise<void> {
    // Opened so that it is made again where somebody has cleared the directory.
    const file = await open(mark, constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      await file.write(renderServingMark(uptimeMs()), 0);
    } finally {
      // Executables of an earlier version go by this, and so do all while a full disk takes no text.
      const now = clock.wallTime();
      await file.utimes(now, now);
      await file.close();
    }
  }
}
