import { decodeAttributes, readI32, u32 } from './codec.ts';
import type { NetlinkSocket } from './socket.ts';

const GETNSID = 90;
const NAMESPACE_ID = 1;
const NAMESPACE_FD = 3;
const RTGENMSG_LENGTH = 4;
const NOT_ASSIGNED = -1;

/** The id by which the socket's namespace knows another, given as a descriptor; undefined if it has none yet. */
export function namespaceIdOf(socket: NetlinkSocket, namespaceFd: number): number | undefined {
  const id = socket.get(
    {
      type: GETNSID,
      header: Buffer.alloc(RTGENMSG_LENGTH),
      attributes: [u32(NAMESPACE_FD, namespaceFd)],
      describe: () => 'look up the id of a network namespace',
    },
    ({ payload }) => readI32(decodeAttributes(payload, RTGENMSG_LENGTH).get(NAMESPACE_ID)),
  );
  return id === NOT_ASSIGNED ? undefined : id;
}
