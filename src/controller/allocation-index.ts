import type { IPAllocation } from '../api/index.ts';
import type { CountedAllocation } from '../ipam/index.ts';

/**
 * What the controller remembers of an IPAllocation: enough to count it, and to delete it on condition that it is
 * still the same. Whole objects of a large cluster would not fit into its memory.
 */
export interface IndexedAllocation extends CountedAllocation {
  readonly metadata: Pick<IPAllocation['metadata'], 'name' | 'uid' | 'resourceVersion'>;
  readonly nodeName: string | undefined;
  /** False: a person or another part holds it by name, and only they free it. */
  readonly attached: boolean;
}

/** The allocations by name, by pool and by node. */
export interface AllocationIndex {
  set(allocation: IPAllocation): void;
  delete(name: string): void;
  /** Replaces everything: after a list. */
  replace(allocations: Iterable<IPAllocation>): void;
  ofPool(pool: string): readonly IndexedAllocation[];
  ofNode(nodeName: string): readonly IndexedAllocation[];
  /** The names of the nodes that hold any. */
  nodeNames(): ReadonlySet<string>;
  readonly size: number;
}

export function createAllocationIndex(): AllocationIndex {
  const byName = new Map<string, IndexedAllocation>();
  const byPool = createGroups();
  const byNode = createGroups();

  const remove = (name: string) => {
    const known = byName.get(name);
    if (known === undefined) return;
    byName.delete(name);
    byPool.remove(known.spec.pool, name);
    byNode.remove(known.nodeName, name);
  };
  const set = (allocation: IPAllocation) => {
    const entry = indexed(allocation);
    remove(entry.metadata.name);
    byName.set(entry.metadata.name, entry);
    byPool.add(entry.spec.pool, entry.metadata.name);
    byNode.add(entry.nodeName, entry.metadata.name);
  };
  const entries = (names: ReadonlySet<string>) =>
    [...names].flatMap((name) => {
      const entry = byName.get(name);
      return entry === undefined ? [] : [entry];
    });

  return {
    set,
    delete: remove,
    replace(allocations) {
      const gone = new Set(byName.keys());
      for (const allocation of allocations) {
        set(allocation);
        gone.delete(allocation.metadata.name);
      }
      for (const name of gone) remove(name);
    },
    ofPool: (pool) => entries(byPool.members(pool)),
    ofNode: (nodeName) => entries(byNode.members(nodeName)),
    nodeNames: () => byNode.keys(),
    get size() {
      return byName.size;
    },
  };
}

/** Sets of names under a key; a key without names is none. */
interface Groups {
  add(key: string | undefined, name: string): void;
  remove(key: string | undefined, name: string): void;
  members(key: string): ReadonlySet<string>;
  keys(): ReadonlySet<string>;
}

function createGroups(): Groups {
  const groups = new Map<string, Set<string>>();
  return {
    add(key, name) {
      if (key === undefined) return;
      const group = groups.get(key) ?? new Set();
      groups.set(key, group.add(name));
    },
    remove(key, name) {
      if (key === undefined) return;
      const group = groups.get(key);
      group?.delete(name);
      if (group?.size === 0) groups.delete(key);
    },
    members: (key) => groups.get(key) ?? new Set(),
    keys: () => new Set(groups.keys()),
  };
}

function indexed(allocation: IPAllocation): IndexedAllocation {
  const { metadata, spec, status } = allocation;
  return {
    metadata: { name: metadata.name, uid: metadata.uid, resourceVersion: metadata.resourceVersion },
    spec: { address: spec.address, pool: spec.pool },
    nodeName: spec.nodeName,
    attached: spec.attachment !== undefined,
    ...(status === undefined ? {} : { status }),
  };
}
