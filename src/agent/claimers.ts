import type { PodReference } from '../api/index.ts';
import {
  parseAddresses,
  parseAllowedSources,
  parsePoolNames,
  parseSticky,
  statefulSetOf,
  STICKY_ANNOTATION,
  InvalidAnnotationError,
  type AddressMarks,
  type AddressWishes,
  type Claimer,
} from '../ipam/index.ts';
import { isPodOf, type Namespace, type Pod } from '../kube/index.ts';
import { sameAddress, type IPAddress } from '../net/index.ts';

/** Where namespaces and pods are read: the caches, and the apiserver itself for what they do not show. */
export interface ClaimerSources {
  readonly node: () => Claimer['node'];
  readonly namespace: (name: string) => Namespace | undefined;
  readonly getNamespace: (name: string, signal: AbortSignal) => Promise<Namespace | undefined>;
  readonly pod: (key: string) => Pod | undefined;
  readonly getPod: (
    pod: Pick<PodReference, 'namespace' | 'name'>,
    signal: AbortSignal,
  ) => Promise<Pod | undefined>;
}

/** Finds out who asks: the labels and annotations that decide about pools and addresses. */
export type FindClaimer = (
  pod: PodReference | undefined,
  /** Whether annotations are obeyed: on weft's own network, not where the configuration names the pool. */
  annotations: 'obeyed' | 'ignored',
  signal: AbortSignal,
) => Promise<Claimer>;

/** The apiserver knows no such pod or namespace: not yet, or not any more. */
export class ClaimerUnknownError extends Error {
  override name = 'ClaimerUnknownError' as const;

  constructor(what: string) {
    super(
      `the apiserver knows no ${what}: without its labels and annotations nobody can say from which IPPool it may draw. ` +
        'If it is there, look whether the runtime and this node speak to the same cluster',
    );
  }
}

/**
 * What a cache does not show is read from the apiserver: a lagging watch is never "no labels", which would let a
 * pod draw from pools that are not for it.
 * @throws of what it answers: ClaimerUnknownError, InvalidAnnotationError
 */
export function createFindClaimer(sources: ClaimerSources): FindClaimer {
  return async (pod, annotations, signal) => {
    const node = sources.node();
    if (pod === undefined) return { node };
    const namespace = sources.namespace(pod.namespace) ?? (await sources.getNamespace(pod.namespace, signal));
    if (namespace === undefined) throw new ClaimerUnknownError(`namespace ${pod.namespace}`);
    const { name, labels } = namespace;
    if (annotations === 'ignored') return { node, namespace: { name, labels } };
    const its = await podOf(sources, pod, signal);
    return {
      node,
      namespace: { name, labels, pools: parsePoolNames(namespace.annotations, `Namespace ${name}`) },
      podPools: parsePoolNames(its.annotations, `Pod ${its.namespace}/${its.name}`),
      ...wishesOf(its),
    };
  };
}

/** What the object of a living pod's address is marked with, where it was lost and is made again. */
export function marksOf(pod: Pod, address: IPAddress): AddressMarks {
  try {
    const { wishes } = wishesOf(pod);
    if (wishes?.sticky !== undefined) return { sticky: wishes.sticky };
    const named = wishes?.addresses?.[address.family];
    return named !== undefined && sameAddress(named, address) ? { fixed: true } : {};
  } catch (error) {
    // It has been changed since the pod got its address: then it wishes for nothing.
    if (error instanceof InvalidAnnotationError) return {};
    throw error;
  }
}

/** Only a StatefulSet makes the same pod again: for any other the address would be kept for nobody. */
function wishesOf(pod: Pod): { readonly wishes?: AddressWishes } {
  const { namespace, name, annotations, controller } = pod;
  const place = `Pod ${namespace}/${name}`;
  const addresses = parseAddresses(annotations, place);
  const allowedSources = parseAllowedSources(annotations, place);
  if (!parseSticky(annotations, place)) {
    const wishes = { addresses, allowedSources };
    return addresses === undefined && allowedSources === undefined ? {} : { wishes };
  }
  const key = `${namespace}/${name}`;
  const isOrdinal = controller?.kind === 'StatefulSet' && statefulSetOf(key)?.name === controller.name;
  return isOrdinal
    ? { wishes: { addresses, allowedSources, sticky: key } }
    : {
        wishes: {
          addresses,
          allowedSources,
          notSticky: `the annotation ${STICKY_ANNOTATION} means something on the pods of a StatefulSet only`,
        },
      };
}

async function podOf(sources: ClaimerSources, pod: PodReference, signal: AbortSignal): Promise<Pod> {
  const key = `${pod.namespace}/${pod.name}`;
  const cached = sources.pod(key);
  if (cached !== undefined && isPodOf(cached, pod.uid)) return cached;
  const found = await sources.getPod(pod, signal);
  if (found !== undefined && isPodOf(found, pod.uid)) return found;
  throw new ClaimerUnknownError(`pod ${key}${pod.uid === undefined ? '' : ` with the UID ${pod.uid}`}`);
}
