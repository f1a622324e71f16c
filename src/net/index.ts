/** Addresses, CIDRs and ranges: values on bigint with one spelling each. No I/O. */
export * from './family.ts';
export * from './address.ts';
export * from './cidr.ts';
export * from './ranges.ts';
