import { IP_POOL, IPPool, IPPoolStatus, POOL_FINALIZER } from '../api/index.ts';
import type { PoolStore, WriteOutcome } from '../ipam/store.ts';
import { FAMILIES } from '../net/index.ts';
import type { KubeClient } from './client.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { listAll } from './list.ts';
import { pathOf } from './paths.ts';
import { conditionalWrites, type WriteFeed } from './writes.ts';

const PATH = pathOf(IP_POOL);

/** The IPPools in the apiserver. Nothing here writes a spec: that is the user's alone. */
export function poolStore(client: KubeClient, feed?: WriteFeed): PoolStore & PoolReports & PoolLists {
  const writes = conditionalWrites(client, PATH, (object) => IPPool.parse(object), feed);
  return {
    get: writes.get,
    addFinalizer: (seen, signal) => {
      const finalizers = [...new Set([...seen.metadata.finalizers, POOL_FINALIZER])];
      return writes.patch(seen, { metadata: { finalizers } }, { signal });
    },
    removeFinalizer: (seen, signal) => {
      const finalizers = seen.metadata.finalizers.filter((finalizer) => finalizer !== POOL_FINALIZER);
      return writes.patch(seen, { metadata: { finalizers } }, { signal });
    },
    writePoolStatus(seen, status, signal) {
      // null takes away what is no more, as a family that the pool does not list now: a merge patch leaves alone what it
      // does not name.
      const absent = Object.fromEntries([...FAMILIES, 'nodeAddresses'].map((field) => [field, null]));
      return writes.patch(
        seen,
        { status: { ...absent, ...withoutUndefined(IPPoolStatus.encode(status)) } },
        { subresource: 'status', signal },
      );
    },
    async listAll(signal) {
      const { items } = await listAll(client, { path: PATH, signal });
      return items.map((object) => IPPool.parse(object));
    },
  };
}

export interface PoolLists {
  /** A consistent list. Throws if one of them cannot be read. */
  listAll(signal?: AbortSignal): Promise<IPPool[]>;
}

/** What the controller writes about a pool. Each only if the pool is still at the resourceVersion of `seen`. */
export interface PoolReports {
  writePoolStatus(seen: IPPool, status: IPPoolStatus, signal?: AbortSignal): Promise<WriteOutcome>;
  /** Lets a deleted pool go. */
  removeFinalizer(seen: IPPool, signal?: AbortSignal): Promise<WriteOutcome>;
}

/** Watches all IPPools. */
export function watchPools(parts: InformerParts): Informer<IPPool> {
  return startInformer(parts, { path: PATH, parse: (object) => IPPool.parse(object) });
}

function withoutUndefined(object: object): object {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
