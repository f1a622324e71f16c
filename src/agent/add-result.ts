import type { AddRequest, AddResult, ResultAddress } from '../cni/index.ts';
import { HOST_LINK_MAC, POD_GATEWAYS, type PodLink } from '../kernel/index.ts';
import { ADDRESS_BITS, FAMILIES, type CIDR, type Family, type IPAddress } from '../net/index.ts';

/** What ADD answers for an interface: the host's end first, the sandbox's second, and where it leads. */
export function addResult(
  request: AddRequest,
  link: PodLink,
  mtu: number,
  addresses: Readonly<Partial<Record<Family, IPAddress>>>,
  destinations: readonly CIDR[],
): AddResult {
  const ips = FAMILIES.flatMap((family): ResultAddress[] => {
    const address = addresses[family];
    if (address === undefined) return [];
    return [{ address, prefixLength: ADDRESS_BITS[family], gateway: POD_GATEWAYS[family], interface: 1 }];
  });
  return {
    interfaces: [
      { name: link.hostName, mac: HOST_LINK_MAC, mtu },
      { name: request.attachment.ifName, mac: link.podMac, mtu, sandbox: request.netns },
    ],
    ips,
    routes: destinations.map((destination) => ({
      destination,
      gateway: POD_GATEWAYS[destination.family],
    })),
    dns: request.configuration.dns,
  };
}
