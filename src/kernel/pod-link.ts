import { setTimeout as sleep } from 'node:timers/promises';
import { FAMILIES, hostCIDR, parseAddress, type CIDR, type Family, type IPAddress } from '../net/index.ts';
import { parseAlias, type AttachmentAlias } from './alias.ts';
import {
  DYING_ALIAS,
  DYING_LINK_GROUP,
  dyingLinkName,
  FIXED_MTU_LINK_GROUP,
  HOST_LINK_MAC,
  HOST_LINK_PREFIX,
  hostLinkName,
  podMac,
} from './names.ts';
import type { Namespace, NamespaceSocket } from './namespaces.ts';
import { addAddressRequest, listAddresses, type LinkAddress } from './rtnetlink/addresses.ts';
import { isNetlinkError } from './rtnetlink/errors.ts';
import {
  changeLinkRequest,
  createVeth,
  getLink,
  linkDownRequest,
  linkUpRequest,
  listLinks,
  type Link,
} from './rtnetlink/links.ts';
import { namespaceIdOf } from './rtnetlink/namespace-ids.ts';
import {
  listNeighbours,
  replaceNeighbourRequest,
  type Neighbour,
  type NeighbourSpec,
} from './rtnetlink/neighbours.ts';
import { addRouteRequest, listRoutes, ROUTE_PROTOCOL, routeTo, type Route } from './rtnetlink/routes.ts';
import { throwRefusals, type NetlinkRequest, type NetlinkSocket } from './rtnetlink/socket.ts';
import { forgetSourceRequest, sourceRouteRequests } from './source-routes.ts';

/** The pair to make for an attachment; names and MACs follow from its first two fields. */
export interface PodLinkSpec {
  readonly containerID: string;
  /** Name of the pod's end. */
  readonly ifName: string;
  readonly mtu: number;
  /** The MTU stays what it is, whatever becomes of the uplink's. */
  readonly fixedMTU?: boolean;
}

/** A veth pair between the host and a pod. Each index counts in its end's own namespace. */
export interface PodLink {
  readonly hostName: string;
  readonly hostIndex: number;
  readonly podIndex: number;
  readonly podMac: string;
}

/** What a pod link carries. */
export interface PodLinkWiring {
  /** At most one of each family. */
  readonly addresses: Readonly<Partial<Record<Family, IPAddress>>>;
  /** Where the pod's packets go by this link: everywhere, or (a second interface) only to these. */
  readonly destinations: 'default' | readonly CIDR[];
  /**
   * The families in which what has this link's address leaves by it whatever the destination: where other interfaces of
   * the pod have the default route. None, unless told.
   */
  readonly bySource?: readonly Family[];
  /** Preferred source of the host's own traffic to the pod, by family (design, section 4). */
  readonly hostSources: Readonly<Partial<Record<Family, IPAddress>>>;
  /** See formatAlias; written last: only a link with a complete alias is an attachment. */
  readonly alias: string;
}

/** A link of weft's naming on the host. Without `attachment` it is half-made. */
export interface FoundPodLink {
  readonly link: Link;
  readonly attachment: AttachmentAlias | undefined;
}

/** What stands inside a pod for one attachment. */
export interface PodEnd {
  readonly hostLink: Link;
  readonly podLink: Link;
  readonly addresses: readonly LinkAddress[];
  readonly routes: readonly Route[];
  readonly neighbours: readonly Neighbour[];
}

/** A link of that name is there already. */
export class LinkExistsError extends Error {
  override name = 'LinkExistsError' as const;
  readonly linkName: string;
  readonly where: 'host' | 'pod';

  constructor(linkName: string, where: 'host' | 'pod', cause: unknown) {
    const place = where === 'pod' ? "in the pod's namespace" : 'on the host';
    super(`a link named "${linkName}" exists ${place} already; remove it or use another name`, { cause });
    this.linkName = linkName;
    this.where = where;
  }
}

/** The next hop inside every pod. No link has these addresses: a permanent neighbour entry answers for them. */
export const POD_GATEWAYS: Readonly<Record<Family, IPAddress>> = {
  ipv4: parseAddress('169.254.1.1'),
  ipv6: parseAddress('fe80::1'),
};

const LOOPBACK_INDEX = 1;

/**
 * Makes the pair in one message, both ends down, the pod's end in its namespace under its final name.
 * @throws LinkExistsError
 */
export function createPodLink(host: NetlinkSocket, pod: Namespace, spec: PodLinkSpec): PodLink {
  const hostName = hostLinkName(spec.containerID, spec.ifName);
  const mac = podMac(spec.containerID, spec.ifName);
  try {
    createVeth(
      host,
      {
        name: hostName,
        mac: HOST_LINK_MAC,
        mtu: spec.mtu,
        ...(spec.fixedMTU === true ? { group: FIXED_MTU_LINK_GROUP } : {}),
      },
      { name: spec.ifName, mac, mtu: spec.mtu, namespaceFd: pod.fd },
    );
  } catch (error) {
    if (!isNetlinkError(error, 'EEXIST')) throw error;
    const onHost = getLink(host, { name: hostName }) !== undefined;
    throw new LinkExistsError(onHost ? hostName : spec.ifName, onHost ? 'host' : 'pod', error);
  }
  const link = getLink(host, { name: hostName });
  if (link?.peerIndex === undefined)
    throw new Error(`the veth ${hostName} vanished right after its creation`);
  return { hostName, hostIndex: link.index, podIndex: link.peerIndex, podMac: mac };
}

/**
 * Gives the pair its addresses, routes and neighbours, sets it up and names its attachment. The host's end
 * comes up first (the other way round the pod's first packets wait for the carrier), the alias is the last
 * step. Filters must be in force before.
 * @throws NetlinkError, NetlinkBatchError, AliasTooLongError
 */
export function configurePodLink(
  host: NetlinkSocket,
  pod: NetlinkSocket,
  link: PodLink,
  wiring: PodLinkWiring,
): void {
  const alias = changeLinkRequest(link.hostIndex, { alias: wiring.alias });
  host.execute([
    linkUpRequest(link.hostIndex),
    ...hostRoutes(link.hostIndex, wiring).map(addRouteRequest),
    ...hostNeighbourSpecs(link.hostIndex, link.podMac, wiring).map(replaceNeighbourRequest),
  ]);
  pod.execute(podRequests(link.podIndex, wiring));
  settleCarrier(host, link);
  host.execute([alias]);
}

/** The host's routes to a pod: one for each address, with the pods' protocol number. */
export function hostRoutes(
  hostIndex: number,
  { addresses, hostSources }: Pick<PodLinkWiring, 'addresses' | 'hostSources'>,
): Route[] {
  return addressList(addresses).map((address) => ({
    dst: hostCIDR(address),
    type: 'unicast',
    oif: hostIndex,
    prefSrc: hostSources[address.family],
    metric: HOST_ROUTE_METRIC[address.family],
    protocol: ROUTE_PROTOCOL.weftPod,
  }));
}

/** The host's neighbour entries for a pod. */
export function hostNeighbourSpecs(
  hostIndex: number,
  mac: string,
  { addresses }: Pick<PodLinkWiring, 'addresses'>,
): NeighbourSpec[] {
  return addressList(addresses).map((address) => ({ linkIndex: hostIndex, address, mac }));
}

/**
 * Takes an attachment's pair down at once and leaves it to `deleteLinkGroup(…, DYING_LINK_GROUP)`. Both names
 * are free afterwards. Inside the pod a link is touched only if it is the other end of ours: the path may
 * be another pod's by now. Returns false if there is no such link on the host.
 */
export function dyingPodLink(
  host: NetlinkSocket,
  pod: NamespaceSocket | undefined,
  hostName: string,
): boolean {
  const hostLink = getLink(host, { name: hostName });
  if (hostLink === undefined) return false;
  const podLink = pod === undefined ? undefined : otherEnd(host, pod, hostLink);
  retire(host, hostLink.index, { alias: DYING_ALIAS, group: DYING_LINK_GROUP });
  if (pod !== undefined && podLink !== undefined) {
    forgetSources(pod.socket, podLink.index, parseAlias(hostLink.alias)?.addresses ?? {});
    retire(pod.socket, podLink.index, {});
  }
  return true;
}

/** All links of weft's naming on the host that are not dying, the half-made among them. */
export function findPodLinks(host: NetlinkSocket): FoundPodLink[] {
  return listLinks(host)
    .filter((link) => link.kind === 'veth' && link.name.startsWith(HOST_LINK_PREFIX))
    .map((link) => ({ link, attachment: parseAlias(link.alias) }));
}

/** What stands in the pod for the pair with that host end; undefined if it or its other end is not there. */
export function inspectPodLink(
  host: NetlinkSocket,
  pod: NamespaceSocket,
  hostName: string,
): PodEnd | undefined {
  const hostLink = getLink(host, { name: hostName });
  const podLink = hostLink === undefined ? undefined : otherEnd(host, pod, hostLink);
  if (hostLink === undefined || podLink === undefined) return undefined;
  return {
    hostLink,
    podLink,
    addresses: listAddresses(pod.socket, { linkIndex: podLink.index }),
    routes: listRoutes(pod.socket).filter((route) => route.oif === podLink.index),
    neighbours: listNeighbours(pod.socket, { linkIndex: podLink.index }),
  };
}

/**
 * The host's end has a carrier only since the pod's end came up, and the kernel starts its queue for that in the
 * background: on a busy machine the host's first packets to the pod are dropped until then. Asking for one link
 * makes the kernel do it before it answers (since Linux 6.8).
 */
function settleCarrier(host: NetlinkSocket, { hostIndex, hostName }: PodLink): void {
  if (getLink(host, { index: hostIndex }) === undefined) {
    throw new Error(`the veth ${hostName} vanished while it was wired`);
  }
}

/**
 * Resolves when the pod's addresses are its own: the kernel makes an IPv6 address local in the background, also one
 * without duplicate detection, and until then drops what comes for it. Answers whether they were in time.
 */
export async function podAddressesSettled(
  pod: NetlinkSocket,
  addresses: PodLinkWiring['addresses'],
): Promise<boolean> {
  const isLocal = (address: IPAddress) => routeTo(pod, address)?.type === 'local';
  const giveUpAtMs = performance.now() + SETTLE_MS;
  while (!addressList(addresses).every(isLocal)) {
    if (performance.now() > giveUpAtMs) return false;
    await sleep(1);
  }
  return true;
}

/** Many times what a busy machine takes. */
const SETTLE_MS = 1_000;

/** Metrics of host routes, as the kernel shows them: IPv6 turns 0 into this. */
const HOST_ROUTE_METRIC: Readonly<Record<Family, number>> = { ipv4: 0, ipv6: 1024 };

function podRequests(podIndex: number, wiring: PodLinkWiring): NetlinkRequest[] {
  const addresses = addressList(wiring.addresses);
  return [
    linkUpRequest(LOOPBACK_INDEX),
    ...addresses.map((address) =>
      addAddressRequest({ linkIndex: podIndex, address, prefixLength: hostCIDR(address).prefixLength }),
    ),
    // The kernel takes routes only on a link that is up.
    linkUpRequest(podIndex),
    ...addresses.flatMap(({ family }) => [
      replaceNeighbourRequest({ linkIndex: podIndex, address: POD_GATEWAYS[family], mac: HOST_LINK_MAC }),
      ...podRoutes(podIndex, family, wiring).map(addRouteRequest),
    ]),
    ...addresses
      .filter(({ family }) => wiring.bySource?.includes(family))
      .flatMap((address) =>
        sourceRouteRequests({ podIndex, address, gateway: POD_GATEWAYS[address.family] }),
      ),
  ];
}

function podRoutes(podIndex: number, family: Family, { destinations }: PodLinkWiring): Route[] {
  const everything: CIDR = { family, first: 0n, prefixLength: 0 };
  const cidrs = destinations === 'default' ? [everything] : destinations;
  return cidrs
    .filter((dst) => dst.family === family)
    .map((dst) => ({
      dst,
      type: 'unicast',
      via: POD_GATEWAYS[family],
      onlink: true,
      oif: podIndex,
      metric: HOST_ROUTE_METRIC[family],
      protocol: ROUTE_PROTOCOL.weftPod,
    }));
}

/** Changes the MTU of both ends of a pair that is not wired yet. */
export function setPodLinkMTU(host: NetlinkSocket, pod: NetlinkSocket, link: PodLink, mtu: number): void {
  pod.execute([changeLinkRequest(link.podIndex, { mtu })]);
  host.execute([changeLinkRequest(link.hostIndex, { mtu })]);
}

/** The other end of our veth, if it is in this namespace. */
export function otherEnd(host: NetlinkSocket, pod: NamespaceSocket, hostLink: Link): Link | undefined {
  // Indices repeat from namespace to namespace, so the namespace itself must be the other end's too.
  if (hostLink.peerIndex === undefined || hostLink.peerNamespaceId === undefined) return undefined;
  if (namespaceIdOf(host, pod.fd) !== hostLink.peerNamespaceId) return undefined;
  const podLink = getLink(pod.socket, { index: hostLink.peerIndex });
  return podLink?.kind === 'veth' && podLink.peerIndex === hostLink.index ? podLink : undefined;
}

/** The rules of an interface that was not the pod's only one; most have none. */
function forgetSources(
  pod: NetlinkSocket,
  podIndex: number,
  addresses: Readonly<Partial<Record<Family, IPAddress>>>,
): void {
  const requests = addressList(addresses).map((address) => forgetSourceRequest({ podIndex, address }));
  const outcomes = pod.transact(requests);
  throwRefusals(
    requests.length,
    outcomes.map((error) => (error?.code === 'ENOENT' ? undefined : error)),
  );
}

/** A link that is up can be renamed only since Linux 6.2, hence two messages. */
function retire(
  socket: NetlinkSocket,
  index: number,
  marks: { readonly alias?: string; readonly group?: number },
): void {
  const outcomes = socket.transact([
    linkDownRequest(index),
    changeLinkRequest(index, { name: dyingLinkName(index), ...marks }),
  ]);
  // Gone in the meantime is what was wanted.
  throwRefusals(
    outcomes.length,
    outcomes.map((error) => (error?.code === 'ENODEV' ? undefined : error)),
  );
}

function addressList(addresses: Readonly<Partial<Record<Family, IPAddress>>>): IPAddress[] {
  return FAMILIES.map((family) => addresses[family]).filter((address) => address !== undefined);
}
