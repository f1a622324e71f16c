import { vxlanMAC, type Encapsulation, type NodeSubnet } from '../api/index.ts';
import {
  cidrHasAddress,
  formatAddress,
  formatCIDR,
  sameAddress,
  ADDRESS_BITS,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import { askedOnce } from './asked-once.ts';

/** The link that holds a node's InternalIP of one family. */
export interface Uplink {
  readonly address: IPAddress;
  /** Undefined where the address is on the loopback: then nothing is on one link with it. */
  readonly link: string | undefined;
  /** The prefixes of the link's addresses of that family. */
  readonly connected: readonly CIDR[];
  readonly mtu: number;
}

export type Uplinks = Readonly<Partial<Record<Family, Uplink>>>;

/** How a subnet of another node is reached. */
export type PeerPath =
  | { readonly kind: 'direct'; readonly link: string; readonly nextHop: IPAddress }
  | { readonly kind: 'vxlan'; readonly mac: string; readonly destination: IPAddress }
  /** The network between the nodes routes it: no route of ours. */
  | { readonly kind: 'fabric' }
  | { readonly kind: 'none'; readonly reason: string };

/**
 * Which kind of way leads to a subnet, by the encapsulation of its pool and by whether its node is on one link with
 * us. The other node decides by the same table about our subnets, so the way back is known.
 */
export function wayTo(encapsulation: Encapsulation, onLink: boolean): 'direct' | 'vxlan' | 'fabric' {
  if (encapsulation === 'Always') return 'vxlan';
  if (onLink) return 'direct';
  return encapsulation === 'Never' ? 'fabric' : 'vxlan';
}

/**
 * On one link with a peer is who has an uplink of the subnet's family, of which a connected prefix holds an address of
 * the peer. VXLAN runs over the family of the underlay (design, section 7). So an IPv6 subnet between nodes without
 * a common IPv6 link goes by VXLAN even where they share an IPv4 one.
 */
export function pathToPeer(
  subnet: NodeSubnet,
  {
    encapsulation,
    uplinks,
    underlay,
    own,
  }: {
    encapsulation: Encapsulation;
    uplinks: Uplinks;
    underlay: Family | undefined;
    own: readonly IPAddress[];
  },
): PeerPath {
  const { spec } = subnet;
  const stale = spec.nextHops.find((hop) => own.some((address) => sameAddress(address, hop)));
  if (stale !== undefined) {
    return none(spec.cidr, `${formatAddress(stale)} of node "${spec.nodeName}" is this node's own address`);
  }
  const neighbour = neighbourOnLink(spec, uplinks);
  const way = wayTo(encapsulation, neighbour !== undefined);
  if (way === 'fabric') return { kind: 'fabric' };
  if (way === 'direct' && neighbour !== undefined) return { kind: 'direct', ...neighbour };
  if (underlay === undefined) return none(spec.cidr, 'no InternalIP of this node is on one of its links');
  const destination = spec.nextHops.find((hop) => hop.family === underlay);
  if (destination === undefined) {
    return none(spec.cidr, `node "${spec.nodeName}" has no ${underlay} address, which VXLAN here runs over`);
  }
  return { kind: 'vxlan', mac: peerMAC(subnet), destination };
}

/** The MAC of the VXLAN device of the node that holds the subnet. */
export const peerMAC = askedOnce(({ spec }) => vxlanMAC(spec.nodeUID));

/** By which address, and over which of our links, the node of a subnet is a neighbour of ours in its family. */
export function neighbourOnLink(
  { cidr, nextHops }: NodeSubnet['spec'],
  uplinks: Uplinks,
): { readonly link: string; readonly nextHop: IPAddress } | undefined {
  const uplink = uplinks[cidr.family];
  if (uplink?.link === undefined) return undefined;
  const nextHop = nextHops.find((hop) => isOnLink(uplink, hop));
  return nextHop && { link: uplink.link, nextHop };
}

/** Whether the address is a neighbour. Host prefixes connect nothing: /32 uplinks have no neighbours. */
export function isOnLink({ connected }: Uplink, address: IPAddress): boolean {
  return connected.some(
    (prefix) => prefix.prefixLength < ADDRESS_BITS[prefix.family] && cidrHasAddress(prefix, address),
  );
}

function none(cidr: CIDR, reason: string): PeerPath {
  return { kind: 'none', reason: `no route to ${formatCIDR(cidr)}: ${reason}` };
}
