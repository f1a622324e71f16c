import type { Family, IPAddress } from '../net/index.ts';

/** Never `weft…`: the anti-spoofing rules and kube-proxy's interface prefix would match it. */
export const VXLAN_LINK = 'vxlan.weft';

/** Bytes that the outer headers take from each packet, by the family of the underlay. */
export const VXLAN_OVERHEAD: Readonly<Record<Family, number>> = { ipv4: 50, ipv6: 70 };

/** The link-local address that a device with that MAC gives itself (modified EUI-64). */
export function linkLocalOfMAC(mac: string): IPAddress {
  const value = BigInt(`0x${mac.replaceAll(':', '')}`);
  const upper = value >> 24n;
  const lower = value & 0xffffffn;
  const interfaceID = ((upper << 40n) | (0xfffen << 24n) | lower) ^ (1n << 57n);
  return { family: 'ipv6', value: (0xfe80n << 112n) | interfaceID };
}
