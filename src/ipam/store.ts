import type {
  Attachment,
  IPAllocation,
  IPAllocationSpec,
  IPPool,
  NodeSubnet,
  NodeSubnetSpec,
  PodReference,
} from '../api/index.ts';

/** What creating an object by its name answered. Anything else is thrown: only "taken" moves a claim on. */
export type CreateOutcome<T> = { readonly kind: 'created'; readonly object: T } | { readonly kind: 'taken' };

/**
 * What a conditional write answered. `changed`: the object is not the one that was meant (another
 * resourceVersion or uid); read it again and decide again. `gone`: there is no object of that name.
 */
export type WriteOutcome = 'done' | 'changed' | 'gone';

/** What an update answered: the object as it is now, or like a WriteOutcome. */
export type UpdateOutcome<T> =
  { readonly kind: 'done'; readonly object: T } | { readonly kind: 'changed' } | { readonly kind: 'gone' };

/** To whom a sticky address is bound. */
export interface Binding {
  readonly nodeName: string;
  readonly attachment: Attachment;
  readonly pod: PodReference;
}

/** The IPAllocations, as claiming and releasing needs them. Writes outlive no deadline: `signal` ends them. */
export interface AllocationStore {
  /** Creates the object named by `spec.address`. A failure throws, and then the outcome is unknown. */
  create(spec: IPAllocationSpec, signal?: AbortSignal): Promise<CreateOutcome<IPAllocation>>;
  /** A quorum read of one object. */
  get(name: string, signal?: AbortSignal): Promise<IPAllocation | undefined>;
  /** Sets `status.releasedAt`, if the object is still at the resourceVersion of `seen`. */
  markReleased(seen: IPAllocation, releasedAt: Date, signal?: AbortSignal): Promise<WriteOutcome>;
  /** Deletes it, if it still has uid and resourceVersion of `seen`. */
  delete(seen: IPAllocation, signal?: AbortSignal): Promise<WriteOutcome>;
  /** A consistent list of the addresses that stick to that pod (`namespace/name`). Linear in all objects. */
  listSticky(pod: string, signal?: AbortSignal): Promise<IPAllocation[]>;
  /** Gives a sticky address to a sandbox of its pod, if it is still at the resourceVersion of `seen`. */
  bind(seen: IPAllocation, binding: Binding, signal?: AbortSignal): Promise<UpdateOutcome<IPAllocation>>;
  /** Takes a sticky address from its sandbox and keeps it, under the same condition. */
  empty(seen: IPAllocation, signal?: AbortSignal): Promise<WriteOutcome>;
}

/** The NodeSubnets, as their own node's agent and the controller's clean-up need them. */
export interface NodeSubnetStore {
  create(spec: NodeSubnetSpec, signal?: AbortSignal): Promise<CreateOutcome<NodeSubnet>>;
  get(name: string, signal?: AbortSignal): Promise<NodeSubnet | undefined>;
  /** Writes nodeUID and nextHops, if the object is still at the resourceVersion of `seen`. */
  rebind(
    seen: NodeSubnet,
    owner: Pick<NodeSubnetSpec, 'nodeUID' | 'nextHops'>,
    signal?: AbortSignal,
  ): Promise<WriteOutcome>;
  delete(seen: NodeSubnet, signal?: AbortSignal): Promise<WriteOutcome>;
}

/** The IPPools, as a subnet's claim needs them. */
export interface PoolStore {
  get(name: string, signal?: AbortSignal): Promise<IPPool | undefined>;
  /** Puts weft's finalizer on the pool by a metadata patch, if it is still at the resourceVersion of `seen`. */
  addFinalizer(seen: IPPool, signal?: AbortSignal): Promise<WriteOutcome>;
}
