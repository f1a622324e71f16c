import { randomUUID } from 'node:crypto';
import {
  allocationName,
  IPPoolSpec,
  nodeSubnetName,
  POOL_FINALIZER,
  STICKY_HOLDER,
  type IPAllocation,
  type IPPool,
  type NodeSubnet,
  type StoredMetadata,
} from '../../src/api/index.ts';
import type {
  AllocationStore,
  CreateOutcome,
  NodeSubnetStore,
  PoolStore,
  UpdateOutcome,
  WriteOutcome,
} from '../../src/ipam/store.ts';

export type FakeKind = 'IPAllocation' | 'NodeSubnet' | 'IPPool';
export type FakeVerb = 'create' | 'get' | 'list' | 'update' | 'delete';

/** One call that a store received. */
export interface FakeCall {
  readonly kind: FakeKind;
  readonly verb: FakeVerb;
  readonly name: string;
}

/**
 * What happens to a call: `fail` throws before anything happened; `lose` does it and throws all the same, as a
 * connection that breaks before the answer; `late` throws, and does it afterwards, as a request still under way.
 */
export type Fault = 'none' | 'fail' | 'lose' | 'late';

export interface FakeOptions {
  /** Asked before each call; may take its time. */
  readonly fault?: (call: FakeCall) => Fault | Promise<Fault>;
  /** When a `late` call takes effect. Default: soon after the caller was told of the failure. */
  readonly later?: (act: () => void) => void;
}

/** A change, as a watch would tell it. */
export type FakeChange =
  | {
      readonly kind: 'IPAllocation';
      readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
      readonly object: IPAllocation;
    }
  | {
      readonly kind: 'NodeSubnet';
      readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
      readonly object: NodeSubnet;
    }
  | { readonly kind: 'IPPool'; readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: IPPool };

/** An apiserver of one process: the three stores, and what a person or another process does beside them. */
export interface FakeStores {
  readonly allocations: AllocationStore;
  readonly subnets: NodeSubnetStore;
  readonly pools: PoolStore;
  /** What is stored now, by name. */
  readonly stored: {
    readonly IPAllocation: ReadonlyMap<string, IPAllocation>;
    readonly NodeSubnet: ReadonlyMap<string, NodeSubnet>;
    readonly IPPool: ReadonlyMap<string, IPPool>;
  };
  /** Every call of a store, in order. */
  readonly calls: readonly FakeCall[];
  /** Called with each change, in the order of the resourceVersions. */
  onChange(listener: (change: FakeChange) => void): void;
  /** What a person writes: the pool as `kubectl apply` would leave it. */
  applyPool(name: string, spec: unknown, metadata?: Partial<StoredMetadata>): IPPool;
  /** `kubectl delete ippool`: marks it where a finalizer holds it. */
  deletePool(name: string): void;
  /** `kubectl delete`: without any precondition. */
  deleteByHand(kind: 'IPAllocation' | 'NodeSubnet', name: string): void;
  /** Makes a subnet as old as a test needs it. Nobody is told. */
  date(name: string, creationTimestamp: string): void;
}

/** The failure that an injected fault throws. */
export class InjectedError extends Error {
  override name = 'InjectedError' as const;
}

export function createFakeStores({
  fault = () => 'none',
  later = setImmediate,
}: FakeOptions = {}): FakeStores {
  let revision = 100;
  const calls: FakeCall[] = [];
  const listeners: ((change: FakeChange) => void)[] = [];
  const stored = {
    IPAllocation: new Map<string, IPAllocation>(),
    NodeSubnet: new Map<string, NodeSubnet>(),
    IPPool: new Map<string, IPPool>(),
  };

  const nextVersion = () => String(++revision);
  const tell = (change: FakeChange) => {
    for (const listener of listeners) listener(change);
  };
  const newMetadata = (name: string): StoredMetadata => ({
    name,
    uid: randomUUID(),
    resourceVersion: nextVersion(),
    creationTimestamp: new Date().toISOString(),
    generation: 1,
    finalizers: [],
    annotations: {},
  });
  const changed = <T extends { metadata: StoredMetadata }>(object: T, fields: Partial<T>): T => ({
    ...object,
    ...fields,
    metadata: { ...(fields.metadata ?? object.metadata), resourceVersion: nextVersion() },
  });

  /** Runs the call under the fault that is injected into it. `act` is what the apiserver does, in one go. */
  async function receive<T>(call: FakeCall, signal: AbortSignal | undefined, act: () => T): Promise<T> {
    calls.push(call);
    signal?.throwIfAborted();
    const injected = await fault(call);
    signal?.throwIfAborted();
    if (injected === 'none') return act();
    if (injected === 'lose') act();
    if (injected === 'late') later(act);
    throw new InjectedError(`${injected}: ${call.verb} ${call.kind} ${call.name}`);
  }

  /** The precondition of every write: the stored object, if it is the one that was seen. */
  function meant<T extends { metadata: StoredMetadata }>(
    objects: ReadonlyMap<string, T>,
    seen: T,
    { uid }: { uid: boolean },
  ): T | WriteOutcome {
    const found = objects.get(seen.metadata.name);
    if (found === undefined) return 'gone';
    // A patch looks at the resourceVersion alone, as the apiserver does; a delete at both.
    if (found.metadata.resourceVersion !== seen.metadata.resourceVersion) return 'changed';
    if (uid && found.metadata.uid !== seen.metadata.uid) return 'changed';
    return found;
  }

  const allocations: AllocationStore = {
    create: (spec, signal) => {
      const name = allocationName(spec.address);
      return receive(
        { kind: 'IPAllocation', verb: 'create', name },
        signal,
        (): CreateOutcome<IPAllocation> => {
          if (stored.IPAllocation.has(name)) return { kind: 'taken' };
          const object: IPAllocation = { metadata: newMetadata(name), spec };
          stored.IPAllocation.set(name, object);
          tell({ kind: 'IPAllocation', type: 'ADDED', object });
          return { kind: 'created', object };
        },
      );
    },
    get: (name, signal) =>
      receive({ kind: 'IPAllocation', verb: 'get', name }, signal, () => stored.IPAllocation.get(name)),
    markReleased: (seen, releasedAt, signal) =>
      receive(
        { kind: 'IPAllocation', verb: 'update', name: seen.metadata.name },
        signal,
        (): WriteOutcome => {
          const found = meant(stored.IPAllocation, seen, { uid: false });
          if (typeof found === 'string') return found;
          const object = changed(found, { status: { releasedAt: releasedAt.toISOString() } });
          stored.IPAllocation.set(object.metadata.name, object);
          tell({ kind: 'IPAllocation', type: 'MODIFIED', object });
          return 'done';
        },
      ),
    delete: (seen, signal) =>
      receive(
        { kind: 'IPAllocation', verb: 'delete', name: seen.metadata.name },
        signal,
        (): WriteOutcome => {
          const found = meant(stored.IPAllocation, seen, { uid: true });
          if (typeof found === 'string') return found;
          remove('IPAllocation', found.metadata.name);
          return 'done';
        },
      ),
    listSticky: (pod, signal) =>
      receive({ kind: 'IPAllocation', verb: 'list', name: pod }, signal, () =>
        [...stored.IPAllocation.values()].filter(({ spec }) => spec.sticky === pod),
      ),
    bind: (seen, { nodeName, attachment, pod }, signal) =>
      receive(
        { kind: 'IPAllocation', verb: 'update', name: seen.metadata.name },
        signal,
        (): UpdateOutcome<IPAllocation> => {
          const found = meant(stored.IPAllocation, seen, { uid: false });
          if (typeof found === 'string') return { kind: found === 'gone' ? 'gone' : 'changed' };
          const { holder: _, ...rest } = found.spec;
          return { kind: 'done', object: updateSticky(found, { ...rest, nodeName, attachment, pod }) };
        },
      ),
    empty: (seen, signal) =>
      receive(
        { kind: 'IPAllocation', verb: 'update', name: seen.metadata.name },
        signal,
        (): WriteOutcome => {
          const found = meant(stored.IPAllocation, seen, { uid: false });
          if (typeof found === 'string') return found;
          const { nodeName: _, attachment: __, ...rest } = found.spec;
          updateSticky(found, { ...rest, holder: STICKY_HOLDER });
          return 'done';
        },
      ),
  };

  /** As the CEL rule has it: only a sticky one changes. */
  function updateSticky(found: IPAllocation, spec: IPAllocation['spec']): IPAllocation {
    if (found.spec.sticky === undefined) throw new Error("an IPAllocation's spec is immutable");
    const object = changed(found, { spec });
    stored.IPAllocation.set(object.metadata.name, object);
    tell({ kind: 'IPAllocation', type: 'MODIFIED', object });
    return object;
  }

  const subnets: NodeSubnetStore = {
    create: (spec, signal) => {
      const name = nodeSubnetName(spec.cidr);
      return receive({ kind: 'NodeSubnet', verb: 'create', name }, signal, (): CreateOutcome<NodeSubnet> => {
        if (stored.NodeSubnet.has(name)) return { kind: 'taken' };
        const object: NodeSubnet = { metadata: newMetadata(name), spec };
        stored.NodeSubnet.set(name, object);
        tell({ kind: 'NodeSubnet', type: 'ADDED', object });
        return { kind: 'created', object };
      });
    },
    get: (name, signal) =>
      receive({ kind: 'NodeSubnet', verb: 'get', name }, signal, () => stored.NodeSubnet.get(name)),
    rebind: (seen, owner, signal) =>
      receive({ kind: 'NodeSubnet', verb: 'update', name: seen.metadata.name }, signal, (): WriteOutcome => {
        const found = meant(stored.NodeSubnet, seen, { uid: false });
        if (typeof found === 'string') return found;
        const object = changed(found, { spec: { ...found.spec, ...owner } });
        stored.NodeSubnet.set(object.metadata.name, object);
        tell({ kind: 'NodeSubnet', type: 'MODIFIED', object });
        return 'done';
      }),
    delete: (seen, signal) =>
      receive({ kind: 'NodeSubnet', verb: 'delete', name: seen.metadata.name }, signal, (): WriteOutcome => {
        const found = meant(stored.NodeSubnet, seen, { uid: true });
        if (typeof found === 'string') return found;
        remove('NodeSubnet', found.metadata.name);
        return 'done';
      }),
  };

  const pools: PoolStore = {
    get: (name, signal) =>
      receive({ kind: 'IPPool', verb: 'get', name }, signal, () => stored.IPPool.get(name)),
    addFinalizer: (seen, signal) =>
      receive({ kind: 'IPPool', verb: 'update', name: seen.metadata.name }, signal, (): WriteOutcome => {
        const found = meant(stored.IPPool, seen, { uid: false });
        if (typeof found === 'string') return found;
        const object = changed(found, {
          metadata: { ...found.metadata, finalizers: [...found.metadata.finalizers, POOL_FINALIZER] },
        });
        stored.IPPool.set(object.metadata.name, object);
        tell({ kind: 'IPPool', type: 'MODIFIED', object });
        return 'done';
      }),
  };

  function remove(kind: 'IPAllocation' | 'NodeSubnet', name: string): void {
    revision++; // a deletion is a revision of its own
    if (kind === 'IPAllocation') {
      const object = stored.IPAllocation.get(name);
      stored.IPAllocation.delete(name);
      if (object !== undefined) tell({ kind, type: 'DELETED', object });
    } else {
      const object = stored.NodeSubnet.get(name);
      stored.NodeSubnet.delete(name);
      if (object !== undefined) tell({ kind, type: 'DELETED', object });
    }
  }

  return {
    allocations,
    subnets,
    pools,
    stored,
    calls,
    onChange: (listener) => {
      listeners.push(listener);
    },
    applyPool(name, spec, metadata = {}) {
      const found = stored.IPPool.get(name);
      const parsed = IPPoolSpec.parse(spec);
      const object: IPPool =
        found === undefined
          ? { metadata: { ...newMetadata(name), ...metadata }, spec: parsed }
          : changed(found, { spec: parsed, metadata: { ...found.metadata, ...metadata } });
      stored.IPPool.set(name, object);
      tell({ kind: 'IPPool', type: found === undefined ? 'ADDED' : 'MODIFIED', object });
      return object;
    },
    deletePool(name) {
      const found = stored.IPPool.get(name);
      if (found === undefined) return;
      if (found.metadata.finalizers.length > 0) {
        const object = changed(found, {
          metadata: { ...found.metadata, deletionTimestamp: new Date().toISOString() },
        });
        stored.IPPool.set(name, object);
        tell({ kind: 'IPPool', type: 'MODIFIED', object });
      } else {
        stored.IPPool.delete(name);
        revision++;
        tell({ kind: 'IPPool', type: 'DELETED', object: found });
      }
    },
    deleteByHand(kind, name) {
      remove(kind, name);
    },
    date(name, creationTimestamp) {
      const found = stored.NodeSubnet.get(name);
      if (found === undefined) throw new Error(`there is no NodeSubnet ${name}`);
      stored.NodeSubnet.set(name, { ...found, metadata: { ...found.metadata, creationTimestamp } });
    },
  };
}
