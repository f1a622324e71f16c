import { nodeSubnetName } from '../../../src/api/index.ts';
import { cidrOf, formatCIDR, parseAddress, type CIDR } from '../../../src/net/index.ts';

/** Objects as the apiserver would store them, in their wire form. */
export const POOL = {
  metadata: metadata('bench'),
  spec: {
    cidrs: ['10.0.0.0/8', 'fd00:10::/32'],
    nodeSubnetPrefixLength: { ipv4: 26, ipv6: 122 },
    natOutgoing: true,
  },
};

export const nodeUID = (node: string): string => `uid-${node}`;

/** The subnet with that number, of a node with one next hop. */
export function subnetObject(cidr: CIDR, nodeName: string, nextHop: string): unknown {
  return {
    metadata: metadata(nodeSubnetName(cidr)),
    spec: {
      ...{ cidr: formatCIDR(cidr), pool: POOL.metadata.name, poolUID: POOL.metadata.uid },
      ...{ nodeName, nodeUID: nodeUID(nodeName), nextHops: [nextHop] },
    },
  };
}

/** The subnets of each family that the node with that number has. */
export function subnetsOf(number: number): readonly CIDR[] {
  return [
    cidrOf({ family: 'ipv4', value: parseAddress('10.0.0.0').value + BigInt(number) * 64n }, 26),
    cidrOf({ family: 'ipv6', value: parseAddress('fd00:10::').value + BigInt(number) * 64n }, 122),
  ];
}

function metadata(name: string) {
  return { name, uid: `uid-${name}`, resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z' };
}
