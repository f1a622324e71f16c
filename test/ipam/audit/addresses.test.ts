import { expect, test } from 'vitest';
import type { IPAllocation } from '../../../src/api/index.ts';
import { auditAddresses } from '../../../src/ipam/audit/addresses.ts';
import type { Book } from '../../../src/ipam/audit/book.ts';
import { auditGoneNodes, auditNodeSubnets } from '../../../src/ipam/audit/node-subnets.ts';
import { cidrOf, formatCIDR, parseAddress } from '../../../src/net/index.ts';
import { allocationOf, poolOf, subnetOf } from '../objects.ts';

const LAN = { use: 'Lan', gateway: { ipv4: '10.0.0.200', ipv6: 'fd00::c8' } };
const CIDRS = ['10.0.0.0/24', 'fd00::/120'];

test.each<{ spec: object; address: string; found: string[] }>([
  { spec: { use: 'Pods' }, address: '10.0.0.64', found: ['AddressOfTheNode'] },
  { spec: { use: 'Pods' }, address: '10.0.0.65', found: [] },
  { spec: { use: 'Pods' }, address: '10.0.0.127', found: [] },
  { spec: { use: 'Pods' }, address: 'fd00::40', found: ['AddressOfTheNode'] },
  { spec: { use: 'Pods' }, address: 'fd00::7f', found: [] },
  { spec: { use: 'Bridge' }, address: '10.0.0.64', found: ['NeverHandedOut'] },
  { spec: { use: 'Bridge' }, address: '10.0.0.65', found: ['AddressOfTheNode'] },
  { spec: { use: 'Bridge' }, address: '10.0.0.66', found: [] },
  { spec: { use: 'Bridge' }, address: '10.0.0.127', found: ['NeverHandedOut'] },
  { spec: { use: 'Bridge' }, address: 'fd00::40', found: ['NeverHandedOut'] },
  { spec: { use: 'Bridge' }, address: 'fd00::41', found: ['AddressOfTheNode'] },
  { spec: { use: 'Bridge' }, address: 'fd00::7f', found: [] },
  { spec: LAN, address: '10.0.0.0', found: ['NeverHandedOut'] },
  { spec: LAN, address: '10.0.0.64', found: [] },
  { spec: LAN, address: '10.0.0.65', found: [] },
  { spec: LAN, address: '10.0.0.200', found: ['NeverHandedOut'] },
  { spec: LAN, address: '10.0.0.255', found: ['NeverHandedOut'] },
  { spec: LAN, address: 'fd00::', found: ['NeverHandedOut'] },
  { spec: LAN, address: 'fd00::c8', found: ['NeverHandedOut'] },
  { spec: LAN, address: 'fd00::ff', found: [] },
])('a sandbox of $spec.use with $address: $found', ({ spec, address, found }) => {
  const pool = poolOf('p', { cidrs: CIDRS, ...spec });
  const parsed = parseAddress(address);
  const piece = formatCIDR(cidrOf(parsed, pool.spec.nodeSubnetPrefixLength[parsed.family]));
  const subnet = subnetOf(piece, pool, 'n1', pool.spec.use === 'Lan' ? { nextHops: [] } : {});
  const audited = (attachment: string | undefined) =>
    auditAddresses({
      pools: [pool],
      subnets: [subnet],
      allocations: [{ ...allocationOf(address), nodeName: 'n1', attachment }],
      nodes: [{ name: 'n1', uid: 'uid-n1', labels: {}, addresses: [], isReady: true }],
      serviceCIDRs: [],
      unreadable: [],
    }).map(({ reason }) => reason);
  expect(audited('c1/eth0')).toEqual(found);
  // Who holds it by name may be the router.
  expect(audited(undefined)).toEqual(found.filter((reason) => reason !== 'NeverHandedOut'));
});

test('a sandbox with the address of a node is critical; who holds it without a sandbox may be that node', () => {
  const pool = poolOf('p', { cidrs: CIDRS, ...LAN });
  const audited = (attachment: string | undefined) =>
    auditAddresses({
      pools: [pool],
      subnets: [subnetOf('10.0.0.64/26', pool, 'n1', { nextHops: [] })],
      allocations: [{ ...allocationOf('10.0.0.70'), nodeName: 'n1', attachment }],
      nodes: [
        { name: 'n1', uid: 'uid-n1', labels: {}, addresses: [], isReady: true },
        { name: 'n2', uid: 'uid-n2', labels: {}, addresses: [parseAddress('10.0.0.70')], isReady: true },
      ],
      serviceCIDRs: [],
      unreadable: [],
    }).map(({ reason, severity }) => `${severity} ${reason}`);
  expect(audited('c1/eth0')).toEqual(['critical AddressOfANode']);
  expect(audited(undefined)).toEqual([]);
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

test('of a pool that is there and cannot be read it is not said that it is gone', () => {
  const audited = (unreadable: Book['unreadable']) => {
    const book: Book = {
      pools: [],
      subnets: [subnetOf('10.0.0.64/26', poolOf('p', { cidrs: ['10.0.0.0/24'] }), 'n1')],
      allocations: [{ ...allocationOf('10.0.0.70'), nodeName: undefined, attachment: undefined }],
      nodes: [{ name: 'n1', uid: 'uid-n1', labels: {}, addresses: [], isReady: true }],
      serviceCIDRs: [],
      unreadable,
    };
    return [...auditAddresses(book), ...auditNodeSubnets(book)].map(
      ({ object, reason }) => `${object.kind} ${reason}`,
    );
  };
  expect(audited([])).toEqual(['IPAllocation PoolGone', 'NodeSubnet PoolGone']);
  expect(audited([{ object: { kind: 'IPPool', name: 'p' }, problem: 'from the future' }])).toEqual([]);
});

test('of a Node that is there and cannot be read it is not said that it is gone', () => {
  const audited = (unreadable: Book['unreadable']) =>
    auditGoneNodes({
      pools: [],
      subnets: [subnetOf('10.0.0.64/26', poolOf('p', { cidrs: ['10.0.0.0/24'] }), 'n1')],
      allocations: [],
      nodes: [],
      serviceCIDRs: [],
      unreadable,
    }).map(({ reason }) => reason);
  expect(audited([])).toEqual(['NodeGone']);
  expect(audited([{ object: { kind: 'Node', name: 'n1' }, problem: 'from the future' }])).toEqual([]);
});
