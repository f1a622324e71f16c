import type { Clock } from './clock.ts';

/** Whether claims of node subnets, and of addresses that pods are to have, are held, because etcd is back at an older state (design, section 5). */
export interface SubnetHold {
  /** Asks the apiserver. A failure throws: nobody may take that for "not held". */
  isHeld(signal: AbortSignal): Promise<boolean>;
}

export interface SubnetHoldParts {
  /** Reads what the leader's Lease says: a value that is different for each hold. Undefined: none, or no Lease. */
  readonly read: (signal: AbortSignal) => Promise<string | undefined>;
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly holdMs: number;
}

/**
 * Clocks of machines are not compared, so a hold lasts from when *we* first saw it, or as long as the Lease says it. A
 * leader that died with its hold in the Lease keeps nobody from claiming for longer than that.
 */
export function createSubnetHold({ read, clock, holdMs }: SubnetHoldParts): SubnetHold {
  let seen: { readonly value: string; readonly sinceMs: number } | undefined;
  return {
    async isHeld(signal) {
      const value = await read(signal);
      if (value === undefined) return false;
      if (seen?.value !== value) seen = { value, sinceMs: clock.nowMs() };
      return clock.nowMs() - seen.sinceMs < holdMs;
    },
  };
}
