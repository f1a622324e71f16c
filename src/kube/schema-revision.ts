import * as z from 'zod';
import {
  GROUP,
  IP_ALLOCATION,
  IP_POOL,
  NODE_SUBNET,
  SCHEMA_REVISION,
  SCHEMA_REVISION_ANNOTATION,
} from '../api/index.ts';
import { PARTIAL_METADATA, type KubeClient } from './client.ts';
import { NotFoundError } from './errors.ts';

/** The CRDs in the cluster cannot hold what this version of weft writes. */
export class SchemaRevisionError extends Error {
  override name = 'SchemaRevisionError' as const;
  readonly definition: string;

  constructor(definition: string, found: string) {
    super(
      `the CustomResourceDefinition ${definition} ${found}, and this version of weft needs schema revision ` +
        `${SCHEMA_REVISION}: apply the crds/ of this version before its agents and controller`,
    );
    this.definition = definition;
  }
}

/**
 * Looks at the CRDs' annotations: fields that an older CRD does not know would be lost silently.
 * @throws SchemaRevisionError if one is missing or older than needed; newer ones are fine, fields are only added
 */
export async function requireSchemaRevision(client: KubeClient, signal?: AbortSignal): Promise<void> {
  for (const { plural } of [IP_POOL, NODE_SUBNET, IP_ALLOCATION]) {
    const name = `${plural}.${GROUP}`;
    const found = await revisionOf(client, name, signal);
    if (found === undefined || found < SCHEMA_REVISION) {
      throw new SchemaRevisionError(
        name,
        found === undefined ? 'carries no revision' : `has revision ${found}`,
      );
    }
  }
}

const Metadata = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).default({}) }),
});

async function revisionOf(
  client: KubeClient,
  name: string,
  signal?: AbortSignal,
): Promise<number | undefined> {
  let answer: unknown;
  try {
    answer = await client.request({
      method: 'GET',
      path: `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`,
      accept: PARTIAL_METADATA,
      signal,
    });
  } catch (error) {
    if (error instanceof NotFoundError) throw new SchemaRevisionError(name, 'is missing');
    throw error;
  }
  const text = Metadata.parse(answer).metadata.annotations[SCHEMA_REVISION_ANNOTATION] ?? '';
  return /^[0-9]+$/.test(text) ? Number(text) : undefined;
}
