import { listAddresses, listLinks, type NetlinkSocket } from '../kernel/index.ts';
import { cidrHasAddress, type CIDR } from '../net/index.ts';
import { OWN_ADDRESS_LINKS } from './node-state.ts';

/** The name of a link that has an address in the CIDR, up or down; those that hold weft's own addresses are left out. */
export function foreignLinkWithAddressIn(host: NetlinkSocket, cidr: CIDR): string | undefined {
  const indices = new Set(
    listAddresses(host)
      .filter(({ address }) => cidrHasAddress(cidr, address))
      .map(({ linkIndex }) => linkIndex),
  );
  if (indices.size === 0) return undefined;
  return listLinks(host).find(({ index, name }) => indices.has(index) && !OWN_ADDRESS_LINKS.includes(name))
    ?.name;
}
