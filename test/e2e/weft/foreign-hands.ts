import { expect, it } from 'vitest';
import { expectMasquerade, lostPaths } from './paths.ts';
import type { Stage } from './stage.ts';

/** F12: what others do to a node's network; each must be mended by the agent alone. */
const DEEDS: readonly { readonly deed: string; readonly node: string; readonly script: string }[] = [
  {
    // Of its own tables kube-proxy in this mode misses nothing for an hour: they are put back here.
    deed: 'nft flush ruleset',
    node: 'node-3',
    script: `for family in ip ip6; do nft list table $family kube-proxy; done >/run/kube-proxy.nft
      nft flush ruleset
      nft -f /run/kube-proxy.nft`,
  },
  {
    deed: 'the deletion of our routes',
    node: 'node-2',
    script: 'ip -4 route flush proto 84; ip -6 route flush proto 84',
  },
  { deed: 'ip link del vxlan.weft', node: 'node-3', script: 'ip link delete vxlan.weft' },
  {
    deed: 'a flush of neighbours and FDB of the tunnel',
    node: 'node-3',
    script: `ip -4 neighbour flush dev vxlan.weft nud permanent
      ip -6 neighbour flush dev vxlan.weft nud permanent
      bridge fdb show dev vxlan.weft | while read mac rest; do bridge fdb delete $mac dev vxlan.weft; done`,
  },
  {
    deed: 'forwarding switched off',
    node: 'node-1',
    script: 'echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding',
  },
  {
    deed: 'the FORWARD chain emptied, its policy still DROP',
    node: 'node-3',
    // Of what was flushed above nobody has put the policy back.
    script: `iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
      iptables -F FORWARD; ip6tables -F FORWARD`,
  },
];

const SECONDS = 30;

export function foreignHandsTests(stage: () => Stage): void {
  it.each(DEEDS)('carries all traffic again soon after $deed on $node', async ({ deed, node, script }) => {
    const { cluster, eventually } = stage();
    expect(await lostPaths(stage())).toEqual([]);
    await cluster.execOnNode(node, ['sh', '-c', script]);
    await eventually(
      `every path works after ${deed}, to the outside as well`,
      async () => {
        expect(await lostPaths(stage())).toEqual([]);
        await expectMasquerade(stage(), node);
      },
      SECONDS,
    );
  });
}
