import { expect, test } from 'vitest';
import type { IPAllocation } from '../../../src/api/index.ts';
import { auditAddresses } from '../../../src/ipam/audit/addresses.ts';
import { allocationOf, poolOf, subnetOf } from '../objects.ts';

const LAN = { use: 'Lan', gateway: { ipv4: '10.0.0.200' } };

test.each<{ spec: object; nextHops?: []; address: string; found: string[] }>([
  { spec: { use: 'Pods' }, address: '10.0.0.64', found: ['AddressOfTheNode'] },
  { spec: { use: 'Pods' }, address: '10.0.0.65', found: [] },
  { spec: { use: 'Bridge' }, address: '10.0.0.65', found: ['AddressOfTheNode'] },
  { spec: { use: 'Bridge' }, address: '10.0.0.66', found: [] },
  { spec: LAN, nextHops: [], address: '10.0.0.64', found: [] },
  { spec: LAN, nextHops: [], address: '10.0.0.65', found: [] },
])('a sandbox of $spec.use with $address: $found', ({ spec, nextHops, address, found }) => {
  const pool = poolOf('p', { cidrs: ['10.0.0.0/24'], ...spec });
  const subnet = subnetOf('10.0.0.64/26', pool, 'n1', nextHops === undefined ? {} : { nextHops });
  const findings = auditAddresses({
    pools: [pool],
    subnets: [subnet],
    allocations: [{ ...allocationOf(address), nodeName: 'n1', attachment: 'c1/eth0' }],
    nodes: [{ name: 'n1', uid: 'uid-n1', labels: {}, addresses: [], isReady: true }],
    serviceCIDRs: [],
    unreadable: [],
  });
  expect(findings.map(({ reason }) => reason)).toEqual(found);
});

test('an address that rests is wrong nowhere: nobody has it, and its name comes free', () => {
  const pool = poolOf('p', { cidrs: ['10.0.0.0/24'] });
  const audited = (status: IPAllocation['status']) =>
    auditAddresses({
      pools: [pool],
      subnets: [],
      allocations: [{ ...allocationOf('10.255.255.1'), nodeName: 'n1', attachment: 'c1/eth0', status }],
      nodes: [{ name: 'n1', uid: 'uid-n1', labels: {}, addresses: [], isReady: true }],
      serviceCIDRs: [],
      unreadable: [],
    }).map(({ reason }) => reason);
  expect(audited(undefined)).toEqual(['OutsideSubnets']);
  expect(audited({ releasedAt: '2026-01-01T00:00:00.000000Z' })).toEqual([]);
});
