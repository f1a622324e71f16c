/** The apiserver: the only folder that knows it. One client, informers, a Lease, Events, and one store per kind. */
export * from './connection.ts';
export * from './client.ts';
export * from './errors.ts';
export * from './list.ts';
export * from './informer.ts';
export * from './ippools.ts';
export * from './nodesubnets.ts';
export * from './ipallocations.ts';
export * from './nodes.ts';
export * from './pods.ts';
export * from './service-cidrs.ts';
export * from './lease.ts';
export * from './events.ts';
export * from './repeatedly.ts';
export * from './schema-revision.ts';
export * from './writes.ts';
export * from './paths.ts';
