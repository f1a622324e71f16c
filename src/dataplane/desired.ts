import type { IPPool, NodeSubnet, PoolUse } from '../api/index.ts';
import {
  ADDRESS_BITS,
  compareCIDRs,
  FAMILIES,
  firstAddress,
  formatAddress,
  formatCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { disputedSubnets } from './disputed.ts';
import { desiredFilter } from './filter.ts';
import type { DNSServer } from './isolation.ts';
import { isOnLink, pathToPeer, type PeerPath, type Uplinks } from './peers.ts';
import {
  PEER_METRIC,
  UNREACHABLE_METRIC,
  type NodeRoute,
  type NodeState,
  type PeerForwarding,
  type PeerNeighbour,
  type VxlanDevice,
} from './state.ts';
import { linkLocalOfMAC, VXLAN_LINK, VXLAN_OVERHEAD, vxlanMAC } from './vxlan.ts';

/** What the operator may set about the data path. */
export interface DataplaneConfig {
  readonly vni: number;
  readonly port: number;
  /** Destinations outside the pools that pods reach with their own address. */
  readonly natExempt: readonly CIDR[];
}

export interface DesiredInput {
  /** `addresses`: the Node's InternalIPs in the order of its object. */
  readonly node: { readonly name: string; readonly uid: string; readonly addresses: readonly IPAddress[] };
  readonly uplinks: Uplinks;
  /** What the kernel speaks at all. Subnets of another family are not for this node. */
  readonly kernelFamilies: readonly Family[];
  readonly pools: readonly IPPool[];
  readonly subnets: readonly NodeSubnet[];
  /** Where the cluster's DNS Service is served. */
  readonly dnsServers: readonly DNSServer[];
  readonly config: DataplaneConfig;
}

/**
 * The kernel state that a node should have: a function of the objects and of the node's own links, and of
 * nothing else (design, section 7). Pods' routes are not in it: they follow from the attachments.
 */
export function desiredNodeState(input: DesiredInput): NodeState {
  return routedNodeState({ ...input, ...routedOnly(input) });
}

/** What lies on a LAN is the LAN's own: no route, no translation, no filter. It is as if it were not there. */
function routedOnly({ pools, subnets }: DesiredInput): Pick<DesiredInput, 'pools' | 'subnets'> {
  const routed = pools.filter(({ spec }) => spec.use !== 'Lan');
  const lans = new Set(pools.filter((pool) => !routed.includes(pool)).map(({ metadata }) => metadata.uid));
  return {
    pools: routed,
    // By the next hops too: the pool may have left this cache before its last subnet.
    subnets: subnets.filter(({ spec }) => spec.nextHops.length > 0 && !lans.has(spec.poolUID)),
  };
}

function routedNodeState(input: DesiredInput): NodeState {
  const { node, uplinks, kernelFamilies, pools, config } = input;
  const subnets = input.subnets
    .filter(({ spec }) => kernelFamilies.includes(spec.cidr.family))
    .sort((a, b) => compareCIDRs(a.spec.cidr, b.spec.cidr));
  const named = subnets.filter(({ spec }) => spec.nodeName === node.name);
  const own = named.filter(({ spec }) => spec.nodeUID === node.uid);
  const families = kernelFamilies.filter(
    (family) =>
      subnets.some(({ spec }) => spec.cidr.family === family) ||
      pools.some(({ spec }) => spec.cidrs.some((cidr) => cidr.family === family)),
  );
  const vxlan = desiredVxlan(input);
  const ownLink = vxlan?.name ?? 'lo';
  // On a bridge the node has its gateway's address, which the bridge's plugin sets.
  const ofPods = own.filter(({ spec }) => useOf(spec.poolUID, pools) === 'Pods');
  const preferredSource = preferredSources(ofPods);
  const disputed = disputedSubnets({ subnets, pools, ownAddresses: node.addresses });
  const peers = subnets
    .filter(({ spec }) => spec.nodeName !== node.name)
    .map((subnet): PeerSubnet => {
      const dispute = disputed.get(subnet);
      if (dispute !== undefined) return { subnet, path: unrouted(subnet, dispute) };
      const path = pathToPeer(subnet, { uplinks, underlay: vxlan?.local.family, own: node.addresses });
      return { subnet, path };
    });
  const tunnelled = peers.flatMap(({ subnet, path }) => (path.kind === 'vxlan' ? [{ subnet, path }] : []));

  return {
    vxlan,
    addresses: ofPods
      .filter(({ spec }) => !isHostPrefix(spec.cidr))
      .map(({ spec }) => ({ link: ownLink, address: firstAddress(spec.cidr) })),
    routes: [
      ...own.filter(({ spec }) => !isHostPrefix(spec.cidr)).map(({ spec }) => unreachable(spec.cidr)),
      ...peers.flatMap((peer) => peerRoute(peer, preferredSource)),
    ],
    neighbours: uniqueBy(tunnelled.map(peerNeighbour), ({ address }) => formatAddress(address)),
    forwarding: uniqueBy(tunnelled.map(peerForwarding), ({ mac }) => mac),
    filter: desiredFilter({
      families,
      pools,
      subnets,
      ownSubnets: named,
      directNodes: [
        ...node.addresses,
        ...peers.flatMap(({ subnet, path }) =>
          path.kind === 'none' ? [] : reachedDirectly(subnet, uplinks),
        ),
      ],
      disputed,
      dnsServers: input.dnsServers,
      config,
    }),
    families,
    bridged: pools
      .filter(({ spec }) => spec.use === 'Bridge')
      .flatMap(({ spec }) => spec.cidrs)
      .sort(compareCIDRs),
    preferredSource,
    podMTU: podMTU(uplinks, vxlan),
    undecided: named.filter((subnet) => !own.includes(subnet)).map(({ spec }) => spec.cidr),
    notes: notes(input, peers),
  };
}

/** A subnet whose pool is not there counts as one of pods. */
function useOf(poolUID: string, pools: readonly IPPool[]): PoolUse {
  return pools.find(({ metadata }) => metadata.uid === poolUID)?.spec.use ?? 'Pods';
}

interface PeerSubnet {
  readonly subnet: NodeSubnet;
  readonly path: PeerPath;
}

function unrouted({ spec }: NodeSubnet, reason: string): PeerPath {
  const title = `${formatCIDR(spec.cidr)} of node "${spec.nodeName}"`;
  return { kind: 'none', reason: `no route to ${title}: ${reason}` };
}

/**
 * The device is there as soon as a pool may encapsulate, whether or not a peer needs it now: so the node's own
 * addresses never move from one link to another when the first node behind a router joins.
 */
function desiredVxlan({ node, uplinks, pools, subnets, config }: DesiredInput): VxlanDevice | undefined {
  const [first] = node.addresses;
  const uplink = first === undefined ? undefined : uplinks[first.family];
  if (uplink === undefined || (pools.length === 0 && subnets.length === 0)) return undefined;
  return {
    name: VXLAN_LINK,
    vni: config.vni,
    port: config.port,
    mac: vxlanMAC(node.uid),
    mtu: uplink.mtu - VXLAN_OVERHEAD[uplink.address.family],
    local: uplink.address,
  };
}

/**
 * The oldest own subnet's first address: it stays the longest, and connections outlive a change only as long as
 * the address does.
 */
function preferredSources(own: readonly NodeSubnet[]): Partial<Record<Family, IPAddress>> {
  const sources: Partial<Record<Family, IPAddress>> = {};
  for (const family of FAMILIES) {
    const [oldest] = own
      .filter(({ spec }) => spec.cidr.family === family && !isHostPrefix(spec.cidr))
      .sort(
        (a, b) =>
          Date.parse(a.metadata.creationTimestamp) - Date.parse(b.metadata.creationTimestamp) ||
          compareCIDRs(a.spec.cidr, b.spec.cidr),
      );
    if (oldest !== undefined) sources[family] = firstAddress(oldest.spec.cidr);
  }
  return sources;
}

/** A host prefix is a pod's whole subnet: its address is the pod's, and an unreachable route would fight the pod's. */
function isHostPrefix(cidr: CIDR): boolean {
  return cidr.prefixLength === ADDRESS_BITS[cidr.family];
}

function unreachable(destination: CIDR): NodeRoute {
  return {
    destination,
    metric: UNREACHABLE_METRIC,
    target: { kind: 'unreachable' },
    preferredSource: undefined,
  };
}

function peerRoute(
  { subnet, path }: PeerSubnet,
  preferredSource: NodeState['preferredSource'],
): readonly NodeRoute[] {
  const destination = subnet.spec.cidr;
  const target = (link: string, gateway: IPAddress, onlink: boolean): readonly NodeRoute[] => [
    {
      destination,
      metric: PEER_METRIC[destination.family],
      target: { kind: 'gateway', link, gateway, onlink },
      preferredSource: preferredSource[destination.family],
    },
  ];
  switch (path.kind) {
    case 'direct':
      return target(path.link, path.nextHop, false);
    case 'vxlan':
      return target(VXLAN_LINK, tunnelGateway(destination, path.mac), true);
    case 'none':
      return [];
  }
}

/**
 * The next hop behind the tunnel. IPv4: the subnet's own first address. IPv6: the link-local address of the peer's
 * device, since a global next hop would have to be looked up through the very route it stands in.
 */
function tunnelGateway(cidr: CIDR, mac: string): IPAddress {
  return cidr.family === 'ipv4' ? firstAddress(cidr) : linkLocalOfMAC(mac);
}

interface TunnelledSubnet {
  readonly subnet: NodeSubnet;
  readonly path: Extract<PeerPath, { kind: 'vxlan' }>;
}

function peerNeighbour({ subnet, path }: TunnelledSubnet): PeerNeighbour {
  return { address: tunnelGateway(subnet.spec.cidr, path.mac), mac: path.mac };
}

function peerForwarding({ path }: TunnelledSubnet): PeerForwarding {
  return { mac: path.mac, destination: path.destination };
}

/** The addresses by which a node answers on one of our links. */
function reachedDirectly({ spec }: NodeSubnet, uplinks: Uplinks): readonly IPAddress[] {
  return spec.nextHops.filter((hop) => {
    const uplink = uplinks[hop.family];
    return uplink !== undefined && isOnLink(uplink, hop);
  });
}

/** What fits through every way that a pod's packet may take from here. */
function podMTU(uplinks: Uplinks, vxlan: VxlanDevice | undefined): number {
  const mtus = FAMILIES.flatMap((family) => uplinks[family]?.mtu ?? []);
  if (vxlan !== undefined) mtus.push(vxlan.mtu);
  return mtus.length === 0 ? SMALLEST_MTU : Math.min(...mtus);
}

/** Of a node whose links are not known: what every IPv6 link carries. */
const SMALLEST_MTU = 1280;

function notes({ node, uplinks }: DesiredInput, peers: readonly PeerSubnet[]): readonly string[] {
  const missing = node.addresses
    .filter(({ family }) => uplinks[family] === undefined)
    .map((address) => `InternalIP ${formatAddress(address)} of node "${node.name}" is on none of its links`);
  const unreached = peers.flatMap(({ path }) => (path.kind === 'none' ? [path.reason] : []));
  return [...missing, ...unreached];
}

/** The first of each key. */
function uniqueBy<T>(items: readonly T[], key: (item: T) => string): T[] {
  const seen = new Map<string, T>();
  for (const item of items) if (!seen.has(key(item))) seen.set(key(item), item);
  return [...seen.values()];
}
