import { setImmediate } from 'node:timers/promises';
import { allocationName, type IPAllocation } from '../api/index.ts';
import { isResting } from '../ipam/index.ts';
import {
  InvalidNamespaceError,
  listAddresses,
  openNamespaceSocket,
  type Namespace,
} from '../kernel/index.ts';
import type { IPAddress } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

/**
 * Addresses of this node's subnets that mounted namespaces have, and that neither their IPAllocation nor an interface of
 * weft's tells of: what another plugin was given by `weft-ipam`, when its object has gone, or has become another's, while
 * no agent ran (lost-allocations.ts remembers what goes before an agent's eyes). By which pool and network they live there
 * nobody knows any more, so no object is made again; but nobody is given such an address, and its subnet does not go,
 * until its namespace has it no more.
 */
export interface StrayAddresses {
  has(name: string): boolean;
  /** The names of the IPAllocations that they would have. */
  keys(): Iterable<string>;
  values(): readonly StrayAddress[];
  /** Looks into all mounted namespaces. */
  read(): Promise<void>;
  /** The same where there were any at the last look: none come up while an agent runs, which sees what goes. */
  readAgain(): Promise<void>;
}

export interface StrayAddress {
  readonly address: IPAddress;
  /** Where its namespace is mounted. */
  readonly path: string;
}

export interface StrayAddressesParts {
  /** Where namespaces are mounted. */
  readonly namespacePaths: () => Iterable<string>;
  /** Undefined where no pod's namespace is mounted there (any more). Throws what keeps it from telling. */
  readonly lookInto: (path: string) => NamespaceAddresses | undefined;
  /** As of now: whether an address lies in a subnet of this node from which other plugins draw. */
  readonly drawable: () => (address: IPAddress) => boolean;
  /** This node's allocation of that name. */
  readonly allocation: (name: string) => IPAllocation | undefined;
  /** Whether a link of ours, or the memory of a vanished object, tells of the address of that name. */
  readonly isTold: (name: string) => boolean;
  readonly bootID: string;
  readonly log: AgentParts['log'];
}

/** What a namespace has. */
export interface NamespaceAddresses {
  readonly inode: number;
  readonly addresses: readonly IPAddress[];
}

/** A plugin gives a container an address or two of each family; what a pod gives itself must not take a whole subnet. */
const MOST_IN_ONE = 16;

export function createStrayAddresses(parts: StrayAddressesParts): StrayAddresses {
  let found: ReadonlyMap<string, StrayAddress> = new Map();

  async function read(): Promise<void> {
    const seen = new Map<string, StrayAddress>();
    const isDrawable = parts.drawable();
    for (const path of parts.namespacePaths()) {
      for (const stray of straysIn(path, isDrawable)) seen.set(allocationName(stray.address), stray);
      // Each look takes part of a millisecond, and there may be hundreds.
      await setImmediate();
    }
    found = seen;
  }

  function straysIn(path: string, isDrawable: (address: IPAddress) => boolean): StrayAddress[] {
    try {
      const namespace = parts.lookInto(path);
      if (namespace === undefined) return [];
      return namespace.addresses
        .filter((address) => isDrawable(address) && !isKnown(address, namespace.inode))
        .slice(0, MOST_IN_ONE)
        .map((address) => ({ address, path }));
    } catch (error) {
      // What it had it may have still.
      parts.log.warn({ err: error, path }, 'a namespace does not tell which addresses it has');
      return [...found.values()].filter((stray) => stray.path === path);
    }
  }

  function isKnown(address: IPAddress, inode: number): boolean {
    const name = allocationName(address);
    const allocation = parts.allocation(name);
    const attachment = allocation?.spec.attachment;
    if (parts.isTold(name)) return true;
    if (allocation === undefined || attachment === undefined || isResting(allocation)) return false;
    const { netns } = attachment;
    return netns === undefined || (netns.inode === inode && netns.bootID === parts.bootID);
  }

  return {
    has: (name) => found.has(name),
    keys: () => found.keys(),
    values: () => [...found.values()],
    read,
    async readAgain() {
      if (found.size > 0) await read();
    },
  };
}

/** @throws SystemCallError, NetlinkError, or InvalidNamespaceError where it may not be entered */
export function addressesIn(ownNamespace: Namespace, path: string): NamespaceAddresses | undefined {
  try {
    using namespace = openNamespaceSocket(ownNamespace, path);
    const addresses = listAddresses(namespace.socket).filter(({ scope }) => scope === 'global');
    return { inode: Number(namespace.identity.inode), addresses: addresses.map(({ address }) => address) };
  } catch (error) {
    if (error instanceof InvalidNamespaceError && error.reason !== 'notAccessible') return undefined;
    throw error;
  }
}
