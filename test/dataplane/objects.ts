import type { IPPool, NodeSubnet } from '../../src/api/index.ts';
import { nodeSubnetName } from '../../src/api/index.ts';
import type { DesiredInput, Uplink } from '../../src/dataplane/index.ts';
import { FAMILIES, parseAddress, parseCIDR } from '../../src/net/index.ts';

/** A pool as the apiserver stores it; what a test does not say is as a user would leave it. */
export function pool(name: string, cidrs: readonly string[], spec: Partial<IPPool['spec']> = {}): IPPool {
  return {
    metadata: { ...metadata(name), uid: `uid-${name}` },
    spec: {
      cidrs: cidrs.map(parseCIDR),
      nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
      use: 'Pods',
      priority: 0,
      disabled: false,
      fixedAddresses: false,
      encapsulation: 'CrossSubnet',
      natOutgoing: true,
      isolation: { mode: 'None', peers: [], dns: true },
      reuseDelaySeconds: 30,
      ...spec,
    },
  };
}

/** A subnet of pool `main` held by that node. */
export function subnet(
  cidr: string,
  nodeName: string,
  nextHops: readonly string[],
  {
    pool: poolName = 'main',
    nodeUID = `uid-${nodeName}`,
    created = '2026-01-01T00:00:00Z',
    exclusive = false,
  } = {},
): NodeSubnet {
  const parsed = parseCIDR(cidr);
  return {
    metadata: { ...metadata(nodeSubnetName(parsed)), creationTimestamp: created },
    spec: {
      cidr: parsed,
      pool: poolName,
      poolUID: `uid-${poolName}`,
      nodeName,
      nodeUID,
      nextHops: nextHops.map(parseAddress),
      ...(exclusive ? { exclusive } : {}),
    },
  };
}

export function uplink(
  address: string,
  connected: readonly string[],
  { link = 'eth0', mtu = 1500 } = {},
): Uplink {
  return { address: parseAddress(address), link, connected: connected.map(parseCIDR), mtu };
}

/** Node `a` on 192.168.1.0/24 and fd01::/64, with the pool `main` of both families and no subnets yet. */
export function input(changes: Partial<DesiredInput> = {}): DesiredInput {
  return {
    node: { name: 'a', uid: 'uid-a', addresses: [parseAddress('192.168.1.1'), parseAddress('fd01::1')] },
    uplinks: {
      ipv4: uplink('192.168.1.1', ['192.168.1.0/24']),
      ipv6: uplink('fd01::1', ['fd01::/64']),
    },
    kernelFamilies: FAMILIES,
    pools: [pool('main', ['10.64.0.0/16', 'fd64::/64'])],
    subnets: [],
    dnsServers: [],
    config: { vni: 4097, port: 4789, natExempt: [] },
    ...changes,
  };
}

function metadata(name: string): IPPool['metadata'] {
  return {
    name,
    uid: `uid-${name}`,
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
    finalizers: [],
    annotations: {},
  };
}
