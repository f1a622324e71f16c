import { SUBNET_HOLD_ANNOTATION } from '../api/index.ts';
import type { Clock } from '../ipam/index.ts';

/** The leader's part in holding claims of node subnets: what its Lease says (design, section 5). */
export interface SubnetHold {
  /** etcd is back at an older state: nodes must get the time to claim again what it has forgotten. */
  begin(): void;
  /** What the Lease is to say, `found` being what it says. */
  annotations(found: Readonly<Record<string, string>>): Readonly<Record<string, string>>;
}

/**
 * The time is counted by this process's own clock, from when it began the hold or first saw that of a leader before
 * it, so that a hold outlives its leader: another one only lengthens it.
 */
export function createSubnetHold({
  clock,
  holdMs,
}: {
  readonly clock: Clock;
  readonly holdMs: number;
}): SubnetHold {
  let hold: { readonly value: string; readonly untilMs: number } | undefined;
  const start = (value: string) => {
    hold = { value, untilMs: clock.nowMs() + holdMs };
  };
  return {
    begin: () => start(`since ${clock.wallTime().toISOString()}`),
    annotations(found) {
      const { [SUBNET_HOLD_ANNOTATION]: value, ...others } = found;
      const isRunning = hold !== undefined && clock.nowMs() < hold.untilMs;
      if (!isRunning && value !== undefined && value !== hold?.value) start(value);
      if (hold === undefined || clock.nowMs() >= hold.untilMs) return others;
      return { ...others, [SUBNET_HOLD_ANNOTATION]: hold.value };
    },
  };
}
