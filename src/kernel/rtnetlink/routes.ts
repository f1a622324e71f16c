import {
  ADDRESS_BITS,
  addressBytes,
  addressFromBytes,
  FAMILIES,
  firstAddress,
  formatAddress,
  formatCIDR,
  type CIDR,
  type Family,
  type IPAddress,
} from '../../net/index.ts';
import { bytes, decodeAttributes, readU32, u32, type Attribute, type IncomingMessage } from './codec.ts';
import { isNetlinkError } from './errors.ts';
import { AF, familyOf } from './family.ts';
import {
  CREATE,
  EXCLUSIVE,
  MAX_BATCH,
  REPLACE,
  throwRefusals,
  type NetlinkRequest,
  type NetlinkSocket,
} from './socket.ts';

/** A route. What is left out when it is set: table main, and the scope that fits the next hop. */
export interface Route {
  readonly dst: CIDR;
  readonly type: RouteType;
  /** The next hop; it may be of the other family than `dst`. */
  readonly via?: IPAddress | undefined;
  /** The next hop counts as directly reachable on `oif`, whatever the addresses there say. */
  readonly onlink?: boolean;
  /** Index of the link it leaves by. Never there for unreachable, blackhole and prohibit. */
  readonly oif?: number | undefined;
  /** The source address of the node's own traffic on this route. */
  readonly prefSrc?: IPAddress | undefined;
  /** The lower wins. IPv6 has no metric 0: the kernel makes it 1024. */
  readonly metric: number;
  /** Who set it: see ROUTE_PROTOCOL. */
  readonly protocol: number;
  readonly scope?: RouteScope;
  readonly table?: number;
}

export type RouteType = 'unicast' | 'unreachable' | 'blackhole' | 'prohibit' | 'throw' | 'local' | 'other';
/** Of IPv4 routes; IPv6 ones are all 'universe'. */
export type RouteScope = 'universe' | 'link' | 'host';

/** Route protocol numbers: who set a route. The first two are weft's own marks (design, section 7). */
export const ROUTE_PROTOCOL = {
  /** Derived from the NodeSubnets, diffed whole. */
  weftNode: 84,
  /** Of one attachment: added with it and removed with it. */
  weftPod: 85,
  kernel: 2,
  boot: 3,
  static: 4,
  /** Learned by IPv6 router advertisement. */
  routerAdvertisement: 9,
  dhcp: 16,
} as const;

export const MAIN_TABLE = 254;

/** Which routes a listing holds; what is left out is not looked at, but the table is main by default. */
export interface RouteFilter {
  readonly family?: Family;
  readonly protocol?: number;
  readonly table?: number;
}

const NEWROUTE = 24;
const DELROUTE = 25;
const GETROUTE = 26;

const DESTINATION = 1;
const OIF = 4;
const GATEWAY = 5;
const PRIORITY = 6;
const PREFSRC = 7;
const TABLE = 15;
const VIA = 18;

const RTMSG_LENGTH = 12;
const FLAG_ONLINK = 0x4;
const FLAG_CLONED = 0x200;
const SCOPES: Readonly<Record<RouteScope, number>> = { universe: 0, link: 253, host: 254 };
/** In a deletion: whatever the scope. */
const SCOPE_NOWHERE = 255;
const TYPES: Readonly<Record<Exclude<RouteType, 'other'>, number>> = {
  unicast: 1,
  local: 2,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
};
const IPV6_DEFAULT_METRIC = 1024;

/** The routes of one table (main unless told), of both families unless told. */
export function listRoutes(socket: NetlinkSocket, filter: RouteFilter = {}): Route[] {
  const table = filter.table ?? MAIN_TABLE;
  return (filter.family === undefined ? FAMILIES : [filter.family]).flatMap((family) => {
    const request = {
      type: GETROUTE,
      header: routeHeader({ family: AF[family], protocol: filter.protocol ?? 0 }),
      attributes: [u32(TABLE, table)],
      describe: () => `list ${family} routes of table ${table}`,
    };
    try {
      return socket.dump(request, (message) => {
        const route = parseRoute(message);
        // A kernel without IPv6 answers a request for it with IPv4's.
        return route?.dst.family === family ? route : undefined;
      });
    } catch (error) {
      // The table has not had a route yet.
      if (isNetlinkError(error, 'ENOENT')) return [];
      throw error;
    }
  });
}

/**
 * Adds routes and removes others, in batches, with the event loop let in between them. A route in `add` with
 * destination, metric and table of one in `remove` takes its place without a gap. Nothing else is replaced: a
 * foreign route in the place of an added one is EEXIST. Removing what is not there is success.
 * @throws NetlinkError or NetlinkBatchError naming each refused route; all others have been applied
 */
export async function applyRoutes(
  socket: NetlinkSocket,
  { add, remove }: { readonly add: readonly Route[]; readonly remove: readonly Route[] },
): Promise<void> {
  const removedKeys = new Set(remove.map(routeKey));
  const addedKeys = new Set(add.map(routeKey));
  const requests = [
    ...add.map((route) =>
      removedKeys.has(routeKey(route)) ? replaceRouteRequest(route) : addRouteRequest(route),
    ),
    ...remove.filter((route) => !addedKeys.has(routeKey(route))).map(deleteRouteRequest),
  ];
  const outcomes = [];
  for (let start = 0; start < requests.length; start += MAX_BATCH) {
    const batch = requests.slice(start, start + MAX_BATCH);
    const refused = socket.transact(batch);
    outcomes.push(
      ...refused.map((error, i) =>
        batch[i]?.type === DELROUTE && error?.code === 'ESRCH' ? undefined : error,
      ),
    );
    if (start + MAX_BATCH < requests.length) await new Promise((resolve) => setImmediate(resolve));
  }
  throwRefusals(requests.length, outcomes);
}

/** Sets the route in the place of any other of that destination, metric and table. For routes known to be ours. */
export function replaceRoute(socket: NetlinkSocket, route: Route): void {
  socket.execute([replaceRouteRequest(route)]);
}

/** Removes exactly this route and returns true, or false if it was not there. */
export function deleteRoute(socket: NetlinkSocket, route: Route): boolean {
  const [outcome] = socket.transact([deleteRouteRequest(route)]);
  if (outcome === undefined) return true;
  if (['ESRCH', 'ENODEV'].includes(outcome.code)) return false;
  throw outcome;
}

/** The route that a packet to the address would take now, or undefined if none leads there. */
export function routeTo(socket: NetlinkSocket, address: IPAddress): Route | undefined {
  const request = {
    type: GETROUTE,
    header: routeHeader({ family: AF[address.family], prefixLength: ADDRESS_BITS[address.family] }),
    attributes: [bytes(DESTINATION, addressBytes(address))],
    describe: () => `look up the route to ${formatAddress(address)}`,
  };
  try {
    const route = socket.get(request, parseAnyRoute);
    return route !== undefined && !isReject(route.type) ? route : undefined;
  } catch (error) {
    // Unreachable, blackhole and prohibit answer with the error that a packet would meet.
    if (isNetlinkError(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EINVAL', 'EACCES')) return undefined;
    throw error;
  }
}

export function addRouteRequest(route: Route): NetlinkRequest {
  return routeRequest(NEWROUTE, CREATE | EXCLUSIVE, 'add', route);
}

export function replaceRouteRequest(route: Route): NetlinkRequest {
  return routeRequest(NEWROUTE, CREATE | REPLACE, 'replace', route);
}

export function deleteRouteRequest(route: Route): NetlinkRequest {
  return routeRequest(DELROUTE, 0, 'delete', route);
}

/** Two routes with the same key cannot both be in the kernel's table (but for IPv6 routes with several next hops). */
export function routeKey(route: Route): string {
  const { family, first, prefixLength } = route.dst;
  return `${route.table ?? MAIN_TABLE} ${family} ${first}/${prefixLength} ${effectiveMetric(route)}`;
}

/** The metric the kernel will show. */
export function effectiveMetric(route: Route): number {
  return route.dst.family === 'ipv6' && route.metric === 0 ? IPV6_DEFAULT_METRIC : route.metric;
}

/** For messages: `unreachable 10.0.0.0/26 metric 4096 proto 84`. */
export function describeRoute(route: Route): string {
  return [
    ...(route.type === 'unicast' ? [] : [route.type]),
    formatCIDR(route.dst),
    ...(route.via === undefined ? [] : [`via ${formatAddress(route.via)}`]),
    ...(route.oif === undefined ? [] : [`dev ${route.oif}`]),
    ...(route.prefSrc === undefined ? [] : [`src ${formatAddress(route.prefSrc)}`]),
    `metric ${route.metric} proto ${route.protocol}`,
  ].join(' ');
}

/** A route from RTM_NEWROUTE or RTM_DELROUTE; undefined if it is of neither family, or a cached exception. */
export function parseRoute(message: IncomingMessage): Route | undefined {
  const cloned = (message.payload.readUInt32LE(8) & FLAG_CLONED) !== 0;
  return cloned ? undefined : parseAnyRoute(message);
}

function parseAnyRoute({ payload }: IncomingMessage): Route | undefined {
  const family = familyOf(payload.readUInt8(0));
  if (family === undefined) return undefined;
  const attributes = decodeAttributes(payload, RTMSG_LENGTH);
  const type = typeOf(payload.readUInt8(7));
  const destination = attributes.get(DESTINATION);
  const prefSrc = attributes.get(PREFSRC);
  return {
    dst: {
      family,
      first: destination === undefined ? 0n : addressFromBytes(destination).value,
      prefixLength: payload.readUInt8(1),
    },
    type,
    via: nextHopOf(attributes),
    onlink: (payload.readUInt32LE(8) & FLAG_ONLINK) !== 0,
    // IPv6 shows `lo` on routes that lead nowhere, IPv4 nothing.
    oif: isReject(type) ? undefined : readU32(attributes.get(OIF)),
    prefSrc: prefSrc === undefined ? undefined : addressFromBytes(prefSrc),
    metric: readU32(attributes.get(PRIORITY)) ?? 0,
    protocol: payload.readUInt8(5),
    scope: scopeOf(payload.readUInt8(6)),
    table: readU32(attributes.get(TABLE)) ?? payload.readUInt8(4),
  };
}

function nextHopOf(attributes: Map<number, Buffer>): IPAddress | undefined {
  const gateway = attributes.get(GATEWAY);
  if (gateway !== undefined) return addressFromBytes(gateway);
  // struct rtvia: the family, then the address.
  const via = attributes.get(VIA);
  return via === undefined ? undefined : addressFromBytes(via.subarray(2));
}

function routeRequest(type: number, flags: number, verb: string, route: Route): NetlinkRequest {
  const table = route.table ?? MAIN_TABLE;
  const attributes: Attribute[] = [u32(TABLE, table), u32(PRIORITY, route.metric)];
  if (route.dst.prefixLength > 0) attributes.push(bytes(DESTINATION, addressBytes(firstAddress(route.dst))));
  if (route.via !== undefined) attributes.push(viaAttribute(route.dst.family, route.via));
  if (route.oif !== undefined) attributes.push(u32(OIF, route.oif));
  if (route.prefSrc !== undefined) attributes.push(bytes(PREFSRC, addressBytes(route.prefSrc)));
  return {
    type,
    flags,
    header: routeHeader({
      family: AF[route.dst.family],
      prefixLength: route.dst.prefixLength,
      protocol: route.protocol,
      scope: type === DELROUTE ? SCOPE_NOWHERE : SCOPES[route.scope ?? naturalScope(route)],
      type: route.type === 'other' ? 0 : TYPES[route.type],
      flags: route.onlink === true ? FLAG_ONLINK : 0,
    }),
    attributes,
    describe: () => `${verb} route ${describeRoute(route)}`,
  };
}

function viaAttribute(family: Family, via: IPAddress): Attribute {
  if (via.family === family) return bytes(GATEWAY, addressBytes(via));
  return bytes(VIA, Buffer.concat([Buffer.of(AF[via.family], 0), addressBytes(via)]));
}

/** An IPv4 route straight to a link has scope link: its next hop needs no look-up. */
function naturalScope(route: Route): RouteScope {
  if (route.dst.family === 'ipv6' || route.via !== undefined) return 'universe';
  if (route.type === 'local') return 'host';
  return route.type === 'unicast' ? 'link' : 'universe';
}

function isReject(type: RouteType): boolean {
  return ['unreachable', 'blackhole', 'prohibit', 'throw'].includes(type);
}

function typeOf(number: number): RouteType {
  const names = Object.keys(TYPES) as (keyof typeof TYPES)[];
  return names.find((name) => TYPES[name] === number) ?? 'other';
}

function scopeOf(number: number): RouteScope {
  return number >= SCOPES.host ? 'host' : number >= SCOPES.link ? 'link' : 'universe';
}

/** struct rtmsg. The table goes into an attribute, which holds any number. */
function routeHeader(fields: {
  readonly family: number;
  readonly prefixLength?: number;
  readonly protocol?: number;
  readonly scope?: number;
  readonly type?: number;
  readonly flags?: number;
}): Buffer {
  const header = Buffer.alloc(RTMSG_LENGTH);
  header.writeUInt8(fields.family, 0);
  header.writeUInt8(fields.prefixLength ?? 0, 1);
  header.writeUInt8(fields.protocol ?? 0, 5);
  header.writeUInt8(fields.scope ?? 0, 6);
  header.writeUInt8(fields.type ?? 0, 7);
  header.writeUInt32LE(fields.flags ?? 0, 8);
  return header;
}
