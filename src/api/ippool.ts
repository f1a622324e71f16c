import { z } from 'zod';
import type { Resource } from './group.ts';
import { CIDRField } from './fields.ts';
import { Condition, StoredMetadata } from './metadata.ts';

export const IP_POOL: Resource = { kind: 'IPPool', plural: 'ippools', singular: 'ippool' };

/** What a person writes and keeps in git. Nobody else writes it. */
export const IPPoolSpec = z.object({
  cidrs: z
    .array(CIDRField)
    .min(1)
    .max(256)
    .describe('The blocks of addresses, of one or both families, disjoint. May grow.'),
  nodeSubnetPrefixLength: z
    .object({
      ipv4: z.int().min(16).max(30).default(26),
      ipv6: z.int().min(64).max(126).default(122),
    })
    .prefault({})
    .describe('The size of the piece that a node claims, as a prefix length. Immutable.'),
  natOutgoing: z
    .boolean()
    .default(true)
    .describe('Whether traffic that leaves the pools is masqueraded behind the node.'),
  reuseDelaySeconds: z
    .int()
    .min(0)
    .max(86_400)
    .default(30)
    .describe('How long a released address rests before it may be handed out again.'),
});
export type IPPoolSpec = z.output<typeof IPPoolSpec>;

/** Counts of one family. Those that may pass 2^63 are decimal strings. */
export const PoolUsage = z.object({
  capacity: z.string().regex(/^[0-9]{1,39}$/),
  allocated: z.int(),
  resting: z.int(),
  reserved: z.string().regex(/^[0-9]{1,39}$/),
  free: z.string().regex(/^[0-9]{1,39}$/),
  nodeSubnets: z.int(),
  freeSubnets: z.string().regex(/^[0-9]{1,39}$/),
});
export type PoolUsage = z.output<typeof PoolUsage>;

export const IPPoolStatus = z.object({
  observedGeneration: z.int().optional(),
  ipv4: PoolUsage.optional(),
  ipv6: PoolUsage.optional(),
  conditions: z.array(Condition).optional(),
});
export type IPPoolStatus = z.output<typeof IPPoolStatus>;

export const IPPool = z.object({
  metadata: StoredMetadata,
  spec: IPPoolSpec,
  status: IPPoolStatus.optional(),
});
export type IPPool = z.output<typeof IPPool>;
