import type { Family } from '../../net/index.ts';

/** AF_INET and AF_INET6, as the kernel numbers the families. */
export const AF: Readonly<Record<Family, number>> = { ipv4: 2, ipv6: 10 };

/** undefined for families that are not IP (bridge, MPLS, multicast routes, …). */
export function familyOf(number: number | undefined): Family | undefined {
  return number === AF.ipv4 ? 'ipv4' : number === AF.ipv6 ? 'ipv6' : undefined;
}
