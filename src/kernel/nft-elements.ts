import { addressBytes, type IPAddress } from '../net/index.ts';
import { nfgenmsg, openNetfilterSocket } from './nfnetlink.ts';
import type { NftTable } from './nft.ts';
import { bytes, nested, text, type Attribute } from './rtnetlink/codec.ts';
import { CREATE, setNumberOption, type NetlinkRequest, type NetlinkSocket } from './rtnetlink/socket.ts';

const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
/** nfnetlink: the subsystem in the upper byte of the type. */
const NFTABLES = 10;
const ACTIONS = {
  add: { type: (NFTABLES << 8) | 12, flags: CREATE },
  delete: { type: (NFTABLES << 8) | 14, flags: 0 },
} as const;

const NFPROTO = { inet: 1, ip: 2, arp: 3, netdev: 5, bridge: 7, ip6: 10 } as const satisfies Readonly<
  Record<NftTable['family'], number>
>;
const LIST_TABLE = 1;
const LIST_SET = 2;
const LIST_ELEMENTS = 3;
const LIST_ELEMENT = 1;
const ELEMENT_KEY = 1;
const DATA_VALUE = 1;

/** The list is one attribute, whose length has 16 bits, and an element of IPv6 takes 28 bytes of it. */
const MOST_IN_ONE_MESSAGE = 2_000;

const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
/** A transaction is sent at once, or not at all: this takes a hundred thousand elements. */
const SEND_BUFFER_BYTES = 4 << 20;

/** Single addresses that one set of a table gets, or loses. */
export interface NftElementChange {
  readonly action: 'add' | 'delete';
  readonly set: string;
  readonly addresses: readonly IPAddress[];
}

/** A socket for nf_tables in this process's network namespace, unless told another. Give it to nothing else. */
export function openNftablesSocket(within?: Parameters<typeof openNetfilterSocket>[0]): NetlinkSocket {
  const socket = openNetfilterSocket(within);
  try {
    setNumberOption(socket.fd, SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/**
 * Changes sets without intervals as one transaction, without the 20 ms that starting nft takes. An element that is there
 * is added without a word; one that is not there cannot be deleted.
 * @throws NetlinkError, and then nothing has changed
 */
export function changeNftElements(
  socket: NetlinkSocket,
  table: NftTable,
  changes: readonly NftElementChange[],
): void {
  const requests = changes.flatMap((change) =>
    chunksOf(change.addresses).map((addresses) => request(table, { ...change, addresses })),
  );
  if (requests.length > 0) socket.executeAsOne(bracket(BATCH_BEGIN), requests, bracket(BATCH_END));
}

function chunksOf(addresses: readonly IPAddress[]): (readonly IPAddress[])[] {
  const count = Math.ceil(addresses.length / MOST_IN_ONE_MESSAGE);
  return Array.from({ length: count }, (_, i) =>
    addresses.slice(i * MOST_IN_ONE_MESSAGE, (i + 1) * MOST_IN_ONE_MESSAGE),
  );
}

function request({ family, name }: NftTable, { action, set, addresses }: NftElementChange): NetlinkRequest {
  const elements: Attribute[] = addresses.map((address) =>
    nested(LIST_ELEMENT, [nested(ELEMENT_KEY, [bytes(DATA_VALUE, addressBytes(address))])]),
  );
  return {
    ...ACTIONS[action],
    header: nfgenmsg(NFPROTO[family]),
    attributes: [text(LIST_TABLE, name), text(LIST_SET, set), nested(LIST_ELEMENTS, elements)],
    describe: () => `${action} ${addresses.length} elements of set ${family} ${name} ${set}`,
  };
}

/** What stands before and after the messages of a transaction. */
function bracket(type: number): NetlinkRequest {
  return { type, header: nfgenmsg(0, NFTABLES), describe: () => 'a transaction of nf_tables' };
}
