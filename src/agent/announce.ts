import type { IPPool, PodReference } from '../api/index.ts';
import type { EventObject, EventRecorder } from '../kube/index.ts';

/** What the agent tells people, as Events on the pods that it is about. Best effort: never in anyone's way. */
export interface Announce {
  /** The pod gets no address, for a reason that its people, or the pool's, can mend. */
  refused(pod: PodReference | undefined, error: Error): void;
  /** The pod has an address of that pool, since the one before it had none. */
  overflowed(pod: PodReference | undefined, pool: IPPool, full: Error): void;
  /** Something that the pod wishes about its address is not granted, and it runs all the same. */
  notGranted(pod: PodReference | undefined, message: string): void;
}

/** Words for the errors that a person may see on a pod; the message is the error's own. */
const REASONS: Readonly<Record<string, string>> = {
  NoPoolError: 'NoIPPool',
  InvalidAnnotationError: 'InvalidIPAnnotation',
  FixedAddressError: 'IPAddressRefused',
  AddressTakenError: 'IPAddressTaken',
  SourcesRefusedError: 'SourcesRefused',
  HostPortTakenError: 'HostPortTaken',
  UnservedHostPortError: 'HostPortRefused',
  TooManyPodRulesError: 'HostPortRefused',
  AddressHeldError: 'IPAddressHeld',
  PoolExhaustedError: 'IPPoolExhausted',
  IsolatedPoolFullError: 'IPPoolExhausted',
  SubnetUnavailableError: 'IPPoolExhausted',
};

/** `uidOf`: the UID under which the apiserver knows the pod, where the runtime does not say it. */
export function createAnnounce(
  events: Pick<EventRecorder, 'record'>,
  uidOf: (pod: PodReference) => string | undefined,
): Announce {
  const warn = (pod: PodReference | undefined, reason: string, message: string) => {
    // Callers without Kubernetes have the error alone.
    if (pod === undefined) return;
    const uid = uidOf(pod) ?? pod.uid;
    if (uid === undefined) return;
    events.record({ object: podObject(pod, uid), type: 'Warning', reason, message });
  };
  return {
    refused: (pod, error) => warn(pod, REASONS[error.name] ?? error.name, error.message),
    overflowed: (pod, { metadata }, full) =>
      warn(pod, 'IPPoolOverflow', `the pod has an address of IPPool ${metadata.name}: ${full.message}`),
    notGranted: (pod, message) => warn(pod, 'IPAddressNotKept', message),
  };
}

function podObject({ namespace, name }: PodReference, uid: string): EventObject {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}
