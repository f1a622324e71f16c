import * as z from 'zod';
import {
  formatAddress,
  formatCIDR,
  hostCIDR,
  InvalidAddressError,
  InvalidCIDRError,
  parseAddress,
  parseCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import {
  ADDRESS_OR_CIDR,
  CANONICAL_ADDRESS,
  CANONICAL_CIDR,
  celRules,
  ofFamily,
  POOL_RANGE,
} from './rules.ts';

/** Canonical text is at most eight groups of four digits and seven colons; the bound keeps CEL's cost small. */
const AddressText = z
  .string()
  .min(2)
  .max(39)
  .meta(celRules(...CANONICAL_ADDRESS));
const CIDRText = z
  .string()
  .min(4)
  .max(43)
  .meta(celRules(...CANONICAL_CIDR));
const PoolCIDRText = z
  .string()
  .min(4)
  .max(43)
  .meta(celRules(...CANONICAL_CIDR, ...POOL_RANGE));

/** An address: a string in the object, an IPAddress in the code. */
export const AddressField = addressCodec(AddressText);

/** The address of a router, by the family that it must be of. */
export const GatewayField = {
  ipv4: gatewayCodec('ipv4'),
  ipv6: gatewayCodec('ipv6'),
} as const satisfies Record<Family, unknown>;

/** A CIDR: a string in the object, a CIDR in the code. */
export const CIDRField = cidrCodec(CIDRText);

/** An address or a CIDR: a CIDR in the code, an address being one of full length. */
export const AddressOrCIDRField = cidrCodec(
  z
    .string()
    .min(2)
    .max(43)
    .meta(celRules(...ADDRESS_OR_CIDR)),
  (text) => (text.includes('/') ? parseCIDR(text) : hostCIDR(parseAddress(text))),
);

/** A CIDR that pods may have addresses of: not loopback, link-local, multicast or everything. */
export const PoolCIDRField = cidrCodec(PoolCIDRText);

function cidrCodec(text: z.ZodString, parse: (value: string) => CIDR = parseCIDR) {
  return z.codec(text, z.custom<CIDR>(), {
    decode: (value, context) => {
      try {
        return parse(value);
      } catch (error) {
        if (!(error instanceof InvalidCIDRError || error instanceof InvalidAddressError)) throw error;
        context.issues.push({ code: 'custom', message: error.message, input: value });
        return z.NEVER;
      }
    },
    encode: formatCIDR,
  });
}

function addressCodec(text: z.ZodString) {
  return z.codec(text, z.custom<IPAddress>(), {
    decode: (value, context) => {
      try {
        return parseAddress(value);
      } catch (error) {
        if (!(error instanceof InvalidAddressError)) throw error;
        context.issues.push({ code: 'custom', message: error.message, input: value });
        return z.NEVER;
      }
    },
    encode: formatAddress,
  });
}

function gatewayCodec(family: Family) {
  const rule = ofFamily(family);
  const text = z
    .string()
    .min(2)
    .max(39)
    .meta(celRules(...CANONICAL_ADDRESS, rule));
  return addressCodec(text).refine((address) => address.family === family, rule.message);
}
