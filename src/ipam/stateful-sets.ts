/** A pod of a StatefulSet, by its name. */
export interface StatefulPod {
  readonly namespace: string;
  /** The StatefulSet's. */
  readonly name: string;
  readonly ordinal: number;
}

/** How many pods a StatefulSet has at present: those with the ordinals from `start` on. */
export interface StatefulSetSize {
  readonly start: number;
  readonly replicas: number;
}

/** Reads `namespace/name-ordinal`; undefined for what no StatefulSet calls a pod. */
export function statefulSetOf(pod: string): StatefulPod | undefined {
  const [, namespace, name, ordinal] = /^([^/]+)\/(.+)-(0|[1-9][0-9]{0,9})$/.exec(pod) ?? [];
  if (namespace === undefined || name === undefined || ordinal === undefined) return undefined;
  return { namespace, name, ordinal: Number(ordinal) };
}

/** Whether the StatefulSet, as it is, has that pod, or will have it again. Undefined: there is none. */
export function hasOrdinal(set: StatefulSetSize | undefined, ordinal: number): boolean {
  return set !== undefined && ordinal >= set.start && ordinal < set.start + set.replicas;
}
