import { createHash } from 'node:crypto';

/** What marks weft's links in the kernel (design, sections 6 and 7). */
export const HOST_LINK_PREFIX = 'weft';
/** A link that DEL has taken down and that waits for its deletion. */
export const DYING_LINK_PREFIX = 'xweft';
/** Never matched by `weft*`, so that the rules for pods' links leave it alone. */
export const VXLAN_LINK_NAME = 'vxlan.weft';
/** Link group of the dying: all are deleted with one message. */
export const DYING_LINK_GROUP = 0x77656674;
/** Link group of those whose MTU is named by the network configuration, and does not follow the uplink's. */
export const FIXED_MTU_LINK_GROUP = 0x7765666d;
/** The alias of a dying link: no attachment. */
export const DYING_ALIAS = 'dying';
/** The host end of every veth has this MAC, so that pods' permanent neighbour entries are all alike. */
export const HOST_LINK_MAC = 'ee:ee:ee:ee:ee:ee';

/** Name of the host end for a sandbox's interface: `weft` and 11 digits of a hash, the 15 that fit. */
export function hostLinkName(containerID: string, ifName: string): string {
  const digest = attachmentDigest(containerID, ifName);
  return HOST_LINK_PREFIX + digest.readBigUInt64BE(0).toString(36).padStart(13, '0').slice(-11);
}

/** MAC of the pod's end, from the same hash, locally administered: the same again for a repeated ADD. */
export function podMac(containerID: string, ifName: string): string {
  const mac = Buffer.from(attachmentDigest(containerID, ifName).subarray(8, 14));
  mac.writeUInt8(((mac[0] ?? 0) & 0xfc) | 0x02, 0);
  return mac.toString('hex').replace(/..(?!$)/g, '$&:');
}

/** Name of a dying link in either namespace; by its index, since attachments may die twice. */
export function dyingLinkName(index: number): string {
  return DYING_LINK_PREFIX + String(index);
}

function attachmentDigest(containerID: string, ifName: string): Buffer {
  return createHash('sha256').update(`${containerID}\0${ifName}`).digest();
}
