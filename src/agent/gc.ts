import type { GcRequest } from '../cni/index.ts';
import { attachmentID, SupersededError, isResting, type AttachmentKey } from '../ipam/index.ts';
import { findPodLinks } from '../kernel/index.ts';
import { releaseAll, takeDown } from './attachments.ts';
import type { AgentParts } from './parts.ts';

/**
 * GC: what the runtime does not list is torn down and released, even where its interface still stands. Only
 * attachments of the request's network are looked at, and none younger than the grace: the runtime may have read
 * its list before their ADD.
 */
export function createGc(parts: AgentParts): (request: GcRequest, signal: AbortSignal) => Promise<void> {
  return async ({ network, valid: listed }, signal) => {
    const valid = new Set(listed.map(attachmentID));
    const known = new Map<string, AttachmentKey>();
    const candidates = [
      // What rests is an attachment's no longer.
      ...[...parts.allocations.values()].flatMap((one) => (isResting(one) ? [] : [one.spec.attachment])),
      ...findPodLinks(parts.host).map(({ attachment }) => attachment),
    ];
    for (const attachment of candidates) {
      if (attachment?.network === network) {
        known.set(attachmentID(attachment), attachment);
      }
    }
    for (const [id, key] of known) {
      if (valid.has(id) || parts.ages.ageMs(key) < parts.settings.graceMs) continue;
      signal.throwIfAborted();
      await parts.locks
        .run(key, async () => collect(parts, key))
        .catch((error: unknown) => {
          // A DEL has come before: then it is done.
          if (!(error instanceof SupersededError)) throw error;
        });
    }
  };
}

function collect(parts: AgentParts, key: AttachmentKey): void {
  // An ADD may have made it anew while this waited for its turn.
  if (parts.ages.ageMs(key) < parts.settings.graceMs) return;
  parts.log.info({ attachment: key }, 'removing an attachment that the runtime does not list');
  takeDown(parts, key, undefined);
  parts.ages.forget(key);
  void releaseAll(parts, key);
}
