import * as z from 'zod';
import type { Resource } from './group.ts';
import { AddressField, AddressOrCIDRField, GatewayField, PoolCIDRField } from './fields.ts';
import { Condition, StoredMetadata } from './metadata.ts';
import { refuseMisuse, USE_RULES } from './pool-use.ts';
import { celRules, DISJOINT, HOLDS_A_NODE_SUBNET, immutable } from './rules.ts';
import { LabelSelector } from './selector.ts';

export const IP_POOL: Resource = { kind: 'IPPool', plural: 'ippools', singular: 'ippool' };

/** Who draws from a pool, and how its addresses are reached (ipam/uses.ts). */
export const PoolUse = z.enum(['Pods', 'Bridge', 'Lan']);
export type PoolUse = z.output<typeof PoolUse>;

/** Whether other pools' pods reach those of a pool (dataplane/isolation.ts). */
export const Isolation = z
  .object({
    mode: z
      .enum(['None', 'Isolated'])
      .default('None')
      .describe(
        'Isolated: traffic with the pods of another pool passes only where this pool names that one in peers and, if ' +
          'that one is Isolated too, it names this one. None: only what the other pool refuses is refused.',
      ),
    peers: z
      .array(
        z
          .string()
          .min(1)
          .max(63)
          .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/),
      )
      .max(256)
      .default([])
      .meta({
        'x-kubernetes-list-type': 'set',
        description: 'The names of the pools whose pods an Isolated pool admits, and is admitted by.',
      }),
    dns: z
      .boolean()
      .default(true)
      .describe(
        "Whether the pool's pods reach the cluster's DNS Service wherever its pods live, whatever isolation says.",
      ),
  })
  .prefault({})
  .describe(
    'Keeps pods of different pools apart, by the CIDRs of the pools. Nodes, what nodes masquerade, and addresses outside ' +
      'all pools are not affected. Where an Isolated pool is full, its pods wait and are not given an address of another.',
  );
export type Isolation = z.output<typeof Isolation>;

/** How other nodes reach a subnet of the pool (dataplane/peers.ts). */
export const Encapsulation = z.enum(['CrossSubnet', 'Always', 'Never']);
export type Encapsulation = z.output<typeof Encapsulation>;

/** What a pool that does not say otherwise has, and what is believed of one that is gone. */
export const DEFAULT_REUSE_DELAY_SECONDS = 30;

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
        ipv4: z.int().min(16).max(32).default(26),
        ipv6: z.int().min(64).max(128).default(122),
      })
      .prefault({})
      .meta({
        ...celRules(immutable('nodeSubnetPrefixLength is immutable: create a new pool for another size')),
        description: 'The size of the piece that a node claims, as a prefix length. Immutable.',
      }),
    use: PoolUse.default('Pods').meta({
      ...celRules(immutable('use is immutable: create a new pool for another use')),
      description:
        'Pods: for the interfaces that weft makes. Bridge: drawn by weft-ipam under bridge or ptp, routed to the ' +
        'node. Lan: drawn by weft-ipam under macvlan and the like, for an existing LAN: neither routed nor ' +
        'translated nor filtered. Immutable.',
    }),
    gateway: z
      .object({ ipv4: GatewayField.ipv4.optional(), ipv6: GatewayField.ipv6.optional() })
      .optional()
      .describe(
        "The LAN's router, of each family that cidrs lists. Of use Lan only: a bridge's gateway is its node's own.",
      ),
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
    encapsulation: Encapsulation.default('CrossSubnet').describe(
      'How nodes reach the pods of others. CrossSubnet: plain routes to nodes on the same link, VXLAN to others. ' +
        'Always: VXLAN to all, for fabrics that drop packets with addresses of pods. Never: plain routes to nodes on ' +
        'the same link; to others the fabric routes. May change at any time. Not for pools of use Lan.',
    ),
    allowedSources: z
      .array(PoolCIDRField)
      .max(64)
      .optional()
      .describe(
        'Sources besides their own addresses that pods of this pool may send from, if they ask for it by the annotation ' +
          'ipam.weft.dev/allowed-sources: VPNs and routers. Absent: none. Whatever is listed, never the addresses of ' +
          'pools and nodes.',
      ),
    natOutgoing: z
      .boolean()
      .default(true)
      .describe('Whether traffic that leaves the pools is masqueraded behind the node.'),
    isolation: Isolation,
    reuseDelaySeconds: z
      .int()
      .min(0)
      .max(86_400)
      .default(DEFAULT_REUSE_DELAY_SECONDS)
      .describe('How long a released address rests before it may be handed out again.'),
  })
  .check(refuseMisuse)
  .meta(celRules(HOLDS_A_NODE_SUBNET, ...USE_RULES));
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

/** On a LAN there may be more nodes; an object has an end. */
export const MOST_NODE_ADDRESSES = 1_000;

export const IPPoolStatus = z.object({
  observedGeneration: z.int().optional(),
  ipv4: PoolUsage.optional(),
  ipv6: PoolUsage.optional(),
  nodeAddresses: z
    .array(AddressField)
    .max(MOST_NODE_ADDRESSES)
    .optional()
    .meta({
      'x-kubernetes-list-type': 'atomic',
      description:
        'Addresses of nodes inside the CIDRs, for the agents, who see only the nodes that hold subnets: one of each ' +
        'CIDR, of which nothing new is claimed then; of use Lan those of all nodes, which are left out one by one.',
    }),
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
