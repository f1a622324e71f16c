import { describe, expect, it } from 'vitest';
import { DEFAULT_OPTIONS, planCluster, QUIRKS } from '../../../hack/cluster/plan.ts';

describe('planCluster', () => {
  it('puts two of three nodes on the first segment and the third behind the router', () => {
    const plan = planCluster(DEFAULT_OPTIONS);
    expect(plan.nodes.map(({ name, segment, ipv4, ipv6 }) => [name, segment, ipv4, ipv6])).toEqual([
      ['node-1', 1, '172.30.1.11', 'fd00:30:1::11'],
      ['node-2', 1, '172.30.1.12', 'fd00:30:1::12'],
      ['node-3', 2, '172.30.2.13', 'fd00:30:2::13'],
    ]);
    expect(plan.segments.map((segment) => segment.bridge)).toEqual(['seg0', 'seg1', 'seg2']);
  });

  it.each([1, 2, 3, 4, 7])('gives every unkindness to exactly one of %i nodes', (nodes) => {
    const plan = planCluster({ ...DEFAULT_OPTIONS, nodes, segments: 1 });
    expect(plan.nodes.flatMap((node) => node.quirks).toSorted()).toEqual([...QUIRKS].toSorted());
  });

  it.each([
    { nodes: 5, segments: 2 },
    { nodes: 4, segments: 4 },
    { nodes: 50, segments: 20 },
  ])('uses all $segments segments for $nodes nodes, each address once', ({ nodes, segments }) => {
    const plan = planCluster({ ...DEFAULT_OPTIONS, nodes, segments });
    expect(new Set(plan.nodes.map((node) => node.segment)).size).toBe(segments);
    expect(new Set(plan.nodes.flatMap((node) => [node.ipv4, node.ipv6])).size).toBe(2 * nodes);
  });

  it('lets kube-proxy take turns between its modes', () => {
    const { nodes } = planCluster(DEFAULT_OPTIONS);
    expect(nodes.map(({ proxyMode }) => proxyMode)).toEqual(['nftables', 'iptables', 'nftables']);
  });

  it('advertises the router only where a node waits for it', () => {
    const plan = planCluster(DEFAULT_OPTIONS);
    const waiting = plan.nodes.filter((node) => node.quirks.includes('router-advertisement'));
    expect(plan.segments.flatMap((segment, index) => (segment.advertised ? [index] : []))).toEqual(
      waiting.map((node) => node.segment),
    );
  });
});
