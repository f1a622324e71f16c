import type { DelRequest } from '../cni/index.ts';
import type { Clock } from '../ipam/index.ts';
import { releaseAll, takeDown, withoutPodRules } from './attachments.ts';
import type { AgentParts } from './parts.ts';

/**
 * DEL: takes the interface down, and then gives the addresses back. An ADD in flight for the attachment is ended
 * first. What is not there is done already, and the answer waits for the kernel, not for the apiserver: the
 * release follows by itself, and the sweep finishes what a crash leaves. For an address that the next pod of that name is
 * to have it waits a little: that pod may be on another node in a moment. Where another plugin made the interface only
 * its addresses are given back.
 */
export function createDel(parts: AgentParts): (request: DelRequest, signal: AbortSignal) => Promise<void> {
  return ({ asks, attachment, netns }) =>
    // Not tied to the caller's patience: a DEL that was begun is worth finishing.
    parts.locks.run(
      attachment,
      async () => {
        parts.observe('del:accepted');
        if (asks === 'Interface' && takeDown(parts, attachment, netns)) await withoutPodRules(parts);
        parts.observe('del:link-down');
        parts.ages.forget(attachment);
        const released = releaseAll(parts, attachment, asks);
        parts.observe('del:release-queued');
        if (released.length > 0) await atMost(parts.claims.clock, SUCCESSOR_HEAD_START_MS, released);
      },
      { abortPrevious: true },
    );
}

/** The apiserver may be away: then the next pod waits, and not this call. */
const SUCCESSOR_HEAD_START_MS = 2_000;

async function atMost(clock: Clock, ms: number, work: readonly Promise<unknown>[]): Promise<void> {
  const done = new AbortController();
  await Promise.race([Promise.all(work), clock.sleep(ms, done.signal)]);
  done.abort();
}
