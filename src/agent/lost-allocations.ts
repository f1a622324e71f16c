import { allocationName, type IPAllocation, type IPAllocationSpec } from '../api/index.ts';
import { attachmentID, isResting, type AttachmentKey } from '../ipam/index.ts';
import type { IPAddress } from '../net/index.ts';

/**
 * What objects of addresses under other plugins said that have vanished without this agent: somebody deleted them by
 * hand, or a restored etcd has forgotten them. No interface of weft's carries such an address, so this memory is all
 * that is left of it: the address is in use, and is not drawn, until the sweep has made the object again or finds its
 * sandbox gone. It ends with the process.
 */
export interface LostAllocations {
  /** An object of this node has changed in the cache, own writes included. */
  changed(before: IPAllocation | undefined, after: IPAllocation | undefined): void;
  /** Whether the address of that name is in use without its object, or was until a moment ago. */
  has(name: string): boolean;
  /** The names of those addresses. */
  keys(): Iterable<string>;
  addresses(): IPAddress[];
  /** What is to be made again: of that attachment, or of all. */
  specs(key?: AttachmentKey): IPAllocationSpec[];
  /** Whether exactly this is still to be made again. */
  isLost(spec: IPAllocationSpec): boolean;
  /** The attachment has given up its addresses on that network: they are not made again, and rest for so long. */
  released(key: AttachmentKey & { readonly network: string }, restMs: (pool: string) => number): void;
  /** There is nothing to be made again: the object is back, or the sandbox is gone. */
  forget(spec: IPAllocationSpec): void;
}

export interface LostAllocationsParts {
  /** Whether a claim or release of this process is busy with the object: then its end is this process's doing. */
  readonly isOwnDoing: (allocation: IPAllocation) => boolean;
  /** Whether an object is there under that name, also one that cannot be read. */
  readonly isThere: (name: string) => boolean;
  /** Monotonic. */
  readonly nowMs: () => number;
}

interface Lost {
  readonly spec: IPAllocationSpec;
  /** Set by its release: until then it is in use, and it is not made again. Monotonic milliseconds. */
  readonly restsUntilMs?: number;
}

export function createLostAllocations(parts: LostAllocationsParts): LostAllocations {
  /** By name: another attachment may have had an address since, and what is lost last counts. */
  const byName = new Map<string, Lost>();

  /** Without those that have rested. */
  const current = () => {
    const nowMs = parts.nowMs();
    for (const [name, { restsUntilMs }] of byName) {
      if (restsUntilMs !== undefined && restsUntilMs <= nowMs) byName.delete(name);
    }
    return byName;
  };

  return {
    changed(before, after) {
      if (after !== undefined) {
        const known = byName.get(after.metadata.name);
        if (known !== undefined && isSameAttachment(known.spec, after.spec))
          byName.delete(after.metadata.name);
      }
      if (before?.spec.attachment?.kind !== 'AddressOnly' || isResting(before)) return;
      const { name, uid } = before.metadata;
      // The same object in another state; an agent that writes so knows why.
      if (after?.metadata.uid === uid || parts.isOwnDoing(before)) return;
      if (after === undefined ? parts.isThere(name) : isSameAttachment(before.spec, after.spec)) return;
      byName.set(name, { spec: before.spec });
    },
    has: (name) => current().has(name),
    keys: () => current().keys(),
    addresses: () => [...current().values()].map(({ spec }) => spec.address),
    specs: (key) =>
      [...current().values()].flatMap(({ spec, restsUntilMs }) =>
        restsUntilMs === undefined && (key === undefined || isOf(spec, key)) ? [spec] : [],
      ),
    isLost(spec) {
      const known = byName.get(allocationName(spec.address));
      return known !== undefined && known.restsUntilMs === undefined && isSameAttachment(known.spec, spec);
    },
    released(key, restMs) {
      for (const [name, { spec, restsUntilMs }] of byName) {
        if (restsUntilMs !== undefined || !isOf(spec, key)) continue;
        if (spec.attachment?.network !== key.network) continue;
        byName.set(name, { spec, restsUntilMs: parts.nowMs() + restMs(spec.pool) });
      }
    },
    forget(spec) {
      const name = allocationName(spec.address);
      const known = byName.get(name);
      if (known !== undefined && isSameAttachment(known.spec, spec)) byName.delete(name);
    },
  };
}

function isOf({ attachment }: IPAllocationSpec, key: AttachmentKey): boolean {
  return attachment !== undefined && attachmentID(attachment) === attachmentID(key);
}

function isSameAttachment(a: IPAllocationSpec, b: IPAllocationSpec): boolean {
  return b.attachment !== undefined && isOf(a, b.attachment);
}
