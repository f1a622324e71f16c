import { z } from 'zod';
import type { Resource } from './group.ts';
import { AddressField } from './fields.ts';
import { StoredMetadata } from './metadata.ts';

export const IP_ALLOCATION: Resource = {
  kind: 'IPAllocation',
  plural: 'ipallocations',
  singular: 'ipallocation',
};

/** A sandbox's interface: what an address is given to. Never a pod name, since names are reused. */
export const Attachment = z.object({
  network: z.string().min(1).max(40).describe("The name of the network configuration, the conflist's name."),
  containerID: z.string().min(1).max(128),
  ifName: z.string().min(1).max(15),
  kind: z
    .enum(['Interface', 'AddressOnly'])
    .describe('Interface: weft made the link. AddressOnly: another plugin did.'),
  netns: z
    .object({ path: z.string(), inode: z.int(), bootID: z.string() })
    .optional()
    .describe('The network namespace at the time of the claim; absent where the object was recovered.'),
});
export type Attachment = z.output<typeof Attachment>;

export const PodReference = z.object({ namespace: z.string(), name: z.string(), uid: z.string() });
export type PodReference = z.output<typeof PodReference>;

export const IPAllocationSpec = z.object({
  address: AddressField,
  pool: z.string().min(1).max(63),
  nodeName: z.string().min(1).max(253).optional(),
  attachment: Attachment.optional(),
  pod: PodReference.optional(),
  holder: z.string().min(1).max(253).optional().describe('Who holds an address that no sandbox has.'),
});
export type IPAllocationSpec = z.output<typeof IPAllocationSpec>;

export const IPAllocationStatus = z.object({
  releasedAt: z.iso.datetime({ offset: true }).optional().describe('Since when the address rests.'),
});

export const IPAllocation = z.object({
  metadata: StoredMetadata,
  spec: IPAllocationSpec,
  status: IPAllocationStatus.optional(),
});
export type IPAllocation = z.output<typeof IPAllocation>;
