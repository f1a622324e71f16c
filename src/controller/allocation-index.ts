import { hash } from 'node:crypto';
import type { IPAllocation } from '../api/index.ts';
import { attachmentID, statefulSetOf, type AuditedAllocation } from '../ipam/index.ts';

/**
 * What the controller remembers of an IPAllocation: enough to count it, and to delete it on condition that it is
 * still the same. Whole objects of a large cluster would not fit into its memory.
 */
export interface IndexedAllocation extends AuditedAllocation {
  readonly metadata: Pick<IPAllocation['metadata'], 'name' | 'uid' | 'resourceVersion'>;
  readonly nodeName: string | undefined;
  /** False: a person or another part holds it by name, and only they free it. */
  readonly attached: boolean;
  /** The pod that keeps the address, as `namespace/name`. */
  readonly sticky: string | undefined;
}

export function indexedAllocation({ metadata, spec, status }: IPAllocation): IndexedAllocation {
  return {
    metadata: { name: metadata.name, uid: metadata.uid, resourceVersion: metadata.resourceVersion },
    spec: {
      address: spec.address,
      pool: spec.pool,
      ...(spec.holder === undefined ? {} : { holder: spec.holder }),
    },
    nodeName: spec.nodeName,
    attached: spec.attachment !== undefined,
    attachment: spec.attachment === undefined ? undefined : digest(attachmentID(spec.attachment)),
    sticky: spec.sticky,
    ...(status?.releasedAt === undefined ? {} : { status: { releasedAt: status.releasedAt } }),
  };
}

/** Short enough to be kept for each of many, and never the same for two attachments of one node. */
function digest(attachment: string): string {
  return hash('sha256', attachment, 'base64').slice(0, 10);
}

/** The allocations by pool and by node. */
export interface AllocationIndex {
  /** Brings one name up to date: what stood under it, the very object, and what does now. */
  change(before: IndexedAllocation | undefined, after: IndexedAllocation | undefined): void;
  ofPool(pool: string): IndexedAllocation[];
  ofNode(nodeName: string): IndexedAllocation[];
  /** Those without a node: people hold them, or they are kept for pods. */
  withoutNode(): IndexedAllocation[];
  /** Those that are kept for pods of that StatefulSet, `namespace/name`, and have no sandbox. */
  keptFor(statefulSet: string): IndexedAllocation[];
  /** The StatefulSets, there or not, for which any are kept. */
  statefulSets(): string[];
  /** The names of the pools, there or not, that any allocation names. */
  poolNames(): string[];
  /** The names of the nodes, there or not, that hold any. */
  nodeNames(): string[];
}

export function createAllocationIndex(): AllocationIndex {
  const byPool = new Map<string, Group>();
  const byNode = new Map<string, Group>();
  const withoutNode: Group = new Set();
  const byStatefulSet = new Map<string, Group>();

  return {
    change(before, after) {
      if (before !== undefined) {
        remove(byPool, before.spec.pool, before);
        remove(byNode, before.nodeName, before);
        withoutNode.delete(before);
        remove(byStatefulSet, statefulSetKey(before), before);
      }
      if (after !== undefined) {
        add(byPool, after.spec.pool, after);
        add(byNode, after.nodeName, after);
        if (after.nodeName === undefined) withoutNode.add(after);
        add(byStatefulSet, statefulSetKey(after), after);
      }
    },
    ofPool: (pool) => [...(byPool.get(pool) ?? [])],
    ofNode: (nodeName) => [...(byNode.get(nodeName) ?? [])],
    withoutNode: () => [...withoutNode],
    keptFor: (statefulSet) => [...(byStatefulSet.get(statefulSet) ?? [])],
    statefulSets: () => [...byStatefulSet.keys()],
    poolNames: () => [...byPool.keys()],
    nodeNames: () => [...byNode.keys()],
  };
}

/** The StatefulSet for whose pod the allocation waits; undefined if it waits for none. */
export function statefulSetKey({ sticky, attached }: IndexedAllocation): string | undefined {
  const pod = sticky === undefined || attached ? undefined : statefulSetOf(sticky);
  return pod === undefined ? undefined : `${pod.namespace}/${pod.name}`;
}

/** No map by name: with thousands of nodes that would take a third more memory. */
type Group = Set<IndexedAllocation>;

function add(groups: Map<string, Group>, key: string | undefined, allocation: IndexedAllocation): void {
  if (key === undefined) return;
  groups.set(key, (groups.get(key) ?? new Set()).add(allocation));
}

/** A group without members is none: maps must not grow with every node that ever was. */
function remove(groups: Map<string, Group>, key: string | undefined, allocation: IndexedAllocation): void {
  if (key === undefined) return;
  const group = groups.get(key);
  group?.delete(allocation);
  if (group?.size === 0) groups.delete(key);
}
