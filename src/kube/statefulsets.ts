import * as z from 'zod';
import type { StatefulSetSize } from '../ipam/index.ts';
import type { KubeClient } from './client.ts';
import { NotFoundError } from './errors.ts';

/** A quorum read of how many pods the StatefulSet has. Undefined: there is none of that name. */
export async function getStatefulSetSize(
  client: KubeClient,
  { namespace, name }: { readonly namespace: string; readonly name: string },
  signal?: AbortSignal,
): Promise<StatefulSetSize | undefined> {
  try {
    const path = `/apis/apps/v1/namespaces/${namespace}/statefulsets/${name}`;
    const { spec } = StatefulSetObject.parse(await client.request({ method: 'GET', path, signal }));
    return { start: spec.ordinals.start, replicas: spec.replicas };
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
}

const StatefulSetObject = z.object({
  spec: z.object({
    replicas: z.number().default(1),
    ordinals: z.object({ start: z.number().default(0) }).prefault({}),
  }),
});
