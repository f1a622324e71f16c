import type { Family } from '../net/index.ts';

/**
 * One CEL rule of a schema, as the apiserver reads it under `x-kubernetes-validations`. Each has a zod or parser
 * twin in this folder or in net: what the apiserver accepts, weft must be able to read.
 */
export interface Rule {
  readonly rule: string;
  readonly message: string;
  readonly reason?: 'FieldValueInvalid' | 'FieldValueForbidden' | 'FieldValueRequired';
}

/** What zod's `.meta()` takes to carry rules into the generated schema. */
export function celRules(...rules: Rule[]): { 'x-kubernetes-validations': Rule[] } {
  return { 'x-kubernetes-validations': rules };
}

/** The whole field may never change. On an optional field it holds only where the field has a default. */
export function immutable(message: string): Rule {
  return { rule: 'self == oldSelf', message };
}

/** One spelling per CIDR; the library behind isCIDR refuses leading zeros, zones and IPv4-mapped IPv6. */
export const CANONICAL_CIDR: readonly Rule[] = [
  {
    rule: 'isCIDR(self)',
    message:
      'must be a CIDR such as 10.244.0.0/16 or fd00:10::/48, without leading zeros, zones or IPv4-mapped IPv6',
  },
  {
    rule: '!isCIDR(self) || string(cidr(self).masked()) == self',
    message: 'must be canonical: lower case, the shortest spelling, and no bits set behind the prefix',
  },
];

/** One spelling per address. */
export const CANONICAL_ADDRESS: readonly Rule[] = [
  {
    rule: 'isIP(self)',
    message: 'must be an IP address without leading zeros, zone or IPv4-mapped IPv6',
  },
  {
    rule: '!isIP(self) || ip.isCanonical(self)',
    message: 'must be a canonical IP address: lower case and the shortest spelling',
  },
];

/** Over an address. */
export function ofFamily(family: Family): Rule {
  const number = family === 'ipv4' ? 4 : 6;
  return {
    rule: `!isIP(self) || ip(self).family() == ${number}`,
    message: `must be an IPv${number} address`,
  };
}

/** One spelling per address or CIDR. */
export const ADDRESS_OR_CIDR: readonly Rule[] = [
  {
    rule: 'isIP(self) || isCIDR(self)',
    message:
      'must be an IP address or a CIDR such as 10.244.0.10 or fd00:10::/64, without leading zeros, zones or ' +
      'IPv4-mapped IPv6',
  },
  {
    rule: '!isIP(self) || ip.isCanonical(self)',
    message: 'must be a canonical IP address: lower case and the shortest spelling',
  },
  {
    rule: '!isCIDR(self) || string(cidr(self).masked()) == self',
    message: 'must be canonical: lower case, the shortest spelling, and no bits set behind the prefix',
  },
];

/** What can never be an address of a pod. Overlap counts, so that 126.0.0.0/7 is refused for its loopback half. */
export const POOL_RANGE: readonly Rule[] = [
  {
    rule: '!isCIDR(self) || cidr(self).prefixLength() > 0',
    message: 'must not be a default route (/0)',
  },
  refuseOverlap('loopback', ['127.0.0.0/8']),
  refuseOverlap('link-local', ['169.254.0.0/16', 'fe80::/10']),
  refuseOverlap('multicast', ['224.0.0.0/4', 'ff00::/8']),
  refuseOverlap('unspecified, loopback or IPv4-mapped', ['0.0.0.0/8', '::/8']),
];

export const DISJOINT: Rule = {
  rule: '!self.all(c, isCIDR(c)) || self.all(a, self.exists_one(b, cidr(a).containsCIDR(cidr(b))))',
  message: 'must be disjoint: one CIDR of the list contains another',
};

/** Over the spec: a CIDR longer than the piece a node claims could not hold even one. */
export const HOLDS_A_NODE_SUBNET: Rule = {
  rule:
    'self.cidrs.all(c, !isCIDR(c) || cidr(c).prefixLength() <= (cidr(c).ip().family() == 4 ? ' +
    'self.nodeSubnetPrefixLength.ipv4 : self.nodeSubnetPrefixLength.ipv6))',
  message: 'cidrs must not be longer than nodeSubnetPrefixLength of their family: no node subnet would fit',
};

/**
 * Over the spec: every node routes what a NodeSubnet says to the node that wrote it, so one account of one node must
 * not be able to draw half of the world to itself. The widest pieces that a pool may ask for.
 */
export const NO_WIDER_THAN_A_PIECE: Rule = {
  rule:
    '!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() >= ' +
    '(cidr(self.cidr).ip().family() == 4 ? 16 : 64)',
  message: 'cidr must not be wider than the widest nodeSubnetPrefixLength of a pool: /16 and /64',
};

/** Over the spec: an exclusive subnet goes before whatever is around it, so it is never more than one pod's. */
export const EXCLUSIVE_IS_ONE_ADDRESS: Rule = {
  rule:
    '!has(self.exclusive) || !self.exclusive || !isCIDR(self.cidr) || ' +
    'cidr(self.cidr).prefixLength() == (cidr(self.cidr).ip().family() == 4 ? 32 : 128)',
  message: 'an exclusive NodeSubnet is one address: /32 or /128',
};

/** Over the whole object. The encoding of names.ts: two encodings would be two locks. */
export const NAMED_BY_ADDRESS: Rule = {
  rule:
    '!isIP(self.spec.address) || (ip(self.spec.address).family() == 4 ? ' +
    'self.metadata.name == self.spec.address : ' +
    "self.metadata.name.matches('^([0-9a-f]{4}-){7}[0-9a-f]{4}$') && " +
    "ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address))",
  message:
    "metadata.name must be spec.address: IPv4 as it is, IPv6 as eight full groups joined by '-' " +
    '(fd00::5 is fd00-0000-0000-0000-0000-0000-0000-0005)',
};

/** Over the whole object, like NAMED_BY_ADDRESS. */
export const NAMED_BY_CIDR: Rule = {
  rule:
    '!isCIDR(self.spec.cidr) || (cidr(self.spec.cidr).ip().family() == 4 ? ' +
    "self.metadata.name == self.spec.cidr.replace('/', '-') : " +
    "self.metadata.name.matches('^([0-9a-f]{4}-){8}(0|[1-9][0-9]{0,2})$') && " +
    "ip(self.metadata.name.substring(0, 39).replace('-', ':')) == cidr(self.spec.cidr).ip() && " +
    'int(self.metadata.name.substring(40)) == cidr(self.spec.cidr).prefixLength())',
  message:
    "metadata.name must be spec.cidr with '-' for '/', IPv6 as eight full groups joined by '-' " +
    '(fd00::/122 is fd00-0000-0000-0000-0000-0000-0000-0000-122)',
};

function refuseOverlap(what: string, ranges: readonly string[]): Rule {
  const apart = ranges.map(
    (range) => `!cidr('${range}').containsCIDR(self) && !cidr(self).containsCIDR('${range}')`,
  );
  return {
    rule: `!isCIDR(self) || (${apart.join(' && ')})`,
    message: `must not overlap ${what} addresses (${ranges.join(', ')})`,
  };
}
