import type { Clock, Random } from '../ipam/clock.ts';
import type { KubeClient } from './client.ts';
import { InvalidError } from './errors.ts';
import { listEach, type Listed, type ListRequest } from './list.ts';
import type { Identity } from './objects.ts';
import { readWatch } from './watch.ts';

/**
 * The same list as listEach gives, and as consistent, but streamed out of the apiserver's own cache (Kubernetes calls it
 * WatchList): a page of custom resources costs the apiserver a read of etcd and the decoding of every object. Where an
 * apiserver does not know it (before 1.34 it may be switched off) it comes page by page.
 * @param idleTimeoutMs how long the apiserver may say nothing before the stream counts as broken
 */
export async function listStreamed<T extends Identity>(
  parts: { readonly client: KubeClient; readonly clock: Clock; readonly random: Random },
  request: ListRequest & { readonly signal: AbortSignal; readonly idleTimeoutMs: number },
  read: (item: unknown) => T,
): Promise<Listed<T>> {
  const { notOlderThan, pageSize: _, ...selected } = request;
  const items = new Map<string, T>();
  const complete = new AbortController();
  let resourceVersion: string | undefined;
  try {
    await readWatch(
      parts,
      {
        ...selected,
        initialEvents: true,
        ...(notOlderThan === undefined ? {} : { resourceVersion: notOlderThan }),
        signal: AbortSignal.any([request.signal, complete.signal]),
      },
      {
        onOpen: () => undefined,
        onRevision: () => undefined,
        // While it catches up with what a consistent list must show, changes come among them.
        onEvent({ type, object }) {
          const item = read(object);
          if (type === 'DELETED') items.delete(item.key);
          else items.set(item.key, item);
        },
        onInitialEnd(reached) {
          resourceVersion = reached;
          complete.abort(new Error('the list is complete'));
        },
      },
    );
  } catch (error) {
    if (error instanceof InvalidError) return listEach(parts.client, request, read);
    if (resourceVersion === undefined) throw error;
  }
  if (resourceVersion === undefined) {
    throw new Error(`the apiserver ended the list of ${request.path} after ${items.size} objects`);
  }
  return { items: [...items.values()], resourceVersion };
}
