import type { Attachment } from '../api/index.ts';
import type { GcRequest } from '../cni/index.ts';
import { attachmentID, SupersededError, isResting, type AttachmentKey } from '../ipam/index.ts';
import { findPodLinks } from '../kernel/index.ts';
import { releaseAll, takeDown, withoutPodRules } from './attachments.ts';
import type { AgentParts } from './parts.ts';

/**
 * GC: what the runtime does not list is torn down and released, even where its interface still stands. Only
 * attachments of the request's network are looked at, and none younger than the grace: the runtime may have read
 * its list before their ADD. What another plugin made is that plugin's to tear down: of it the addresses are released.
 */
export function createGc(
  parts: AgentParts & {
    /** Is told whose addresses were given back, as `interface eth0 of container …`. */
    readonly onCollected: (attachments: readonly string[]) => void;
  },
): (request: GcRequest, signal: AbortSignal) => Promise<void> {
  return async ({ network, valid: listed }, signal) => {
    const valid = new Set(listed.map(attachmentID));
    const known = new Map<string, Collectable>();
    const candidates = [
      // What rests is an attachment's no longer.
      ...[...parts.allocations.values()].flatMap((one) => (isResting(one) ? [] : [one.spec.attachment])),
      ...parts.lost.specs().map(({ attachment }) => attachment),
      ...findPodLinks(parts.host).map(
        ({ attachment }) => attachment && { ...attachment, kind: 'Interface' as const },
      ),
    ];
    for (const attachment of candidates) {
      if (attachment?.network === network) {
        known.set(`${attachment.kind} ${attachmentID(attachment)}`, attachment);
      }
    }
    const collected: string[] = [];
    try {
      for (const attachment of known.values()) {
        if (valid.has(attachmentID(attachment)) || isYoung(parts, attachment)) continue;
        signal.throwIfAborted();
        const wasThere = await parts.locks
          .run(attachment, async () => collect(parts, attachment))
          .catch((error: unknown) => {
            // A DEL has come before: then it is done.
            if (error instanceof SupersededError) return false;
            throw error;
          });
        if (wasThere) collected.push(`interface ${attachment.ifName} of container ${attachment.containerID}`);
      }
    } finally {
      if (collected.length > 0) parts.onCollected(collected);
    }
  };
}

type Collectable = Pick<Attachment, 'network' | 'containerID' | 'ifName' | 'kind'>;

/** Whether it is gone with this. */
async function collect(parts: AgentParts, attachment: Collectable): Promise<boolean> {
  // An ADD may have made it anew while this waited for its turn.
  if (isYoung(parts, attachment)) return false;
  parts.log.info({ attachment }, 'removing an attachment that the runtime does not list');
  if (attachment.kind === 'Interface' && takeDown(parts, attachment, undefined)) {
    await withoutPodRules(parts);
  }
  parts.ages.forget(attachment);
  void releaseAll(parts, attachment, attachment.kind);
  return true;
}

function isYoung(parts: AgentParts, key: AttachmentKey): boolean {
  return parts.ages.ageMs(key) < parts.settings.graceMs;
}
