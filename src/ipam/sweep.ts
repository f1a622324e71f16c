import {
  allocationName,
  type Attachment,
  type IPAllocation,
  type IPAllocationSpec,
  type PodReference,
} from '../api/index.ts';
import { sameAddress, type IPAddress } from '../net/index.ts';
import { attachmentID, type AttachmentKey } from './attachment-lock.ts';
import { isResting } from './release.ts';

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

/**
 * One observation. It counts only if the dump of links was complete and the informer synced with a living watch:
 * whoever could not see both whole does not judge.
 */
export interface SweepInput {
  /** This node's, from the cache, read before the kernel was. */
  readonly allocations: readonly IPAllocation[];
  /** All links of ours; those that DEL is taking down, and those that an ADD is making, left out. */
  readonly links: readonly LiveAttachment[];
  /** What objects said that have vanished, of addresses under other plugins: nothing in the kernel says it again. */
  readonly lost?: readonly IPAllocationSpec[];
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
  /** What the pod's address is marked with, for objects that were lost: that it keeps it, or asked for it. */
  readonly marksOf?: (podUID: string, address: IPAddress) => AddressMarks;
}

export type AddressMarks = Pick<IPAllocationSpec, 'sticky' | 'fixed'>;

/** A living attachment whose address is another's by the book, or no pool's. For people: nothing is changed. */
export interface SweepConflict {
  readonly address: IPAddress;
  readonly attachment: Pick<LiveAttachment, 'containerID' | 'ifName' | 'network' | 'podUID'>;
  /** Who has the address by the book; absent where it lies in no pool. */
  readonly allocation?: IPAllocation;
}

export interface SweepJudgement {
  /** To be released, after a last look at the kernel and a GET, under the attachment's lock. */
  readonly release: readonly IPAllocation[];
  /** To be created again, for living attachments that lost their object. `taken` is answered: a conflict. */
  readonly readopt: readonly IPAllocationSpec[];
  readonly conflicts: readonly SweepConflict[];
  /** Of what was lost: nobody lives there any more, or the object is back. */
  readonly forget: readonly IPAllocationSpec[];
  /** Half-made links, older than the grace. */
  readonly removeLinks: readonly LiveAttachment[];
  readonly memory: SweepMemory;
}

/**
 * Compares a node's allocations with the attachments alive (design section 6):
 *
 * | allocation                                   | seen                                         | verdict          |
 * |----------------------------------------------|----------------------------------------------|------------------|
 * | held, resting, or its attachment in flight   | -                                            | not judged       |
 * | any                                          | a complete link of it with that address      | alive            |
 * | of another boot                              | no such link                                 | dead, at once    |
 * | Interface                                    | no such link                                 | suspect          |
 * | AddressOnly                                  | its namespace: alive, or cannot tell         | alive            |
 * | AddressOnly                                  | no namespace of that inode at that path      | suspect          |
 *
 * | lost, of another boot, or its namespace dead | -                                            | forgotten        |
 * | lost otherwise                               | no object under its name                     | made again       |
 * | lost otherwise                               | another's object under its name              | a conflict       |
 *
 * A suspect that was seen twice, and for as long as the grace, is dead. Nothing is dead because a list was empty
 * or a pod is missing. Pure: what it remembers goes in and comes out.
 */
export function judgeSweep(input: SweepInput): SweepJudgement {
  const live = input.links.filter((link) => link.complete && !input.inFlight.has(attachmentID(link)));
  const halfMade = input.links.filter((link) => !link.complete);
  const suspects = input.allocations.filter((allocation) => verdictOn(allocation, input) === 'suspect');
  const allocations = observe(
    suspects.map(({ metadata }) => metadata.uid),
    input.memory.allocations,
    input.nowMs,
  );
  const links = observe(
    halfMade.map(({ linkIndex }) => linkIndex),
    input.memory.links,
    input.nowMs,
  );
  return {
    release: input.allocations.filter((allocation) => {
      const verdict = verdictOn(allocation, input);
      return (
        verdict === 'dead' ||
        (verdict === 'suspect' && isProven(allocations.get(allocation.metadata.uid), input))
      );
    }),
    removeLinks: halfMade.filter(({ linkIndex }) => isProven(links.get(linkIndex), input)),
    ...judgeBoth(judgeLive(live, input), judgeLost(input)),
    memory: { allocations, links },
  };
}

type Missing = Pick<SweepJudgement, 'readopt' | 'conflicts'>;

function judgeBoth(live: Missing, lost: Missing & Pick<SweepJudgement, 'forget'>) {
  return {
    readopt: [...live.readopt, ...lost.readopt],
    conflicts: [...live.conflicts, ...lost.conflicts],
    forget: lost.forget,
  };
}

function verdictOn(allocation: IPAllocation, input: SweepInput): 'alive' | 'suspect' | 'dead' | 'not judged' {
  const { attachment, address } = allocation.spec;
  if (attachment === undefined || isResting(allocation)) return 'not judged';
  if (input.inFlight.has(attachmentID(attachment))) return 'not judged';
  const hasLink = input.links.some(
    (link) =>
      link.complete &&
      attachmentID(link) === attachmentID(attachment) &&
      link.addresses.some((its) => sameAddress(its, address)),
  );
  if (hasLink) return 'alive';
  const { netns } = attachment;
  if (netns !== undefined && netns.bootID !== input.bootID) return 'dead';
  if (attachment.kind === 'Interface') return 'suspect';
  return netns !== undefined && input.namespaceState(netns) === 'dead' ? 'suspect' : 'alive';
}

/** Counts this observation. What is not seen any more is forgotten: its next time is its first. */
function observe<K>(seen: readonly K[], before: ReadonlyMap<K, Suspicion>, nowMs: number): Map<K, Suspicion> {
  return new Map(
    seen.map((key) => {
      const earlier = before.get(key);
      return [
        key,
        { sinceMs: earlier?.sinceMs ?? nowMs, observations: (earlier?.observations ?? 0) + 1 },
      ] as const;
    }),
  );
}

function isProven(suspicion: Suspicion | undefined, { nowMs, graceMs }: SweepInput): boolean {
  return suspicion !== undefined && suspicion.observations >= 2 && nowMs - suspicion.sinceMs >= graceMs;
}

/** Every address of a living attachment needs its object: another's is a conflict, none is made again. */
function judgeLive(live: readonly LiveAttachment[], input: SweepInput): Missing {
  const byName = new Map(input.allocations.map((allocation) => [allocation.metadata.name, allocation]));
  const readopt: IPAllocationSpec[] = [];
  const conflicts: SweepConflict[] = [];
  for (const attachment of live) {
    for (const address of attachment.addresses) {
      const allocation = byName.get(allocationName(address));
      if (allocation !== undefined) {
        if (!isOfLink(allocation, attachment)) conflicts.push({ address, attachment, allocation });
        continue;
      }
      const pool = input.poolOf(address);
      if (pool === undefined) conflicts.push({ address, attachment });
      else readopt.push(recoveredSpec(address, pool, attachment, input));
    }
  }
  return { readopt, conflicts };
}

/** As judgeLive, for those of which only the namespace shows whether they live. */
function judgeLost(input: SweepInput): Missing & Pick<SweepJudgement, 'forget'> {
  const byName = new Map(input.allocations.map((allocation) => [allocation.metadata.name, allocation]));
  const readopt: IPAllocationSpec[] = [];
  const conflicts: SweepConflict[] = [];
  const forget: IPAllocationSpec[] = [];
  for (const spec of input.lost ?? []) {
    const { attachment, address } = spec;
    if (attachment === undefined || input.inFlight.has(attachmentID(attachment))) continue;
    const { netns } = attachment;
    const allocation = byName.get(allocationName(address));
    const isGone =
      netns !== undefined && (netns.bootID !== input.bootID || input.namespaceState(netns) === 'dead');
    if (isGone || (allocation !== undefined && isOfLink(allocation, attachment))) forget.push(spec);
    else if (allocation === undefined) readopt.push(spec);
    else conflicts.push(conflictOfLost(spec, attachment, allocation));
  }
  return { readopt, conflicts, forget };
}

/** Two have the address: the one whose object was lost, and whose it is by the book. */
export function conflictOfLost(
  { address, pod }: Pick<IPAllocationSpec, 'address' | 'pod'>,
  { containerID, ifName, network }: Attachment,
  allocation: IPAllocation,
): SweepConflict {
  const podUID = pod?.uid === undefined ? {} : { podUID: pod.uid };
  return { address, attachment: { containerID, ifName, network, ...podUID }, allocation };
}

function isOfLink({ spec }: IPAllocation, link: AttachmentKey): boolean {
  return spec.attachment !== undefined && attachmentID(spec.attachment) === attachmentID(link);
}

/** What the kernel remembers of an allocation. Its namespace is not part of that, so `netns` is left out. */
function recoveredSpec(
  address: IPAddress,
  pool: string,
  { network, containerID, ifName, podUID }: LiveAttachment,
  { nodeName, podOf, marksOf }: SweepInput,
): IPAllocationSpec {
  const pod = podUID === undefined ? undefined : podOf(podUID);
  return {
    address,
    pool,
    nodeName,
    attachment: { network, containerID, ifName, kind: 'Interface' },
    ...(pod === undefined ? {} : { pod }),
    ...(podUID === undefined ? {} : marksOf?.(podUID, address)),
  };
}
