import { setImmediate } from 'node:timers/promises';
import {
  attachmentID,
  SNAPSHOT_FORMAT,
  type Clock,
  type NamespaceState,
  type NodeSnapshot,
} from '../ipam/index.ts';
import {
  findPodLinks,
  inspectPodLink,
  InvalidNamespaceError,
  isNetlinkError,
  openNamespaceSocket,
} from '../kernel/index.ts';
import { FAMILIES, type IPAddress } from '../net/index.ts';
import { linksLeftHalfMade } from './attachments.ts';
import type { KernelDifferences } from './kernel-differences.ts';
import type { AgentParts } from './parts.ts';

/** What a snapshot needs besides the parts of the verbs. */
export interface SnapshotFacts {
  readonly nodeUID: () => string;
  readonly differences: () => Promise<KernelDifferences>;
  readonly namespaceState: (netns: { readonly path: string; readonly inode: number }) => NamespaceState;
  readonly clock: Pick<Clock, 'wallTime'>;
}

/**
 * What this agent says of its node (design, section 10): read from the kernel now, not remembered. `GET /snapshot`
 * answers it as JSON, and `kubectl weft check` compares it with the objects; so does the agent's own audit.
 */
export function createSnapshot(parts: AgentParts, facts: SnapshotFacts): () => Promise<NodeSnapshot> {
  return async () => {
    const kernel = await facts.differences();
    // One look: whatever an ADD or DEL has half done is in flight.
    const inFlight = [...parts.locks.inFlight()];
    const links = findPodLinks(parts.host);
    const takenAt = facts.clock.wallTime().toISOString();

    const paths = namespacePaths(parts);
    const sandboxes: NodeSnapshot['sandboxes'] = [];
    for (const { link, attachment } of links) {
      if (attachment === undefined) continue;
      const { network, containerID, ifName, podUID } = attachment;
      const path = paths.get(attachmentID(attachment));
      const addressesInPod = path === undefined ? undefined : lookInside(parts, link.name, path);
      sandboxes.push({
        network,
        containerID,
        ifName,
        link: link.name,
        addresses: FAMILIES.flatMap((family) => attachment.addresses[family] ?? []),
        ...(podUID === undefined ? {} : { podUID }),
        ...(addressesInPod === undefined ? {} : { addressesInPod }),
      });
      // Each look inside takes part of a millisecond, and ADDs do not wait for a hundred of them.
      await setImmediate();
    }
    const halfMade = linksLeftHalfMade(links, inFlight);
    return {
      format: SNAPSHOT_FORMAT,
      nodeName: parts.nodeName,
      nodeUID: facts.nodeUID(),
      bootID: parts.bootID,
      takenAt,
      sandboxes,
      inFlight,
      namespaces: namespacesOfOthers(parts, facts),
      strays: [...parts.strays.values()],
      kernel: {
        missing: [...kernel.missing],
        extra: [...kernel.extra, ...halfMade.map(({ link }) => `half-made link ${link.name}`)],
        diverting: [...kernel.diverting],
      },
    };
  };
}

/** Where the namespaces of attachments were when their addresses were claimed. */
function namespacePaths({ allocations }: AgentParts): ReadonlyMap<string, string> {
  const paths = new Map<string, string>();
  for (const { spec } of allocations.values()) {
    const { attachment } = spec;
    if (attachment?.netns !== undefined) paths.set(attachmentID(attachment), attachment.netns.path);
  }
  return paths;
}

/** What the pod's end has; undefined where the path leads nowhere, or to another pod by now. */
function lookInside(
  { host, ownNamespace }: AgentParts,
  hostName: string,
  path: string,
): IPAddress[] | undefined {
  try {
    using pod = openNamespaceSocket(ownNamespace, path);
    return inspectPodLink(host, pod, hostName)
      ?.addresses.filter(({ scope }) => scope !== 'link')
      .map(({ address }) => address);
  } catch (error) {
    if (error instanceof InvalidNamespaceError || isNetlinkError(error, 'ENODEV')) return undefined;
    throw error;
  }
}

/** Of attachments whose interface another plugin made only the namespace can be looked at. */
function namespacesOfOthers(
  { allocations }: AgentParts,
  { namespaceState }: SnapshotFacts,
): NodeSnapshot['namespaces'] {
  const found = new Map<string, NodeSnapshot['namespaces'][number]>();
  for (const { spec } of allocations.values()) {
    const { attachment } = spec;
    if (attachment?.kind !== 'AddressOnly' || attachment.netns === undefined) continue;
    const { path, inode } = attachment.netns;
    found.set(`${inode} ${path}`, { path, inode, state: namespaceState({ path, inode }) });
  }
  return [...found.values()];
}
