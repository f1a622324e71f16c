import * as z from 'zod';
import {
  formatAddress,
  formatCIDR,
  parseAddress,
  parseCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../net/index.ts';
import type { DNS } from './configuration.ts';
import { excerpt, UndecodableInputError } from './error.ts';
import type { CniVersion } from './versions.ts';

/** What ADD made, and what CHECK is told that ADD made: the same for all versions. */
export interface AddResult {
  /** Empty where another plugin makes the interface: then the answer must not name any. */
  readonly interfaces: readonly ResultInterface[];
  readonly ips: readonly ResultAddress[];
  readonly routes: readonly ResultRoute[];
  readonly dns: DNS;
}

export interface ResultInterface {
  readonly name: string;
  readonly mac: string;
  /** In bytes; told from 1.1.0 on. */
  readonly mtu?: number;
  /** The path of the namespace the interface is in; absent: the host's. */
  readonly sandbox?: string;
}

export interface ResultAddress {
  readonly address: IPAddress;
  readonly prefixLength: number;
  readonly gateway?: IPAddress;
  /** Its place in `interfaces`. */
  readonly interface?: number;
}

export interface ResultRoute {
  readonly destination: CIDR;
  readonly gateway?: IPAddress;
}

/** The result as that version of the specification writes it: what ADD prints. */
export function renderAdd(result: AddResult, cniVersion: CniVersion): object {
  return RENDERERS[cniVersion](result, cniVersion);
}

/**
 * The `prevResult` that a CHECK brings, in the configuration's version.
 * @throws UndecodableInputError
 */
export function parsePreviousResult(value: unknown, cniVersion: CniVersion): AddResult {
  const parsed = PreviousResult.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new UndecodableInputError(
      `malformed prevResult: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`,
    );
  }
  const { cniVersion: written, interfaces, ips, routes, dns } = parsed.data;
  if (written !== undefined && written !== cniVersion) {
    throw new UndecodableInputError(
      `prevResult is written in version ${excerpt(written)} and the configuration in ${cniVersion}`,
    );
  }
  try {
    return {
      interfaces: interfaces.map(({ name, mac, mtu, sandbox }) => ({
        name,
        mac,
        ...(mtu === undefined ? {} : { mtu }),
        ...(sandbox === undefined || sandbox === '' ? {} : { sandbox }),
      })),
      ips: ips.map(parseResultAddress),
      routes: routes.map(({ dst, gw }) => ({ destination: parseCIDR(dst), ...gatewayOf(gw) })),
      dns,
    };
  } catch (cause) {
    throw new UndecodableInputError(
      `malformed prevResult: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        cause,
      },
    );
  }
}

type Renderer = (result: AddResult, cniVersion: CniVersion) => object;

const RENDERERS: Readonly<Record<CniVersion, Renderer>> = {
  '0.1.0': renderPerFamily,
  '0.2.0': renderPerFamily,
  '0.3.0': (result, version) => renderLists(result, version, { mtu: false, ipVersion: true }),
  '0.3.1': (result, version) => renderLists(result, version, { mtu: false, ipVersion: true }),
  '0.4.0': (result, version) => renderLists(result, version, { mtu: false, ipVersion: true }),
  '1.0.0': (result, version) => renderLists(result, version, { mtu: false, ipVersion: false }),
  '1.1.0': (result, version) => renderLists(result, version, { mtu: true, ipVersion: false }),
};

const PER_FAMILY: Readonly<Record<Family, { key: 'ip4' | 'ip6'; version: '4' | '6' }>> = {
  ipv4: { key: 'ip4', version: '4' },
  ipv6: { key: 'ip6', version: '6' },
};

/** Before 0.3.0: one address per family, no interfaces. */
function renderPerFamily(result: AddResult, cniVersion: CniVersion): object {
  const families: Record<string, object> = {};
  for (const ip of result.ips) {
    const { key } = PER_FAMILY[ip.address.family];
    if (key in families) continue;
    const routes = result.routes.filter((route) => route.destination.family === ip.address.family);
    families[key] = {
      ip: formatWithPrefix(ip),
      ...(ip.gateway === undefined ? {} : { gateway: formatAddress(ip.gateway) }),
      ...(routes.length === 0 ? {} : { routes: routes.map(renderRoute) }),
    };
  }
  return { cniVersion, ...families, dns: renderDNS(result.dns) };
}

function renderLists(
  result: AddResult,
  cniVersion: CniVersion,
  tells: { readonly mtu: boolean; readonly ipVersion: boolean },
): object {
  const interfaces = result.interfaces.map(({ name, mac, mtu, sandbox }) => ({
    name,
    mac,
    ...(tells.mtu && mtu !== undefined ? { mtu } : {}),
    ...(sandbox === undefined ? {} : { sandbox }),
  }));
  return {
    cniVersion,
    ...(interfaces.length === 0 ? {} : { interfaces }),
    ips: result.ips.map((ip) => ({
      ...(tells.ipVersion ? { version: PER_FAMILY[ip.address.family].version } : {}),
      ...(ip.interface === undefined ? {} : { interface: ip.interface }),
      address: formatWithPrefix(ip),
      ...(ip.gateway === undefined ? {} : { gateway: formatAddress(ip.gateway) }),
    })),
    routes: result.routes.map(renderRoute),
    dns: renderDNS(result.dns),
  };
}

function renderRoute(route: ResultRoute): object {
  return {
    dst: formatCIDR(route.destination),
    ...(route.gateway === undefined ? {} : { gw: formatAddress(route.gateway) }),
  };
}

function renderDNS({ nameservers, domain, search, options }: DNS): object {
  return {
    ...(nameservers === undefined || nameservers.length === 0 ? {} : { nameservers }),
    ...(domain === undefined || domain === '' ? {} : { domain }),
    ...(search === undefined || search.length === 0 ? {} : { search }),
    ...(options === undefined || options.length === 0 ? {} : { options }),
  };
}

function formatWithPrefix(ip: ResultAddress): string {
  return `${formatAddress(ip.address)}/${ip.prefixLength}`;
}

/** As far as CHECK reads it; what else another version or plugin put there is left alone. */
const PreviousResult = z.object({
  cniVersion: z.string().optional(),
  interfaces: z
    .array(
      z.object({
        name: z.string(),
        mac: z.string().default(''),
        mtu: z.int().optional(),
        sandbox: z.string().optional(),
      }),
    )
    .default([]),
  ips: z
    .array(
      z.object({ address: z.string(), gateway: z.string().optional(), interface: z.int().min(0).optional() }),
    )
    .default([]),
  routes: z.array(z.object({ dst: z.string(), gw: z.string().optional() })).default([]),
  dns: z
    .object({
      nameservers: z.array(z.string()).exactOptional(),
      domain: z.string().exactOptional(),
      search: z.array(z.string()).exactOptional(),
      options: z.array(z.string()).exactOptional(),
    })
    .default({}),
});

function parseResultAddress(ip: z.output<typeof PreviousResult>['ips'][number]): ResultAddress {
  const [text, length, rest] = ip.address.split('/');
  if (
    text === undefined ||
    length === undefined ||
    rest !== undefined ||
    !/^(0|[1-9][0-9]{0,2})$/.test(length)
  ) {
    throw new UndecodableInputError(`"${excerpt(ip.address)}" is not an address with its prefix length`);
  }
  return {
    address: parseAddress(text),
    prefixLength: Number(length),
    ...gatewayOf(ip.gateway),
    ...(ip.interface === undefined ? {} : { interface: ip.interface }),
  };
}

function gatewayOf(text: string | undefined): { gateway?: IPAddress } {
  return text === undefined || text === '' ? {} : { gateway: parseAddress(text) };
}
