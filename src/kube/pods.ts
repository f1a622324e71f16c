import * as z from 'zod';
import type { KubeClient } from './client.ts';
import { NotFoundError } from './errors.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { PODS } from './paths.ts';

/** What weft reads of a Pod. */
export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly nodeName: string | undefined;
  readonly annotations: Readonly<Record<string, string>>;
  readonly phase: string;
  readonly hostNetwork: boolean;
  readonly podIPs: readonly string[];
  readonly isTerminating: boolean;
  /** What made the pod, and makes it anew. */
  readonly controller?: { readonly kind: string; readonly name: string } | undefined;
}

/** @throws ZodError */
export function parsePod(object: unknown): Pod {
  const { metadata, spec, status } = PodObject.parse(object);
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    uid: metadata.uid,
    nodeName: spec.nodeName,
    annotations: metadata.annotations,
    phase: status.phase,
    hostNetwork: spec.hostNetwork,
    podIPs: status.podIPs.map(({ ip }) => ip),
    isTerminating: metadata.deletionTimestamp !== undefined,
    controller: metadata.ownerReferences.find(({ controller }) => controller),
  };
}

/**
 * Whether it is the pod that runs under that UID; any is, where the runtime names none. A static pod runs under the
 * hash of its file; its mirror in the apiserver says so in an annotation.
 */
export function isPodOf(pod: Pod, uid: string | undefined): boolean {
  if (uid === undefined || uid === pod.uid) return true;
  return MIRROR_ANNOTATIONS.some((annotation) => pod.annotations[annotation] === uid);
}

const MIRROR_ANNOTATIONS = ['kubernetes.io/config.mirror', 'kubernetes.io/config.hash'];

/** Watches the pods bound to one node; keys are `namespace/name`. */
export function watchPodsOfNode(parts: InformerParts, nodeName: string): Informer<Pod> {
  return startInformer(parts, { path: PODS, fieldSelector: `spec.nodeName=${nodeName}`, parse: parsePod });
}

/** A quorum read. Undefined: there is no pod of that name. */
export async function getPod(
  client: KubeClient,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  signal?: AbortSignal,
): Promise<Pod | undefined> {
  try {
    const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
    return parsePod(await client.request({ method: 'GET', path, signal }));
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

const PodObject = z.object({
  metadata: z.object({
    namespace: z.string(),
    name: z.string(),
    uid: z.string(),
    annotations: z.record(z.string(), z.string()).default({}),
    deletionTimestamp: z.string().optional(),
    ownerReferences: z
      .array(z.object({ kind: z.string(), name: z.string(), controller: z.boolean().default(false) }))
      .default([]),
  }),
  spec: z.object({ nodeName: z.string().optional(), hostNetwork: z.boolean().default(false) }),
  status: z
    .object({
      phase: z.string().default('Unknown'),
      podIPs: z.array(z.object({ ip: z.string() })).default([]),
    })
    .prefault({}),
});
