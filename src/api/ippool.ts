import * as z from 'zod';
import type { Resource } from './group.ts';
import { AddressOrCIDRField, PoolCIDRField } from './fields.ts';
import { Condition, StoredMetadata } from './metadata.ts';
import { celRules, DISJOINT, HOLDS_A_NODE_SUBNET, immutable } from './rules.ts';
import { LabelSelector } from './selector.ts';

export const IP_POOL: Resource = { kind: 'IPPool', plural: 'ippools', singular: 'ippool' };

/** What a person writes and keeps in git. Nobody else writes it. */
export const IPPoolSpec = z
  .object({
    cidrs: z
      .array(PoolCIDRField)
      .min(1)
      .max(256)
      .meta({
        ...celRules(DISJOINT),
        description:
          'The blocks of addresses, of one or both families, canonical and disjoint. May change: from a CIDR ' +
          'that is taken out nothing new is drawn, and what is in use there stays until its pod goes.',
      }),
    nodeSubnetPrefixLength: z
      .object({
        ipv4: z.int().min(16).max(30).default(26),
        ipv6: z.int().min(64).max(126).default(122),
      })
      .prefault({})
      .meta({
        ...celRules(immutable('nodeSubnetPrefixLength is immutable: create a new pool for another size')),
        description: 'The size of the piece that a node claims, as a prefix length. Immutable.',
      }),
    reserved: z
      .array(AddressOrCIDRField)
      .max(256)
      .optional()
      .describe(
        'Addresses and CIDRs that nobody is given. What a pod has there already stays until the pod goes.',
      ),
    nodeSelector: LabelSelector.optional().describe(
      'Which nodes may draw from the pool, by their labels; absent or empty: all. A node that stops matching is drained.',
    ),
    namespaceSelector: LabelSelector.optional().describe(
      'Which namespaces may draw from the pool, by their labels; absent or empty: all. Enforced whatever pods ask for.',
    ),
    priority: z
      .int()
      .min(-1_000_000)
      .max(1_000_000)
      .default(0)
      .describe(
        'Of the pools that admit a pod the one with the highest priority is tried first; then by name.',
      ),
    disabled: z
      .boolean()
      .default(false)
      .describe('Nothing new is drawn from a disabled pool; what is in use stays until its pod goes.'),
    fixedAddresses: z
      .boolean()
      .default(false)
      .describe(
        'Whether pods may ask for an address by the annotation ipam.weft.dev/addresses. Each one that lies outside ' +
          "its node's subnets is a route on every node.",
      ),
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
  })
  .meta(celRules(HOLDS_A_NODE_SUBNET));
export type IPPoolSpec = z.output<typeof IPPoolSpec>;

/** A count that may pass 2^63: an integer of that size is refused, a float loses digits. */
const BigCount = z
  .string()
  .regex(/^[0-9]{1,39}$/)
  .max(39);
const Count = z.int().min(0);

/** Counts of one family. Those that may pass 2^63 are decimal strings. */
export const PoolUsage = z.object({
  capacity: BigCount.describe('All addresses of the CIDRs.'),
  allocated: Count.describe('Addresses that a sandbox or a holder has.'),
  resting: Count.describe('Released addresses that are not handed out again yet.'),
  reserved: BigCount.describe('Addresses that are never handed out.'),
  free: BigCount.describe('What is left: capacity without allocated, resting and reserved.'),
  nodeSubnets: Count.describe('Pieces that nodes hold.'),
  freeSubnets: BigCount.describe('Pieces that no node holds.'),
});
export type PoolUsage = z.output<typeof PoolUsage>;

export const IPPoolStatus = z.object({
  observedGeneration: z.int().optional(),
  ipv4: PoolUsage.optional(),
  ipv6: PoolUsage.optional(),
  conditions: z
    .array(Condition)
    .max(32)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] }),
});
export type IPPoolStatus = z.output<typeof IPPoolStatus>;

/** The whole object, as read. */
export const IPPool = z.object({
  metadata: StoredMetadata,
  spec: IPPoolSpec,
  status: IPPoolStatus.optional(),
});
export type IPPool = z.output<typeof IPPool>;
