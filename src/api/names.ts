import {
  cidrOf,
  firstAddress,
  formatAddress,
  hostCIDR,
  InvalidAddressError,
  parseAddress,
  parseCIDR,
  type CIDR,
  type IPAddress,
} from '../net/index.ts';

/**
 * The name of an IPAllocation is its address, and the name is the lock: this encoding is frozen for ever, since
 * two encodings would be two locks. IPv4 as it is; IPv6 as eight full groups joined by "-", because "fd00::5"
 * is no DNS name.
 */
export function allocationName(address: IPAddress): string {
  return address.family === 'ipv4' ? formatAddress(address) : fullGroups(address);
}

/**
 * The address that an IPAllocation's name stands for.
 * @throws InvalidAddressError if no address has that name
 */
export function addressOfAllocationName(name: string): IPAddress {
  const address = parseAddress(name.includes('-') ? compressed(name) : name);
  // Otherwise "fd00::5", which no object can be called, would stand for an address too.
  if (allocationName(address) !== name) {
    throw new InvalidAddressError(name, `the name of its IPAllocation is ${allocationName(address)}`);
  }
  return address;
}

/** The name of a NodeSubnet: its CIDR with "-" for "/", IPv6 in full groups. Frozen like allocationName. */
export function nodeSubnetName(cidr: CIDR): string {
  return `${allocationName(firstAddress(cidr))}-${cidr.prefixLength}`;
}

/**
 * The CIDR that a NodeSubnet's name stands for.
 * @throws InvalidAddressError or InvalidCIDRError if no CIDR has that name
 */
export function cidrOfNodeSubnetName(name: string): CIDR {
  const at = name.lastIndexOf('-');
  const address = addressOfAllocationName(name.slice(0, at));
  return parseCIDR(`${formatAddress(address)}/${name.slice(at + 1)}`);
}

/** The name of the NodeSubnet of that one address: an exclusive one. */
export function hostSubnetName(address: IPAddress): string {
  return nodeSubnetName(hostCIDR(address));
}

function fullGroups(address: IPAddress): string {
  const hex = address.value.toString(16).padStart(32, '0');
  return (hex.match(/.{4}/g) ?? []).join('-');
}

/** "fd00-0000-…-0005" as parseAddress wants it; anything that is not eight full groups is left to fail there. */
function compressed(name: string): string {
  if (!/^([0-9a-f]{4}-){7}[0-9a-f]{4}$/.test(name)) return name;
  const value = BigInt(`0x${name.replaceAll('-', '')}`);
  return formatAddress(firstAddress(cidrOf({ family: 'ipv6', value }, 128)));
}
