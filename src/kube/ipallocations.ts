import {
  allocationName,
  API_VERSION,
  IP_ALLOCATION,
  IPAllocation,
  IPAllocationSpec,
  STICKY_HOLDER,
} from '../api/index.ts';
import type { AllocationStore } from '../ipam/store.ts';
import type { KubeClient } from './client.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { listAll } from './list.ts';
import { pathOf } from './paths.ts';
import { conditionalWrites, type WriteFeed } from './writes.ts';

const PATH = pathOf(IP_ALLOCATION);

export interface AllocationStoreOptions {
  /** Put on every object that is created. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The IPAllocations in the apiserver. `feed` is the informer that must show own writes at once. */
export function allocationStore(
  client: KubeClient,
  feed?: WriteFeed,
  { annotations }: AllocationStoreOptions = {},
): AllocationStore & AllocationLists {
  const parse = (object: unknown) => IPAllocation.parse(object);
  const writes = conditionalWrites(client, PATH, parse, feed);
  return {
    create: (spec, signal) =>
      writes.create(
        {
          apiVersion: API_VERSION,
          kind: IP_ALLOCATION.kind,
          metadata: {
            name: allocationName(spec.address),
            ...(annotations === undefined ? {} : { annotations }),
          },
          spec: IPAllocationSpec.encode(spec),
        },
        signal,
      ),
    get: writes.get,
    markReleased: (seen, releasedAt, signal) =>
      writes.patch(
        seen,
        { status: { releasedAt: releasedAt.toISOString() } },
        { subresource: 'status', signal },
      ),
    delete: writes.delete,
    listSticky: (pod, signal) => list(`spec.sticky=${pod}`, signal),
    bind: (seen, { nodeName, attachment, pod }, signal) =>
      // A merge patch keeps what it does not name: null takes away.
      writes.update(
        seen,
        { spec: { nodeName, attachment, pod: { ...pod, uid: pod.uid ?? null }, holder: null } },
        signal,
      ),
    empty: (seen, signal) => writes.patch(seen, { spec: EMPTIED }, { signal }),
    listOfNode: (nodeName, signal) => list(`spec.nodeName=${nodeName}`, signal),
    listMatching({ pool, nodeName, namespace, podName }, signal) {
      const selected = {
        'spec.pool': pool,
        'spec.nodeName': nodeName,
        'spec.pod.namespace': namespace,
        'spec.pod.name': podName,
      };
      const terms = Object.entries(selected).flatMap(([field, value]) =>
        value === undefined ? [] : [`${field}=${value}`],
      );
      return list(terms.length === 0 ? undefined : terms.join(','), signal);
    },
  };

  async function list(fieldSelector: string | undefined, signal?: AbortSignal): Promise<IPAllocation[]> {
    const selected = fieldSelector === undefined ? {} : { fieldSelector };
    const { items } = await listAll(client, { path: PATH, ...selected, signal });
    return items.map(parse);
  }
}

/** The change by which a sticky address loses its sandbox and waits for the next of its pod. */
export const EMPTIED = { nodeName: null, attachment: null, holder: STICKY_HOLDER };

/** What a list of allocations is narrowed to; what is absent does not matter. */
export interface AllocationFilter {
  readonly pool?: string | undefined;
  /** Empty: those without a node. */
  readonly nodeName?: string | undefined;
  readonly namespace?: string | undefined;
  readonly podName?: string | undefined;
}

/** Lists cost the apiserver time linear in all objects: the controller's and people's, and never in a loop. */
export interface AllocationLists {
  /** A consistent list. Throws if one of them cannot be read. */
  listOfNode(nodeName: string, signal?: AbortSignal): Promise<IPAllocation[]>;
  /** The same, of those that match. */
  listMatching(filter: AllocationFilter, signal?: AbortSignal): Promise<IPAllocation[]>;
}

/** Watches IPAllocations: a node's own, or all of them read as what `parse` keeps of each. */
export function watchAllocationsOfNode(parts: InformerParts, nodeName: string): Informer<IPAllocation> {
  return startInformer(parts, {
    path: PATH,
    fieldSelector: `spec.nodeName=${nodeName}`,
    parse: (object) => IPAllocation.parse(object),
    // A sticky one leaves its node when it is emptied.
    selects: ({ spec }) => spec.nodeName === nodeName,
  });
}

/** Watches all IPAllocations. `keep` makes the little of each that is kept in memory. */
export function watchAllAllocations<T>(
  parts: InformerParts,
  keep: (allocation: IPAllocation) => T,
): Informer<T> {
  return startInformer(parts, { path: PATH, parse: (object) => keep(IPAllocation.parse(object)) });
}
