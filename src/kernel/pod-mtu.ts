import type { IPAddress } from '../net/index.ts';
import { FAMILIES } from '../net/index.ts';
import { FIXED_MTU_LINK_GROUP } from './names.ts';
import { InvalidNamespaceError, openNamespaceSocket, type Namespace } from './namespaces.ts';
import { findPodLinks, otherEnd } from './pod-link.ts';
import { isNetlinkError } from './rtnetlink/errors.ts';
import { changeLinkRequest, type Link } from './rtnetlink/links.ts';
import { namespaceIdOf } from './rtnetlink/namespace-ids.ts';
import type { NetlinkSocket } from './rtnetlink/socket.ts';

/** The link of an attachment that is to have another MTU. `link` is the host's end. */
export interface PodMTUChange {
  readonly link: Link;
  readonly mtu: number;
}

/** What came of changes: which were made, and why others were not. */
export interface PodMTUOutcome {
  readonly changed: readonly PodMTUChange[];
  readonly errors: readonly Error[];
}

/**
 * The attachments whose MTU is not what it should be, but for those whose configuration names one. The host's end is
 * changed last and alone is looked at: what a pod does to its own end is the pod's affair.
 */
export function podMTUChanges(
  host: NetlinkSocket,
  mtuOf: (addresses: readonly IPAddress[]) => number,
): PodMTUChange[] {
  return findPodLinks(host).flatMap(({ link, attachment }) => {
    if (attachment === undefined || link.group === FIXED_MTU_LINK_GROUP) return [];
    const mtu = mtuOf(FAMILIES.flatMap((family) => attachment.addresses[family] ?? []));
    return link.mtu === mtu ? [] : [{ link, mtu }];
  });
}

/**
 * Changes both ends of living links. `paths`: where the pods' namespaces may be; each is entered at most once, and none
 * when there is nothing to do. A link that has gone meanwhile is none that is wrong.
 */
export function changePodMTUs(
  host: NetlinkSocket,
  own: Namespace,
  { changes, paths }: { readonly changes: readonly PodMTUChange[]; readonly paths: () => Iterable<string> },
): PodMTUOutcome {
  const open = new Set(changes);
  const changed: PodMTUChange[] = [];
  const errors: Error[] = [];
  if (open.size === 0) return { changed, errors };
  for (const path of new Set(paths())) {
    if (open.size === 0) break;
    try {
      using pod = openNamespaceSocket(own, path);
      const id = namespaceIdOf(host, pod.fd);
      for (const change of [...open].filter(({ link }) => link.peerNamespaceId === id)) {
        const { link, mtu } = change;
        const podEnd = otherEnd(host, pod, link);
        if (podEnd === undefined) continue;
        open.delete(change);
        try {
          pod.socket.execute([changeLinkRequest(podEnd.index, { mtu })]);
          host.execute([changeLinkRequest(link.index, { mtu })]);
          changed.push(change);
        } catch (error) {
          if (!isNetlinkError(error, 'ENODEV')) errors.push(asError(error));
        }
      }
    } catch (error) {
      // One that has gone, or that is none of a pod.
      if (!(error instanceof InvalidNamespaceError)) errors.push(asError(error));
    }
  }
  for (const change of open) errors.push(new PodNamespaceNotFoundError(change));
  return { changed, errors };
}

/** The MTU of a live pod's link cannot follow, since nothing says where the pod's namespace is. */
export class PodNamespaceNotFoundError extends Error {
  override name = 'PodNamespaceNotFoundError' as const;
  readonly linkName: string;

  constructor({ link, mtu }: PodMTUChange) {
    super(
      `the MTU of link ${link.name} stays ${link.mtu} instead of ${mtu}: the namespace of its pod is not in ` +
        `/run/netns, nor where it was when the pod was made; start the pod anew`,
    );
    this.linkName = link.name;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
