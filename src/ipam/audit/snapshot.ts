import * as z from 'zod';
import { formatAddress, InvalidAddressError, parseAddress, type IPAddress } from '../../net/index.ts';

/** Raised by one when a reader of the old form would misread the new one; fields are added without. */
export const SNAPSHOT_FORMAT = 1;

const Address = z.codec(z.string(), z.custom<IPAddress>(), {
  decode: (text, context) => {
    try {
      return parseAddress(text);
    } catch (error) {
      if (!(error instanceof InvalidAddressError)) throw error;
      context.issues.push({ code: 'custom', message: error.message, input: text });
      return z.NEVER;
    }
  },
  encode: formatAddress,
});

/** An interface of weft's as the kernel shows it: what its alias says. */
export const SnapshotSandbox = z.object({
  network: z.string(),
  containerID: z.string(),
  ifName: z.string(),
  podUID: z.string().exactOptional(),
  /** The host's end. */
  link: z.string(),
  addresses: z.array(Address),
  /** What the interface in the pod really has, link-local addresses left out; absent where it cannot be looked at. */
  addressesInPod: z.array(Address).exactOptional(),
});
export type SnapshotSandbox = z.output<typeof SnapshotSandbox>;

/**
 * What an agent says of its node at one moment: `GET /snapshot` on its socket, and the `snapshot` command. Agent and
 * reader may be of different versions, so unknown fields are ignored and the format is checked.
 */
export const NodeSnapshot = z.object({
  format: z.literal(SNAPSHOT_FORMAT),
  nodeName: z.string(),
  nodeUID: z.string(),
  bootID: z.string(),
  takenAt: z.iso.datetime(),
  sandboxes: z.array(SnapshotSandbox),
  /** Attachments for which an ADD or DEL is under way, as attachmentID gives them: nothing is to be judged by them. */
  inFlight: z.array(z.string()),
  /** The namespaces that allocations of this node name whose interface another plugin made. */
  namespaces: z.array(
    z.object({ path: z.string(), inode: z.int(), state: z.enum(['alive', 'dead', 'unknown']) }),
  ),
  /** Addresses in mounted namespaces that nothing of ours tells of (agent/stray-addresses.ts). */
  strays: z.array(z.object({ address: Address, path: z.string() })).default([]),
  /** How what carries our mark in the kernel differs from what the objects ask for: one phrase each. */
  kernel: z.object({
    missing: z.array(z.string()),
    extra: z.array(z.string()),
    /** Routes of others that lead packets for pods of other nodes elsewhere; earlier agents do not look for them. */
    diverting: z.array(z.string()).default([]),
  }),
});
export type NodeSnapshot = z.output<typeof NodeSnapshot>;
