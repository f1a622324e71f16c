import { NODE_ROUTE_PROTOCOL } from '../dataplane/index.ts';
import { listRoutes, type NetlinkSocket } from '../kernel/index.ts';
import { sameCIDR, type CIDR } from '../net/index.ts';

/** The subnets whose marked route stands in this kernel: proof that they were this node's in this boot. */
export function markedSubnets(host: NetlinkSocket): CIDR[] {
  return listRoutes(host, { protocol: NODE_ROUTE_PROTOCOL })
    .filter(({ type }) => type === 'unreachable')
    .map(({ dst }) => dst);
}

/**
 * Whether the kernel has weft's own `unreachable` route for the subnet: it stands only where this machine held the
 * subnet in this boot.
 */
export function hasMarkedRoute(host: NetlinkSocket, cidr: CIDR): boolean {
  return markedSubnets(host).some((marked) => sameCIDR(marked, cidr));
}
