import type { NodeSubnet } from '../api/index.ts';
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
import { vxlanMAC } from './vxlan.ts';

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
  | { readonly kind: 'none'; readonly reason: string };

/**
 * Directly, where the peer has an address of the subnet's family in a connected prefix of our uplink of that
 * family; else by VXLAN over the family of the underlay (design, section 7). So an IPv6 subnet between nodes
 * without a common IPv6 link goes by VXLAN even where they share an IPv4 one.
 */
export function pathToPeer(
  { spec }: NodeSubnet,
  { uplinks, underlay, own }: { uplinks: Uplinks; underlay: Family | undefined; own: readonly IPAddress[] },
): PeerPath {
  const family = spec.cidr.family;
  const stale = spec.nextHops.find((hop) => own.some((address) => sameAddress(address, hop)));
  if (stale !== undefined) {
    return none(spec.cidr, `${formatAddress(stale)} of node "${spec.nodeName}" is this node's own address`);
  }
  const uplink = uplinks[family];
  const neighbour = spec.nextHops.find((hop) => uplink !== undefined && isOnLink(uplink, hop));
  if (uplink?.link !== undefined && neighbour !== undefined) {
    return { kind: 'direct', link: uplink.link, nextHop: neighbour };
  }
  if (underlay === undefined) return none(spec.cidr, 'no InternalIP of this node is on one of its links');
  const destination = spec.nextHops.find((hop) => hop.family === underlay);
  if (destination === undefined) {
    return none(spec.cidr, `node "${spec.nodeName}" has no ${underlay} address, which VXLAN here runs over`);
  }
  return { kind: 'vxlan', mac: vxlanMAC(spec.nodeUID), destination };
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
