import { FAMILIES, addressBytes, type Family, type IPAddress } from '../net/index.ts';
import { NFGENMSG_LENGTH, nfgenmsg } from './nfnetlink.ts';
import { bytes, type Attribute, type IncomingMessage } from './rtnetlink/codec.ts';
import { AF } from './rtnetlink/family.ts';
import { MAX_BATCH, throwRefusals, type NetlinkRequest, type NetlinkSocket } from './rtnetlink/socket.ts';

/** nfnetlink: the subsystem in the upper byte of the type. */
const CONNTRACK = 1 << 8;
const GET = CONNTRACK | 1;
const DELETE = CONNTRACK | 2;

const TUPLE_ORIGINAL = 1;
const TUPLE_REPLY = 2;
const ID = 12;
const ZONE = 18;
const TUPLE_IP = 1;
const ADDRESSES_OF: Readonly<Record<Family, readonly number[]>> = { ipv4: [1, 2], ipv6: [3, 4] };
const NESTED = 0x8000;
const TYPE_MASK = 0x3fff;

/**
 * Deletes all tracked connections of which an end, before or after translation, is one of these addresses. One walk
 * through the table for each family among them, with the event loop let in between its pieces. Returns how many there
 * were.
 * @throws NetlinkError, NetlinkBatchError, after the others have been deleted
 */
export async function deleteConnections(
  socket: NetlinkSocket,
  addresses: readonly IPAddress[],
): Promise<number> {
  let deleted = 0;
  for (const family of FAMILIES) {
    const wanted = new Set(
      addresses
        .filter((address) => address.family === family)
        .map((address) => addressKey(addressBytes(address))),
    );
    if (wanted.size === 0) continue;
    const found = await socket.dumpInPieces(listRequest(family), (message) =>
      connectionOf(message, family, wanted),
    );
    const outcomes = [];
    for (let start = 0; start < found.length; start += MAX_BATCH) {
      outcomes.push(...socket.transact(found.slice(start, start + MAX_BATCH)));
      await new Promise((resolve) => setImmediate(resolve));
    }
    // One that has ended meanwhile is what was wanted.
    const refusals = outcomes.map((error) => (error?.code === 'ENOENT' ? undefined : error));
    deleted += outcomes.filter((error) => error === undefined).length;
    throwRefusals(found.length, refusals);
  }
  return deleted;
}

function listRequest(family: Family): NetlinkRequest {
  return { type: GET, header: nfgenmsg(AF[family]), describe: () => `list tracked ${family} connections` };
}

/**
 * What deletes the connection of the message, if it has one of the addresses. A table may hold a quarter of a million,
 * so nothing is decoded that is not looked at.
 */
function connectionOf(
  { payload }: IncomingMessage,
  family: Family,
  wanted: ReadonlySet<string>,
): NetlinkRequest | undefined {
  const original = attribute(payload, NFGENMSG_LENGTH, TUPLE_ORIGINAL);
  const reply = attribute(payload, NFGENMSG_LENGTH, TUPLE_REPLY);
  if (original === undefined || (!names(original, family, wanted) && !names(reply, family, wanted)))
    return undefined;
  // By its id as well: another connection of the same ends may have come since.
  const identity = [ID, ZONE].flatMap((type): Attribute[] => {
    const value = attribute(payload, NFGENMSG_LENGTH, type);
    return value === undefined ? [] : [bytes(type, Buffer.from(value))];
  });
  return {
    type: DELETE,
    header: nfgenmsg(AF[family]),
    attributes: [bytes(TUPLE_ORIGINAL | NESTED, Buffer.from(original)), ...identity],
    describe: () => `delete a tracked ${family} connection`,
  };
}

function names(tuple: Buffer | undefined, family: Family, wanted: ReadonlySet<string>): boolean {
  const ends = tuple === undefined ? undefined : attribute(tuple, 0, TUPLE_IP);
  return (
    ends !== undefined &&
    ADDRESSES_OF[family].some((type) => {
      const address = attribute(ends, 0, type);
      return address !== undefined && wanted.has(addressKey(address));
    })
  );
}

/** The first attribute of that type behind the first `offset` bytes, as a view. */
function attribute(buffer: Buffer, offset: number, type: number): Buffer | undefined {
  let at = offset;
  while (at + 4 <= buffer.length) {
    const length = buffer.readUInt16LE(at);
    if (length < 4) return undefined;
    if ((buffer.readUInt16LE(at + 2) & TYPE_MASK) === type) return buffer.subarray(at + 4, at + length);
    at += (length + 3) & ~3;
  }
  return undefined;
}

function addressKey(address: Uint8Array): string {
  return Buffer.from(address.buffer, address.byteOffset, address.length).toString('latin1');
}
