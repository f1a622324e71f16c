import { z } from 'zod';
import {
  formatAddress,
  formatCIDR,
  InvalidAddressError,
  InvalidCIDRError,
  parseAddress,
  parseCIDR,
  type CIDR,
  type IPAddress,
} from '../net/index.ts';

/** An address: a string in the object, an IPAddress in the code. */
export const AddressField = z.codec(z.string(), z.custom<IPAddress>(), {
  decode: (text, context) => {
    try {
      return parseAddress(text);
    } catch (error) {
      if (!(error instanceof InvalidAddressError)) throw error;
      context.issues.push({ code: 'custom', message: error.message, input: text });
      return z.NEVER;
    }
  },
  encode: formatAddress,
});

/** A CIDR: a string in the object, a CIDR in the code. */
export const CIDRField = z.codec(z.string(), z.custom<CIDR>(), {
  decode: (text, context) => {
    try {
      return parseCIDR(text);
    } catch (error) {
      if (!(error instanceof InvalidCIDRError)) throw error;
      context.issues.push({ code: 'custom', message: error.message, input: text });
      return z.NEVER;
    }
  },
  encode: formatCIDR,
});
