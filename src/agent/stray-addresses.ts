import { setImmediate } from 'node:timers/promises';
import { allocationName } from '../api/index.ts';
import {
  InvalidNamespaceError,
  listAddresses,
  openNamespaceSocket,
  type Namespace,
} from '../kernel/index.ts';
import { cidrHasAddress, type CIDR, type IPAddress } from '../net/index.ts';

/**
 * Addresses of this node's subnets that mounted namespaces have, and that neither an IPAllocation nor an interface of
 * weft's tells of: what another plugin was given by `weft-ipam`, when its object has gone while no agent ran
 * (lost-allocations.ts remembers what goes before an agent's eyes). Who lives there by which pool and network nobody
 * knows any more, so no object is made again; but nobody else is given the address, and its subnet does not go.
 */
export interface StrayAddresses {
  has(name: string): boolean;
  /** The names of the IPAllocations that they would have. */
  keys(): Iterable<string>;
  addresses(): IPAddress[];
  /** Looks into all mounted namespaces. What cannot be looked into tells nothing. */
  read(): Promise<void>;
  /** The same where there were any at the last look: none come up while an agent runs. */
  readAgain(): Promise<void>;
}

export interface StrayAddressesParts {
  readonly ownNamespace: Namespace;
  /** Where namespaces are mounted. */
  readonly namespacePaths: () => Iterable<string>;
  /** The subnets of this node, by their objects and by the marks in the kernel. */
  readonly subnets: () => readonly CIDR[];
  /** Whether something else tells of the address of that name: its object, or a link of ours. */
  readonly isKnown: (name: string) => boolean;
}

export function createStrayAddresses(parts: StrayAddressesParts): StrayAddresses {
  let found: ReadonlyMap<string, IPAddress> = new Map();

  async function read(): Promise<void> {
    const subnets = parts.subnets();
    const seen = new Map<string, IPAddress>();
    for (const path of parts.namespacePaths()) {
      for (const address of addressesIn(parts.ownNamespace, path)) {
        if (subnets.some((cidr) => cidrHasAddress(cidr, address))) seen.set(allocationName(address), address);
      }
      // Each look takes part of a millisecond, and there may be hundreds.
      await setImmediate();
    }
    found = new Map([...seen].filter(([name]) => !parts.isKnown(name)));
  }

  return {
    has: (name) => found.has(name),
    keys: () => found.keys(),
    addresses: () => [...found.values()],
    read,
    async readAgain() {
      if (found.size > 0) await read();
    },
  };
}

function addressesIn(ownNamespace: Namespace, path: string): IPAddress[] {
  try {
    using namespace = openNamespaceSocket(ownNamespace, path);
    return listAddresses(namespace.socket).map(({ address }) => address);
  } catch (error) {
    // It has gone meanwhile, or is none.
    if (error instanceof InvalidNamespaceError) return [];
    throw error;
  }
}
