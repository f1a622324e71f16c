import { FAMILIES, type Family } from '../net/index.ts';
import type { NamespaceSocket } from './namespaces.ts';
import { findPodLinks, inspectPodLink, POD_GATEWAYS } from './pod-link.ts';
import { getLink } from './rtnetlink/links.ts';
import { listRoutes } from './rtnetlink/routes.ts';
import { throwRefusals, type NetlinkSocket } from './rtnetlink/socket.ts';
import { ensureSourceRouteRequests } from './source-routes.ts';

/** The families in which another interface of the sandbox than that one has a default route. */
export function familiesRoutedOtherwise(sandbox: NamespaceSocket, ifName: string): Family[] {
  const own = getLink(sandbox.socket, { name: ifName })?.index;
  return FAMILIES.filter((family) =>
    listRoutes(sandbox.socket, { family }).some(
      ({ dst, type, oif }) => dst.prefixLength === 0 && type === 'unicast' && oif !== own,
    ),
  );
}

/**
 * Lets the packets of each of weft's interfaces that stand in the sandbox leave by that interface, before another one
 * brings routes that would lead them elsewhere.
 * @throws NetlinkError or NetlinkBatchError
 */
export function routeBySource(host: NetlinkSocket, sandbox: NamespaceSocket, containerID: string): void {
  const requests = findPodLinks(host).flatMap(({ link, attachment }) => {
    if (attachment?.containerID !== containerID) return [];
    const podIndex = inspectPodLink(host, sandbox, link.name)?.podLink.index;
    if (podIndex === undefined) return [];
    return FAMILIES.flatMap((family) => {
      const address = attachment.addresses[family];
      if (address === undefined) return [];
      return ensureSourceRouteRequests({ podIndex, address, gateway: POD_GATEWAYS[family] });
    });
  });
  const outcomes = sandbox.socket.transact(requests);
  throwRefusals(
    requests.length,
    outcomes.map((error) => (error?.code === 'EEXIST' ? undefined : error)),
  );
}
