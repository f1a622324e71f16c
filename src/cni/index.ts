/** The CNI protocol by sections of its specification. main.ts, the executable, is not part of this contents page. */
export * from './address-call.ts';
export * from './address-configuration.ts';
export * from './args.ts';
export * from './configuration.ts';
export * from './deleted-note.ts';
export * from './environment.ts';
export * from './error.ts';
export * from './protocol.ts';
export * from './request.ts';
export * from './result.ts';
export * from './versions.ts';
