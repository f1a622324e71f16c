import * as z from 'zod';
import { CIDRField } from '../api/fields.ts';
import type { CIDR } from '../net/index.ts';
import type { KubeClient } from './client.ts';
import { ForbiddenError, NotFoundError } from './errors.ts';
import { startInformer, type Informer, type InformerParts } from './informer.ts';
import { listAll } from './list.ts';

const PATH = '/apis/networking.k8s.io/v1/servicecidrs';

/**
 * Watches the ranges from which Services get their addresses. Undefined where the apiserver does not tell them:
 * before Kubernetes 1.33.
 */
export async function watchServiceCIDRs(
  parts: InformerParts,
  signal?: AbortSignal,
): Promise<Informer<readonly CIDR[]> | undefined> {
  try {
    await parts.client.request({ method: 'GET', path: PATH, query: { limit: 1 }, signal });
  } catch (error) {
    if (error instanceof NotFoundError) return undefined;
    throw error;
  }
  return startInformer(parts, { path: PATH, parse: (object) => ServiceCIDR.parse(object).spec.cidrs });
}

/** Lists those ranges. Undefined where the apiserver does not tell them, or not to this user. */
export async function listServiceCIDRs(
  client: KubeClient,
  signal?: AbortSignal,
): Promise<CIDR[] | undefined> {
  try {
    const { items } = await listAll(client, { path: PATH, signal });
    return items.flatMap((object) => ServiceCIDR.parse(object).spec.cidrs);
  } catch (error) {
    if (error instanceof NotFoundError || error instanceof ForbiddenError) return undefined;
    throw error;
  }
}

const ServiceCIDR = z.object({ spec: z.object({ cidrs: z.array(CIDRField) }) });
