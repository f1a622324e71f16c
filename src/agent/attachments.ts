import type { Attachment, IPAllocation } from '../api/index.ts';
import type { RequestedAttachment } from '../cni/index.ts';
import { attachmentID, isKept, isResting, type AttachmentKey } from '../ipam/index.ts';
import {
  dyingPodLink,
  getLink,
  hasPodRules,
  hostLinkName,
  InvalidNamespaceError,
  openNamespaceSocket,
  parseAlias,
  type AttachmentAlias,
  type FoundPodLink,
  type Link,
  type NamespaceSocket,
} from '../kernel/index.ts';
import { reuseDelayMs, type AgentParts, type OwnAllocations } from './parts.ts';

/** The host end of an attachment, and what its alias says; without one it is half-made. */
export interface HostEnd {
  readonly link: Link;
  readonly alias: AttachmentAlias | undefined;
  /** Whether filters have rules of its own. */
  readonly hasRules: boolean;
}

/** The host end of that attachment, if there is one. */
export function findHostEnd(parts: Pick<AgentParts, 'host'>, key: AttachmentKey): HostEnd | undefined {
  const link = getLink(parts.host, { name: hostLinkName(key.containerID, key.ifName) });
  return link && { link, alias: parseAlias(link.alias), hasRules: hasPodRules(link) };
}

/**
 * The links without an alias that no call is making at this moment. An ADD makes its link before it has addresses, and may
 * wait for these for longer than any grace.
 */
export function linksLeftHalfMade(
  links: readonly FoundPodLink[],
  inFlight: Iterable<string>,
): FoundPodLink[] {
  const beingMade = new Set([...inFlight].map(linkNameOf));
  return links.filter(({ link, attachment }) => attachment === undefined && !beingMade.has(link.name));
}

/** Neither a container's ID nor an interface's name holds the slash between them. */
function linkNameOf(attachment: string): string {
  const [containerID = '', ifName = ''] = attachment.split('/');
  return hostLinkName(containerID, ifName);
}

/** The allocations that name the attachment and do not rest. */
export function allocationsOf(allocations: OwnAllocations, key: AttachmentKey): IPAllocation[] {
  const id = attachmentID(key);
  const found: IPAllocation[] = [];
  for (const allocation of allocations.values()) {
    const { attachment } = allocation.spec;
    if (attachment !== undefined && attachmentID(attachment) === id && !isResting(allocation)) {
      found.push(allocation);
    }
  }
  return found;
}

/**
 * Takes the attachment's interface down, if it stands. The namespace may be gone or be another pod's by now: then
 * only the host end is touched, and that is enough, since the other end goes with it.
 * @returns whether filters have to follow (withoutPodRules)
 */
export function takeDown(parts: AgentParts, key: AttachmentKey, netns: string | undefined): boolean {
  const pod = openIfThere(parts, netns);
  try {
    const hasRules = findHostEnd(parts, key)?.hasRules === true;
    if (dyingPodLink(parts.host, pod, hostLinkName(key.containerID, key.ifName))) parts.reaper.wake();
    parts.wired.gone(key);
    return hasRules;
  } finally {
    pod?.close();
  }
}

/**
 * Resolves when the filters say nothing more of attachments that have been taken down: before their addresses may be
 * another's. That must keep no DEL from its end: where it fails, the sync does it.
 */
export async function withoutPodRules(parts: Pick<AgentParts, 'dataPath' | 'log'>): Promise<void> {
  await parts.dataPath.podRulesChanged().catch((error: unknown) => {
    parts.log.error({ err: error }, 'the host ports of a pod that has gone stay until the next comparison');
  });
}

/**
 * Gives back the addresses of the attachment, each resting as long as its pool says. Does not wait. Of an interface that
 * another plugin makes only what was drawn on that network, and of weft's own only what is weft's: a sandbox may refuse a
 * second interface of one name, and the DEL that follows must not free what the first one lives by.
 * @returns the releases of those that the pod's successor waits for
 */
export function releaseAll(
  parts: AgentParts,
  attachment: RequestedAttachment,
  kind: Attachment['kind'],
): readonly Promise<unknown>[] {
  const held =
    kind === 'AddressOnly' ? addressesOnly(parts.allocations, attachment) : ownOnly(parts, attachment);
  const leastMs = kind === 'AddressOnly' ? OUTLIVES_DEL_MS : 0;
  if (kind === 'AddressOnly') {
    parts.lost.released(attachment, (pool) => Math.max(reuseDelayMs(parts.pools(), pool), leastMs));
  }
  const kept: Promise<unknown>[] = [];
  for (const allocation of held) {
    const delayMs = reuseDelayMs(parts.pools(), allocation.spec.pool);
    const released = parts.releases.release(allocation, { reuseDelayMs: Math.max(delayMs, leastMs) });
    if (isKept(allocation)) kept.push(released);
  }
  return kept;
}

/** Some plugins give the addresses back before they delete their interface: so long it may live on with them. */
const OUTLIVES_DEL_MS = 5_000;

/** The allocations of an interface that another plugin makes, of that network alone. */
export function addressesOnly(allocations: OwnAllocations, attachment: RequestedAttachment): IPAllocation[] {
  return allocationsOf(allocations, attachment).filter(
    ({ spec }) => spec.attachment?.kind === 'AddressOnly' && spec.attachment.network === attachment.network,
  );
}

function ownOnly({ allocations }: AgentParts, key: AttachmentKey): IPAllocation[] {
  return allocationsOf(allocations, key).filter(({ spec }) => spec.attachment?.kind === 'Interface');
}

function openIfThere(parts: AgentParts, netns: string | undefined): NamespaceSocket | undefined {
  if (netns === undefined) return undefined;
  try {
    return openNamespaceSocket(parts.ownNamespace, netns);
  } catch (error) {
    // Whatever is wrong with the path, nothing behind it is to be touched.
    if (error instanceof InvalidNamespaceError) return undefined;
    throw error;
  }
}
