import { FAMILIES, formatAddress, tryParseAddress, type Family, type IPAddress } from '../net/index.ts';

/** What the alias of a host end says: the kernel's own record of an attachment (design, section 6). */
export interface AttachmentAlias {
  /** Name of the conflist. */
  readonly network: string;
  readonly containerID: string;
  readonly ifName: string;
  /** At most one of each family. */
  readonly addresses: Readonly<Partial<Record<Family, IPAddress>>>;
  readonly podUID: string | undefined;
}

const VERSION = 'w1';
const NONE = '-';

/** `w1 <network> <containerID> <ifName> <v4|-> <v6|-> <podUID|->` */
export function formatAlias(attachment: AttachmentAlias): string {
  const addresses = FAMILIES.map((family) => {
    const address = attachment.addresses[family];
    return address === undefined ? NONE : formatAddress(address);
  });
  const { network, containerID, ifName, podUID } = attachment;
  const fields = [VERSION, network, containerID, ifName, ...addresses, podUID ?? NONE];
  const broken = fields.find((field) => !/^[^\s\0]+$/.test(field));
  if (broken !== undefined) {
    throw new Error(`"${broken}" cannot be a field of a link alias: it is empty or holds a space`);
  }
  return fields.join(' ');
}

/** undefined for what is not a complete alias of weft: such a link is no attachment. */
export function parseAlias(alias: string | undefined): AttachmentAlias | undefined {
  const fields = alias?.split(' ') ?? [];
  const [version, network, containerID, ifName, ipv4, ipv6, podUID] = fields;
  if (fields.length !== 7 || fields.includes('') || version !== VERSION) return undefined;
  if (network === undefined || containerID === undefined || ifName === undefined) return undefined;
  const addresses: Partial<Record<Family, IPAddress>> = {};
  for (const [family, text] of [['ipv4', ipv4] as const, ['ipv6', ipv6] as const]) {
    if (text === undefined || text === NONE) continue;
    const address = tryParseAddress(text);
    if (address?.family !== family) return undefined;
    addresses[family] = address;
  }
  return { network, containerID, ifName, addresses, podUID: podUID === NONE ? undefined : podUID };
}
