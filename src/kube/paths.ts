import { GROUP, VERSION, type Resource } from '../api/index.ts';

/** Where the objects of one of weft's kinds live. */
export function pathOf(resource: Resource): string {
  return `/apis/${GROUP}/${VERSION}/${resource.plural}`;
}

export const NODES = '/api/v1/nodes';
export const PODS = '/api/v1/pods';
export const NAMESPACES = '/api/v1/namespaces';
