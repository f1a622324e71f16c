import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from './ipam/clock.ts';

/** Time as this machine has it. Made in main files alone; everything else is given a Clock. */
export function createSystemClock(): Clock {
  return {
    nowMs: () => performance.now(),
    wallTime: () => new Date(),
    async sleep(ms, signal) {
      try {
        await sleep(ms, undefined, signal === undefined ? {} : { signal });
      } catch (error) {
        // Node wraps the reason; who waits wants the reason itself.
        signal?.throwIfAborted();
        throw error;
      }
    },
  };
}
