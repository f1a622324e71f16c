import { addressBytes, addressFromBytes, formatAddress, type IPAddress } from '../../net/index.ts';
import {
  bytes,
  decodeAttributes,
  nested,
  readAll,
  readI32,
  readText,
  readU16be,
  readU32,
  readU8,
  structWithAttributes,
  text,
  u16be,
  u32,
  u8,
  type Attribute,
  type IncomingMessage,
} from './codec.ts';
import { isNetlinkError } from './errors.ts';
import { macBytes, macText } from './mac.ts';
import { CREATE, EXCLUSIVE, type NetlinkRequest, type NetlinkSocket } from './socket.ts';

/** A network interface, as the kernel reports it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** 'veth', 'vxlan', 'bridge', …; undefined for plain devices. */
  readonly kind: string | undefined;
  readonly mac: string | undefined;
  readonly mtu: number;
  /** Administratively up. */
  readonly up: boolean;
  readonly loopback: boolean;
  readonly operState: OperState;
  readonly alias: string | undefined;
  /** Further names by which it is found. */
  readonly altNames: readonly string[];
  readonly group: number;
  /** IFLA_LINK: of a veth the index of its other end, in that end's namespace. */
  readonly peerIndex: number | undefined;
  /** The id by which this namespace knows that of the other end; undefined if it is this very one. */
  readonly peerNamespaceId: number | undefined;
  /** Index of the bridge or bond it belongs to. */
  readonly master: number | undefined;
  readonly vxlan: VxlanAttributes | undefined;
}

export type OperState = 'unknown' | 'notpresent' | 'down' | 'lowerlayerdown' | 'testing' | 'dormant' | 'up';

/** What decides how a VXLAN device talks; only its MTU and MAC can be changed later, so drift = make it anew. */
export interface VxlanAttributes {
  readonly vni: number;
  readonly port: number;
  readonly local: IPAddress | undefined;
  readonly learning: boolean;
  /** The device it is bound to; weft's is bound to none. */
  readonly device: number | undefined;
}

export interface VxlanSpec {
  readonly name: string;
  readonly vni: number;
  readonly port: number;
  readonly mac: string;
  readonly mtu: number;
  /** The node's own address, the source of the outer packets; its family is the underlay's. */
  readonly local: IPAddress;
}

/** One end of a veth pair to be made. */
export interface VethEnd {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  readonly group?: number;
}

/** By what a link is looked up. */
export type LinkSelector = { readonly name: string } | { readonly index: number };

/** The alias is longer than the 255 bytes that the kernel keeps. */
export class AliasTooLongError extends Error {
  override name = 'AliasTooLongError' as const;
  readonly alias: string;

  constructor(alias: string) {
    super(`the link alias "${alias}" has ${Buffer.byteLength(alias)} bytes, at most ${MAX_ALIAS_BYTES} fit`);
    this.alias = alias;
  }
}

/** IFALIASZ less its closing zero. */
export const MAX_ALIAS_BYTES = 255;

const NEWLINK = 16;
const DELLINK = 17;
const GETLINK = 18;
const NEWLINKPROP = 108;

const ADDRESS = 1;
const NAME = 3;
const MTU = 4;
const LINK = 5;
const MASTER = 10;
const OPERSTATE = 16;
const LINKINFO = 18;
const ALIAS = 20;
const GROUP = 27;
const TRANSMIT_QUEUES = 31;
const RECEIVE_QUEUES = 32;
const NAMESPACE_FD = 28;
const EXT_MASK = 29;
const LINK_NAMESPACE_ID = 37;
const PROP_LIST = 52;
const ALT_NAME = 53;

const INFO_KIND = 1;
const INFO_DATA = 2;
const VETH_PEER = 1;

const VXLAN_ID = 1;
const VXLAN_LINK = 3;
const VXLAN_LOCAL = 4;
const VXLAN_LEARNING = 7;
const VXLAN_PORT = 15;
const VXLAN_LOCAL6 = 17;

const IFINFO_LENGTH = 16;
const FLAG_UP = 0x1;
const FLAG_LOOPBACK = 0x8;
const SKIP_STATISTICS = 1 << 3;

/**
 * A veth uses one queue of each kind until someone configures more, but the kernel first registers as many as the
 * machine has CPUs, an object in sysfs each, on both ends. Asking for one spares that on every ADD.
 */
const SINGLE_QUEUE = [u32(TRANSMIT_QUEUES, 1), u32(RECEIVE_QUEUES, 1)];

const OPER_STATES: readonly OperState[] = [
  'unknown',
  'notpresent',
  'down',
  'lowerlayerdown',
  'testing',
  'dormant',
  'up',
];

/** All links of the socket's namespace. */
export function listLinks(socket: NetlinkSocket): Link[] {
  return socket.dump(
    {
      type: GETLINK,
      header: linkHeader(),
      attributes: [u32(EXT_MASK, SKIP_STATISTICS)],
      describe: () => 'list links',
    },
    parseLink,
  );
}

/** The link, or undefined if there is none. */
export function getLink(socket: NetlinkSocket, selector: LinkSelector): Link | undefined {
  const [header, names] =
    'index' in selector ? [linkHeader(selector.index), []] : [linkHeader(), [text(NAME, selector.name)]];
  const request = {
    type: GETLINK,
    header,
    attributes: [...names, u32(EXT_MASK, SKIP_STATISTICS)],
    describe: () => `get link ${describeSelector(selector)}`,
  };
  try {
    return socket.get(request, parseLink);
  } catch (error) {
    if (isNetlinkError(error, 'ENODEV')) return undefined;
    throw error;
  }
}

export function setLinkUp(socket: NetlinkSocket, index: number): void {
  socket.execute([linkUpRequest(index)]);
}

export function setLinkDown(socket: NetlinkSocket, index: number): void {
  socket.execute([linkDownRequest(index)]);
}

/** Before Linux 6.2 the link must be down. */
export function renameLink(socket: NetlinkSocket, index: number, name: string): void {
  socket.execute([changeLinkRequest(index, { name })]);
}

/** @throws AliasTooLongError beyond 255 bytes */
export function setAlias(socket: NetlinkSocket, index: number, alias: string): void {
  socket.execute([changeLinkRequest(index, { alias })]);
}

export function setGroup(socket: NetlinkSocket, index: number, group: number): void {
  socket.execute([changeLinkRequest(index, { group })]);
}

export function setMtu(socket: NetlinkSocket, index: number, mtu: number): void {
  socket.execute([changeLinkRequest(index, { mtu })]);
}

/**
 * Whether the kernel can make links of that kind, or load the module that can. It makes one and takes it away.
 * @throws NetlinkError for any other reason
 */
export function canMakeLinks(socket: NetlinkSocket, kind: string): boolean {
  const name = TRIAL_LINK;
  // One that a process left behind which was killed in between.
  const leftover = getLink(socket, { name });
  if (leftover !== undefined) deleteLink(socket, leftover.index);
  try {
    socket.execute([
      {
        type: NEWLINK,
        flags: CREATE | EXCLUSIVE,
        header: linkHeader(),
        attributes: [text(NAME, name), linkInfo(kind, [])],
        describe: () => `create ${kind} link ${name}`,
      },
    ]);
  } catch (error) {
    if (isNetlinkError(error, 'EOPNOTSUPP')) return false;
    throw error;
  }
  const link = getLink(socket, { name });
  if (link !== undefined) deleteLink(socket, link.index);
  return true;
}

/** Not of those that mark pods' links. */
const TRIAL_LINK = 'xweft-trial';

/** Deletes the link and returns true, or false if there was none. A veth blocks for 16 to 20 ms. */
export function deleteLink(socket: NetlinkSocket, index: number): boolean {
  const [outcome] = socket.transact([
    { type: DELLINK, header: linkHeader(index), describe: () => `delete link ${index}` },
  ]);
  if (outcome === undefined) return true;
  if (outcome.code === 'ENODEV') return false;
  throw outcome;
}

/**
 * Deletes all links of a group with one message, off the main thread; no such link is success. The socket
 * serves nothing else meanwhile.
 */
export async function deleteLinkGroup(socket: NetlinkSocket, group: number): Promise<void> {
  try {
    await socket.executeInBackground({
      type: DELLINK,
      header: linkHeader(),
      attributes: [u32(GROUP, group)],
      describe: () => `delete the links of group ${group}`,
    });
  } catch (error) {
    if (!isNetlinkError(error, 'ENODEV')) throw error;
  }
}

/**
 * Makes a VXLAN device without learning, bound to no device, down. Its MAC is given in the same message, so
 * udev leaves it alone.
 * @throws NetlinkError EEXIST if the name is taken, or the VNI by another device on the same port
 */
export function createVxlan(socket: NetlinkSocket, spec: VxlanSpec): void {
  const local = spec.local.family === 'ipv4' ? VXLAN_LOCAL : VXLAN_LOCAL6;
  const data = [
    u32(VXLAN_ID, spec.vni),
    bytes(local, addressBytes(spec.local)),
    u8(VXLAN_LEARNING, 0),
    u16be(VXLAN_PORT, spec.port),
  ];
  socket.execute([
    {
      type: NEWLINK,
      flags: CREATE | EXCLUSIVE,
      header: linkHeader(),
      attributes: [...endAttributes(spec), linkInfo('vxlan', [nested(INFO_DATA, data)])],
      describe: () =>
        `create VXLAN link ${spec.name} (VNI ${spec.vni}, port ${spec.port}, local ${formatAddress(spec.local)})`,
    },
  ]);
}

/**
 * Makes a veth pair in one message, MACs included; the peer appears in the namespace of that descriptor under
 * its final name. The kernel says EEXIST without saying which of the names is taken.
 */
export function createVeth(
  socket: NetlinkSocket,
  host: VethEnd,
  peer: VethEnd & { readonly namespaceFd: number },
): void {
  const peerAttributes = [...endAttributes(peer), ...SINGLE_QUEUE, u32(NAMESPACE_FD, peer.namespaceFd)];
  const data = [bytes(VETH_PEER, structWithAttributes(linkHeader(), peerAttributes))];
  socket.execute([
    {
      type: NEWLINK,
      flags: CREATE | EXCLUSIVE,
      header: linkHeader(),
      attributes: [...endAttributes(host), ...SINGLE_QUEUE, linkInfo('veth', [nested(INFO_DATA, data)])],
      describe: () => `create veth ${host.name} with ${peer.name} in the pod's namespace`,
    },
  ]);
}

export function linkUpRequest(index: number): NetlinkRequest {
  return {
    type: NEWLINK,
    header: linkHeader(index, FLAG_UP, FLAG_UP),
    describe: () => `set link ${index} up`,
  };
}

export function linkDownRequest(index: number): NetlinkRequest {
  return { type: NEWLINK, header: linkHeader(index, 0, FLAG_UP), describe: () => `set link ${index} down` };
}

/** What can be changed about a link in one message. */
export interface LinkChange {
  readonly name?: string;
  readonly alias?: string;
  readonly group?: number;
  readonly mtu?: number;
  readonly mac?: string;
}

/** @throws AliasTooLongError */
export function changeLinkRequest(index: number, change: LinkChange): NetlinkRequest {
  const attributes: Attribute[] = [];
  if (change.name !== undefined) attributes.push(text(NAME, change.name));
  if (change.mtu !== undefined) attributes.push(u32(MTU, change.mtu));
  if (change.mac !== undefined) attributes.push(bytes(ADDRESS, macBytes(change.mac)));
  if (change.alias !== undefined) attributes.push(aliasAttribute(change.alias));
  if (change.group !== undefined) attributes.push(u32(GROUP, change.group));
  const settings = Object.entries(change).map(([key, value]) => `${key} "${value}"`);
  return {
    type: NEWLINK,
    header: linkHeader(index),
    attributes,
    describe: () => `change link ${index}: ${settings.join(', ')}`,
  };
}

/**
 * Gives the link further names, all or none, since Linux 5.5. Each has at most 127 bytes and is nobody else's in the
 * namespace. One message, since each is told to all who watch links.
 */
export function addAltNamesRequest(index: number, names: readonly string[]): NetlinkRequest {
  return {
    type: NEWLINKPROP,
    flags: CREATE | EXCLUSIVE,
    header: linkHeader(index),
    attributes: [
      nested(
        PROP_LIST,
        names.map((name) => text(ALT_NAME, name)),
      ),
    ],
    describe: () => `give link ${index} the names ${names.join(', ')}`,
  };
}

/** A link from RTM_NEWLINK or RTM_DELLINK. */
export function parseLink({ payload }: IncomingMessage): Link {
  const attributes = decodeAttributes(payload, IFINFO_LENGTH);
  const flags = payload.readUInt32LE(8);
  const info = attributes.get(LINKINFO);
  const infoAttributes = info === undefined ? undefined : decodeAttributes(info);
  const kind = readText(infoAttributes?.get(INFO_KIND));
  const data = infoAttributes?.get(INFO_DATA);
  return {
    index: payload.readInt32LE(4),
    name: readText(attributes.get(NAME)) ?? '',
    kind,
    mac: macText(attributes.get(ADDRESS)),
    mtu: readU32(attributes.get(MTU)) ?? 0,
    up: (flags & FLAG_UP) !== 0,
    loopback: (flags & FLAG_LOOPBACK) !== 0,
    operState: OPER_STATES[readU8(attributes.get(OPERSTATE)) ?? 0] ?? 'unknown',
    alias: readText(attributes.get(ALIAS)),
    altNames: altNamesIn(attributes.get(PROP_LIST)),
    group: readU32(attributes.get(GROUP)) ?? 0,
    peerIndex: readU32(attributes.get(LINK)),
    peerNamespaceId: readI32(attributes.get(LINK_NAMESPACE_ID)),
    master: readU32(attributes.get(MASTER)),
    vxlan: kind === 'vxlan' && data !== undefined ? parseVxlan(data) : undefined,
  };
}

function altNamesIn(list: Buffer | undefined): string[] {
  return list === undefined ? [] : readAll(list, ALT_NAME).flatMap((data) => readText(data) ?? []);
}

function parseVxlan(data: Buffer): VxlanAttributes {
  const attributes = decodeAttributes(data);
  const local = attributes.get(VXLAN_LOCAL) ?? attributes.get(VXLAN_LOCAL6);
  const device = readU32(attributes.get(VXLAN_LINK));
  return {
    vni: readU32(attributes.get(VXLAN_ID)) ?? 0,
    port: readU16be(attributes.get(VXLAN_PORT)) ?? 0,
    local: local === undefined ? undefined : addressFromBytes(local),
    learning: readU8(attributes.get(VXLAN_LEARNING)) === 1,
    device: device === 0 ? undefined : device,
  };
}

function endAttributes({ name, mtu, mac, group }: VethEnd): Attribute[] {
  return [
    text(NAME, name),
    u32(MTU, mtu),
    bytes(ADDRESS, macBytes(mac)),
    ...(group === undefined ? [] : [u32(GROUP, group)]),
  ];
}

function linkInfo(kind: string, data: readonly Attribute[]): Attribute {
  return nested(LINKINFO, [text(INFO_KIND, kind), ...data]);
}

function aliasAttribute(alias: string): Attribute {
  const data = Buffer.from(alias);
  if (data.length > MAX_ALIAS_BYTES) throw new AliasTooLongError(alias);
  return bytes(ALIAS, data);
}

/** struct ifinfomsg. */
function linkHeader(index = 0, flags = 0, change = 0): Buffer {
  const header = Buffer.alloc(IFINFO_LENGTH);
  header.writeInt32LE(index, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(change, 12);
  return header;
}

function describeSelector(selector: LinkSelector): string {
  return 'index' in selector ? String(selector.index) : selector.name;
}
