import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import * as libc from './libc.ts';
import { NetlinkSocket, openRawSocket } from './rtnetlink/socket.ts';

/** Which namespace: two paths name the same one exactly when both numbers agree. Valid within one boot. */
export interface NamespaceIdentity {
  readonly inode: bigint;
  readonly dev: bigint;
}

/** A network namespace held open: it lives at least until `close`. */
export interface Namespace {
  readonly path: string;
  readonly identity: NamespaceIdentity;
  readonly fd: number;
  close(): void;
  [Symbol.dispose](): void;
}

/** A namespace with an rtnetlink socket inside it. */
export interface NamespaceSocket extends Namespace {
  readonly socket: NetlinkSocket;
}

/**
 * - missing: nothing is at the path
 * - notNamespace: a regular file, FIFO or directory, or a namespace of another kind
 * - hostNamespace: the host's own network namespace
 * - notAccessible: opening or entering it was refused
 */
export type InvalidNamespaceReason = 'missing' | 'notNamespace' | 'hostNamespace' | 'notAccessible';

/** A path does not lead to a network namespace that may be worked in. */
export class InvalidNamespaceError extends Error {
  override name = 'InvalidNamespaceError' as const;
  readonly path: string;
  readonly reason: InvalidNamespaceReason;

  constructor(path: string, reason: InvalidNamespaceReason, detail: string, cause?: unknown) {
    super(`network namespace "${path}": ${detail}`, cause === undefined ? {} : { cause });
    this.path = path;
    this.reason = reason;
  }
}

const NSFS_MAGIC = 0x6e736673n;
const CLONE_NEWNET = 0x40000000;
const NETLINK_ROUTE = 0;
const EINVAL = 22;

/** The network namespace of this process: where its sockets are opened, and the way back into it. */
export function openOwnNamespace(): Namespace {
  return openNamespaceFile('/proc/self/ns/net');
}

/**
 * Opens a pod's network namespace and an rtnetlink socket inside it. `own` is the namespace of this process;
 * it and every other in `forbidden` are refused.
 * @throws InvalidNamespaceError
 */
export function openNamespaceSocket(
  own: Namespace,
  path: string,
  forbidden: readonly NamespaceIdentity[] = [],
): NamespaceSocket {
  const namespace = openNamespaceFile(path);
  try {
    if ([own.identity, ...forbidden].some((identity) => sameNamespace(identity, namespace.identity))) {
      const detail = "it is the host's own; a pod needs one of its own";
      throw new InvalidNamespaceError(path, 'hostNamespace', detail);
    }
    const socket = new NetlinkSocket(openSocketInside(own, namespace, NETLINK_ROUTE));
    const close = () => {
      socket.close();
      namespace.close();
    };
    return { ...namespace, socket, close, [Symbol.dispose]: close };
  } catch (error) {
    namespace.close();
    throw error;
  }
}

/** The identity of the namespace at the path. @throws InvalidNamespaceError */
export function namespaceIdentity(path: string): NamespaceIdentity {
  using namespace = openNamespaceFile(path);
  return namespace.identity;
}

export function sameNamespace(a: NamespaceIdentity, b: NamespaceIdentity): boolean {
  return a.inode === b.inode && a.dev === b.dev;
}

/**
 * Opens a netlink socket of that protocol inside the namespace; the descriptor is the caller's to close.
 * The window is exactly three synchronous calls. A promise started inside it would strand threads of libuv's
 * pool in the pod for ever, and so would a way back that fails: then the process ends.
 * @throws InvalidNamespaceError, SystemCallError
 */
export function openSocketInside(own: Namespace, namespace: Namespace, protocol: number): number {
  const entered = libc.setns(namespace.fd, CLONE_NEWNET);
  if (entered !== 0) throw entryError(namespace.path, libc.lastErrno());
  const fd = openRawSocket(protocol);
  const socketErrno = fd < 0 ? libc.lastErrno() : 0;
  if (libc.setns(own.fd, CLONE_NEWNET) !== 0) process.abort();
  if (fd < 0) throw new libc.SystemCallError(`socket(AF_NETLINK) in ${namespace.path}`, socketErrno);
  return fd;
}

function entryError(path: string, errno: number): Error {
  const cause = new libc.SystemCallError('setns', errno);
  return errno === EINVAL
    ? new InvalidNamespaceError(path, 'notNamespace', 'it is a namespace of another kind', cause)
    : new InvalidNamespaceError(path, 'notAccessible', `entering it failed: ${cause.message}`, cause);
}

/** A FIFO must not block and a device must not act, hence O_NONBLOCK and the look at the file system's kind. */
function openNamespaceFile(path: string): Namespace {
  const fd = openReadOnly(path);
  try {
    const status = Buffer.alloc(512);
    if (libc.fstatfs(fd, status) !== 0) throw new libc.SystemCallError('fstatfs', libc.lastErrno());
    if (status.readBigInt64LE(0) !== NSFS_MAGIC) {
      throw new InvalidNamespaceError(path, 'notNamespace', 'it is not a namespace (nsfs) file');
    }
    const { ino: inode, dev } = fstatSync(fd, { bigint: true });
    let open = true;
    const close = () => {
      if (open) closeSync(fd);
      open = false;
    };
    return { path, fd, identity: { inode, dev }, close, [Symbol.dispose]: close };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openReadOnly(path: string): number {
  try {
    // libuv adds O_CLOEXEC.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw new InvalidNamespaceError(path, 'missing', missingText(path), error);
    }
    throw new InvalidNamespaceError(path, 'notAccessible', `opening it failed: ${code}`, error);
  }
}

/** The agent sees no process of the host unless it is told to. */
function missingText(path: string): string {
  return path.startsWith('/proc/')
    ? 'the agent sees no such process; install weft with the overlay config/proc-netns, or name the namespace by a file in /run/netns'
    : 'there is no such file';
}
