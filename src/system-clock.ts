import type { Clock } from './ipam/clock.ts';

/** Time as this machine has it. Made in main files alone; everything else is given a Clock. */
export function createSystemClock(): Clock {
  return {
    nowMs: () => performance.now(),
    wallTime: () => new Date(),
    // Not that of node:timers/promises: it makes an error with a stack for each sleep that is cut short, and
    // every claim cuts its deadline short.
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted === true) {
          reject(signal.reason as Error);
          return;
        }
        const onAbort = () => {
          clearTimeout(timer);
          reject(signal?.reason as Error);
        };
        const timer = setTimeout(() => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        }, ms);
        signal?.addEventListener('abort', onAbort, { once: true });
      }),
  };
}
