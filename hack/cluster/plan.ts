/**
 * Where everything of a local cluster is: a pure function of what the user asked for. Addresses may be the same
 * in two clusters, since each lives in namespaces of its own; only the link to the host differs (state.ts).
 *
 *     host ── control plane ─┐
 *                        segment 0
 *                            │
 *                         router ── segment 1 ── node-1, node-2
 *                            └───── segment 2 ── node-3
 */
export function planCluster(options: ClusterOptions): Plan {
  const segmentOf = (index: number) => Math.floor((index * options.segments) / options.nodes) + 1;
  const nodes = Array.from({ length: options.nodes }, (_, index): NodePlan => {
    const segment = segmentOf(index);
    const host = 10 + index + 1;
    return {
      name: `node-${index + 1}`,
      segment,
      ipv4: `172.30.${segment}.${host}`,
      ipv6: `fd00:30:${segment}::${host}`,
      proxyMode: PROXY_MODES[index % PROXY_MODES.length] ?? 'nftables',
      quirks: QUIRKS.filter((_quirk, number) => number % options.nodes === index),
    };
  });
  return {
    segments: Array.from({ length: options.segments + 1 }, (_, segment) => ({
      bridge: `seg${segment}`,
      gateway: { ipv4: `172.30.${segment}.1`, ipv6: `fd00:30:${segment}::1` },
      advertised: nodes.some(
        (node) => node.segment === segment && node.quirks.includes('router-advertisement'),
      ),
    })),
    nodes,
    controlPlane: { ipv4: '172.30.0.10', ipv6: 'fd00:30::10', port: 6443 },
    outside: { ipv4: '203.0.113.1', ipv6: '2001:db8:203::1' },
    serviceCidrs: ['10.96.0.0/16', 'fd00:10:96::/112'],
    apiService: { ipv4: '10.96.0.1', ipv6: 'fd00:10:96::1' },
    dnsService: { ipv4: '10.96.0.10', ipv6: 'fd00:10:96::a' },
    poolCidrs: options.poolCidrs,
  };
}

export type ClusterOptions = {
  readonly name: string;
  readonly nodes: number;
  readonly segments: number;
  /** Without weft: for comparing with others. */
  readonly bare: boolean;
  /** What the router drops, as a fabric does that knows no pods. */
  readonly poolCidrs: readonly string[];
};

export const DEFAULT_OPTIONS: ClusterOptions = {
  name: 'weft',
  nodes: 3,
  segments: 2,
  bare: false,
  poolCidrs: ['10.244.0.0/16', 'fd00:10:244::/48'],
};

/** What real machines do to a pod network. They go round the nodes, so one node has them all. */
export const QUIRKS = ['docker0', 'strict-rp-filter', 'forward-drop', 'router-advertisement'] as const;
export type Quirk = (typeof QUIRKS)[number];

/** How kube-proxy does its work. They take turns, so every cluster of two nodes or more has both. */
export const PROXY_MODES = ['nftables', 'iptables'] as const;
export type ProxyMode = (typeof PROXY_MODES)[number];

export type DualStack = { readonly ipv4: string; readonly ipv6: string };

export type NodePlan = DualStack & {
  readonly name: string;
  /** From 1; the control plane is on segment 0. */
  readonly segment: number;
  readonly proxyMode: ProxyMode;
  readonly quirks: readonly Quirk[];
};

export type SegmentPlan = {
  readonly bridge: string;
  readonly gateway: DualStack;
  /** Whether the router announces itself there. */
  readonly advertised: boolean;
};

export type Plan = {
  readonly segments: readonly SegmentPlan[];
  readonly nodes: readonly NodePlan[];
  readonly controlPlane: DualStack & { readonly port: number };
  /** An address outside the cluster and the pools, on the router: what a masqueraded packet is sent to. */
  readonly outside: DualStack;
  readonly serviceCidrs: readonly string[];
  readonly apiService: DualStack;
  readonly dnsService: DualStack;
  readonly poolCidrs: readonly string[];
};
