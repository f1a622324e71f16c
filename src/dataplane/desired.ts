import { vxlanMAC, type Encapsulation, type IPPool, type NodeSubnet, type PoolUse } from '../api/index.ts';
import {
  ADDRESS_BITS,
  cidrContains,
  cidrHasAddress,
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
import { isOnLink, neighbourOnLink, pathToPeer, wayTo, type PeerPath, type Uplinks } from './peers.ts';
import {
  PEER_METRIC,
  UNREACHABLE_METRIC,
  type NodeRoute,
  type NodeState,
  type PeerForwarding,
  type PeerNeighbour,
  type PodMTU,
  type VxlanDevice,
} from './state.ts';
import { linkLocalOfMAC, VXLAN_LINK, VXLAN_OVERHEAD } from './vxlan.ts';

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
  const encapsulationOf = encapsulations(pools);
  const vxlan = desiredVxlan(input, { families, encapsulationOf });
  // On a bridge the node has its gateway's address, which the bridge's plugin sets.
  const ofPods = own.filter(({ spec }) => useOf(spec.poolUID, pools) === 'Pods');
  const sources = ownSources(ofPods, encapsulationOf);
  const disputed = disputedSubnets({ subnets, pools, ownAddresses: node.addresses });
  const peers = withOneNodePerMAC(
    subnets
      .filter(({ spec }) => spec.nodeName !== node.name)
      .map((subnet): PeerSubnet => {
        const dispute = disputed.get(subnet);
        if (dispute !== undefined) return { subnet, path: unrouted(subnet, dispute) };
        const encapsulation = encapsulationOf(subnet);
        const underlay = vxlan?.local.family;
        return {
          subnet,
          path: pathToPeer(subnet, { encapsulation, uplinks, underlay, own: node.addresses }),
        };
      }),
    node,
  );
  const tunnelled = peers.flatMap(({ subnet, path }) => (path.kind === 'vxlan' ? [{ subnet, path }] : []));
  const preferredSource = byFamily(
    (family) => sources.find((source) => source.address.family === family)?.address,
  );

  return {
    vxlan,
    addresses: ofPods
      .filter(({ spec }) => !isHostPrefix(spec.cidr))
      .map((subnet) => ({
        // What is translated into the tunnel takes an address of the device, which must be one that comes back by it.
        link: vxlan === undefined || encapsulationOf(subnet) === 'Never' ? 'lo' : vxlan.name,
        address: firstAddress(subnet.spec.cidr),
      })),
    routes: [
      ...own.filter(({ spec }) => !isHostPrefix(spec.cidr)).map(({ spec }) => unreachable(spec.cidr)),
      ...peers.flatMap((peer) => peerRoute(peer, sourceTowards(peer, { sources, uplinks }))),
    ],
    // Those of IPv6 are link-local: no number is one of both families.
    neighbours: uniqueBy(tunnelled.map(peerNeighbour), ({ address }) => address.value),
    forwarding: uniqueBy(tunnelled.map(peerForwarding), ({ mac }) => mac),
    filter: desiredFilter({
      families,
      pools,
      subnets,
      ownSubnets: named,
      tunnelSources: byFamily((family) => sourceIntoTunnel(family, sources)),
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
    forwarded: forwardedCIDRs(pools, named),
    preferredSource,
    podMTU: podMTU({ uplinks, vxlan, families, own: named, encapsulationOf }),
    undecided: named.filter((subnet) => !own.includes(subnet)).map(({ spec }) => spec.cidr),
    notes: notes(input, peers),
  };
}

/** The pools' CIDRs, and this node's subnets that lie in none of them any more; each of them once. */
function forwardedCIDRs(pools: readonly IPPool[], named: readonly NodeSubnet[]): CIDR[] {
  const outermost: CIDR[] = [];
  // What holds others comes before them.
  for (const cidr of [...pools, ...named].flatMap(cidrsOf).sort(compareCIDRs)) {
    const last = outermost.at(-1);
    if (last === undefined || !cidrContains(last, cidr)) outermost.push(cidr);
  }
  return outermost;
}

function cidrsOf({ spec }: IPPool | NodeSubnet): readonly CIDR[] {
  return 'cidr' in spec ? [spec.cidr] : spec.cidrs;
}

/** A subnet whose pool is not there counts as one of pods. */
function useOf(poolUID: string, pools: readonly IPPool[]): PoolUse {
  return pools.find(({ metadata }) => metadata.uid === poolUID)?.spec.use ?? 'Pods';
}

/** Of a subnet whose pool is not there: as a pool has it by default. */
type EncapsulationOf = (subnet: NodeSubnet) => Encapsulation;

function encapsulations(pools: readonly IPPool[]): EncapsulationOf {
  const byPool = new Map(pools.map(({ metadata, spec }) => [metadata.uid, spec.encapsulation]));
  return ({ spec }) => byPool.get(spec.poolUID) ?? 'CrossSubnet';
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
 * Two nodes with one MAC cannot both be told apart behind the tunnel: the one with the older subnet keeps it, on every
 * node alike, and the other's subnets have no route rather than one that leads to somebody else. Where this node is one
 * of them neither reaches the other: a device takes no packet that bears its own MAC.
 */
function withOneNodePerMAC(peers: readonly PeerSubnet[], node: DesiredInput['node']): PeerSubnet[] {
  const holders = new Map([[vxlanMAC(node.uid), node.name]]);
  for (const { subnet, path } of [...peers].sort((a, b) => byAge(a.subnet, b.subnet))) {
    if (path.kind === 'vxlan' && !holders.has(path.mac)) holders.set(path.mac, subnet.spec.nodeName);
  }
  return peers.map(({ subnet, path }) => {
    const holder = path.kind === 'vxlan' ? holders.get(path.mac) : undefined;
    if (path.kind !== 'vxlan' || holder === undefined || holder === subnet.spec.nodeName)
      return { subnet, path };
    const reason =
      `its VXLAN MAC ${path.mac} is that of node "${holder}", too: both follow from the Nodes' UIDs; ` +
      `delete the Node object of one of them, so that it registers under another UID`;
    return { subnet, path: unrouted(subnet, reason) };
  });
}

/**
 * The device is there as soon as a pool may encapsulate, whether or not a peer needs it now: so the node's own
 * addresses never move from one link to another when the first node behind a router joins.
 */
function desiredVxlan(
  { node, uplinks, pools, subnets, config }: DesiredInput,
  { families, encapsulationOf }: { families: readonly Family[]; encapsulationOf: EncapsulationOf },
): VxlanDevice | undefined {
  const [first] = node.addresses;
  const uplink = first === undefined ? undefined : uplinks[first.family];
  const mayEncapsulate =
    pools.some(({ spec }) => spec.encapsulation !== 'Never') ||
    subnets.some((subnet) => encapsulationOf(subnet) !== 'Never');
  if (uplink === undefined || !mayEncapsulate) return undefined;
  return {
    name: VXLAN_LINK,
    vni: config.vni,
    port: config.port,
    mac: vxlanMAC(node.uid),
    mtu: atLeastSmallest(uplink.mtu - VXLAN_OVERHEAD[uplink.address.family], families),
    local: uplink.address,
  };
}

/** One of the node's own addresses among the pods', as a source of its packets to them. */
interface OwnSource {
  readonly address: IPAddress;
  readonly encapsulation: Encapsulation;
}

/**
 * The oldest own subnet's first address comes first: it stays the longest, and connections outlive a change only as
 * long as the address does.
 */
function ownSources(ofPods: readonly NodeSubnet[], encapsulationOf: EncapsulationOf): OwnSource[] {
  return ofPods
    .filter(({ spec }) => !isHostPrefix(spec.cidr))
    .sort(byAge)
    .map((subnet) => ({
      address: firstAddress(subnet.spec.cidr),
      encapsulation: encapsulationOf(subnet),
    }));
}

/**
 * The source that the peer answers by the same way, as nodes with strict reverse path filters demand: it depends on the
 * pool of the source. On a link the kernel knows one itself, the address of the link.
 */
function sourceTowards(
  { subnet, path }: PeerSubnet,
  { sources, uplinks }: { sources: readonly OwnSource[]; uplinks: Uplinks },
): IPAddress | undefined {
  const ofFamily = sources.filter(({ address }) => address.family === subnet.spec.cidr.family);
  const onLink = neighbourOnLink(subnet.spec, uplinks) !== undefined;
  const same = ofFamily.find(({ encapsulation }) => wayTo(encapsulation, onLink) === path.kind);
  return (same ?? (path.kind === 'direct' ? undefined : ofFamily[0]))?.address;
}

/** The source of what a Service has turned into the tunnel: one that comes back by it, from as many nodes as can be. */
function sourceIntoTunnel(family: Family, sources: readonly OwnSource[]): IPAddress | undefined {
  const ofFamily = sources.filter(({ address }) => address.family === family);
  const first = (encapsulation: Encapsulation) =>
    ofFamily.find((source) => source.encapsulation === encapsulation);
  return (first('Always') ?? first('CrossSubnet'))?.address;
}

function byFamily<T>(valueOf: (family: Family) => T | undefined): Partial<Record<Family, T>> {
  const values: Partial<Record<Family, T>> = {};
  for (const family of FAMILIES) {
    const value = valueOf(family);
    if (value !== undefined) values[family] = value;
  }
  return values;
}

/** By the time of creation, then by address. */
function byAge(a: NodeSubnet, b: NodeSubnet): number {
  return (
    Date.parse(a.metadata.creationTimestamp) - Date.parse(b.metadata.creationTimestamp) ||
    compareCIDRs(a.spec.cidr, b.spec.cidr)
  );
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
  preferredSource: IPAddress | undefined,
): readonly NodeRoute[] {
  const destination = subnet.spec.cidr;
  const target = (link: string, gateway: IPAddress, onlink: boolean): readonly NodeRoute[] => [
    {
      destination,
      metric: PEER_METRIC[destination.family],
      target: { kind: 'gateway', link, gateway, onlink },
      preferredSource,
    },
  ];
  switch (path.kind) {
    case 'direct':
      return target(path.link, path.nextHop, false);
    case 'vxlan':
      return target(VXLAN_LINK, tunnelGateway(destination, path.mac), true);
    case 'fabric':
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
function podMTU({
  uplinks,
  vxlan,
  families,
  own,
  encapsulationOf,
}: {
  uplinks: Uplinks;
  vxlan: VxlanDevice | undefined;
  families: readonly Family[];
  own: readonly NodeSubnet[];
  encapsulationOf: EncapsulationOf;
}): PodMTU {
  const mtus = FAMILIES.flatMap((family) => uplinks[family]?.mtu ?? []);
  const plain = mtus.length === 0 ? SMALLEST_MTU : atLeastSmallest(Math.min(...mtus), families);
  return {
    plain,
    encapsulated: vxlan === undefined ? plain : Math.min(plain, vxlan.mtu),
    plainSubnets: own.filter((subnet) => encapsulationOf(subnet) === 'Never').map(({ spec }) => spec.cidr),
  };
}

/** What every IPv6 link carries. Below that the kernel takes IPv6 from a link, and does not give it back. */
const SMALLEST_MTU = 1280;

function atLeastSmallest(mtu: number, families: readonly Family[]): number {
  return families.includes('ipv6') ? Math.max(mtu, SMALLEST_MTU) : mtu;
}

/** MTU of the link of a pod with these addresses; without any: of a pod whose pool may encapsulate. */
export function podMTUOf(
  { encapsulated, plain, plainSubnets }: PodMTU,
  addresses: readonly IPAddress[],
): number {
  const isPlain = (address: IPAddress) => plainSubnets.some((subnet) => cidrHasAddress(subnet, address));
  return addresses.length > 0 && addresses.every(isPlain) ? plain : encapsulated;
}

function notes({ node, uplinks }: DesiredInput, peers: readonly PeerSubnet[]): readonly string[] {
  const missing = node.addresses
    .filter(({ family }) => uplinks[family] === undefined)
    .map((address) => `InternalIP ${formatAddress(address)} of node "${node.name}" is on none of its links`);
  const unreached = peers.flatMap(({ path }) => (path.kind === 'none' ? [path.reason] : []));
  return [...missing, ...unreached];
}

/** The first of each key. */
function uniqueBy<T>(items: readonly T[], keyOf: (item: T) => string | bigint): T[] {
  const seen = new Map<string | bigint, T>();
  for (const item of items) {
    const key = keyOf(item);
    if (!seen.has(key)) seen.set(key, item);
  }
  return [...seen.values()];
}
