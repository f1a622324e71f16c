import * as libc from '../libc.ts';
import {
  decodeAttributes,
  decodeMessages,
  encodeMessages,
  readText,
  type Attribute,
  type IncomingMessage,
} from './codec.ts';
import { DumpInterruptedError, NetlinkBatchError, NetlinkError } from './errors.ts';

/** One thing asked of the kernel. `describe` names the object, for errors; it runs only then. */
export interface NetlinkRequest {
  readonly type: number;
  /** NLM_F_CREATE and the like; NLM_F_REQUEST and the kind of answer are added by the socket. */
  readonly flags?: number;
  readonly header: Uint8Array;
  readonly attributes?: readonly Attribute[];
  readonly describe: () => string;
}

export const CREATE = 0x400;
export const EXCLUSIVE = 0x200;
export const REPLACE = 0x100;

/** 300 acknowledgements of one send overflow the socket's receive buffer and are lost; 100 are safe. */
export const MAX_BATCH = 100;

const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_TRUNC = 0x20;
const RECEIVE_TIMEOUT_SECONDS = 5;
/** The kernel fills at most 32 KiB per datagram of a listing. */
const RECEIVE_BUFFER_LENGTH = 32_768;
const DUMP_ATTEMPTS = 10;

const F_REQUEST = 0x1;
const F_ACK = 0x4;
const F_DUMP_INTERRUPTED = 0x10;
const F_DUMP = 0x300;
const F_CAPPED = 0x100;
const F_ACK_ATTRIBUTES = 0x200;
const TYPE_ERROR = 2;
const TYPE_DONE = 3;
const ERROR_ATTRIBUTE_TEXT = 1;

/** Opens a socket in the network namespace of this process. The only call inside the namespace window. */
export function openRawSocket(protocol: number): number {
  return libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, protocol);
}

/** A request socket in the namespace of this process. */
export function openNetlinkSocket(): NetlinkSocket {
  const fd = openRawSocket(NETLINK_ROUTE);
  if (fd < 0) throw new libc.SystemCallError('socket(AF_NETLINK)', libc.lastErrno());
  return new NetlinkSocket(fd);
}

/** Binds the socket to a port of its own and returns that port's id. */
export function bindNetlink(fd: number): number {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  check('bind(AF_NETLINK)', libc.bind(fd, address, address.length));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(address.length);
  check('getsockname(AF_NETLINK)', libc.getsockname(fd, address, length));
  return address.readUInt32LE(4);
}

/** How long a receive may block, in milliseconds, before it fails with EAGAIN. */
export function setReceiveTimeout(fd: number, milliseconds: number): void {
  const timeout = Buffer.alloc(16);
  timeout.writeBigInt64LE(BigInt(Math.floor(milliseconds / 1000)), 0);
  timeout.writeBigInt64LE(BigInt((milliseconds % 1000) * 1000), 8);
  check('setsockopt(SO_RCVTIMEO)', libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length));
}

/** Sets a socket option that takes one number. */
export function setNumberOption(fd: number, level: number, option: number, value: number): void {
  const data = Buffer.alloc(4);
  data.writeUInt32LE(value);
  check(`setsockopt(${level}, ${option}, ${value})`, libc.setsockopt(fd, level, option, data, data.length));
}

/**
 * A socket for requests to rtnetlink, in whatever namespace its descriptor was opened in. All calls but
 * `executeInBackground` are synchronous: the kernel answers before `send` returns.
 */
export class NetlinkSocket {
  readonly fd: number;
  readonly portId: number;
  private sequence = 0;
  private readonly buffer = Buffer.allocUnsafeSlow(RECEIVE_BUFFER_LENGTH);
  private background = false;
  private closed = false;

  /** Takes over the descriptor, also when it throws (then it is closed). */
  constructor(fd: number) {
    this.fd = fd;
    try {
      setReceiveTimeout(fd, RECEIVE_TIMEOUT_SECONDS * 1000);
      for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) {
        setNumberOption(fd, SOL_NETLINK, option, 1);
      }
      this.portId = bindNetlink(fd);
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    libc.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Sends the requests in order, in batches of at most 100, and returns each one's refusal, or undefined where
   * it took effect. A refused request does not stop those behind it.
   * @throws SystemCallError when the socket itself fails
   */
  transact(requests: readonly NetlinkRequest[]): (NetlinkError | undefined)[] {
    const outcomes: (NetlinkError | undefined)[] = [];
    for (let start = 0; start < requests.length; start += MAX_BATCH) {
      const batch = requests.slice(start, start + MAX_BATCH);
      const first = this.sendAll(batch, F_ACK);
      outcomes.push(...this.receiveAcknowledgements(batch, first));
    }
    return outcomes;
  }

  /**
   * Like transact, for requests that must all succeed.
   * @throws NetlinkError if one was refused
   * @throws NetlinkBatchError if more were
   */
  execute(requests: readonly NetlinkRequest[]): void {
    throwRefusals(requests.length, this.transact(requests));
  }

  /**
   * Sends the requests between two messages that make one transaction of them, as nfnetlink has it: all take effect, or
   * none does. Neither of the two is acknowledged, but where the kernel does not take the transaction the first is refused.
   * @throws NetlinkError of the first refusal
   */
  executeAsOne(begin: NetlinkRequest, requests: readonly NetlinkRequest[], end: NetlinkRequest): void {
    const messages = [
      outgoing(begin, 0, this.nextSequence()),
      ...requests.map((request) => outgoing(request, F_ACK, this.nextSequence())),
      outgoing(end, 0, this.nextSequence()),
    ];
    const data = encodeMessages(messages);
    check('send(AF_NETLINK)', libc.send(this.fd, data, data.length, 0));
    const first = messages[0]?.sequence ?? 0;
    const asked = [begin, ...requests];
    const outcomes = new Map<number, NetlinkError | undefined>();
    while (outcomes.size < requests.length) {
      for (const message of this.receive()) {
        if (message.type !== TYPE_ERROR) continue;
        const index = (message.sequence - first) >>> 0;
        const request = asked[index];
        const refusal = request && refusalOf(request, message);
        if (index === 0 && refusal !== undefined) throw refusal;
        if (index > 0 && request !== undefined) outcomes.set(index, refusal);
      }
    }
    const [refused] = [...outcomes.values()].filter((outcome) => outcome !== undefined);
    if (refused !== undefined) throw refused;
  }

  /**
   * One request that answers with one message.
   * @throws NetlinkError
   */
  get<T>(request: NetlinkRequest, parse: (message: IncomingMessage) => T): T {
    const sequence = this.sendAll([request], 0);
    for (;;) {
      for (const message of this.receive()) {
        if (message.sequence !== sequence) continue;
        if (message.type !== TYPE_ERROR) return parse(message);
        throw refusalOf(request, message) ?? new NetlinkError(request.describe(), 0);
      }
    }
  }

  /**
   * A complete listing; `parse` returns undefined for what does not belong to it. A listing that the kernel
   * marks as interrupted by a change is read again.
   * @throws NetlinkError, DumpInterruptedError
   */
  dump<T>(request: NetlinkRequest, parse: (message: IncomingMessage) => T | undefined): T[] {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      const listing = this.dumpOnce(request, parse);
      if (listing !== 'interrupted') return listing;
    }
    throw new DumpInterruptedError(request.describe(), DUMP_ATTEMPTS);
  }

  /**
   * Like dump, for listings of any length: the event loop is let in after each piece. The socket serves nothing else
   * until the promise settles. Whether a table changed meanwhile is not asked: the kernel does not say so of all.
   * @throws NetlinkError
   */
  async dumpInPieces<T>(
    request: NetlinkRequest,
    parse: (message: IncomingMessage) => T | undefined,
  ): Promise<T[]> {
    const sequence = this.sendAll([request], F_DUMP);
    const listing: T[] = [];
    this.background = true;
    try {
      for (;;) {
        for (const message of this.receive()) {
          if (message.sequence !== sequence) continue;
          if (message.type === TYPE_ERROR || message.type === TYPE_DONE) {
            const refusal = refusalOf(request, message);
            if (refusal !== undefined) throw refusal;
            return listing;
          }
          const item = parse(message);
          if (item !== undefined) listing.push(item);
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
    } finally {
      this.background = false;
    }
  }

  /**
   * One request that the kernel takes long for (deleting links waits some 20 ms), sent from a thread of the
   * pool. The socket serves nothing else until the promise settles, so give it one of its own.
   * @throws NetlinkError
   */
  async executeInBackground(request: NetlinkRequest): Promise<void> {
    const sequence = this.nextSequence();
    const data = encodeMessages([outgoing(request, F_ACK, sequence)]);
    this.background = true;
    try {
      await sendInBackground(this.fd, data);
    } finally {
      this.background = false;
    }
    throwRefusals(1, this.receiveAcknowledgements([request], sequence));
  }

  private nextSequence(): number {
    if (this.closed) throw new Error('the netlink socket is closed');
    if (this.background) throw new Error('the netlink socket is busy with a request in the background');
    this.sequence = (this.sequence + 1) >>> 0;
    return this.sequence;
  }

  /** Returns the sequence number of the first; the others follow it. */
  private sendAll(requests: readonly NetlinkRequest[], flags: number): number {
    const messages = requests.map((request) => outgoing(request, flags, this.nextSequence()));
    const data = encodeMessages(messages);
    check('send(AF_NETLINK)', libc.send(this.fd, data, data.length, 0));
    return messages[0]?.sequence ?? this.sequence;
  }

  private receive(): IncomingMessage[] {
    const length = check('recv(AF_NETLINK)', libc.recv(this.fd, this.buffer, this.buffer.length, MSG_TRUNC));
    if (length > this.buffer.length) {
      throw new Error(`a netlink answer of ${length} bytes does not fit into ${this.buffer.length}`);
    }
    return decodeMessages(this.buffer.subarray(0, length));
  }

  private receiveAcknowledgements(
    requests: readonly NetlinkRequest[],
    first: number,
  ): (NetlinkError | undefined)[] {
    const outcomes = new Map<number, NetlinkError | undefined>();
    while (outcomes.size < requests.length) {
      for (const message of this.receive()) {
        // What an earlier, failed exchange left in the queue is not an answer to this one.
        const index = (message.sequence - first) >>> 0;
        const request = requests[index];
        if (message.type !== TYPE_ERROR || request === undefined) continue;
        outcomes.set(index, refusalOf(request, message));
      }
    }
    return requests.map((_, index) => outcomes.get(index));
  }

  private dumpOnce<T>(
    request: NetlinkRequest,
    parse: (message: IncomingMessage) => T | undefined,
  ): T[] | 'interrupted' {
    const sequence = this.sendAll([request], F_DUMP);
    const listing: T[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.receive()) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & F_DUMP_INTERRUPTED) !== 0) interrupted = true;
        if (message.type === TYPE_ERROR || message.type === TYPE_DONE) {
          const refusal = refusalOf(request, message);
          if (refusal?.code === 'EINTR') return 'interrupted';
          if (refusal !== undefined) throw refusal;
          return interrupted ? 'interrupted' : listing;
        }
        const item = parse(message);
        if (item !== undefined) listing.push(item);
      }
    }
  }
}

/** Throws what `transact` returned: one NetlinkError as it is, more as a NetlinkBatchError. */
export function throwRefusals(total: number, outcomes: readonly (NetlinkError | undefined)[]): void {
  const errors = outcomes.filter((outcome) => outcome !== undefined);
  const [first] = errors;
  if (first === undefined) return;
  throw errors.length === 1 ? first : new NetlinkBatchError(total, errors);
}

function outgoing(request: NetlinkRequest, flags: number, sequence: number) {
  return {
    type: request.type,
    flags: F_REQUEST | flags | (request.flags ?? 0),
    sequence,
    header: request.header,
    attributes: request.attributes ?? [],
  };
}

/** NLMSG_ERROR and NLMSG_DONE begin with a negative errno, or 0 for success. */
function refusalOf(request: NetlinkRequest, message: IncomingMessage): NetlinkError | undefined {
  const errno = message.payload.length < 4 ? 0 : -message.payload.readInt32LE(0);
  if (errno <= 0) return undefined;
  return new NetlinkError(request.describe(), errno, kernelText(message));
}

function kernelText({ type, flags, payload }: IncomingMessage): string | undefined {
  if ((flags & F_ACK_ATTRIBUTES) === 0) return undefined;
  // Behind the errno of an error stands the header of the request, with its body unless that was cut off.
  const echoed = type === TYPE_DONE ? 0 : (flags & F_CAPPED) !== 0 ? 16 : payload.readUInt32LE(4);
  return readText(decodeAttributes(payload, 4 + echoed).get(ERROR_ATTRIBUTE_TEXT));
}

function sendInBackground(fd: number, data: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    libc.send.async(fd, data, data.length, 0, (error: unknown, sent) => {
      if (error !== null) reject(new Error('the background send failed', { cause: error }));
      else if (sent < 0) reject(new libc.SystemCallError('send(AF_NETLINK)', libc.lastErrno()));
      else resolve();
    });
  });
}

function check(call: string, result: number): number {
  if (result < 0) throw new libc.SystemCallError(call, libc.lastErrno());
  return result;
}
