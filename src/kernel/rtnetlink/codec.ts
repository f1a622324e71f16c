/**
 * Netlink messages and attributes as bytes. Pure. All numbers are in the byte order of the machine, which is
 * little-endian on every architecture weft runs on (amd64, arm64), but for ports (`u16be`).
 */

/** A type-length-value record; its value is bytes or further attributes. */
export interface Attribute {
  readonly type: number;
  readonly data: Uint8Array | readonly Attribute[];
}

/** One message as it goes out. `header` is the fixed struct of its kind (ifinfomsg, rtmsg, …). */
export interface OutgoingMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly header: Uint8Array;
  readonly attributes: readonly Attribute[];
}

/** One message as it came in. `payload` is a view: copy it to keep it beyond the next receive. */
export interface IncomingMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Who caused it: for an answer our own port, for a notification that of the requester, or 0. */
  readonly portId: number;
  readonly payload: Buffer;
}

/** The bytes are not whole messages or attributes. */
export class MalformedNetlinkError extends Error {
  override name = 'MalformedNetlinkError' as const;
}

const MESSAGE_HEADER_LENGTH = 16;
const ATTRIBUTE_HEADER_LENGTH = 4;
const NESTED = 0x8000;
const TYPE_MASK = 0x3fff;

/** The messages one after the other, each padded to 4 bytes, as one send takes them. */
export function encodeMessages(messages: readonly OutgoingMessage[]): Buffer {
  const lengths = messages.map(
    (m) => MESSAGE_HEADER_LENGTH + align(m.header.length) + attributesLength(m.attributes),
  );
  const buffer = Buffer.alloc(lengths.reduce((sum, length) => sum + length, 0));
  let offset = 0;
  for (const [i, message] of messages.entries()) {
    const length = lengths[i] ?? 0;
    buffer.writeUInt32LE(length, offset);
    buffer.writeUInt16LE(message.type, offset + 4);
    buffer.writeUInt16LE(message.flags, offset + 6);
    buffer.writeUInt32LE(message.sequence, offset + 8);
    buffer.set(message.header, offset + MESSAGE_HEADER_LENGTH);
    writeAttributes(
      buffer,
      offset + MESSAGE_HEADER_LENGTH + align(message.header.length),
      message.attributes,
    );
    offset += length;
  }
  return buffer;
}

/**
 * The messages that one receive returned.
 * @throws MalformedNetlinkError
 */
export function decodeMessages(buffer: Buffer): IncomingMessage[] {
  const messages: IncomingMessage[] = [];
  let offset = 0;
  while (offset < buffer.length) {
    if (buffer.length - offset < MESSAGE_HEADER_LENGTH) {
      throw new MalformedNetlinkError(`a message header is cut off after ${buffer.length - offset} bytes`);
    }
    const length = buffer.readUInt32LE(offset);
    if (length < MESSAGE_HEADER_LENGTH || length > buffer.length - offset) {
      throw new MalformedNetlinkError(
        `a message says ${length} bytes where ${buffer.length - offset} are left`,
      );
    }
    messages.push({
      type: buffer.readUInt16LE(offset + 4),
      flags: buffer.readUInt16LE(offset + 6),
      sequence: buffer.readUInt32LE(offset + 8),
      portId: buffer.readUInt32LE(offset + 12),
      payload: buffer.subarray(offset + MESSAGE_HEADER_LENGTH, offset + length),
    });
    offset += align(length);
  }
  return messages;
}

/**
 * The attributes behind the first `offset` bytes, by type without its flag bits; of a repeated type the last.
 * @throws MalformedNetlinkError
 */
export function decodeAttributes(buffer: Buffer, offset = 0): Map<number, Buffer> {
  return new Map(attributesIn(buffer, offset));
}

function* attributesIn(buffer: Buffer, offset: number): Generator<[number, Buffer]> {
  let at = align(offset);
  while (at < buffer.length) {
    const left = buffer.length - at;
    const length = left < ATTRIBUTE_HEADER_LENGTH ? 0 : buffer.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER_LENGTH || length > left) {
      throw new MalformedNetlinkError(`an attribute says ${length} bytes where ${left} are left`);
    }
    yield [
      buffer.readUInt16LE(at + 2) & TYPE_MASK,
      buffer.subarray(at + ATTRIBUTE_HEADER_LENGTH, at + length),
    ];
    at += align(length);
  }
}

/** The values of all attributes of that type, in their order. */
export function readAll(buffer: Buffer, type: number): Buffer[] {
  return [...attributesIn(buffer, 0)].flatMap(([its, data]) => (its === type ? [data] : []));
}

/** A fixed struct with attributes behind it, as an attribute's value (the peer of a veth). */
export function structWithAttributes(header: Uint8Array, attributes: readonly Attribute[]): Buffer {
  const buffer = Buffer.alloc(align(header.length) + attributesLength(attributes));
  buffer.set(header, 0);
  writeAttributes(buffer, align(header.length), attributes);
  return buffer;
}

export function bytes(type: number, data: Uint8Array): Attribute {
  return { type, data };
}

export function nested(type: number, attributes: readonly Attribute[]): Attribute {
  return { type, data: attributes };
}

export function u8(type: number, value: number): Attribute {
  return { type, data: Uint8Array.of(value) };
}

export function u16be(type: number, value: number): Attribute {
  return { type, data: Uint8Array.of(value >>> 8, value & 0xff) };
}

export function u32(type: number, value: number): Attribute {
  const data = Buffer.alloc(4);
  data.writeUInt32LE(value >>> 0);
  return { type, data };
}

/** A string with its closing zero byte. */
export function text(type: number, value: string): Attribute {
  return { type, data: Buffer.from(`${value}\0`) };
}

export function readU8(data: Buffer | undefined): number | undefined {
  return data?.readUInt8(0);
}

export function readU16be(data: Buffer | undefined): number | undefined {
  return data?.readUInt16BE(0);
}

export function readU32(data: Buffer | undefined): number | undefined {
  return data?.readUInt32LE(0);
}

export function readI32(data: Buffer | undefined): number | undefined {
  return data?.readInt32LE(0);
}

/** The string without its closing zero byte. */
export function readText(data: Buffer | undefined): string | undefined {
  if (data === undefined) return undefined;
  const end = data.indexOf(0);
  return data.toString('utf8', 0, end < 0 ? data.length : end);
}

function attributesLength(attributes: readonly Attribute[]): number {
  return attributes.reduce((sum, attribute) => sum + align(attributeLength(attribute)), 0);
}

function attributeLength({ data }: Attribute): number {
  return ATTRIBUTE_HEADER_LENGTH + (isBytes(data) ? data.length : attributesLength(data));
}

function writeAttributes(buffer: Buffer, start: number, attributes: readonly Attribute[]): void {
  let offset = start;
  for (const attribute of attributes) {
    const length = attributeLength(attribute);
    buffer.writeUInt16LE(length, offset);
    if (isBytes(attribute.data)) {
      buffer.writeUInt16LE(attribute.type, offset + 2);
      buffer.set(attribute.data, offset + ATTRIBUTE_HEADER_LENGTH);
    } else {
      buffer.writeUInt16LE(attribute.type | NESTED, offset + 2);
      writeAttributes(buffer, offset + ATTRIBUTE_HEADER_LENGTH, attribute.data);
    }
    offset += align(length);
  }
}

function isBytes(data: Uint8Array | readonly Attribute[]): data is Uint8Array {
  return data instanceof Uint8Array;
}

function align(length: number): number {
  return (length + 3) & ~3;
}
