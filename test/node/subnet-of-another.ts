import { nodeSubnetName } from '../../src/api/index.ts';
import { parseCIDR } from '../../src/net/index.ts';
import type { TestNode } from './node.ts';

/** Where the other node is, on this node's link; nobody answers there. */
export const ANOTHER_HOP = '192.0.2.77';

/** Makes the NodeSubnet of another node on this link, which has no agent. */
export async function subnetOfAnother(node: TestNode, cidr: string, ofPool: string): Promise<void> {
  const poolUID = await node.kubectl('get', 'ippool', ofPool, '-o', 'jsonpath={.metadata.uid}');
  await node.apply({
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'NodeSubnet',
    metadata: { name: nodeSubnetName(parseCIDR(cidr)) },
    spec: {
      ...{ cidr, pool: ofPool, poolUID, nextHops: [ANOTHER_HOP] },
      ...{ nodeName: 'another', nodeUID: 'uid-another' },
    },
  });
}

/** The first of the CIDRs that this node does not hold. */
export async function notOwn(node: TestNode, ofPool: string, cidrs: readonly string[]): Promise<string> {
  const own = await node.subnets(ofPool);
  const free = cidrs.find((cidr) => !own.includes(nodeSubnetName(parseCIDR(cidr))));
  if (free === undefined) throw new Error(`the node holds all of them: ${own.join()}`);
  return free;
}
