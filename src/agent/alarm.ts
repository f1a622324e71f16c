import { API_VERSION, IP_ALLOCATION, type IPAllocation, type PodReference } from '../api/index.ts';
import { ownerText, type SweepConflict } from '../ipam/index.ts';
import type { EventObject, EventRecorder } from '../kube/index.ts';
import { formatAddress } from '../net/index.ts';
import type { Unmet } from './sync.ts';

/** What an agent finds wrong on its node, as Events (design, section 10). Best effort: never in anyone's way. */
export interface Alarm {
  /** Someone else had changed these objects of ours in the kernel; they have been put back. */
  repaired(objects: readonly string[]): void;
  /** Where the cluster's DNS is served cannot be read. */
  dnsUnsure(message: string): void;
  /** What this node does without (sync.ts); told when it changes, and when nothing is left. */
  unmet(unmet: Unmet): void;
  /** Limits of bandwidth are not kept on this node, although they are asked for. */
  noBandwidth(message: string): void;
  /** The address of a living sandbox is another's by the book, or no pool's: an Event on both. */
  conflict(conflict: SweepConflict): void;
}

export interface AlarmSources {
  /** This node's Node. */
  readonly node: () => { readonly name: string; readonly uid: string };
  readonly podOf: (podUID: string) => PodReference | undefined;
}

/** How many objects one Event names. */
const MOST_NAMED = 10;

export function createAlarm(events: Pick<EventRecorder, 'record'>, { node, podOf }: AlarmSources): Alarm {
  const warn = (object: EventObject | undefined, reason: string, message: string) => {
    if (object !== undefined) events.record({ object, type: 'Warning', reason, message });
  };
  const nodeObject = (): EventObject => {
    const { name, uid } = node();
    return { apiVersion: 'v1', kind: 'Node', name, uid };
  };
  return {
    dnsUnsure: (message) => warn(nodeObject(), 'DNSServersUnsure', message),
    repaired(objects) {
      warn(
        nodeObject(),
        'NetworkRepaired',
        `someone else had changed the network that weft keeps on this node, and it was put back: ${list(objects)}`,
      );
    },
    unmet({ notes, refused }) {
      if (notes.length > 0) {
        warn(nodeObject(), 'NodesUnreachable', `this node does not reach all others: ${list(notes)}`);
      }
      if (refused.length > 0) {
        warn(
          nodeObject(),
          'NetworkRefused',
          `the kernel of this node refuses what single nodes or pods need, and is asked again: ${list(refused)}`,
        );
      }
    },
    noBandwidth: (message) => warn(nodeObject(), 'NoBandwidthLimits', message),
    conflict({ address, attachment, allocation }) {
      const text = formatAddress(address);
      const here = `interface ${attachment.ifName} of container ${attachment.containerID} on node ${node().name}`;
      warn(
        sandboxObject(attachment, podOf),
        'AddressConflict',
        allocation === undefined
          ? `${here} has ${text}, which is in no IPPool: delete the pod, and it gets another address`
          : `${here} has ${text}, which by the book belongs to ${ownerText(allocation)}: delete the pod, and it gets another address`,
      );
      if (allocation === undefined) return;
      warn(
        ownerObject(allocation),
        'AddressConflict',
        `${text} is on ${here}, too: delete the pod of that sandbox`,
      );
    },
  };
}

/** As many as one Event may name. */
function list(items: readonly string[]): string {
  const more = items.length - MOST_NAMED;
  return [...items.slice(0, MOST_NAMED), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}

function sandboxObject(
  { podUID }: SweepConflict['attachment'],
  podOf: AlarmSources['podOf'],
): EventObject | undefined {
  const pod = podUID === undefined ? undefined : podOf(podUID);
  return pod === undefined ? undefined : podObject(pod);
}

/** Whose pod is not known has its allocation to be told on. */
function ownerObject({ metadata, spec }: IPAllocation): EventObject {
  const pod = spec.pod === undefined ? undefined : podObject(spec.pod);
  const { name, uid } = metadata;
  return pod ?? { apiVersion: API_VERSION, kind: IP_ALLOCATION.kind, name, uid };
}

function podObject({ namespace, name, uid }: PodReference): EventObject | undefined {
  return uid === undefined ? undefined : { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}
