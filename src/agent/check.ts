import { CheckFailedError, type CheckRequest } from '../cni/index.ts';
import { hostPortsOf, hostPortText, type HostPort } from '../dataplane/index.ts';
import {
  FIXED_MTU_LINK_GROUP,
  HOST_LINK_MAC,
  hostLinkName,
  inspectPodLink,
  openNamespaceSocket,
  POD_GATEWAYS,
  podLinkRepairs,
  podRulesOf,
  type AttachmentAlias,
  type Link,
  type NamespaceSocket,
  type PodEnd,
} from '../kernel/index.ts';
import { cidrSize, FAMILIES, formatAddress, sameAddress, type IPAddress } from '../net/index.ts';
import { allocationsOf, findHostEnd } from './attachments.ts';
import type { AgentParts } from './parts.ts';

/**
 * CHECK: whether what ADD answered, the allocation objects and the kernel still agree about the attachment.
 * @throws CheckFailedError that names the first difference
 */
export function createCheck(
  parts: AgentParts,
): (request: CheckRequest, signal: AbortSignal) => Promise<void> {
  return (request, signal) =>
    parts.locks.run(
      request.attachment,
      async () => {
        check(parts, request);
        if (!(await parts.dataPath.filtersHold())) {
          throw new CheckFailedError(
            'the filters of this node are not as weft has set them: somebody has changed table inet weft, and the agent is putting it back',
          );
        }
      },
      { signal },
    );
}

function check(parts: AgentParts, request: CheckRequest): void {
  const { attachment } = request;
  const pod = openNamespaceSocket(parts.ownNamespace, request.netns);
  try {
    const alias = findHostEnd(parts, attachment)?.alias;
    const where = `interface ${attachment.ifName} of container ${attachment.containerID}`;
    if (alias === undefined) throw new CheckFailedError(`${where}: weft has no such attachment on this node`);
    const addresses = FAMILIES.flatMap((family) => alias.addresses[family] ?? []);
    comparePreviousResult(
      where,
      request.previous.ips.map(({ address }) => address),
      addresses,
    );
    compareAllocations(parts, request, where, addresses);
    compareKernel(parts, pod, request, where, addresses);
    compareHostPorts(parts, request, where, alias);
  } finally {
    pod.close();
  }
}

/** @throws CheckFailedError if the result has other addresses than weft gave */
export function comparePreviousResult(
  where: string,
  previous: readonly IPAddress[],
  addresses: readonly IPAddress[],
): void {
  const same =
    previous.length === addresses.length &&
    previous.every((address) => addresses.some((other) => sameAddress(address, other)));
  if (!same) {
    throw new CheckFailedError(
      `${where}: prevResult says ${list(previous)}, weft gave it ${list(addresses)}`,
    );
  }
}

function compareAllocations(
  parts: AgentParts,
  { attachment }: CheckRequest,
  where: string,
  addresses: readonly IPAddress[],
): void {
  const held = allocationsOf(parts.allocations, attachment).map(({ spec }) => spec.address);
  for (const address of addresses) {
    if (!held.some((other) => sameAddress(other, address))) {
      throw new CheckFailedError(`${where}: no IPAllocation gives it ${formatAddress(address)}`);
    }
  }
  const more = held.find((other) => !addresses.some((address) => sameAddress(address, other)));
  if (more !== undefined) {
    throw new CheckFailedError(
      `${where}: an IPAllocation gives it ${formatAddress(more)}, which it does not have`,
    );
  }
}

function compareKernel(
  parts: AgentParts,
  pod: NamespaceSocket,
  { attachment }: CheckRequest,
  where: string,
  addresses: readonly IPAddress[],
): void {
  const standing = inspectPodLink(parts.host, pod, hostLinkName(attachment.containerID, attachment.ifName));
  if (standing === undefined) throw new CheckFailedError(`${where}: it is not in the sandbox's namespace`);
  const { podLink, hostLink } = standing;
  if (podLink.name !== attachment.ifName) {
    throw new CheckFailedError(`${where}: it is called ${podLink.name} by now`);
  }
  if (!podLink.up || !hostLink.up) throw new CheckFailedError(`${where}: it is down`);
  for (const address of addresses) compareAddress(standing, where, address);
  compareHostEnd(parts, hostLink, where, addresses);
}

/** What leads to the sandbox, which the agent puts back by itself. */
function compareHostEnd(
  { host, dataPath }: AgentParts,
  hostLink: Link,
  where: string,
  addresses: readonly IPAddress[],
): void {
  const [lacking] = podLinkRepairs(host, dataPath.hostSources(), hostLink.name);
  if (lacking !== undefined) {
    throw new CheckFailedError(`${where}: its node must ${lacking.describe()}, and the agent is about to`);
  }
  const mtu = dataPath.podMTU(addresses);
  if (hostLink.group !== FIXED_MTU_LINK_GROUP && hostLink.mtu !== mtu) {
    throw new CheckFailedError(`${where}: its MTU is ${hostLink.mtu} on the node, and should be ${mtu}`);
  }
}

function compareAddress({ addresses, routes, neighbours }: PodEnd, where: string, address: IPAddress): void {
  if (!addresses.some((found) => sameAddress(found.address, address))) {
    throw new CheckFailedError(`${where}: it lacks its address ${formatAddress(address)}`);
  }
  const gateway = POD_GATEWAYS[address.family];
  const leadsOut = routes.some(
    ({ dst, via }) => via !== undefined && sameAddress(via, gateway) && cidrSize(dst) > 1n,
  );
  if (!leadsOut) {
    throw new CheckFailedError(`${where}: it has no ${address.family} route via ${formatAddress(gateway)}`);
  }
  const known = neighbours.find((neighbour) => sameAddress(neighbour.address, gateway));
  if (known?.permanent !== true || known.mac !== HOST_LINK_MAC) {
    throw new CheckFailedError(
      `${where}: it does not know ${formatAddress(gateway)} as ${HOST_LINK_MAC} for good`,
    );
  }
}

/** The rules themselves follow from the record (filtersHold). */
function compareHostPorts(
  parts: AgentParts,
  { attachment, configuration }: CheckRequest,
  where: string,
  { addresses }: AttachmentAlias,
): void {
  const link = findHostEnd(parts, attachment)?.link;
  const recorded = link === undefined ? [] : podRulesOf(link).hostPorts.map(hostPortKey);
  const missing = hostPortsOf(configuration.portMappings, addresses).find(
    (port) => !recorded.includes(hostPortKey(port)),
  );
  if (missing !== undefined) {
    throw new CheckFailedError(`${where}: host port ${hostPortText(missing)} does not lead to it`);
  }
}

function hostPortKey(port: HostPort): string {
  return `${hostPortText(port)} ${formatAddress(port.podAddress)} ${port.podPort}`;
}

function list(addresses: readonly IPAddress[]): string {
  return addresses.length === 0 ? 'no address' : addresses.map(formatAddress).join(', ');
}
