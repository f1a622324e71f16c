import { createHash } from 'node:crypto';

/**
 * The MAC of a node's VXLAN device, a function of its Node's UID, so that every node knows all others' without
 * asking. Locally administered unicast, in lower-case pairs. Frozen like the names of objects: two nodes that derive
 * it differently do not reach each other. Of two nodes with the same one only one is reached; with 46 bits of a hash
 * that does not happen by chance.
 */
export function vxlanMAC(nodeUID: string): string {
  const bytes = createHash('sha256').update(`weft vxlan ${nodeUID}`).digest().subarray(0, 6);
  bytes.writeUInt8((bytes.readUInt8(0) & 0xfe) | 0x02, 0);
  return bytes.toString('hex').replace(/..(?!$)/g, '$&:');
}
