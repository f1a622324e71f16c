import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressOfAllocationName,
  allocationName,
  cidrOfNodeSubnetName,
  nodeSubnetName,
} from '../../src/api/index.ts';
import { InvalidAddressError, InvalidCIDRError, parseAddress, parseCIDR } from '../../src/net/index.ts';
import { anyAddress, anyCIDR } from '../net/arbitraries.ts';

/** Frozen: a change here gives one address two names, and the name is the lock. */
const GOLDEN_ADDRESSES = [
  ['10.244.1.7', '10.244.1.7'],
  ['0.0.0.1', '0.0.0.1'],
  ['255.255.255.254', '255.255.255.254'],
  ['fd00::5', 'fd00-0000-0000-0000-0000-0000-0000-0005'],
  ['::1', '0000-0000-0000-0000-0000-0000-0000-0001'],
  ['fd00::', 'fd00-0000-0000-0000-0000-0000-0000-0000'],
  ['2001:db8:a:b:c:d:e:f', '2001-0db8-000a-000b-000c-000d-000e-000f'],
] as const;

const GOLDEN_CIDRS = [
  ['10.244.1.0/26', '10.244.1.0-26'],
  ['10.0.0.0/8', '10.0.0.0-8'],
  ['10.0.0.9/32', '10.0.0.9-32'],
  ['fd00::/122', 'fd00-0000-0000-0000-0000-0000-0000-0000-122'],
  ['fd00:10:244::40/122', 'fd00-0010-0244-0000-0000-0000-0000-0040-122'],
  ['fd00::5/128', 'fd00-0000-0000-0000-0000-0000-0000-0005-128'],
  ['2001:db8::/64', '2001-0db8-0000-0000-0000-0000-0000-0000-64'],
] as const;

const DNS_NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

describe('the name of an IPAllocation', () => {
  it.each(GOLDEN_ADDRESSES)('of %s is %s', (address, name) => {
    expect(allocationName(parseAddress(address))).toBe(name);
    expect(addressOfAllocationName(name)).toEqual(parseAddress(address));
  });

  it('leads back to the address, is a valid name, and is no other address', () => {
    fc.assert(
      fc.property(anyAddress, anyAddress, (address, other) => {
        const name = allocationName(address);
        expect(addressOfAllocationName(name)).toEqual(address);
        expect(name).toMatch(DNS_NAME);
        expect(name === allocationName(other)).toBe(
          address.family === other.family && address.value === other.value,
        );
      }),
    );
  });

  it.each([
    'fd00--5',
    'FD00-0000-0000-0000-0000-0000-0000-0005',
    'fd00-0-0-0-0-0-0-5',
    'fd00-0000-0000-0000-0000-0000-0000',
    '10.0.0.01',
    'pool',
    '',
    '0000-0000-0000-0000-0000-ffff-0a00-0001',
  ])('is never %j', (name) => {
    expect(() => addressOfAllocationName(name)).toThrow(InvalidAddressError);
  });
});

describe('the name of a NodeSubnet', () => {
  it.each(GOLDEN_CIDRS)('of %s is %s', (cidr, name) => {
    expect(nodeSubnetName(parseCIDR(cidr))).toBe(name);
    expect(cidrOfNodeSubnetName(name)).toEqual(parseCIDR(cidr));
  });

  it('leads back to the CIDR and is a valid name', () => {
    fc.assert(
      fc.property(anyCIDR, (cidr) => {
        expect(cidrOfNodeSubnetName(nodeSubnetName(cidr))).toEqual(cidr);
        expect(nodeSubnetName(cidr)).toMatch(DNS_NAME);
      }),
    );
  });

  it.each(['10.0.0.1-24', '10.0.0.0-33', '10.0.0.0', '10.0.0.0-', 'fd00::-64', ''])('is never %j', (name) => {
    expect(() => cidrOfNodeSubnetName(name)).toThrow();
    try {
      cidrOfNodeSubnetName(name);
    } catch (error) {
      expect(error instanceof InvalidAddressError || error instanceof InvalidCIDRError).toBe(true);
    }
  });
});
