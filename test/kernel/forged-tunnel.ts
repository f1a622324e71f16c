import type { FabricNode, FabricPod, IPFamily } from './fabric.ts';
import type { Throwaway } from './throwaway.ts';

/**
 * A VXLAN device of weft's network identifier on a machine that has no part in it: what that machine sends to the pod
 * goes to the pod's node as from another node. Ended with `end`.
 */
export function forgeTunnel(
  from: Throwaway,
  {
    node,
    pod,
    underlay,
  }: { readonly node: FabricNode; readonly pod: FabricPod; readonly underlay: IPFamily },
): { end(): void } {
  const mac = /link\/ether (\S+)/.exec(node.throwaway.sh('ip link show vxlan.weft'))?.[1];
  const to = pod.addresses[4];
  from.sh(
    `ip link add forged type vxlan id 4097 dstport 4789 remote ${node.addresses[underlay]} nolearning && ` +
      'ip addr add 10.64.0.65/32 dev forged && ip link set forged up && ' +
      `ip route add ${to} dev forged src 10.64.0.65 && ` +
      `ip neigh add ${to} lladdr ${mac} dev forged nud permanent`,
  );
  return {
    end: () => {
      from.sh('ip link del forged');
    },
  };
}
