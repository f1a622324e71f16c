import * as z from 'zod';
import { InvalidAddressError, InvalidCIDRError, parseAddress, parseCIDR } from '../net/index.ts';
import { ADDRESS_PLUGIN } from './address-call.ts';
import {
  configurationError,
  DNSFields,
  isEmpty,
  PoolName,
  withoutUndefined,
  type DNS,
  type NetworkInput,
} from './configuration.ts';
import { UnsupportedFieldError } from './error.ts';
import type { ResultRoute } from './result.ts';

/** What weft obeys of the configuration of another plugin that asks it for addresses. */
export interface AddressConfiguration {
  /** The plugin that makes the interface: `bridge`, `ptp`, `macvlan` and the like. */
  readonly plugin: string;
  /** The one pool to draw from. */
  readonly pool: string;
  /** Undefined: those that the pool's use suggests. */
  readonly routes: readonly ResultRoute[] | undefined;
  readonly dns: DNS;
}

/**
 * Checks what is weft's in the configuration; all else is the other plugin's. Addresses that somebody asks for by
 * the conventions are refused: another one instead would be a surprise.
 * @throws UnsupportedFieldError naming key and value
 * @throws InvalidConfigurationError
 */
export function parseAddressConfiguration(input: NetworkInput): AddressConfiguration {
  const parsed = Fields.safeParse(input.fields);
  if (!parsed.success) throw configurationError(parsed.error, input.fields);
  const { type, ipam, dns, runtimeConfig, args } = parsed.data;
  const wanted = { 'runtimeConfig.ips': runtimeConfig.ips, 'args.cni.ips': args.cni.ips };
  for (const [field, value] of Object.entries(wanted)) {
    if (!isEmpty(value)) throw new UnsupportedFieldError(field, value);
  }
  return { plugin: type, pool: ipam.pool, routes: ipam.routes, dns: withoutUndefined(dns) };
}

const AddressText = z.string().transform((text, context) => parsed(text, parseAddress, context));
const CIDRText = z.string().transform((text, context) => parsed(text, parseCIDR, context));

const Route = z
  .strictObject({ dst: CIDRText, gw: AddressText.optional() })
  .refine(({ dst, gw }) => gw === undefined || gw.family === dst.family, 'gw must be of the family of dst')
  .transform(({ dst, gw }): ResultRoute => ({
    destination: dst,
    ...(gw === undefined ? {} : { gateway: gw }),
  }));

const Fields = z.object({
  type: z.string(),
  ipam: z.strictObject({
    type: z.literal(ADDRESS_PLUGIN),
    pool: PoolName,
    routes: z.array(Route).optional(),
  }),
  dns: DNSFields.default({}),
  runtimeConfig: z.object({ ips: z.unknown() }).default({ ips: undefined }),
  args: z
    .object({ cni: z.object({ ips: z.unknown() }).default({ ips: undefined }) })
    .default({ cni: { ips: undefined } }),
});

function parsed<T>(text: string, parse: (text: string) => T, context: z.RefinementCtx): T {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof InvalidAddressError || error instanceof InvalidCIDRError)) throw error;
    context.issues.push({ code: 'custom', message: error.message, input: text });
    return z.NEVER;
  }
}
