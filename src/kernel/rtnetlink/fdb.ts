import { addressBytes, addressFromBytes, formatAddress, type IPAddress } from '../../net/index.ts';
import { bytes, decodeAttributes, type IncomingMessage } from './codec.ts';
import { macBytes, macText } from './mac.ts';
import { neighbourHeader, NEIGHBOUR_HEADER_LENGTH, STATE_PERMANENT } from './neighbour-header.ts';
import { CREATE, REPLACE, type NetlinkRequest, type NetlinkSocket } from './socket.ts';

/** Behind which node a MAC is: a forwarding entry of a VXLAN device. */
export interface FdbEntry {
  readonly linkIndex: number;
  readonly mac: string;
  /** The node to send the outer packet to. */
  readonly destination: IPAddress;
}

const NEWNEIGH = 28;
const DELNEIGH = 29;
const GETNEIGH = 30;
const DESTINATION = 1;
const LINK_ADDRESS = 2;
const AF_BRIDGE = 7;
/** The entry is the device's own, not that of a bridge it belongs to. */
const FLAG_SELF = 0x02;

/** The permanent entries of one VXLAN device. */
export function listFdb(socket: NetlinkSocket, linkIndex: number): FdbEntry[] {
  return socket.dump(
    {
      type: GETNEIGH,
      header: neighbourHeader({ family: AF_BRIDGE, linkIndex }),
      describe: () => `list the FDB of link ${linkIndex}`,
    },
    (message) => {
      const entry = parseFdbEntry(message);
      return entry?.linkIndex === linkIndex ? entry : undefined;
    },
  );
}

/** Sets a permanent entry, whatever was there for the MAC. */
export function replaceFdbEntry(socket: NetlinkSocket, entry: FdbEntry): void {
  socket.execute([replaceFdbRequest(entry)]);
}

/** Removes the entry and returns true, or false if there was none. */
export function deleteFdbEntry(socket: NetlinkSocket, entry: FdbEntry): boolean {
  const [outcome] = socket.transact([deleteFdbRequest(entry)]);
  if (outcome === undefined) return true;
  if (['ENOENT', 'ENODEV'].includes(outcome.code)) return false;
  throw outcome;
}

export function replaceFdbRequest(entry: FdbEntry): NetlinkRequest {
  return {
    ...fdbRequest(NEWNEIGH, entry, STATE_PERMANENT),
    flags: CREATE | REPLACE,
    describe: () => `set ${describeEntry(entry)}`,
  };
}

export function deleteFdbRequest(entry: FdbEntry): NetlinkRequest {
  return { ...fdbRequest(DELNEIGH, entry, 0), describe: () => `delete ${describeEntry(entry)}` };
}

/** An entry of a VXLAN device; undefined for learned ones, those of bridges, and addresses of the link itself. */
export function parseFdbEntry({ payload }: IncomingMessage): FdbEntry | undefined {
  const attributes = decodeAttributes(payload, NEIGHBOUR_HEADER_LENGTH);
  const destination = attributes.get(DESTINATION);
  const mac = macText(attributes.get(LINK_ADDRESS));
  if (payload.readUInt8(0) !== AF_BRIDGE || destination === undefined || mac === undefined) return undefined;
  if ((payload.readUInt16LE(8) & STATE_PERMANENT) === 0) return undefined;
  return { linkIndex: payload.readInt32LE(4), mac, destination: addressFromBytes(destination) };
}

function fdbRequest(type: number, entry: FdbEntry, state: number): Omit<NetlinkRequest, 'describe'> {
  return {
    type,
    header: neighbourHeader({ family: AF_BRIDGE, linkIndex: entry.linkIndex, state, flags: FLAG_SELF }),
    attributes: [
      bytes(DESTINATION, addressBytes(entry.destination)),
      bytes(LINK_ADDRESS, macBytes(entry.mac)),
    ],
  };
}

function describeEntry({ mac, destination, linkIndex }: FdbEntry): string {
  return `FDB entry ${mac} behind ${formatAddress(destination)} on link ${linkIndex}`;
}
