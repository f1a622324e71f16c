import { sameAddress, sameCIDR, type Family, type IPAddress } from '../net/index.ts';
import type { AttachmentAlias } from './alias.ts';
import { HOST_LINK_MAC, podMac } from './names.ts';
import { findPodLinks, hostNeighbourSpecs, hostRoutes } from './pod-link.ts';
import { changeLinkRequest, linkUpRequest, type Link } from './rtnetlink/links.ts';
import { listNeighbours, replaceNeighbourRequest, type Neighbour } from './rtnetlink/neighbours.ts';
import {
  addRouteRequest,
  listRoutes,
  replaceRouteRequest,
  ROUTE_PROTOCOL,
  type Route,
} from './rtnetlink/routes.ts';
import { throwRefusals, type NetlinkRequest, type NetlinkSocket } from './rtnetlink/socket.ts';

/**
 * Puts back what attachments have lost on the host: MAC, link up, routes, neighbours (one `link down` by anyone flushes
 * both). It reads the attachments from the kernel and works in one go, so no ADD or DEL of this process
 * comes between; it never removes anything. Returns what it did, one phrase each; empty if all was well.
 * @throws NetlinkError or NetlinkBatchError, after everything else has been put back
 */
export function repairPodLinks(
  host: NetlinkSocket,
  hostSources: Readonly<Partial<Record<Family, IPAddress>>>,
): string[] {
  const requests = podLinkRepairs(host, hostSources);
  const outcomes = host.transact(requests);
  // A link may have gone with its namespace in the meantime.
  const refusals = outcomes.map((error) => (error?.code === 'ENODEV' ? undefined : error));
  throwRefusals(requests.length, refusals);
  return requests.filter((_, i) => outcomes[i] === undefined).map((request) => request.describe());
}

/**
 * What repairPodLinks would do now: empty if attachments lack nothing on the host. Changes nothing. `only`: of the link
 * of that name alone.
 */
export function podLinkRepairs(
  host: NetlinkSocket,
  hostSources: Readonly<Partial<Record<Family, IPAddress>>>,
  only?: string,
): NetlinkRequest[] {
  const attached = findPodLinks(host).flatMap(({ link, attachment }) =>
    attachment === undefined || (only !== undefined && link.name !== only) ? [] : [{ link, attachment }],
  );
  const routes = listRoutes(host, { protocol: ROUTE_PROTOCOL.weftPod });
  const neighbours = listNeighbours(host);
  return attached.flatMap(({ link, attachment }) => [
    // To another MAC the pod's permanent neighbour leads nowhere.
    ...(link.mac === HOST_LINK_MAC ? [] : [changeLinkRequest(link.index, { mac: HOST_LINK_MAC })]),
    ...(link.up ? [] : [linkUpRequest(link.index)]),
    ...missingRoutes(link, attachment, hostSources, routes),
    ...missingNeighbours(link, attachment, neighbours),
  ]);
}

/** A route of ours that leads elsewhere is replaced; a foreign one in its place is an error. */
function missingRoutes(
  link: Link,
  { addresses }: AttachmentAlias,
  hostSources: Readonly<Partial<Record<Family, IPAddress>>>,
  present: readonly Route[],
): NetlinkRequest[] {
  return hostRoutes(link.index, { addresses, hostSources }).flatMap((wanted) => {
    const same = present.find(
      (route) =>
        sameCIDR(route.dst, wanted.dst) && route.metric === wanted.metric && route.type === 'unicast',
    );
    if (same === undefined) return [addRouteRequest(wanted)];
    return same.oif === wanted.oif && sameSource(same, wanted) ? [] : [replaceRouteRequest(wanted)];
  });
}

function missingNeighbours(
  link: Link,
  { addresses, containerID, ifName }: AttachmentAlias,
  present: readonly Neighbour[],
): NetlinkRequest[] {
  return hostNeighbourSpecs(link.index, podMac(containerID, ifName), { addresses })
    .filter(
      (wanted) =>
        !present.some(
          (neighbour) =>
            neighbour.linkIndex === wanted.linkIndex &&
            neighbour.permanent &&
            neighbour.mac === wanted.mac &&
            sameAddress(neighbour.address, wanted.address),
        ),
    )
    .map(replaceNeighbourRequest);
}

function sameSource(a: Route, b: Route): boolean {
  if (a.prefSrc === undefined || b.prefSrc === undefined) return a.prefSrc === b.prefSrc;
  return sameAddress(a.prefSrc, b.prefSrc);
}
