import type { Attachment, IPAllocation } from '../api/index.ts';
import type { AddRequest, AddResult } from '../cni/index.ts';
import { poolDestinations, poolsAllowing, type AttachmentKey } from '../ipam/index.ts';
import {
  configurePodLink,
  createPodLink,
  dyingPodLink,
  familiesRoutedOtherwise,
  formatAlias,
  getLink,
  hostLinkName,
  inspectPodLink,
  LinkExistsError,
  openNamespaceSocket,
  setPodLinkMTU,
  routeBySource,
  type AttachmentAlias,
  type NamespaceSocket,
  type PodLink,
} from '../kernel/index.ts';
import { compareCIDRs, FAMILIES, sameAddress, type CIDR, type Family, type IPAddress } from '../net/index.ts';
import { allocationsOf, findHostEnd, releaseAll, withoutPodRules } from './attachments.ts';
import { addResult } from './add-result.ts';
import { claimFor } from './claim.ts';
import type { AgentParts } from './parts.ts';
import { setPodRules } from './pod-rules.ts';
import { createUndoStack } from './undo.ts';

/**
 * ADD: claims the sandbox's addresses while it makes the interface, wires the two together, and answers. Said
 * again for an attachment that stands it answers the same; whatever fails takes back all that was done.
 */
export function createAdd(
  parts: AgentParts,
): (request: AddRequest, signal: AbortSignal) => Promise<AddResult> {
  return (request, signal) =>
    parts.locks.run(request.attachment, (ends) => add(parts, request, ends), { signal });
}

async function add(parts: AgentParts, request: AddRequest, signal: AbortSignal): Promise<AddResult> {
  parts.observe('add:accepted');
  const undo = createUndoStack((what, error) => {
    parts.log.error({ err: error, attachment: request.attachment }, `could not take back ${what}`);
  });
  const pod = openNamespaceSocket(parts.ownNamespace, request.netns);
  try {
    const standing = standingAttachment(parts, request, pod);
    if (standing !== undefined) return standing;
    clearLeftovers(parts, request, pod);

    const attachment = attachmentOf(parts, request, pod);
    const givenUp = new AbortController();
    const claiming = claimFor(
      parts,
      { attachment, pod: request.pod, pool: request.configuration.pool },
      AbortSignal.any([signal, givenUp.signal]),
    );
    undo.push('the claim', () => {
      givenUp.abort(new Error('the ADD has failed'));
      return discardClaim(parts, claiming);
    });
    parts.observe('add:claim-sent');

    const fixedMTU = request.configuration.mtu;
    const firstMTU = fixedMTU ?? parts.dataPath.podMTU([]);
    const link = createPodLink(parts.host, pod, {
      ...request.attachment,
      mtu: firstMTU,
      fixedMTU: fixedMTU !== undefined,
    });
    undo.push('the interface', async () => {
      const hasRules = findHostEnd(parts, attachment)?.hasRules;
      if (dyingPodLink(parts.host, pod, link.hostName)) parts.reaper.wake();
      parts.wired.gone(attachment);
      if (hasRules) await parts.dataPath.podRulesChanged();
    });
    parts.observe('add:link-made');

    const claimed = await claiming;
    parts.observe('add:claimed');
    signal.throwIfAborted();
    await parts.dataPath.isolationInForce(signal);

    const addresses = addressesOf(claimed);
    const mtu = fixedMTU ?? parts.dataPath.podMTU(claimed.map(({ spec }) => spec.address));
    // Only the claim says of which pool they are.
    if (mtu !== firstMTU) setPodLinkMTU(parts.host, pod.socket, link, mtu);
    const { portMappings } = request.configuration;
    const allowedSources = await sourcesOf(parts, request, claimed, signal);
    await setPodRules(parts, link, { pod: request.pod, addresses, portMappings, allowedSources });
    parts.observe('add:rules-set');
    signal.throwIfAborted();
    const routedOtherwise = familiesRoutedOtherwise(pod, request.attachment.ifName);
    const destinations = podDestinations(parts, claimed, routedOtherwise);
    if (routedOtherwise.length > 0) routeBySource(parts.host, pod, request.attachment.containerID);
    configurePodLink(parts.host, pod.socket, link, {
      addresses,
      destinations,
      bySource: routedOtherwise,
      hostSources: parts.dataPath.hostSources(),
      alias: formatAlias({ ...request.attachment, addresses, podUID: request.pod?.uid }),
    });
    parts.wired.wired(attachment, addresses);
    parts.observe('add:wired');

    parts.ages.born(attachment);
    undo.drop();
    return addResult(request, link, mtu, addresses, destinations);
  } catch (error) {
    await undo.unwind();
    throw error;
  } finally {
    pod.close();
  }
}

/** The answer for an attachment that an earlier ADD made and that still stands whole, with its objects. */
function standingAttachment(
  parts: AgentParts,
  request: AddRequest,
  pod: NamespaceSocket,
): AddResult | undefined {
  const { attachment } = request;
  const alias = findHostEnd(parts, attachment)?.alias;
  if (alias?.network !== attachment.network) return undefined;
  const standing = inspectPodLink(parts.host, pod, hostLinkName(attachment.containerID, attachment.ifName));
  if (standing?.podLink.name !== attachment.ifName || !standing.podLink.up) return undefined;
  if (!holdsItsObjects(parts, attachment, alias)) return undefined;
  const link: PodLink = {
    hostName: standing.hostLink.name,
    hostIndex: standing.hostLink.index,
    podIndex: standing.podLink.index,
    podMac: standing.podLink.mac ?? '',
  };
  const destinations = standing.routes.filter(({ via }) => via !== undefined).map(({ dst }) => dst);
  return addResult(request, link, standing.podLink.mtu, alias.addresses, destinations.sort(compareCIDRs));
}

/** Whether each address of the interface is in an object that names this attachment and is not released. */
function holdsItsObjects(parts: AgentParts, key: AttachmentKey, alias: AttachmentAlias): boolean {
  const held = allocationsOf(parts.allocations, key);
  const addresses = FAMILIES.flatMap((family) => alias.addresses[family] ?? []);
  return (
    addresses.length > 0 &&
    addresses.every((address) => held.some(({ spec }) => sameAddress(spec.address, address)))
  );
}

/**
 * Removes what an ADD that did not end left of this attachment: its half-made interface, and its addresses, of
 * which another is claimed, since a late release of the old one may still be on its way.
 * @throws LinkExistsError if the sandbox has an interface of that name which is not weft's: it stays untouched
 */
function clearLeftovers(parts: AgentParts, request: AddRequest, pod: NamespaceSocket): void {
  const { attachment } = request;
  const hadRules = findHostEnd(parts, attachment)?.hasRules === true;
  if (dyingPodLink(parts.host, pod, hostLinkName(attachment.containerID, attachment.ifName))) {
    parts.reaper.wake();
  }
  if (hadRules) void withoutPodRules(parts);
  parts.wired.gone(attachment);
  if (getLink(pod.socket, { name: attachment.ifName }) !== undefined) {
    throw new LinkExistsError(attachment.ifName, 'pod', undefined);
  }
  void releaseAll(parts, attachment, 'Interface');
}

function attachmentOf(parts: AgentParts, request: AddRequest, pod: NamespaceSocket): Attachment {
  return {
    ...request.attachment,
    kind: 'Interface',
    netns: { path: request.netns, inode: Number(pod.identity.inode), bootID: parts.bootID },
  };
}

/**
 * The sources that the pod's annotation asks for, where the pool of its address allows them. They are read once more
 * than for the claim: what has been changed in between is judged as it is now.
 */
async function sourcesOf(
  parts: AgentParts,
  { pod, configuration }: AddRequest,
  claimed: readonly IPAllocation[],
  signal: AbortSignal,
): Promise<readonly CIDR[]> {
  // On a network whose configuration names the pool annotations mean nothing.
  if (pod === undefined || configuration.pool !== undefined) return [];
  const { wishes } = await parts.findClaimer(pod, 'obeyed', signal);
  if (wishes?.allowedSources === undefined) return [];
  const names = new Set(claimed.map(({ spec }) => spec.pool));
  poolsAllowing(
    parts.pools().filter(({ metadata }) => names.has(metadata.name)),
    wishes.allowedSources,
  );
  return wishes.allowedSources;
}

/**
 * Where an interface leads: everywhere, and where another one of the sandbox has the default route of that family, to
 * what its own pool has. Sorted.
 */
function podDestinations(
  parts: AgentParts,
  claimed: readonly IPAllocation[],
  routedOtherwise: readonly Family[],
): CIDR[] {
  return claimed
    .flatMap(({ spec: { address, pool: name } }): CIDR[] => {
      const { family } = address;
      if (!routedOtherwise.includes(family)) return [{ family, first: 0n, prefixLength: 0 }];
      const pools = parts.pools().filter(({ metadata }) => metadata.name === name);
      const subnets = parts.subnets().filter(({ spec }) => spec.pool === name);
      return poolDestinations(pools, subnets).filter((cidr) => cidr.family === family);
    })
    .sort(compareCIDRs);
}

/** The addresses were never used: they come free at once. */
async function discardClaim(parts: AgentParts, claiming: Promise<IPAllocation[]>): Promise<void> {
  const claimed = await claiming.catch(() => []);
  // The release goes on by itself: the one who waits for the ADD's error need not wait for it.
  for (const allocation of claimed) void parts.releases.release(allocation, { reuseDelayMs: 0 });
}

function addressesOf(claimed: readonly IPAllocation[]): Partial<Record<Family, IPAddress>> {
  return Object.fromEntries(claimed.map(({ spec }) => [spec.address.family, spec.address]));
}
