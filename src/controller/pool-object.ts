import { API_VERSION, IP_POOL, type IPPool } from '../api/index.ts';
import type { EventObject } from '../kube/index.ts';

/** The pool, as Events name what they are about. */
export function poolObject({ metadata: { name, uid } }: IPPool): EventObject {
  return { apiVersion: API_VERSION, kind: IP_POOL.kind, name, uid };
}
