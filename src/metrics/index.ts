/** What Prometheus is told: the registry over its library, what agent and controller share, and the server. */
export * from './registry.ts';
export * from './address.ts';
export * from './process.ts';
export * from './apiserver.ts';
export * from './serve.ts';
