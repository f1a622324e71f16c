/** The API group of weft's kinds, and the words that stand in objects. Frozen: stored objects carry them. */
export const GROUP = 'ipam.weft.dev';
export const VERSION = 'v1alpha1';
export const API_VERSION = `${GROUP}/${VERSION}`;

/** Holds a deleted IPPool until no NodeSubnet of it is left. */
export const POOL_FINALIZER = `${GROUP}/node-subnets`;

/**
 * Annotation on the controller's Lease: claims of node subnets are held, because etcd is back at an older state. The
 * value is different for each time.
 */
export const SUBNET_HOLD_ANNOTATION = `${GROUP}/subnet-claims-held`;

/** Annotation on each CRD: the revision of the schema. Processes refuse to start under an older one. */
export const SCHEMA_REVISION_ANNOTATION = `${GROUP}/schema-revision`;
export const SCHEMA_REVISION = 5;

/** What the apiserver needs to know to address a kind. All kinds are cluster-scoped. */
export interface Resource {
  readonly kind: string;
  readonly plural: string;
  readonly singular: string;
}
