/** A small rtnetlink client: each function takes a socket and works in the namespace that it was opened in. */
export * from './addresses.ts';
export * from './errors.ts';
export * from './fdb.ts';
export * from './links.ts';
export * from './neighbours.ts';
export * from './notifications.ts';
export * from './routes.ts';
export { NetlinkSocket, openNetlinkSocket, type NetlinkRequest } from './socket.ts';
export * from './namespace-ids.ts';
