import { ADDRESS_BITS, cidrOf, FAMILIES, sameAddress, type Family, type IPAddress } from '../net/index.ts';
import { VXLAN_LINK, type Uplink, type Uplinks } from '../dataplane/index.ts';
import {
  HOST_LINK_PREFIX,
  listAddresses,
  listLinks,
  listRoutes,
  type Link,
  type LinkAddress,
  type NetlinkSocket,
} from '../kernel/index.ts';

/**
 * The link that holds the node's InternalIP, for each family that has one. A family whose InternalIP is on none
 * of the node's links is left out.
 */
export function readUplinks(host: NetlinkSocket, internalIPs: readonly IPAddress[]): Uplinks {
  const links = new Map(listLinks(host).map((link) => [link.index, link]));
  const present = listAddresses(host);
  const uplinks: Partial<Record<Family, Uplink>> = {};
  for (const family of FAMILIES) {
    const address = internalIPs.find((candidate) => candidate.family === family);
    const held = present.find((item) => address !== undefined && sameAddress(item.address, address));
    const link = held === undefined ? undefined : links.get(held.linkIndex);
    if (address === undefined || link === undefined) continue;
    uplinks[family] = link.loopback
      ? { address, link: undefined, connected: [], mtu: loopbackMTU(host, family, links) }
      : { address, link: link.name, connected: connectedPrefixes(link, family, present), mtu: link.mtu };
  }
  return uplinks;
}

function connectedPrefixes(link: Link, family: Family, present: readonly LinkAddress[]): Uplink['connected'] {
  return present
    .filter(({ linkIndex, address }) => linkIndex === link.index && address.family === family)
    .filter(({ scope, prefixLength }) => scope === 'global' && prefixLength < ADDRESS_BITS[family])
    .map(({ address, prefixLength }) => cidrOf(address, prefixLength));
}

/**
 * A node that announces its address by a routing protocol holds it on `lo`, whose MTU says nothing: then that of
 * the default route's link counts, or the smallest of all that may carry packets.
 */
function loopbackMTU(host: NetlinkSocket, family: Family, links: ReadonlyMap<number, Link>): number {
  const [defaultRoute] = listRoutes(host, { family })
    .filter(({ dst, oif }) => dst.prefixLength === 0 && oif !== undefined)
    .sort((a, b) => a.metric - b.metric);
  const link = links.get(defaultRoute?.oif ?? -1);
  if (link !== undefined) return link.mtu;
  const mtus = [...links.values()]
    .filter(
      ({ loopback, up, name }) =>
        !loopback && up && name !== VXLAN_LINK && !name.startsWith(HOST_LINK_PREFIX),
    )
    .map(({ mtu }) => mtu);
  return mtus.length === 0 ? DEFAULT_MTU : Math.min(...mtus);
}

const DEFAULT_MTU = 1500;
