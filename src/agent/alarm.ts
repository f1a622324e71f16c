import { API_VERSION, IP_ALLOCATION, type IPAllocation, type PodReference } from '../api/index.ts';
import { ownerText, type Finding, type SweepConflict } from '../ipam/index.ts';
import type { EventObject, EventRecord, EventRecorder } from '../kube/index.ts';
import { formatAddress, formatCIDR, type CIDR } from '../net/index.ts';
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
  /** The sweep has freed addresses whose sandboxes are gone, and made objects again that living ones had lost. */
  swept(swept: SweptAddresses): void;
  /** GC has taken down attachments that the runtime does not list, and freed their addresses. */
  collected(attachments: readonly string[]): void;
  /** A subnet in which pods live had lost its NodeSubnet, and has it again. */
  subnetRecovered(cidr: CIDR): void;
  /** This node has no subnet of a pool that it should have one of: no pod gets an address of it here. */
  noSubnet(pool: string, reason: string): void;
  /** Routes and filters of this node have not been what they should be for a while. */
  broken(forMs: number, reason: string): void;
  /** Filters of others drop what pods send, as `inet firewalld filter_FORWARD`, and weft leaves them alone. */
  foreignDrop(chains: readonly string[], pools: readonly CIDR[]): void;
  /**
   * The address of a living sandbox is another's by the book, or no pool's: an Event on both. Of a sandbox whose pod is not
   * known the Node has it.
   */
  conflict(conflict: SweepConflict): void;
  /** The audit of the node has found something and seen it for the grace. */
  found(finding: Finding): void;
}

/** By the names of their objects. */
export interface SweptAddresses {
  readonly released: readonly string[];
  readonly readopted: readonly string[];
}

export interface AlarmSources {
  /** This node's Node. */
  readonly node: () => { readonly name: string; readonly uid: string };
  readonly podOf: (podUID: string) => PodReference | undefined;
}

/** Of a pod that was deleted by force while its node could not be reached: its namesake by now is not to be deleted. */
const END_SANDBOX = 'end that sandbox (crictl stopp), of which no pod is known';

/** How many objects one Event names. */
const MOST_NAMED = 10;

export function createAlarm(events: Pick<EventRecorder, 'record'>, { node, podOf }: AlarmSources): Alarm {
  const record = (
    type: EventRecord['type'],
    object: EventObject | undefined,
    reason: string,
    message: string,
  ) => {
    if (object !== undefined) events.record({ object, type, reason, message });
  };
  const warn = record.bind(undefined, 'Warning');
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
    swept({ released, readopted }) {
      if (released.length > 0) {
        record(
          'Normal',
          nodeObject(),
          'AddressesReclaimed',
          `addresses were freed whose sandboxes are gone without a DEL: ${list(released)}`,
        );
      }
      if (readopted.length > 0) {
        warn(
          nodeObject(),
          'AllocationsRecovered',
          `living pods had lost their IPAllocations, which were made again: ${list(readopted)}`,
        );
      }
    },
    collected: (attachments) =>
      record(
        'Normal',
        nodeObject(),
        'AttachmentsCollected',
        `the container runtime no longer lists what addresses were held for, and they were freed: ${list(attachments)}`,
      ),
    subnetRecovered: (cidr) =>
      warn(
        nodeObject(),
        'SubnetRecovered',
        `${formatCIDR(cidr)}, in which pods of this node live, had lost its NodeSubnet, which was made again`,
      ),
    noSubnet: (pool, reason) =>
      warn(
        nodeObject(),
        'NoNodeSubnet',
        `pods get no address of IPPool ${pool} on this node, which has no subnet of it: ${reason}`,
      ),
    broken: (forMs, reason) =>
      warn(
        nodeObject(),
        'NetworkBroken',
        `routes and filters of this node have not been right for ${Math.round(forMs / 1000)} s: ${reason}`,
      ),
    foreignDrop: (chains, pools) => warn(nodeObject(), 'ForeignFirewall', foreignDropText(chains, pools)),
    found({ object, reason, message }) {
      const { kind, name, uid } = object;
      // An object that is not there cannot have an Event.
      const there = kind === IP_ALLOCATION.kind && uid !== undefined;
      warn(there ? { apiVersion: API_VERSION, kind, name, uid } : nodeObject(), reason, message);
    },
    noBandwidth: (message) => warn(nodeObject(), 'NoBandwidthLimits', message),
    conflict({ address, attachment, allocation }) {
      const text = formatAddress(address);
      const here = `interface ${attachment.ifName} of container ${attachment.containerID} on node ${node().name}`;
      const pod = sandboxObject(attachment, podOf);
      const whose =
        allocation === undefined ? 'is in no IPPool' : `by the book belongs to ${ownerText(allocation)}`;
      const wayOut = pod === undefined ? END_SANDBOX : 'delete the pod, and it gets another address';
      warn(pod ?? nodeObject(), 'AddressConflict', `${here} has ${text}, which ${whose}: ${wayOut}`);
      if (allocation === undefined) return;
      warn(
        ownerObject(allocation),
        'AddressConflict',
        `${text} is on ${here}, too: ${pod === undefined ? END_SANDBOX : 'delete the pod of that sandbox'}`,
      );
    },
  };
}

/** What a person runs who wants the firewall to stay. */
function foreignDropText(chains: readonly string[], pools: readonly CIDR[]): string {
  const said = `${list(chains)} may drop what pods send, and weft does not change it`;
  if (!chains.some((chain) => chain.includes('firewalld'))) {
    return `${said}: let the links weft* and vxlan.weft through it`;
  }
  const sources = pools.map((cidr) => `--add-source=${formatCIDR(cidr)}`);
  const trusted = ['firewall-cmd', '--permanent', '--zone=trusted', '--add-interface=vxlan.weft', ...sources];
  return `${said}. Run: ${trusted.join(' ')} && firewall-cmd --permanent --add-port=4789/udp && firewall-cmd --reload`;
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
