import {
  HOST_PORT_PROTOCOLS,
  type AttachmentRules,
  type HostPort,
  type HostPortProtocol,
  type PodRules,
} from '../dataplane/index.ts';
import {
  formatAddress,
  formatCIDR,
  parseCIDR,
  tryParseAddress,
  type CIDR,
  type IPAddress,
} from '../net/index.ts';
import { findPodLinks } from './pod-link.ts';
import { addAltNamesRequest, type Link } from './rtnetlink/links.ts';
import type { NetlinkSocket } from './rtnetlink/socket.ts';

/** More would not fit into one message about the link. */
export const MAX_POD_RULES = 128;

/** The attachment asks for more than can be recorded. */
export class TooManyPodRulesError extends Error {
  override name = 'TooManyPodRulesError' as const;

  constructor(wanted: number) {
    super(
      `the pod's host ports, counted in each family, and its allowed sources are ${wanted}, and at most ${MAX_POD_RULES} ` +
        'are kept for one pod: use hostNetwork, or wider CIDRs',
    );
  }
}

/**
 * Records the rules on the attachment's host end, as further names of the link: there they are for as long as it is, and
 * an agent that restarts finds them. The alias has no room for them. The link's index makes each name its own.
 *
 *     wport_INDEX_PROTOCOL_HOSTPORT_HOSTADDRESS|any_PODADDRESS_PODPORT
 *     wsource_INDEX_ADDRESS_LENGTH
 *
 * with `-` for the colons of IPv6, which no name may hold.
 * @throws TooManyPodRulesError, NetlinkError
 */
export function recordPodRules(
  host: NetlinkSocket,
  linkIndex: number,
  { hostPorts, allowedSources }: PodRules,
): void {
  const names = [
    ...hostPorts.map((port) => portName(linkIndex, port)),
    ...allowedSources.map((cidr) => `${SOURCE}_${linkIndex}_${spelled(formatCIDR(cidr)).replace('/', '_')}`),
  ];
  if (names.length > MAX_POD_RULES) throw new TooManyPodRulesError(names.length);
  if (names.length > 0) host.execute([addAltNamesRequest(linkIndex, names)]);
}

/** The rules that are recorded on the host ends, the oldest first; those of half-made ones, too: their ADD is under way. */
export function readPodRules(host: NetlinkSocket): AttachmentRules[] {
  return findPodLinks(host)
    .map(({ link }) => link)
    .filter(hasPodRules)
    .sort((a, b) => a.index - b.index)
    .map((link) => ({ linkName: link.name, ...podRulesOf(link) }));
}

/** What is recorded on the link. */
export function podRulesOf({ altNames }: Link): PodRules {
  return {
    hostPorts: altNames.flatMap((name) => parsePort(name) ?? []),
    allowedSources: altNames.flatMap((name) => parseSource(name) ?? []),
  };
}

export function hasPodRules({ altNames }: Link): boolean {
  return altNames.some((name) => name.startsWith(`${PORT}_`) || name.startsWith(`${SOURCE}_`));
}

const PORT = 'wport';
const SOURCE = 'wsource';
const ANY = 'any';

function portName(
  linkIndex: number,
  { protocol, hostPort, hostAddress, podAddress, podPort }: HostPort,
): string {
  const of = hostAddress === undefined ? ANY : spelled(formatAddress(hostAddress));
  return [PORT, linkIndex, protocol, hostPort, of, spelled(formatAddress(podAddress)), podPort].join('_');
}

/** Anybody with the right may name a link: what is not of our form says nothing. */
function parsePort(name: string): HostPort | undefined {
  const [kind, , protocol, hostPort, of, pod, podPort, more] = name.split('_');
  const hostAddress = of === ANY ? undefined : addressIn(of);
  const podAddress = addressIn(pod);
  const ports = [portNumber(hostPort), portNumber(podPort)];
  const [from, to] = ports;
  if (kind !== PORT || more !== undefined || !isProtocol(protocol) || podAddress === undefined)
    return undefined;
  if (from === undefined || to === undefined || (of !== ANY && hostAddress?.family !== podAddress.family)) {
    return undefined;
  }
  return { protocol, hostPort: from, hostAddress, podAddress, podPort: to };
}

function parseSource(name: string): CIDR | undefined {
  const [kind, , network, length, more] = name.split('_');
  if (kind !== SOURCE || network === undefined || length === undefined || more !== undefined)
    return undefined;
  try {
    return parseCIDR(`${network.replaceAll('-', ':')}/${length}`);
  } catch {
    return undefined;
  }
}

function spelled(text: string): string {
  return text.replaceAll(':', '-');
}

function addressIn(text: string | undefined): IPAddress | undefined {
  return text === undefined ? undefined : tryParseAddress(text.replaceAll('-', ':'));
}

function portNumber(text: string | undefined): number | undefined {
  const number = /^[1-9][0-9]{0,4}$/.test(text ?? '') ? Number(text) : 0;
  return number >= 1 && number <= 65_535 ? number : undefined;
}

function isProtocol(text: string | undefined): text is HostPortProtocol {
  return HOST_PORT_PROTOCOLS.some((known) => known === text);
}
