import { attachmentID, type AttachmentKey } from '../ipam/index.ts';

/** How long this process has known of each attachment: no attachment younger than the grace is ever judged. */
export interface AttachmentAges {
  /** An ADD has made it. */
  born(key: AttachmentKey): void;
  forget(key: AttachmentKey): void;
  /** Whether this process made it, and has not taken it down since. */
  isBornHere(key: AttachmentKey): boolean;
  /** Milliseconds since it was made, or since this process started where an earlier one made it. */
  ageMs(key: AttachmentKey): number;
}

/** @param nowMs monotonic */
export function createAttachmentAges(nowMs: () => number): AttachmentAges {
  const startedMs = nowMs();
  const bornMs = new Map<string, number>();
  return {
    born(key) {
      bornMs.set(attachmentID(key), nowMs());
    },
    forget(key) {
      bornMs.delete(attachmentID(key));
    },
    isBornHere: (key) => bornMs.has(attachmentID(key)),
    ageMs: (key) => nowMs() - (bornMs.get(attachmentID(key)) ?? startedMs),
  };
}
