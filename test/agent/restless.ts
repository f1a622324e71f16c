import type { WiredAddressesParts } from '../../src/agent/wired-addresses.ts';

/** For tests in which addresses come free at once. */
export const RESTLESS: WiredAddressesParts = { restMs: () => 0, nowMs: () => 0 };
