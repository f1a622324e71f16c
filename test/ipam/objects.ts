import {
  allocationName,
  IPPoolSpec,
  nodeSubnetName,
  type Attachment,
  type IPAllocation,
  type IPAllocationSpec,
  type IPPool,
  type NodeSubnet,
  type NodeSubnetSpec,
  type StoredMetadata,
} from '../../src/api/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

/** A pool as the apiserver would return it. Its uid is `uid-<name>`. */
export function poolOf(name: string, spec: unknown, metadata: Partial<StoredMetadata> = {}): IPPool {
  return { metadata: metadataOf(name, metadata), spec: IPPoolSpec.parse(spec) };
}

/** A subnet of the pool on the node, with the UID `uid-<node>`. */
export function subnetOf(
  cidr: string,
  pool: Pick<IPPool, 'metadata'>,
  nodeName = 'n1',
  spec: Partial<NodeSubnetSpec> = {},
): NodeSubnet {
  const parsed = parseCIDR(cidr);
  return {
    metadata: metadataOf(nodeSubnetName(parsed)),
    spec: {
      cidr: parsed,
      pool: pool.metadata.name,
      poolUID: pool.metadata.uid,
      nodeName,
      nodeUID: `uid-${nodeName}`,
      nextHops: [parseAddress('192.0.2.1')],
      ...spec,
    },
  };
}

export function attachmentOf(containerID: string, fields: Partial<Attachment> = {}): Attachment {
  return { network: 'weft', containerID, ifName: 'eth0', kind: 'Interface', ...fields };
}

/** An allocation of pool `p` on node `n1` for the container `c1`, unless told otherwise. */
export function allocationOf(
  address: string,
  spec: Partial<IPAllocationSpec> = {},
  status?: IPAllocation['status'],
): IPAllocation {
  const parsed = parseAddress(address);
  const base = spec.holder === undefined ? { attachment: attachmentOf('c1') } : {};
  return {
    metadata: metadataOf(allocationName(parsed)),
    spec: { address: parsed, pool: 'p', nodeName: 'n1', ...base, ...spec },
    ...(status === undefined ? {} : { status }),
  };
}

export const RELEASED = { releasedAt: '2026-01-01T00:00:00Z' };

function metadataOf(name: string, metadata: Partial<StoredMetadata> = {}): StoredMetadata {
  return {
    name,
    uid: `uid-${name}`,
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
    finalizers: [],
    annotations: {},
    ...metadata,
  };
}
