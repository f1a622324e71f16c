import * as z from 'zod';
import { GROUP, type Labels } from '../api/index.ts';
import { PARTIAL_METADATA, type KubeClient } from './client.ts';
import { NotFoundError } from './errors.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { NAMESPACES } from './paths.ts';

/** What weft reads of a Namespace. */
export interface Namespace {
  readonly name: string;
  readonly labels: Labels;
  /** weft's own only: every agent keeps all namespaces, and others' annotations may be long. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** @throws ZodError */
export function parseNamespace(object: unknown): Namespace {
  const { name, labels, annotations } = NamespaceMetadata.parse(object).metadata;
  const own = Object.entries(annotations).filter(([key]) => key.startsWith(`${GROUP}/`));
  return { name, labels, annotations: Object.fromEntries(own) };
}

/** Watches all namespaces, their metadata alone; keys are their names. */
export function watchNamespaces(parts: InformerParts): Informer<Namespace> {
  return startInformer(parts, { path: NAMESPACES, metadataOnly: true, parse: parseNamespace });
}

/** A quorum read. Undefined: there is no namespace of that name. */
export async function getNamespace(
  client: KubeClient,
  name: string,
  signal?: AbortSignal,
): Promise<Namespace | undefined> {
  try {
    const path = `${NAMESPACES}/${name}`;
    return parseNamespace(await client.request({ method: 'GET', path, accept: PARTIAL_METADATA, signal }));
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

const NamespaceMetadata = z.object({
  metadata: z.object({
    name: z.string(),
    labels: z.record(z.string(), z.string()).default({}),
    annotations: z.record(z.string(), z.string()).default({}),
  }),
});
