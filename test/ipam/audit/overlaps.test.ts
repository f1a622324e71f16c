import { describe, expect, test } from 'vitest';
import type { NodeSubnet } from '../../../src/api/index.ts';
import { auditNodeSubnets } from '../../../src/ipam/audit/node-subnets.ts';
import { auditOverlaps } from '../../../src/ipam/audit/overlaps.ts';
import { parseAddress } from '../../../src/net/index.ts';
import { poolOf, subnetOf } from '../objects.ts';

const pool = poolOf('p', { cidrs: ['10.0.0.0/24'] });
const node = { name: 'n1', uid: 'uid-n1', labels: {}, addresses: [], isReady: true };
const bookOf = (subnets: NodeSubnet[]) => ({
  pools: [pool],
  subnets,
  allocations: [],
  nodes: [node],
  serviceCIDRs: [],
  unreadable: [],
});

describe('a subnet of one address in another node’s', () => {
  const around = subnetOf('10.0.0.0/26', pool, 'n1');
  const found = (exclusive: boolean) => {
    const inner = subnetOf('10.0.0.9/32', pool, 'n2', exclusive ? { exclusive } : {});
    return auditOverlaps(bookOf([around, inner])).map(({ reason }) => reason);
  };

  test('overlaps it, as the piece of a LAN does', () => {
    expect(found(false)).toContain('SubnetsOverlap');
  });

  test('lies there on purpose where it is exclusive', () => {
    expect(found(true)).not.toContain('SubnetsOverlap');
  });
});

test('an exclusive subnet is none to draw from: a node that has no other lacks one', () => {
  const nodes = [{ ...node, addresses: [parseAddress('192.0.2.1')] }];
  const found = (exclusive: boolean) => {
    const cidr = exclusive ? '10.0.0.9/32' : '10.0.0.0/26';
    const subnet = subnetOf(cidr, pool, 'n1', exclusive ? { exclusive } : {});
    return auditNodeSubnets({ ...bookOf([subnet]), nodes }).map(({ reason }) => reason);
  };
  expect(found(true)).toEqual(['NoSubnet']);
  expect(found(false)).toEqual([]);
});
