import {
  allocationName,
  STICKY_HOLDER,
  type Attachment,
  type IPAllocation,
  type IPAllocationSpec,
  type PodReference,
} from '../api/index.ts';
import {
  attachmentID,
  conflictOfLost,
  EMPTY_SWEEP_MEMORY,
  isResting,
  judgeSweep,
  poolOfAddress,
  SupersededError,
  type AddressMarks,
  type LiveAttachment,
  type NamespaceState,
  type SweepConflict,
} from '../ipam/index.ts';
import {
  deleteLink,
  findPodLinks,
  getLink,
  hasPodRules,
  parseAlias,
  type AttachmentAlias,
  type FoundPodLink,
} from '../kernel/index.ts';
import { FAMILIES, formatAddress, type IPAddress } from '../net/index.ts';
import type { AllocationStore } from '../ipam/index.ts';
import type { SweptAddresses } from './alarm.ts';
import { findHostEnd, linksLeftHalfMade, withoutPodRules } from './attachments.ts';
import { reuseDelayMs, type AgentParts } from './parts.ts';

/** What the sweep needs besides the parts of the verbs. */
export interface SweepFacts {
  /** Whether the cache of allocations is complete and its watch lives: otherwise nothing is judged. */
  readonly cacheIsLiving: () => boolean;
  readonly store: Pick<AllocationStore, 'create' | 'get' | 'bind'>;
  readonly namespaceState: (netns: { readonly path: string; readonly inode: number }) => NamespaceState;
  readonly podOf: (podUID: string) => PodReference | undefined;
  readonly marksOf: (podUID: string, address: IPAddress) => AddressMarks;
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Told by each sweep that has done some of it. */
  readonly onSwept: (swept: SweptAddresses) => void;
  /** The address of a living sandbox is another's by the book, or no pool's; told by each sweep that finds it. */
  readonly onConflict: (conflict: SweepConflict) => void;
}

/** What one sweep did. */
export interface SweepSummary {
  readonly judged: boolean;
  readonly released: number;
  readonly readopted: number;
  /** Living addresses that are another's by the book, or of no pool. */
  readonly conflicts: number;
  readonly linksRemoved: number;
  /** Allocations that were seen without a living attachment: those of a moment ago, or leaks on their way out. */
  readonly suspects: number;
}

const NOTHING: SweepSummary = {
  judged: false,
  released: 0,
  readopted: 0,
  conflicts: 0,
  linksRemoved: 0,
  suspects: 0,
};

/**
 * The garbage collector: compares this node's allocations with the interfaces that are alive and repairs both
 * ways. The allocations are read first, then the kernel; what it decides is looked at once more right before it
 * acts, under the attachment's lock.
 */
export function createSweep(parts: AgentParts, facts: SweepFacts): () => Promise<SweepSummary> {
  let memory = EMPTY_SWEEP_MEMORY;
  return async () => {
    // Links that died and could not be deleted yet.
    parts.reaper.wake();
    if (!facts.cacheIsLiving()) {
      parts.wired.read(attachmentsOf(findPodLinks(parts.host)));
      return NOTHING;
    }
    const allocations = [...parts.allocations.values()];
    parts.releases.observeResting(allocations);
    const links = findPodLinks(parts.host);
    parts.wired.read(attachmentsOf(links));
    const inFlight = parts.locks.inFlight();
    const complete = links.filter(({ attachment }) => attachment !== undefined);
    const live = [...complete, ...linksLeftHalfMade(links, inFlight)].map(liveAttachment);
    const judgement = judgeSweep({
      allocations,
      links: live,
      lost: parts.lost.specs(),
      bootID: parts.bootID,
      namespaceState: facts.namespaceState,
      memory,
      nowMs: facts.nowMs(),
      graceMs: parts.settings.graceMs,
      inFlight,
      nodeName: parts.nodeName,
      poolOf: (address) => poolOfAddress(address, parts.pools(), parts.subnets())?.poolName,
      podOf: facts.podOf,
      marksOf: facts.marksOf,
    });
    memory = judgement.memory;
    for (const spec of judgement.forget) parts.lost.forget(spec);
    const released: string[] = [];
    for (const allocation of judgement.release) {
      const { name } = allocation.metadata;
      if (await attempt(parts, name, () => release(parts, facts, allocation))) released.push(name);
    }
    const readopted: string[] = [];
    const conflicts = [...judgement.conflicts];
    for (const spec of judgement.readopt) {
      const outcome = await attempt(parts, formatAddress(spec.address), () => readopt(parts, facts, spec));
      if (outcome === 'created') readopted.push(allocationName(spec.address));
      if (typeof outcome === 'object') conflicts.push(...conflictsOver(spec, live, outcome.takenBy));
    }
    let linksRemoved = 0;
    for (const link of judgement.removeLinks) {
      const what = `link ${link.linkIndex}`;
      if (await attempt(parts, what, async () => removeHalfMade(parts, link))) linksRemoved++;
    }
    for (const conflict of conflicts) {
      report(parts, conflict);
      facts.onConflict(conflict);
    }
    if (released.length + readopted.length > 0) facts.onSwept({ released, readopted });
    return {
      judged: true,
      released: released.length,
      readopted: readopted.length,
      conflicts: conflicts.length,
      linksRemoved,
      suspects: memory.allocations.size,
    };
  };
}

/** One that fails must not keep the others from being swept; the next sweep tries it again. */
async function attempt<T>(parts: AgentParts, what: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    // A DEL has come before: then it is done.
    if (!(error instanceof SupersededError)) parts.log.error({ err: error }, `could not sweep ${what}`);
    return undefined;
  }
}

/** Half-made links have none. */
export function attachmentsOf(links: readonly FoundPodLink[]): AttachmentAlias[] {
  return links.flatMap(({ attachment }) => attachment ?? []);
}

function liveAttachment({ link, attachment }: FoundPodLink): LiveAttachment {
  const linkIndex = link.index;
  if (attachment === undefined) {
    return { containerID: '', ifName: '', network: '', addresses: [], linkIndex, complete: false };
  }
  const { containerID, ifName, network, podUID } = attachment;
  const addresses = FAMILIES.flatMap((family) => attachment.addresses[family] ?? []);
  const known = { containerID, ifName, network, addresses, linkIndex, complete: true };
  return podUID === undefined ? known : { ...known, podUID };
}

/** @returns whether the release was begun */
async function release(parts: AgentParts, facts: SweepFacts, judged: IPAllocation): Promise<boolean> {
  const { attachment } = judged.spec;
  if (attachment === undefined) return false;
  return parts.locks.run(attachment, async () => {
    if (standsWith(parts, judged.spec.address, attachment) || isInhabited(parts, facts, attachment))
      return false;
    const found = await facts.store.get(judged.metadata.name);
    if (found?.metadata.uid !== judged.metadata.uid || isResting(found)) return false;
    parts.log.info(
      { address: found.metadata.name, attachment, pod: found.spec.pod },
      'releasing an address whose sandbox is gone',
    );
    void parts.releases.release(found, { reuseDelayMs: reuseDelayMs(parts.pools(), found.spec.pool) });
    return true;
  });
}

/** Whether the sandbox of another plugin's interface may be there (the table in ipam/sweep.ts). */
function isInhabited(parts: AgentParts, facts: SweepFacts, { kind, netns }: Attachment): boolean {
  if (kind === 'Interface') return false;
  return netns === undefined || (netns.bootID === parts.bootID && facts.namespaceState(netns) !== 'dead');
}

/** `needless`: the sandbox has gone, or the object has come back. Otherwise whose the address is by now. */
type Readoption = 'created' | 'needless' | { readonly takenBy: IPAllocation };

async function readopt(parts: AgentParts, facts: SweepFacts, spec: IPAllocationSpec): Promise<Readoption> {
  const { attachment } = spec;
  if (attachment === undefined) return 'needless';
  return parts.locks.run(attachment, async () => {
    const isThere =
      attachment.kind === 'Interface'
        ? standsWith(parts, spec.address, attachment)
        : parts.lost.isLost(spec) && isInhabited(parts, facts, attachment);
    if (!isThere) return 'needless';
    const outcome = await facts.store.create(spec);
    if (outcome.kind === 'created') {
      parts.lost.forget(spec);
      const address = formatAddress(spec.address);
      parts.log.warn(
        { address, attachment },
        'a living sandbox had lost its IPAllocation; it was created again',
      );
      return 'created';
    }
    const takenBy = await facts.store.get(allocationName(spec.address));
    if (takenBy !== undefined && (await bindAgain(parts, facts, takenBy, spec))) return 'created';
    return takenBy === undefined || isSameClaim(takenBy.spec, spec) ? 'needless' : { takenBy };
  });
}

/** A sticky address that waits for its pod, which has it: an older state has come back. It is bound as at an ADD. */
async function bindAgain(
  { log, nodeName }: AgentParts,
  { store }: SweepFacts,
  found: IPAllocation,
  { address, attachment, pod, sticky }: IPAllocationSpec,
): Promise<boolean> {
  const waits = found.spec.holder === STICKY_HOLDER && found.spec.sticky === sticky;
  if (!waits || attachment === undefined || pod === undefined) return false;
  if ((await store.bind(found, { nodeName, attachment, pod })).kind !== 'done') return false;
  log.warn(
    { address: formatAddress(address), attachment },
    'a living sandbox had lost its sticky address; it was bound again',
  );
  return true;
}

function conflictsOver(
  spec: IPAllocationSpec,
  live: readonly LiveAttachment[],
  takenBy: IPAllocation,
): SweepConflict[] {
  const { attachment, address } = spec;
  if (attachment?.kind === 'AddressOnly') return [conflictOfLost(spec, attachment, takenBy)];
  const link = live.find((one) => isOf(one, spec));
  return link === undefined ? [] : [{ address, attachment: link, allocation: takenBy }];
}

function isSameClaim(a: IPAllocationSpec, b: IPAllocationSpec): boolean {
  if (a.attachment === undefined || b.attachment === undefined || a.nodeName !== b.nodeName) return false;
  return attachmentID(a.attachment) === attachmentID(b.attachment);
}

function isOf(link: LiveAttachment, { attachment }: IPAllocationSpec): boolean {
  return link.complete && attachment !== undefined && attachmentID(link) === attachmentID(attachment);
}

/** Whether the attachment's interface is there with that address. */
function standsWith(
  parts: AgentParts,
  address: IPAddress,
  attachment: { readonly containerID: string; readonly ifName: string },
): boolean {
  const alias = findHostEnd(parts, attachment)?.alias;
  return alias?.addresses[address.family]?.value === address.value;
}

function removeHalfMade(parts: AgentParts, { linkIndex }: LiveAttachment): boolean {
  const link = getLink(parts.host, { index: linkIndex });
  // An ADD may have completed it since, and the kernel gives indices to other links in time.
  if (link === undefined || !link.name.startsWith('weft') || parseAlias(link.alias) !== undefined)
    return false;
  parts.log.warn({ link: link.name }, 'removing an interface that an ADD left half-made');
  const isGone = deleteLink(parts.host, linkIndex);
  if (hasPodRules(link)) void withoutPodRules(parts);
  return isGone;
}

function report(parts: AgentParts, { address, attachment, allocation }: SweepConflict): void {
  parts.log.error(
    { address: formatAddress(address), attachment, owner: allocation?.spec },
    allocation === undefined
      ? 'a living sandbox has an address of no pool'
      : 'a living sandbox has an address that the book gives to another',
  );
}
