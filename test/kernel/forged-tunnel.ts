import { expect } from 'vitest';
import { countArrivals } from './arrivals.ts';
import {
  pings,
  until,
  type Fabric,
  type FabricNode,
  type FabricPod,
  type IPFamily,
  type SyncProcess,
} from './fabric.ts';
import type { Throwaway } from './throwaway.ts';

/** That nothing of what this machine sends as if from another node of the tunnel gets to a pod of node c, by the guard alone. */
export async function expectNotBelieved(
  from: Throwaway | undefined,
  {
    fabric,
    syncs,
    underlay,
  }: { readonly fabric: Fabric; readonly syncs: Iterable<SyncProcess>; readonly underlay: IPFamily },
): Promise<void> {
  const node = fabric.nodes[2];
  const pod = node?.pods[1];
  if (from === undefined || node === undefined || pod === undefined)
    throw new Error('the fabric has no pods');
  const forged = forgeTunnel(from, { node, pod, underlay });
  const counter = countArrivals(pod.throwaway, 4);
  await pings(from, pod.addresses[4]);
  expect(counter()).toBe(0);

  // Without the guard they do arrive: nothing else stops them.
  const all = [...syncs];
  for (const sync of all) sync.pause();
  for (const { throwaway } of fabric.nodes) {
    throwaway.sh('nft flush chain inet weft vxlan && nft flush chain inet weft forward');
  }
  await pings(from, pod.addresses[4]);
  for (const sync of all) sync.resume();
  expect(counter()).toBe(1);
  forged.end();
  pod.throwaway.sh('nft delete table inet arrivals');
  const guarded = () =>
    fabric.nodes.every(({ throwaway }) => throwaway.sh('nft list table inet weft').includes('never'));
  expect(await until(guarded, 5_000)).toBeDefined();
}

/**
 * A VXLAN device of weft's network identifier on a machine that has no part in it: what that machine sends to the pod
 * goes to the pod's node as from another node. Ended with `end`.
 */
function forgeTunnel(
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
