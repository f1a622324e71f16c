import { VXLAN_LINK, type Difference, type NodeRoute, type PeerChanges } from '../dataplane/index.ts';
import {
  applyRoutes,
  deleteFdbRequest,
  deleteNeighbourRequest,
  getLink,
  replaceFdbRequest,
  replaceNeighbourRequest,
  type NetlinkRequest,
  type NetlinkSocket,
  type Route,
} from '../kernel/index.ts';
import { formatAddress } from '../net/index.ts';
import { forwardingText, neighbourText, resolveRoute, routeText } from './node-state.ts';

/** The device is not there whose peers have changed. */
export class VxlanGoneError extends Error {
  override name = 'VxlanGoneError' as const;

  constructor() {
    super(`the link "${VXLAN_LINK}" has gone, and with it the neighbours of other nodes behind it`);
  }
}

/**
 * Does in the kernel what single peers need and no longer need, without looking at anything else there. What is needed
 * comes first and what is no longer needed goes last, as in a whole comparison; by whose names objects are told here.
 * `beforehand` is told what is about to come and to go: of some of it the kernel tells as of anybody's deed.
 * @throws MissingLinkError, VxlanGoneError, NetlinkError or NetlinkBatchError where the kernel is not as it was left: a part may have
 *   been done, and a whole comparison is to follow
 */
export async function applyPeerChanges(
  host: NetlinkSocket,
  { routes, neighbours, forwarding }: Pick<PeerChanges, 'routes' | 'neighbours' | 'forwarding'>,
  beforehand: (objects: { readonly set: readonly string[]; readonly removed: readonly string[] }) => void,
): Promise<void> {
  const links = linksOf(host, routes);
  const linkNames = new Map([...links].map(([name, index]) => [index, name]));
  const resolved = {
    add: routes.add.map((route) => resolveRoute(route, links)),
    remove: routes.remove.map((route) => resolveRoute(route, links)),
  };
  const tunnel = tunnelRequests({ neighbours, forwarding }, () => {
    const link = getLink(host, { name: VXLAN_LINK });
    if (link === undefined) throw new VxlanGoneError();
    return link.index;
  });

  const text = (route: Route) => routeText(route, linkNames);
  const objects = (which: 'add' | 'remove') => [
    ...resolved[which].map(text),
    ...neighbours[which].map(neighbourText),
    ...forwarding[which].map(forwardingText),
  ];
  beforehand({ set: objects('add'), removed: objects('remove') });
  host.execute(tunnel.set);
  await applyRoutes(host, resolved);
  host.execute(tunnel.remove);
}

/** The links of the routes, by name. One that is not there is missed where its route is resolved. */
function linksOf(host: NetlinkSocket, { add, remove }: Difference<NodeRoute>): ReadonlyMap<string, number> {
  const names = new Set(
    [...add, ...remove].flatMap(({ target }) => (target.kind === 'gateway' ? [target.link] : [])),
  );
  return new Map(
    [...names].flatMap((name) => {
      const link = getLink(host, { name });
      return link === undefined ? [] : [[name, link.index]];
    }),
  );
}

/** Neighbours and forwarding entries; asks for the device only where there are any. */
function tunnelRequests(
  { neighbours, forwarding }: Pick<PeerChanges, 'neighbours' | 'forwarding'>,
  device: () => number,
): { readonly set: readonly NetlinkRequest[]; readonly remove: readonly NetlinkRequest[] } {
  if ([neighbours, forwarding].every(({ add, remove }) => add.length + remove.length === 0)) {
    return { set: [], remove: [] };
  }
  const linkIndex = device();
  return {
    set: [
      ...neighbours.add.map((entry) => replaceNeighbourRequest({ linkIndex, ...entry })),
      ...forwarding.add.map((entry) => replaceFdbRequest({ linkIndex, ...entry })),
    ],
    remove: [
      ...gone(neighbours, ({ address }) => formatAddress(address)).map(({ address }) =>
        deleteNeighbourRequest({ linkIndex, address }),
      ),
      ...gone(forwarding, ({ mac }) => mac).map((entry) => deleteFdbRequest({ linkIndex, ...entry })),
    ],
  };
}

/** What is removed and nothing takes the place of: setting replaces. */
function gone<T>({ add, remove }: Difference<T>, key: (item: T) => string): T[] {
  const replaced = new Set(add.map(key));
  return remove.filter((item) => !replaced.has(key(item)));
}
