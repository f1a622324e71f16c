import type { IPAllocation, IPAllocationSpec, PodReference } from '../api/index.ts';
import type { IPAddress } from '../net/index.ts';

/** An interface of ours as the kernel shows it: what its alias says, which is the local record. */
export interface LiveAttachment {
  readonly containerID: string;
  readonly ifName: string;
  readonly network: string;
  readonly addresses: readonly IPAddress[];
  readonly podUID?: string;
  readonly linkIndex: number;
  /** Whether the alias, the last step of wiring, is there. If not, only linkIndex means something. */
  readonly complete: boolean;
}

/** Whether a namespace of that inode is mounted at that path. */
export type NamespaceState = 'alive' | 'dead' | 'unknown';

/** What earlier observations saw: since when, and how often. Monotonic milliseconds. */
export interface Suspicion {
  readonly sinceMs: number;
  readonly observations: number;
}

/** What one judgement hands to the next. */
export interface SweepMemory {
  /** Allocations without a living attachment, by uid. */
  readonly allocations: ReadonlyMap<string, Suspicion>;
  /** Links without an alias, by index. */
  readonly links: ReadonlyMap<number, Suspicion>;
}

export const EMPTY_SWEEP_MEMORY: SweepMemory = { allocations: new Map(), links: new Map() };

export interface SweepInput {
  /** This node's, from the cache, read before the kernel was. */
  readonly allocations: readonly IPAllocation[];
  /** All links of ours, from one complete dump; those that DEL is taking down left out. */
  readonly links: readonly LiveAttachment[];
  /** The present boot's. */
  readonly bootID: string;
  readonly namespaceState: (netns: { readonly path: string; readonly inode: number }) => NamespaceState;
  readonly memory: SweepMemory;
  /** Monotonic. */
  readonly nowMs: number;
  readonly graceMs: number;
  /** Attachments with a request under way (AttachmentLocks.inFlight): not judged. */
  readonly inFlight: ReadonlySet<string>;
  readonly nodeName: string;
  /** The name of the pool that an address belongs to (poolOfAddress). */
  readonly poolOf: (address: IPAddress) => string | undefined;
  readonly podOf: (podUID: string) => PodReference | undefined;
}

/** A living attachment whose address is another's, or no pool's. For people: nothing is changed. */
export interface SweepConflict {
  readonly address: IPAddress;
  readonly attachment: LiveAttachment;
  /** Who has the address by the book; absent where it lies in no pool. */
  readonly allocation?: IPAllocation;
}

export interface SweepJudgement {
  /** To be released, after a last look at the kernel and a GET, under the attachment's lock. */
  readonly release: IPAllocation[];
  /** To be created again, for living attachments that lost their object. */
  readonly readopt: IPAllocationSpec[];
  readonly conflicts: SweepConflict[];
  /** Half-made links, older than the grace. */
  readonly removeLinks: LiveAttachment[];
  readonly memory: SweepMemory;
}

export function judgeSweep(input: SweepInput): SweepJudgement {
  throw new Error(`${input.nowMs} not built yet`);
}
