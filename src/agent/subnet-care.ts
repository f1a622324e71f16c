import type { ExclusiveSubnetCare } from './exclusive-subnets.ts';
import type { LostSubnets } from './lost-subnets.ts';
import type { NodeSubnets } from './node-subnets.ts';

/** The node's subnets as the loop and the recovery see to them. */
export interface SubnetCare {
  /** What was lost, and what an earlier process began, is completed before anything else, as often as that takes. */
  recover(signal: AbortSignal): Promise<void>;
  maintain(signal: AbortSignal): Promise<void>;
}

export function createSubnetCare(
  nodeSubnets: NodeSubnets,
  exclusiveSubnets: ExclusiveSubnetCare,
  lostSubnets: LostSubnets,
): SubnetCare {
  let recovered = false;
  const recover = async (signal: AbortSignal) => {
    if ((await lostSubnets.recreate(signal)).length > 0) recovered = false;
    if (!recovered) await nodeSubnets.recover(signal);
    recovered = true;
  };
  return {
    recover,
    async maintain(signal) {
      await recover(signal);
      await nodeSubnets.maintain(signal);
      await exclusiveSubnets.maintain(signal);
    },
  };
}
