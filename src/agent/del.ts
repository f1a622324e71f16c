import type { DelRequest } from '../cni/index.ts';
import { releaseAll, takeDown } from './attachments.ts';
import type { AgentParts } from './parts.ts';

/**
 * DEL: takes the interface down, and then gives the addresses back. An ADD in flight for the attachment is ended
 * first. What is not there is done already, and the answer waits for the kernel, never for the apiserver: the
 * release follows by itself, and the sweep finishes what a crash leaves. Where another plugin made the interface only
 * its addresses are given back.
 */
export function createDel(parts: AgentParts): (request: DelRequest, signal: AbortSignal) => Promise<void> {
  return ({ asks, attachment, netns }) =>
    // Not tied to the caller's patience: a DEL that was begun is worth finishing.
    parts.locks.run(
      attachment,
      async () => {
        parts.observe('del:accepted');
        if (asks === 'Interface') takeDown(parts, attachment, netns);
        parts.observe('del:link-down');
        parts.ages.forget(attachment);
        releaseAll(parts, attachment, asks);
        parts.observe('del:release-queued');
      },
      { abortPrevious: true },
    );
}
