import { nodeSubnetName, type IPAllocation, type IPPool, type NodeSubnet } from '../api/index.ts';
import {
  isExclusive,
  isResting,
  poolOfAddress,
  type ClaimingNode,
  type NodeSubnetStore,
} from '../ipam/index.ts';
import { cidrHasAddress, firstAddress, formatCIDR, type CIDR, type IPAddress } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

export interface LostSubnetsParts {
  readonly store: Pick<NodeSubnetStore, 'create' | 'get'>;
  readonly pools: () => readonly IPPool[];
  readonly subnets: () => readonly NodeSubnet[];
  readonly node: () => ClaimingNode;
  /** The subnets whose marked route stands in this node's kernel. */
  readonly markedSubnets: () => readonly CIDR[];
  /** What interfaces of this node have, as the kernel says now, and what its allocations hold: claims not wired yet. */
  readonly addressesInUse: () => readonly IPAddress[];
  /** This node's, as far as they are known: they say of which pool their subnet was. */
  readonly allocations: () => Iterable<IPAllocation>;
  /** The object of a subnet with living pods is there again. */
  readonly onRecovered: (cidr: CIDR) => void;
  /** A subnet in which pods of this node live is another node's by the book. */
  readonly onTwoOwners: (theirs: NodeSubnet) => void;
  readonly log: AgentParts['log'];
}

/**
 * Subnets of this node whose object is gone while its pods live: a restored etcd has forgotten it, or somebody
 * deleted it. The kernel is the witness (design, section 5):
 *
 * | marked route | pods live in it | its NodeSubnet     | what happens                                        |
 * |--------------|-----------------|--------------------|-----------------------------------------------------|
 * | stands       | no              | absent             | the route may go                                    |
 * | stands       | yes             | absent             | created again for this node; the route stays        |
 * | stands       | any             | under this name    | not lost; NodeSubnets sees to its UID               |
 * | stands       | yes             | another node's     | told to people; the route stays; nothing is drawn   |
 *
 * A pod whose one address leads here by an exclusive subnet needs none around it, and is in none. Exclusive subnets have no
 * marked route: what is lost of them ExclusiveSubnets makes again.
 */
export interface LostSubnets {
  /** Whether the marked route of a subnet without an object of this node may go. */
  routeMayGo(cidr: CIDR): boolean;
  /**
   * Creates the objects of lost subnets again. What fails is reported, and tried again at the next call.
   * @returns the names whose create was sent, whatever was answered, if anything: which of them are this node's now is
   * to be confirmed
   */
  recreate(signal: AbortSignal): Promise<string[]>;
}

export function createLostSubnets(parts: LostSubnetsParts): LostSubnets {
  const isInUse = (cidr: CIDR) =>
    parts.addressesInUse().some((address) => cidrHasAddress(cidr, address) && !leadsHereAlone(address));

  return {
    routeMayGo: (cidr) => !isInUse(cidr),

    async recreate(signal) {
      const sent: string[] = [];
      for (const cidr of parts.markedSubnets()) {
        const name = nodeSubnetName(cidr);
        const known = parts.subnets().find(({ metadata }) => metadata.name === name);
        if (known?.spec.nodeName === parts.node().name || !isInUse(cidr)) continue;
        try {
          if (known === undefined) await recreateOne(cidr, signal, () => sent.push(name));
          else parts.onTwoOwners(known);
        } catch (error) {
          signal.throwIfAborted();
          parts.log.error({ err: error, subnet: name }, 'a lost subnet could not be created again yet');
        }
      }
      return sent;
    },
  };

  /** Whether this node has an exclusive subnet for it. */
  function leadsHereAlone(address: IPAddress): boolean {
    return parts
      .subnets()
      .some(
        (subnet) =>
          isExclusive(subnet) &&
          subnet.spec.nodeName === parts.node().name &&
          cidrHasAddress(subnet.spec.cidr, address),
      );
  }

  async function recreateOne(cidr: CIDR, signal: AbortSignal, onSend: () => void): Promise<void> {
    const node = parts.node();
    const owner = poolOf(cidr);
    if (owner === undefined || node.addresses.length === 0) {
      const missing = owner === undefined ? 'no pool has its CIDR' : 'the Node has no address';
      parts.log.error(
        { subnet: formatCIDR(cidr) },
        `pods live in a subnet that has lost its NodeSubnet, and it cannot be created again: ${missing}`,
      );
      return;
    }
    onSend();
    const outcome = await parts.store.create(
      { cidr, ...owner, nodeName: node.name, nodeUID: node.uid, nextHops: [...node.addresses] },
      signal,
    );
    const found =
      outcome.kind === 'created' ? outcome.object : await parts.store.get(nodeSubnetName(cidr), signal);
    if (found === undefined) return;
    if (found.spec.nodeName !== node.name) parts.onTwoOwners(found);
    // Also where it is taken: by an earlier create, whose answer was lost.
    else {
      parts.log.warn({ subnet: formatCIDR(cidr), ...owner }, 'a subnet with living pods was created again');
      parts.onRecovered(cidr);
    }
  }

  /**
   * The pool for which the addresses in it count; where these are lost as well, that of the longest NodeSubnet that holds it,
   * else of the CIDR that does: since the subnet was claimed, a pool may have been edited away from there, and another to it.
   */
  function poolOf(cidr: CIDR): { readonly pool: string; readonly poolUID: string } | undefined {
    const inside = [...parts.allocations()].find(
      (one) => !isResting(one) && cidrHasAddress(cidr, one.spec.address) && !leadsHereAlone(one.spec.address),
    );
    const counting = parts.pools().find(({ metadata }) => metadata.name === inside?.spec.pool);
    if (counting !== undefined) return { pool: counting.metadata.name, poolUID: counting.metadata.uid };
    const around = parts.subnets().filter((subnet) => !isExclusive(subnet));
    const owner = poolOfAddress(firstAddress(cidr), parts.pools(), around);
    const poolUID = owner?.pool?.metadata.uid ?? owner?.subnet?.spec.poolUID;
    return owner === undefined || poolUID === undefined ? undefined : { pool: owner.poolName, poolUID };
  }
}
