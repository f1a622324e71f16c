import {
  allocationName,
  IPPoolSpec,
  nodeSubnetName,
  type IPAllocation,
  type IPPool,
  type NodeSubnet,
} from '../../src/api/index.ts';
import { parseAddress, parseCIDR } from '../../src/net/index.ts';

let version = 0;

function metadata(name: string): IPPool['metadata'] {
  version++;
  return {
    name,
    uid: `uid-${version}`,
    resourceVersion: String(version),
    creationTimestamp: '2026-01-01T00:00:00Z',
    generation: 1,
    finalizers: [],
    annotations: {},
  };
}

export interface PoolOptions extends Partial<Omit<IPPool, 'metadata' | 'spec'>> {
  readonly metadata?: Partial<IPPool['metadata']>;
  readonly reuseDelaySeconds?: number;
  readonly prefixLength?: number;
  /** Of the pool of a LAN, with its router. */
  readonly gateway?: { readonly ipv4: string; readonly ipv6: string };
  readonly isolation?: { readonly mode: 'None' | 'Isolated'; readonly peers?: readonly string[] };
}

export function pool(name: string, cidrs: readonly string[], options: PoolOptions = {}): IPPool {
  return {
    metadata: { ...metadata(name), finalizers: ['ipam.weft.dev/node-subnets'], ...options.metadata },
    spec: IPPoolSpec.parse({
      cidrs: [...cidrs],
      ...(options.gateway === undefined ? {} : { use: 'Lan', gateway: options.gateway }),
      ...(options.isolation === undefined ? {} : { isolation: options.isolation }),
      ...(options.reuseDelaySeconds === undefined ? {} : { reuseDelaySeconds: options.reuseDelaySeconds }),
      ...(options.prefixLength === undefined
        ? {}
        : { nodeSubnetPrefixLength: { ipv4: options.prefixLength } }),
    }),
    ...(options.status === undefined ? {} : { status: options.status }),
  };
}

export function nodeSubnet(of: IPPool, cidr: string, nodeName: string): NodeSubnet {
  return {
    metadata: metadata(nodeSubnetName(parseCIDR(cidr))),
    spec: {
      cidr: parseCIDR(cidr),
      pool: of.metadata.name,
      poolUID: of.metadata.uid,
      nodeName,
      nodeUID: `uid-of-${nodeName}`,
      nextHops: [parseAddress('192.0.2.1')],
    },
  };
}

export function allocation(
  of: IPPool,
  address: string,
  nodeName: string,
  more: { readonly releasedAt?: string; readonly holder?: string } = {},
): IPAllocation {
  return {
    metadata: metadata(allocationName(parseAddress(address))),
    spec: {
      address: parseAddress(address),
      pool: of.metadata.name,
      nodeName,
      ...(more.holder === undefined
        ? { attachment: { network: 'weft', containerID: `c-${address}`, ifName: 'eth0', kind: 'Interface' } }
        : { holder: more.holder }),
    },
    ...(more.releasedAt === undefined ? {} : { status: { releasedAt: more.releasedAt } }),
  };
}
