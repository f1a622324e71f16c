import { renderConflist } from '../../src/agent/conflist.ts';

/** A way to give a sandbox its network, as a network configuration. */
export type Contender = {
  readonly who: string;
  /** The name in the configuration, by which cnitool finds it. */
  readonly network: string;
  readonly conflist: string;
};

/** Whom ratios are taken to. */
export const PTP = 'ptp + host-local';
export const WEFT = 'weft';

/**
 * weft as it is installed, and the reference plugins with as many families, without masquerading (which costs
 * them iptables calls for each pod), so that they have as little to do as possible. `node` keeps the ranges
 * of nodes apart.
 */
export function contenders(families: { readonly dual: boolean }, node = 0): Contender[] {
  return [
    { who: WEFT, network: 'weft', conflist: renderConflist() },
    reference(PTP, 'bench-ptp', { type: 'ptp', ipam: hostLocal('10.199', 'fd00:10:199', node, families) }),
    reference('bridge + host-local', 'bench-bridge', {
      type: 'bridge',
      bridge: BENCH_BRIDGE,
      isGateway: true,
      ipam: hostLocal('10.198', 'fd00:10:198', node, families),
    }),
  ];
}

/** The link that the bridge plugin makes. */
export const BENCH_BRIDGE = 'weft-bench0';

/** The size of what weft's node subnet and host-local's range hold: no contender searches long for an address. */
export const PREFIX_LENGTHS = { ipv4: 20, ipv6: 116 } as const;

/** The pool that weft draws from meanwhile. */
export function benchPool({ dual }: { readonly dual: boolean }): object {
  return {
    apiVersion: 'ipam.weft.dev/v1alpha1',
    kind: 'IPPool',
    metadata: { name: 'bench' },
    spec: {
      cidrs: ['10.244.0.0/16', ...(dual ? ['fd00:10:244::/48'] : [])],
      nodeSubnetPrefixLength: PREFIX_LENGTHS,
    },
  };
}

/** Whether a pod with this address got it from ptp's host-local. */
export const isFromPtp = (address: string): boolean => address.startsWith('10.199.');

function reference(who: string, network: string, plugin: object): Contender {
  return {
    who,
    network,
    conflist: JSON.stringify({ cniVersion: '1.0.0', name: network, plugins: [plugin] }),
  };
}

function hostLocal(ipv4: string, ipv6: string, node: number, { dual }: { readonly dual: boolean }): object {
  const range = (subnet: string) => [{ subnet }];
  return {
    type: 'host-local',
    ranges: [
      range(`${ipv4}.${node * 16}.0/${PREFIX_LENGTHS.ipv4}`),
      ...(dual ? [range(`${ipv6}:${node}::/${PREFIX_LENGTHS.ipv6}`)] : []),
    ],
    routes: [{ dst: '0.0.0.0/0' }, ...(dual ? [{ dst: '::/0' }] : [])],
  };
}
