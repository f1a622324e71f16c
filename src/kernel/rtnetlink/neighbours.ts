import { addressBytes, addressFromBytes, FAMILIES, formatAddress, type IPAddress } from '../../net/index.ts';
import { bytes, decodeAttributes, u32, type IncomingMessage } from './codec.ts';
import { AF, familyOf } from './family.ts';
import { macBytes, macText } from './mac.ts';
import {
  neighbourHeader,
  NEIGHBOUR_HEADER_LENGTH,
  STATE_NOARP,
  STATE_PERMANENT,
} from './neighbour-header.ts';
import { CREATE, REPLACE, type NetlinkRequest, type NetlinkSocket } from './socket.ts';

/** Which MAC an address has on a link. */
export interface NeighbourSpec {
  readonly linkIndex: number;
  readonly address: IPAddress;
  readonly mac: string;
}

/** A neighbour entry of the kernel. */
export interface Neighbour {
  readonly linkIndex: number;
  readonly address: IPAddress;
  /** undefined while the kernel is still asking. */
  readonly mac: string | undefined;
  /** Set by someone, not learned. */
  readonly permanent: boolean;
}

const NEWNEIGH = 28;
const DELNEIGH = 29;
const GETNEIGH = 30;
const DESTINATION = 1;
const LINK_ADDRESS = 2;
const INTERFACE = 8;

/** The neighbours of both families, learned ones included, of one link or of all. */
export function listNeighbours(
  socket: NetlinkSocket,
  filter: { readonly linkIndex?: number } = {},
): Neighbour[] {
  const attributes = filter.linkIndex === undefined ? [] : [u32(INTERFACE, filter.linkIndex)];
  return FAMILIES.flatMap((family) =>
    socket.dump(
      {
        type: GETNEIGH,
        header: neighbourHeader({ family: AF[family] }),
        attributes,
        describe: () => `list ${family} neighbours`,
      },
      (message) => {
        const item = parseNeighbour(message);
        // A kernel without IPv6 answers a request for it with IPv4's.
        return item?.address.family === family ? item : undefined;
      },
    ),
  );
}

/** Sets a permanent entry, whatever was there. */
export function replaceNeighbour(socket: NetlinkSocket, spec: NeighbourSpec): void {
  socket.execute([replaceNeighbourRequest(spec)]);
}

/** Removes the entry and returns true, or false if there was none. */
export function deleteNeighbour(
  socket: NetlinkSocket,
  spec: { readonly linkIndex: number; readonly address: IPAddress },
): boolean {
  const [outcome] = socket.transact([deleteNeighbourRequest(spec)]);
  if (outcome === undefined) return true;
  if (['ENOENT', 'ENODEV'].includes(outcome.code)) return false;
  throw outcome;
}

export function replaceNeighbourRequest({ linkIndex, address, mac }: NeighbourSpec): NetlinkRequest {
  return {
    type: NEWNEIGH,
    flags: CREATE | REPLACE,
    header: neighbourHeader({ family: AF[address.family], linkIndex, state: STATE_PERMANENT }),
    attributes: [bytes(DESTINATION, addressBytes(address)), bytes(LINK_ADDRESS, macBytes(mac))],
    describe: () => `set neighbour ${formatAddress(address)} to ${mac} on link ${linkIndex}`,
  };
}

export function deleteNeighbourRequest({
  linkIndex,
  address,
}: {
  readonly linkIndex: number;
  readonly address: IPAddress;
}): NetlinkRequest {
  return {
    type: DELNEIGH,
    header: neighbourHeader({ family: AF[address.family], linkIndex }),
    attributes: [bytes(DESTINATION, addressBytes(address))],
    describe: () => `delete neighbour ${formatAddress(address)} on link ${linkIndex}`,
  };
}

/** A neighbour from RTM_NEWNEIGH or RTM_DELNEIGH; undefined for FDB and multicast entries. */
export function parseNeighbour({ payload }: IncomingMessage): Neighbour | undefined {
  const attributes = decodeAttributes(payload, NEIGHBOUR_HEADER_LENGTH);
  const address = attributes.get(DESTINATION);
  const state = payload.readUInt16LE(8);
  if (address === undefined || familyOf(payload.readUInt8(0)) === undefined) return undefined;
  if ((state & STATE_NOARP) !== 0) return undefined;
  return {
    linkIndex: payload.readInt32LE(4),
    address: addressFromBytes(address),
    mac: macText(attributes.get(LINK_ADDRESS)),
    permanent: (state & STATE_PERMANENT) !== 0,
  };
}
