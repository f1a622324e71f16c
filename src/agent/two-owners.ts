import { addressOfAllocationName, type NodeSubnet } from '../api/index.ts';
import { isExclusive, isKept, isResting, type AllocationStore } from '../ipam/index.ts';
import { cidrHasAddress, type IPAddress } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

export interface TwoOwnersParts {
  readonly store: Pick<AllocationStore, 'get'>;
  readonly nodeName: string;
  readonly subnets: () => readonly NodeSubnet[];
  /** A living attachment of another node has an address of this node's subnet. */
  readonly onTwoOwners: (subnet: NodeSubnet, otherNode: string) => void;
  readonly log: AgentParts['log'];
}

/**
 * Own subnets in which pods of another node live: that node held it before a restored etcd forgot so, and has claimed
 * its pods' addresses again (LostSubnets). Neither node draws from such a subnet. It is known by the names that
 * creates find taken, since an agent sees only its own node's allocations. A fixed or sticky address is no such sign: it
 * may be on any node, also inside another's subnet.
 */
export interface TwoOwners {
  /** A create found the name taken, and the cache does not show by whom. */
  taken(name: string): void;
  /** Looks who has those names. A subnet counts as disputed when two looks have found the same. */
  look(signal: AbortSignal): Promise<void>;
  isDisputed(subnet: NodeSubnet): boolean;
}

/** How many names are looked at; one is enough for a subnet. */
const MOST_NAMES = 32;

export function createTwoOwners(parts: TwoOwnersParts): TwoOwners {
  /** By name, in how many looks on end it was another node's. */
  const looks = new Map<string, number>();

  return {
    taken(name) {
      if (!looks.has(name) && looks.size < MOST_NAMES) looks.set(name, 0);
    },

    async look(signal) {
      for (const [name, found] of looks) {
        try {
          const subnet = ownSubnetOf(name);
          const other = subnet === undefined ? undefined : await otherOwner(name, signal);
          if (subnet === undefined || other === undefined) {
            // Also a name whose subnet was given back: there is nothing to dispute any more.
            looks.delete(name);
            continue;
          }
          looks.set(name, found + 1);
          if (found === 1) parts.onTwoOwners(subnet, other);
        } catch (error) {
          signal.throwIfAborted();
          parts.log.warn({ err: error, address: name }, 'who has a taken address could not be read');
        }
      }
    },

    isDisputed: ({ spec }) =>
      [...looks].some(
        ([name, found]) => found > 1 && cidrHasAddress(spec.cidr, addressOfAllocationName(name)),
      ),
  };

  /** The other node whose attachment has the name, unless that node has a subnet to draw from around the address. */
  async function otherOwner(name: string, signal: AbortSignal): Promise<string | undefined> {
    const found = await parts.store.get(name, signal);
    if (found?.spec.attachment === undefined || isResting(found) || isKept(found)) return undefined;
    const { nodeName, address } = found.spec;
    if (nodeName === undefined || nodeName === parts.nodeName) return undefined;
    const isTheirs = parts.subnets().some((subnet) => isAround(subnet, nodeName, address));
    return isTheirs ? undefined : nodeName;
  }

  function ownSubnetOf(name: string): NodeSubnet | undefined {
    const address = addressOfAllocationName(name);
    return parts.subnets().find((subnet) => isAround(subnet, parts.nodeName, address));
  }
}

function isAround(subnet: NodeSubnet, nodeName: string, address: IPAddress): boolean {
  const { spec } = subnet;
  return spec.nodeName === nodeName && !isExclusive(subnet) && cidrHasAddress(spec.cidr, address);
}
