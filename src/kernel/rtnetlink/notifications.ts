import { read } from 'node:fs';
import * as libc from '../libc.ts';
import { openSocketInside, type Namespace } from '../namespaces.ts';
import { NETLINK_NETFILTER } from '../nfnetlink.ts';
import { parseLinkAddress, type LinkAddress } from './addresses.ts';
import { decodeMessages, type IncomingMessage } from './codec.ts';
import { parseFdbEntry, type FdbEntry } from './fdb.ts';
import { parseLink, type Link } from './links.ts';
import { parseNeighbour, type Neighbour } from './neighbours.ts';
import { parseRoute, type Route } from './routes.ts';
import { bindNetlink, openRawSocket, setNumberOption, setReceiveTimeout } from './socket.ts';

/** What the kernel told. Events wake whoever compares; none is a record of what is there now. */
export type KernelEvent =
  | { readonly kind: 'link'; readonly removed: boolean; readonly link: Link }
  | { readonly kind: 'address'; readonly removed: boolean; readonly address: LinkAddress }
  | { readonly kind: 'route'; readonly removed: boolean; readonly route: Route }
  | { readonly kind: 'neighbour'; readonly removed: boolean; readonly neighbour: Neighbour }
  | { readonly kind: 'fdb'; readonly removed: boolean; readonly entry: FdbEntry }
  /** Something in the nftables ruleset. */
  | { readonly kind: 'nft' }
  /** The kernel had to drop events: compare everything. */
  | { readonly kind: 'overrun' };

export interface NotificationOptions {
  readonly onEvents: (events: readonly KernelEvent[]) => void;
  /** Port ids of our own request sockets, whose doings are no news. Links do not tell who changed them. */
  readonly ownPorts: () => ReadonlySet<number>;
  /** The namespace to watch; that of this process unless told. */
  readonly within?: { readonly own: Namespace; readonly namespace: Namespace };
  readonly receiveBufferBytes?: number;
}

/** A running watch. */
export interface Notifications {
  /** Settles when the watch has ended; rejects if it broke, or if `onEvents` threw. */
  readonly done: Promise<void>;
  /** Ends the watch within half a second. */
  close(): Promise<void>;
}

const NETLINK_ROUTE = 0;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
/** RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE. */
const ROUTE_GROUPS = [1, 3, 5, 7, 9, 11];
/** NFNLGRP_NFTABLES. */
const NFTABLES_GROUPS = [7];
const LOCAL_TABLE = 255;
const DEFAULT_RECEIVE_BUFFER_BYTES = 4 << 20;
const READ_BUFFER_BYTES = 65_536;
/** Closing a descriptor does not wake a read, so each read gives up after this. */
const READ_TIMEOUT_MS = 500;

/** Watches links, addresses, routes, neighbours and FDB entries of one namespace. */
export function watchRtnetlink(options: NotificationOptions): Notifications {
  return watch(NETLINK_ROUTE, ROUTE_GROUPS, options, (messages) =>
    byOthers(messages, options)
      .map(eventOf)
      .filter((event) => event !== undefined),
  );
}

/** Watches the nftables ruleset of one namespace. Own ports are those of sockets for nf_tables: rtnetlink has others. */
export function watchNftables(options: NotificationOptions): Notifications {
  return watch(NETLINK_NETFILTER, NFTABLES_GROUPS, options, (messages) =>
    byOthers(messages, options).length > 0 ? [{ kind: 'nft' }] : [],
  );
}

function byOthers(
  messages: readonly IncomingMessage[],
  { ownPorts }: Pick<NotificationOptions, 'ownPorts'>,
): IncomingMessage[] {
  const own = ownPorts();
  return messages.filter(({ portId }) => portId === 0 || !own.has(portId));
}

/**
 * Node cannot poll a netlink socket, so each watch keeps one thread of libuv's pool in a read: raise
 * UV_THREADPOOL_SIZE accordingly.
 */
function watch(
  protocol: number,
  groups: readonly number[],
  options: Omit<NotificationOptions, 'ownPorts'>,
  eventsOf: (messages: IncomingMessage[]) => KernelEvent[],
): Notifications {
  const fd = openNotificationSocket(protocol, groups, options);
  const buffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  let closing = false;

  async function loop(): Promise<void> {
    try {
      while (!closing) {
        const length = await readOnce(fd, buffer);
        if (length === 0) continue;
        const events: KernelEvent[] =
          length === 'overrun' ? [{ kind: 'overrun' }] : eventsOf(decodeMessages(buffer.subarray(0, length)));
        if (events.length > 0 && !closing) options.onEvents(events);
      }
    } finally {
      libc.close(fd);
    }
  }

  const done = loop();
  const close = () => {
    closing = true;
    return done;
  };
  return { done, close };
}

function openNotificationSocket(
  protocol: number,
  groups: readonly number[],
  { within, receiveBufferBytes }: Omit<NotificationOptions, 'ownPorts'>,
): number {
  const fd =
    within === undefined ? openRawSocket(protocol) : openSocketInside(within.own, within.namespace, protocol);
  if (fd < 0) throw new libc.SystemCallError('socket(AF_NETLINK)', libc.lastErrno());
  try {
    setReceiveTimeout(fd, READ_TIMEOUT_MS);
    setNumberOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBufferBytes ?? DEFAULT_RECEIVE_BUFFER_BYTES);
    bindNetlink(fd);
    for (const group of groups) setNumberOption(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** The length of one datagram; 0 if none came in time. */
function readOnce(fd: number, buffer: Buffer): Promise<number | 'overrun'> {
  return new Promise((resolve, reject) => {
    read(fd, buffer, 0, buffer.length, null, (error, length) => {
      if (error === null) resolve(length);
      else if (error.code === 'EAGAIN' || error.code === 'EINTR') resolve(0);
      else if (error.code === 'ENOBUFS') resolve('overrun');
      else reject(error);
    });
  });
}

function eventOf(message: IncomingMessage): KernelEvent | undefined {
  switch (message.type) {
    case 16:
    case 17:
      return linkEvent(message);
    case 20:
    case 21: {
      const address = parseLinkAddress(message);
      return address && { kind: 'address', removed: message.type === 21, address };
    }
    case 24:
    case 25: {
      const route = parseRoute(message);
      // The kernel writes its local table itself, for each address, in nobody's name.
      if (route?.table === LOCAL_TABLE) return undefined;
      return route && { kind: 'route', removed: message.type === 25, route };
    }
    case 28:
    case 29:
      return neighbourEvent(message);
    default:
      return undefined;
  }
}

/** Bridges report their ports as links of family AF_BRIDGE beside the link itself. */
function linkEvent(message: IncomingMessage): KernelEvent | undefined {
  if (message.payload.readUInt8(0) !== 0) return undefined;
  return { kind: 'link', removed: message.type === 17, link: parseLink(message) };
}

function neighbourEvent(message: IncomingMessage): KernelEvent | undefined {
  const removed = message.type === 29;
  const entry = parseFdbEntry(message);
  if (entry !== undefined) return { kind: 'fdb', removed, entry };
  const neighbour = parseNeighbour(message);
  return neighbour && { kind: 'neighbour', removed, neighbour };
}
