import * as z from 'zod';
import type { Resource } from './group.ts';
import { AddressField } from './fields.ts';
import { StoredMetadata } from './metadata.ts';
import { celRules } from './rules.ts';

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
    .object({ path: z.string().max(1024), inode: z.int().min(0), bootID: z.string().max(64) })
    .optional()
    .describe('The network namespace at the time of the claim; absent where the object was recovered.'),
});
export type Attachment = z.output<typeof Attachment>;

export const PodReference = z.object({
  namespace: z.string().max(63),
  name: z.string().max(253),
  /** Absent where the runtime is too old to say it. */
  uid: z.string().max(128).exactOptional(),
});
export type PodReference = z.output<typeof PodReference>;

/** Holds a sticky address for its pod, while no sandbox of that runs. */
export const STICKY_HOLDER = 'sticky';

/** Who has one address: a sandbox's interface, or a holder without one. */
export const IPAllocationSpec = z
  .object({
    address: AddressField,
    pool: z.string().min(1).max(63),
    nodeName: z.string().min(1).max(253).optional(),
    attachment: Attachment.optional(),
    pod: PodReference.optional(),
    holder: z.string().min(1).max(253).optional().describe('Who holds an address that no sandbox has.'),
    sticky: z
      .string()
      .min(3)
      .max(317)
      .exactOptional()
      .describe(
        'The pod of a StatefulSet that keeps the address, as namespace/name, also while it does not run.',
      ),
    fixed: z
      .boolean()
      .exactOptional()
      .describe(
        'The pod asked for this very address. It comes free without a rest, for the next pod that does.',
      ),
  })
  .meta(
    celRules(
      {
        rule: 'has(self.attachment) != has(self.holder)',
        message: 'exactly one of attachment and holder must be set',
      },
      {
        rule: `!has(self.holder) || self.holder != '${STICKY_HOLDER}' || has(self.sticky)`,
        message: `the holder ${STICKY_HOLDER} is weft's own word, for addresses with spec.sticky`,
      },
      {
        rule:
          'self.address == oldSelf.address && self.pool == oldSelf.pool && ' +
          'has(self.sticky) == has(oldSelf.sticky) && ' +
          '(has(oldSelf.sticky) ? self.sticky == oldSelf.sticky : self == oldSelf)',
        message:
          "an IPAllocation's spec is immutable: release the address and claim it anew. A sticky one keeps address, " +
          'pool and sticky',
      },
    ),
  );
export type IPAllocationSpec = z.output<typeof IPAllocationSpec>;

export const IPAllocationStatus = z.object({
  releasedAt: z.iso.datetime({ offset: true }).optional().describe('Since when the address rests.'),
});

/** The whole object, as read. */
export const IPAllocation = z.object({
  metadata: StoredMetadata,
  spec: IPAllocationSpec,
  status: IPAllocationStatus.optional(),
});
export type IPAllocation = z.output<typeof IPAllocation>;
