import { lastErrno, SystemCallError } from './libc.ts';
import { openSocketInside, type Namespace } from './namespaces.ts';
import { NetlinkSocket, openRawSocket } from './rtnetlink/socket.ts';

/** What connection tracking and nf_tables speak. */
export const NETLINK_NETFILTER = 12;

/**
 * A socket for netfilter, in this process's network namespace unless told another. Give it to nothing else.
 * @throws SystemCallError
 */
export function openNetfilterSocket(within?: {
  readonly own: Namespace;
  readonly namespace: Namespace;
}): NetlinkSocket {
  const fd =
    within === undefined
      ? openRawSocket(NETLINK_NETFILTER)
      : openSocketInside(within.own, within.namespace, NETLINK_NETFILTER);
  if (fd < 0) throw new SystemCallError('socket(AF_NETLINK, NETLINK_NETFILTER)', lastErrno());
  return new NetlinkSocket(fd);
}

/** struct nfgenmsg. `resource`: the subsystem that a transaction is for, and big-endian. */
export function nfgenmsg(family: number, resource = 0): Buffer {
  const header = Buffer.alloc(NFGENMSG_LENGTH);
  header.writeUInt8(family, 0);
  header.writeUInt16BE(resource, 2);
  return header;
}

/** Bytes. */
export const NFGENMSG_LENGTH = 4;
