import { addressBytes, addressFromBytes, FAMILIES, formatAddress, type IPAddress } from '../../net/index.ts';
import { bytes, decodeAttributes, readU32, u32, type IncomingMessage } from './codec.ts';
import { AF, familyOf } from './family.ts';
import { CREATE, EXCLUSIVE, REPLACE, type NetlinkRequest, type NetlinkSocket } from './socket.ts';

/** An address on a link. */
export interface LinkAddress {
  readonly linkIndex: number;
  readonly address: IPAddress;
  readonly prefixLength: number;
  readonly scope: AddressScope;
  /** Without duplicate address detection: usable at once. IPv6 only. */
  readonly nodad: boolean;
  /** Duplicate address detection still runs or has failed: not usable. IPv6 only. */
  readonly tentative: boolean;
}

/** An address to set or remove. Addresses are set with nodad, since detection makes IPv6 deaf for seconds. */
export interface AddressSpec {
  readonly linkIndex: number;
  readonly address: IPAddress;
  readonly prefixLength: number;
  readonly scope?: AddressScope;
}

export type AddressScope = 'global' | 'link' | 'host';

const NEWADDR = 20;
const DELADDR = 21;
const GETADDR = 22;

const ADDRESS = 1;
const LOCAL = 2;
const FLAGS = 8;

const IFADDR_LENGTH = 8;
const FLAG_NODAD = 0x02;
const FLAG_DADFAILED = 0x08;
const FLAG_TENTATIVE = 0x40;
const SCOPES: Readonly<Record<AddressScope, number>> = { global: 0, link: 253, host: 254 };

/** The addresses of both families, of one link or of all. */
export function listAddresses(
  socket: NetlinkSocket,
  filter: { readonly linkIndex?: number } = {},
): LinkAddress[] {
  return FAMILIES.flatMap((family) =>
    socket.dump(
      {
        type: GETADDR,
        header: addressHeader(AF[family], 0, 0, filter.linkIndex ?? 0),
        describe: () => `list ${family} addresses`,
      },
      (message) => {
        const item = parseLinkAddress(message);
        // A kernel without IPv6 answers a request for it with IPv4's.
        return item?.address.family === family ? item : undefined;
      },
    ),
  );
}

/** @throws NetlinkError EEXIST if the link has it */
export function addAddress(socket: NetlinkSocket, spec: AddressSpec): void {
  socket.execute([addAddressRequest(spec)]);
}

/** Adds the address or leaves it as it is. */
export function replaceAddress(socket: NetlinkSocket, spec: AddressSpec): void {
  socket.execute([{ ...addAddressRequest(spec), flags: CREATE | REPLACE }]);
}

/** Removes the address and returns true, or false if the link did not have it or is gone. */
export function deleteAddress(socket: NetlinkSocket, spec: AddressSpec): boolean {
  const [outcome] = socket.transact([addressRequest(DELADDR, 'delete', spec)]);
  if (outcome === undefined) return true;
  if (['EADDRNOTAVAIL', 'ENODEV'].includes(outcome.code)) return false;
  throw outcome;
}

export function addAddressRequest(spec: AddressSpec): NetlinkRequest {
  const request = addressRequest(NEWADDR, 'add', spec);
  return { ...request, flags: CREATE | EXCLUSIVE };
}

/** An address from RTM_NEWADDR or RTM_DELADDR; undefined if it is of neither family. */
export function parseLinkAddress({ payload }: IncomingMessage): LinkAddress | undefined {
  const attributes = decodeAttributes(payload, IFADDR_LENGTH);
  // On a point-to-point link IFA_ADDRESS is the other end's; IFA_LOCAL is absent for most IPv6 addresses.
  const own = attributes.get(LOCAL) ?? attributes.get(ADDRESS);
  if (own === undefined || familyOf(payload.readUInt8(0)) === undefined) return undefined;
  const flags = readU32(attributes.get(FLAGS)) ?? payload.readUInt8(2);
  return {
    linkIndex: payload.readUInt32LE(4),
    address: addressFromBytes(own),
    prefixLength: payload.readUInt8(1),
    scope: scopeOf(payload.readUInt8(3)),
    nodad: (flags & FLAG_NODAD) !== 0,
    tentative: (flags & (FLAG_TENTATIVE | FLAG_DADFAILED)) !== 0,
  };
}

function addressRequest(type: number, verb: string, spec: AddressSpec): NetlinkRequest {
  const data = addressBytes(spec.address);
  const attributes = [bytes(LOCAL, data), bytes(ADDRESS, data)];
  if (type === NEWADDR && spec.address.family === 'ipv6') attributes.push(u32(FLAGS, FLAG_NODAD));
  const scope = SCOPES[spec.scope ?? 'global'];
  return {
    type,
    header: addressHeader(AF[spec.address.family], spec.prefixLength, scope, spec.linkIndex),
    attributes,
    describe: () =>
      `${verb} address ${formatAddress(spec.address)}/${spec.prefixLength} on link ${spec.linkIndex}`,
  };
}

function scopeOf(number: number): AddressScope {
  return number >= SCOPES.host ? 'host' : number >= SCOPES.link ? 'link' : 'global';
}

/** struct ifaddrmsg. */
function addressHeader(family: number, prefixLength: number, scope: number, linkIndex: number): Buffer {
  const header = Buffer.alloc(IFADDR_LENGTH);
  header.writeUInt8(family, 0);
  header.writeUInt8(prefixLength, 1);
  header.writeUInt8(scope, 3);
  header.writeUInt32LE(linkIndex, 4);
  return header;
}
