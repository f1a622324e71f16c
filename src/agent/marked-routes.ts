import { NODE_ROUTE_PROTOCOL } from '../dataplane/index.ts';
import { listRoutes, type NetlinkSocket } from '../kernel/index.ts';
import { sameCIDR, type CIDR } from '../net/index.ts';

/**
 * Whether the kernel has weft's own `unreachable` route for the subnet: it stands only where this machine held the
 * subnet in this boot.
 */
export function hasMarkedRoute(host: NetlinkSocket, cidr: CIDR): boolean {
  return listRoutes(host, { protocol: NODE_ROUTE_PROTOCOL, family: cidr.family }).some(
    ({ dst, type }) => type === 'unreachable' && sameCIDR(dst, cidr),
  );
}
