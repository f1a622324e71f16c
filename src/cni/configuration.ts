import * as z from 'zod';
import type { PortMapping } from '../dataplane/index.ts';
import type { Verb } from './environment.ts';
import { excerpt, InvalidConfigurationError, UndecodableInputError, UnsupportedFieldError } from './error.ts';
import { parseJSON, type JSONObject } from './json.ts';
import { isNetworkName } from './names.ts';
import { parsePortMappings } from './port-mappings.ts';
import { parseVersion, requireVerbOfVersion, type CniVersion } from './versions.ts';

/** What every verb needs of a configuration, and the whole of it for those who read on. */
export interface NetworkInput {
  readonly cniVersion: CniVersion;
  readonly network: string;
  readonly fields: JSONObject;
}

/** The fields that weft obeys (specification, section 1, and our own). */
export interface NetworkConfiguration {
  /** In bytes; undefined: the uplink's, as far as encapsulation leaves it. */
  readonly mtu: number | undefined;
  /** The one pool to draw from; for second interfaces. */
  readonly pool: string | undefined;
  readonly dns: DNS;
  /** Ports of the node that lead to the pod (capability portMappings). */
  readonly portMappings: readonly PortMapping[];
}

/** What the result says about name resolution; empty lists are left out of it. */
export interface DNS {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

/**
 * Reads as much of the network configuration as every verb needs.
 * @throws UndecodableInputError for what is no configuration at all
 * @throws IncompatibleVersionError
 * @throws InvalidConfigurationError without a valid name
 */
export function parseNetwork(stdin: string, verb: Verb): NetworkInput {
  const fields = parseJSON(stdin, 'the network configuration on stdin');
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) {
    throw new UndecodableInputError('the network configuration on stdin is not an object');
  }
  const cniVersion = parseVersion(fields.cniVersion);
  requireVerbOfVersion(verb, cniVersion);
  return { cniVersion, network: parseName(fields.name), fields };
}

/**
 * Checks every field. Only what makes or judges an interface needs that: a DEL must not fail because somebody has
 * edited the configuration meanwhile.
 * @throws UnsupportedFieldError naming key and value
 * @throws InvalidConfigurationError
 */
export function parseConfiguration(input: NetworkInput): NetworkConfiguration {
  const own = Object.entries(input.fields).filter(([key]) => !key.startsWith(RUNTIME_PREFIX));
  const parsed = Fields.safeParse(Object.fromEntries(own));
  if (!parsed.success) throw configurationError(parsed.error, input.fields);
  const { mtu, pool, dns, capabilities, runtimeConfig } = parsed.data;
  for (const [name, wanted] of Object.entries(capabilities)) {
    if (wanted && name !== PORT_MAPPINGS) throw new UnsupportedFieldError(`capabilities.${name}`, wanted);
  }
  for (const [name, value] of Object.entries(runtimeConfig)) {
    if (name !== PORT_MAPPINGS && !isEmpty(value))
      throw new UnsupportedFieldError(`runtimeConfig.${name}`, value);
  }
  const portMappings = parsePortMappings(runtimeConfig[PORT_MAPPINGS]);
  return { mtu, pool, dns: withoutUndefined(dns), portMappings };
}

/** The one capability. */
const PORT_MAPPINGS = 'portMappings';

/** Keys that the specification reserves for what the runtime adds. */
const RUNTIME_PREFIX = 'cni.dev/';

/** IPv6 does not work below. */
const MIN_MTU = 1280;
const MAX_MTU = 65_535;

/** The name of an IPPool. */
export const PoolName = z
  .string('expected the name of the IPPool to draw from')
  .max(63)
  .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, 'must be the name of an IPPool');

export const DNSFields = z.strictObject({
  nameservers: z.array(z.string()).optional(),
  domain: z.string().optional(),
  search: z.array(z.string()).optional(),
  options: z.array(z.string()).optional(),
});

const Fields = z.strictObject({
  cniVersion: z.unknown(),
  name: z.unknown(),
  type: z.literal('weft'),
  mtu: z.int().min(MIN_MTU).max(MAX_MTU).optional(),
  pool: PoolName.optional(),
  dns: DNSFields.default({}),
  // One that is asked for and not given would be a pod without its host port.
  capabilities: z.record(z.string(), z.boolean()).default({}),
  runtimeConfig: z.record(z.string(), z.unknown()).default({}),
  // Conventions: arguments for whom they may concern.
  args: z.record(z.string(), z.unknown()).optional(),
  prevResult: z.unknown().optional(),
});

function parseName(name: unknown): string {
  if (name === undefined || name === '') throw new InvalidConfigurationError('missing network name');
  if (isNetworkName(name)) return name;
  if (typeof name === 'string' && name.length > 40) {
    throw new InvalidConfigurationError(`network name "${excerpt(name)}" is longer than 40 characters`);
  }
  throw new InvalidConfigurationError(
    `invalid characters found in network name ${excerpt(JSON.stringify(name))}: letters, digits, "_", "." and "-" are allowed, a letter or digit first`,
  );
}

/** An unknown key is an error of its own, and the more telling one where both are there. */
export function configurationError(
  error: z.ZodError,
  fields: JSONObject,
): UnsupportedFieldError | InvalidConfigurationError {
  for (const issue of error.issues) {
    const key = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
    if (key !== undefined)
      return new UnsupportedFieldError([...issue.path, key].join('.'), valueAt(fields, [...issue.path, key]));
  }
  const faults = error.issues.map((issue) => {
    const value = JSON.stringify(valueAt(fields, issue.path)) ?? 'nothing';
    return `${issue.path.join('.')} is ${excerpt(value)}: ${issue.message}`;
  });
  return new InvalidConfigurationError(`invalid network configuration: ${faults.join('; ')}`);
}

function valueAt(fields: unknown, path: readonly PropertyKey[]): unknown {
  let value = fields;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Object.getOwnPropertyDescriptor(value, key)?.value;
  }
  return value;
}

/** Runtimes hand over a declared capability also where a pod makes no use of it. */
export function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

export function withoutUndefined(dns: z.output<typeof DNSFields>): DNS {
  return {
    ...(dns.nameservers === undefined ? {} : { nameservers: dns.nameservers }),
    ...(dns.domain === undefined ? {} : { domain: dns.domain }),
    ...(dns.search === undefined ? {} : { search: dns.search }),
    ...(dns.options === undefined ? {} : { options: dns.options }),
  };
}
