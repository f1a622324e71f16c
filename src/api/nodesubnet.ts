import * as z from 'zod';
import { firstAddress, type CIDR, type IPAddress } from '../net/index.ts';
import type { Resource } from './group.ts';
import { AddressField, PoolCIDRField } from './fields.ts';
import type { PoolUse } from './ippool.ts';
import { StoredMetadata } from './metadata.ts';
import { celRules, EXCLUSIVE_IS_ONE_ADDRESS, NO_WIDER_THAN_A_PIECE } from './rules.ts';

export const NODE_SUBNET: Resource = { kind: 'NodeSubnet', plural: 'nodesubnets', singular: 'nodesubnet' };

/** The piece of a pool that one node draws from; named by its CIDR, claimed by creating it. */
export const NodeSubnetSpec = z
  .object({
    cidr: PoolCIDRField,
    pool: z.string().min(1).max(63),
    poolUID: z.string().min(1).max(64),
    nodeName: z.string().min(1).max(253),
    nodeUID: z.string().min(1).max(64).describe('The UID of the Node when its agent last bound the subnet.'),
    nextHops: z
      .array(AddressField)
      .max(16)
      .describe(
        "The node's InternalIPs in the order of its Node object: where other nodes send this subnet's traffic. " +
          'Empty: nobody routes the subnet, it is part of a LAN.',
      ),
    exclusive: z
      .boolean()
      .exactOptional()
      .describe(
        "One address that leads to this node wherever it lies, also inside another node's subnet: that of a pod with a " +
          'fixed or sticky address. Nothing else is drawn from it.',
      ),
  })
  .meta(
    celRules(NO_WIDER_THAN_A_PIECE, EXCLUSIVE_IS_ONE_ADDRESS, {
      rule:
        'self.cidr == oldSelf.cidr && self.pool == oldSelf.pool && self.poolUID == oldSelf.poolUID && ' +
        'self.nodeName == oldSelf.nodeName && has(self.exclusive) == has(oldSelf.exclusive) && ' +
        '(!has(self.exclusive) || self.exclusive == oldSelf.exclusive)',
      message:
        "a NodeSubnet is immutable but for nodeUID and nextHops: its node's agent gives it back and claims",
    }),
  );
export type NodeSubnetSpec = z.output<typeof NodeSubnetSpec>;

/**
 * The node's own address in a subnet, by which it speaks to the pods there: of pods' the first, which stands on a link of
 * weft's; of a bridge's the second, its gateway, since the first is the network's. A subnet whose pool is not known counts
 * as one of pods. Never handed out.
 */
export function nodeAddressIn(cidr: CIDR, use: PoolUse = 'Pods'): IPAddress {
  return use === 'Bridge' ? { family: cidr.family, value: cidr.first + 1n } : firstAddress(cidr);
}

export const NodeSubnet = z.object({ metadata: StoredMetadata, spec: NodeSubnetSpec });
export type NodeSubnet = z.output<typeof NodeSubnet>;
