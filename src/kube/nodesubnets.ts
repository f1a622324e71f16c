import { API_VERSION, NODE_SUBNET, NodeSubnet, nodeSubnetName, NodeSubnetSpec } from '../api/index.ts';
import type { NodeSubnetStore } from '../ipam/store.ts';
import { formatAddress } from '../net/index.ts';
import type { KubeClient } from './client.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { listAll } from './list.ts';
import { pathOf } from './paths.ts';
import { conditionalWrites, type WriteFeed } from './writes.ts';

const PATH = pathOf(NODE_SUBNET);

/** The NodeSubnets in the apiserver. `feed` is the informer that must show own writes at once. */
export function nodeSubnetStore(client: KubeClient, feed?: WriteFeed): NodeSubnetStore & NodeSubnetLists {
  const parse = (object: unknown) => NodeSubnet.parse(object);
  const writes = conditionalWrites(client, PATH, parse, feed);
  return {
    create: (spec, signal) =>
      writes.create(
        {
          apiVersion: API_VERSION,
          kind: NODE_SUBNET.kind,
          metadata: { name: nodeSubnetName(spec.cidr) },
          spec: NodeSubnetSpec.encode(spec),
        },
        signal,
      ),
    get: writes.get,
    rebind: (seen, { nodeUID, nextHops }, signal) =>
      writes.patch(seen, { spec: { nodeUID, nextHops: nextHops.map(formatAddress) } }, { signal }),
    delete: writes.delete,
    async listOfPool(poolName, signal) {
      const { items } = await listAll(client, {
        path: PATH,
        fieldSelector: `spec.pool=${poolName}`,
        signal,
      });
      return items.map(parse);
    },
    async listAll(signal) {
      const { items } = await listAll(client, { path: PATH, signal });
      return items.map(parse);
    },
  };
}

export interface NodeSubnetLists {
  /** A consistent list, as a pool's finalizer waits for. Throws if one of them cannot be read. */
  listOfPool(poolName: string, signal?: AbortSignal): Promise<NodeSubnet[]>;
  /** The same, of all pools. */
  listAll(signal?: AbortSignal): Promise<NodeSubnet[]>;
}

/** Watches all NodeSubnets. */
export function watchNodeSubnets(parts: InformerParts): Informer<NodeSubnet> {
  return startInformer(parts, { path: PATH, parse: (object) => NodeSubnet.parse(object) });
}
