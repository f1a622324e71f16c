/** An address family, as data: code runs over it once instead of branching. */
export type Family = 'ipv4' | 'ipv6';

export const FAMILIES = ['ipv4', 'ipv6'] as const satisfies readonly Family[];

/** Width of an address in bits. */
export const ADDRESS_BITS: Readonly<Record<Family, 32 | 128>> = { ipv4: 32, ipv6: 128 };
