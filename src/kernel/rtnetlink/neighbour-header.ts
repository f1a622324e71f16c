export const NEIGHBOUR_HEADER_LENGTH = 12;
export const STATE_NOARP = 0x40;
export const STATE_PERMANENT = 0x80;

/** struct ndmsg, shared by neighbours and FDB entries. */
export function neighbourHeader(fields: {
  readonly family: number;
  readonly linkIndex?: number;
  readonly state?: number;
  readonly flags?: number;
}): Buffer {
  const header = Buffer.alloc(NEIGHBOUR_HEADER_LENGTH);
  header.writeUInt8(fields.family, 0);
  header.writeInt32LE(fields.linkIndex ?? 0, 4);
  header.writeUInt16LE(fields.state ?? 0, 8);
  header.writeUInt8(fields.flags ?? 0, 10);
  return header;
}
