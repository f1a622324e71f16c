import { addressOfAllocationName, type IPAllocation, type IPPool, type NodeSubnet } from '../api/index.ts';
import { poolOfAddress, usableRanges } from '../ipam/index.ts';
import {
  formatAddress,
  formatCIDR,
  InvalidAddressError,
  parseAddressInAnySpelling,
  rangesHave,
  type IPAddress,
} from '../net/index.ts';
import { UsageError } from './errors.ts';

/**
 * Reads an address as a person writes or copies it: in any spelling, or as the name of its IPAllocation.
 * @throws UsageError
 */
export function addressFrom(text: string): IPAddress {
  try {
    return /^[0-9a-f-]+$/.test(text) && text.includes('-')
      ? addressOfAllocationName(text)
      : parseAddressInAnySpelling(text);
  } catch (error) {
    if (error instanceof InvalidAddressError) throw new UsageError(error.message);
    throw error;
  }
}

/** Whose address it is, for messages: the pod's, the holder's, or the sandbox's where nobody knows its pod. */
export function ownerText({ spec }: Pick<IPAllocation, 'spec'>): string {
  if (spec.pod !== undefined) return `${spec.pod.namespace}/${spec.pod.name}`;
  if (spec.holder !== undefined) return spec.holder;
  return `container ${spec.attachment?.containerID.slice(0, 12) ?? 'unknown'}`;
}

/** A sentence about an address that has no allocation: where it lies. */
export function nobodyText(
  address: IPAddress,
  pools: readonly IPPool[],
  subnets: readonly NodeSubnet[],
): string {
  const text = formatAddress(address);
  const place = poolOfAddress(address, pools, subnets);
  if (place === undefined) return `nobody has ${text}: it lies in no IPPool`;
  const { subnet, pool, poolName } = place;
  if (subnet === undefined) return `nobody has ${text}: it lies in IPPool ${poolName}, in no node's subnet`;
  const where = `${formatCIDR(subnet.spec.cidr)} of IPPool ${poolName}, a subnet of node ${subnet.spec.nodeName}`;
  const isKeptBack = pool !== undefined && !rangesHave(usableRanges(subnet, pool), address.value);
  return isKeptBack
    ? `nobody is ever given ${text}: it is the node's own, or reserved, in ${where}`
    : `nobody has ${text}: it lies in ${where}`;
}
