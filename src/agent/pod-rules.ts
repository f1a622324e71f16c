import type { PodReference } from '../api/index.ts';
import {
  hostPortsOf,
  hostPortText,
  portsClash,
  UnservedHostPortError,
  type HostPort,
  type PortMapping,
} from '../dataplane/index.ts';
import {
  findPodLinks,
  podRulesOf,
  recordPodRules,
  TooManyPodRulesError,
  type FoundPodLink,
  type PodLink,
} from '../kernel/index.ts';
import type { CIDR, Family, IPAddress } from '../net/index.ts';
import type { AgentParts } from './parts.ts';

/** A port of the node that the pod is to have leads to another pod. */
export class HostPortTakenError extends Error {
  override name = 'HostPortTakenError' as const;
  readonly hostPort: HostPort;

  constructor(hostPort: HostPort, owner: string) {
    super(
      `host port ${hostPortText(hostPort)} of this node leads to ${owner}: the pod gets it when that one is gone. ` +
        'Give one of them another hostPort, or another node',
    );
    this.hostPort = hostPort;
  }
}

export type PodRulesParts = Pick<AgentParts, 'host' | 'dataPath' | 'findOwnPod' | 'announce' | 'log'>;

/** For whom rules are set, and by what. */
export interface PodRulesRequest {
  readonly pod: PodReference | undefined;
  readonly addresses: Readonly<Partial<Record<Family, IPAddress>>>;
  readonly portMappings: readonly PortMapping[];
  readonly allowedSources: readonly CIDR[];
}

/**
 * Brings the rules that the attachment has of its own into force, recorded on its host end, which is down yet. Of two
 * sandboxes with one host port the newer gets it where the older is the same pod's, or its pod has ended: the scheduler
 * counts those no more. What the pod's people can mend is an Event on it, too.
 * @throws HostPortTakenError, UnservedHostPortError, TooManyPodRulesError, CommandError, NetlinkError
 */
export async function setPodRules(
  parts: PodRulesParts,
  { hostIndex }: PodLink,
  { pod, addresses, portMappings, allowedSources }: PodRulesRequest,
): Promise<void> {
  if (portMappings.length === 0 && allowedSources.length === 0) return;
  let hostPorts: readonly HostPort[];
  try {
    hostPorts = hostPortsOf(portMappings, addresses);
    // In one go with the record, so that two ADDs cannot both find the port free.
    refuseTaken(parts, hostIndex, pod, hostPorts);
    recordPodRules(parts.host, hostIndex, { hostPorts, allowedSources });
  } catch (error) {
    if (isForPeople(error)) parts.announce.refused(pod, error);
    throw error;
  }
  await parts.dataPath.podRulesChanged();
  await parts.dataPath.forgetFlows(hostPorts).catch((error: unknown) => {
    parts.log.warn(
      { err: error, hostPorts: hostPorts.map(hostPortText) },
      'older UDP flows to host ports may stay',
    );
  });
}

function isForPeople(error: unknown): error is Error {
  return (
    error instanceof HostPortTakenError ||
    error instanceof UnservedHostPortError ||
    error instanceof TooManyPodRulesError
  );
}

function refuseTaken(
  parts: PodRulesParts,
  hostIndex: number,
  pod: PodReference | undefined,
  wanted: readonly HostPort[],
): void {
  for (const found of findPodLinks(parts.host)) {
    if (found.link.index === hostIndex) continue;
    const taken = podRulesOf(found.link).hostPorts.find((port) =>
      wanted.some((other) => portsClash(port, other)),
    );
    const owner = taken === undefined ? undefined : livingOwner(parts, found, pod);
    if (taken !== undefined && owner !== undefined) throw new HostPortTakenError(taken, owner);
  }
}

/** Who has the ports of that link, for messages; undefined: nobody who must keep them. */
function livingOwner(
  { findOwnPod }: PodRulesParts,
  { attachment }: FoundPodLink,
  pod: PodReference | undefined,
): string | undefined {
  if (attachment === undefined) return 'another pod, which is just being wired';
  const { podUID, containerID } = attachment;
  if (podUID === undefined) return `container ${containerID}`;
  if (podUID === pod?.uid) return undefined;
  const owner = findOwnPod(podUID);
  if (owner === undefined || owner.phase === 'Succeeded' || owner.phase === 'Failed') return undefined;
  return `pod ${owner.namespace}/${owner.name}`;
}
