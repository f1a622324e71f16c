import { describe, expect, it } from 'vitest';
import { desiredNodeState, renderFilter } from '../../src/dataplane/index.ts';
import { FAMILIES, formatAddress, parseCIDR } from '../../src/net/index.ts';
import { input, pool, subnet } from './objects.ts';

const subnets = [
  subnet('10.64.0.0/26', 'a', ['192.168.1.1', 'fd01::1']),
  subnet('fd64::/122', 'a', ['192.168.1.1', 'fd01::1']),
  subnet('10.64.0.64/26', 'b', ['192.168.1.2', 'fd01::2']),
  subnet('10.64.0.128/26', 'c', ['192.168.2.3', 'fd02::3']),
];

function sets(changes: Parameters<typeof input>[0]): Record<string, string[]> {
  const { filter } = desiredNodeState(input(changes));
  const { pools, nodes, directNodes, natExempt, natSources } = filter;
  return Object.fromEntries(
    Object.entries({ pools, nodes, directNodes, natExempt, natSources }).map(([name, set]) => [
      name,
      FAMILIES.flatMap((family) =>
        set[family].map(({ first, last }) =>
          [...new Set([first, last])].map((value) => formatAddress({ family, value })).join('-'),
        ),
      ),
    ]),
  );
}

describe('the sets of a node', () => {
  it('tell pods, nodes, nodes on one link, and who is masqueraded apart', () => {
    expect(sets({ subnets })).toEqual({
      pools: ['10.64.0.0-10.64.255.255', 'fd64::-fd64::ffff:ffff:ffff:ffff'],
      nodes: [
        '10.64.0.0',
        '10.64.0.64',
        '10.64.0.128',
        '192.168.1.1-192.168.1.2',
        '192.168.2.3',
        'fd01::1-fd01::2',
        'fd02::3',
        'fd64::',
      ],
      // c's addresses are behind the router: a pod's own address would be dropped on the way.
      directNodes: ['192.168.1.1-192.168.1.2', 'fd01::1-fd01::2'],
      natExempt: [],
      natSources: ['10.64.0.0-10.64.0.63', 'fd64::-fd64::3f'],
    });
  });

  it('know the one address of an exclusive subnet as a pod’s, masqueraded on its node, never as a node’s', () => {
    const exclusive = (cidr: string, nodeName: string) =>
      subnet(cidr, nodeName, ['192.168.1.9'], { exclusive: true });
    const held = [exclusive('10.64.0.70/32', 'a'), exclusive('10.64.0.71/32', 'b')];
    const { nodes, natSources } = sets({ subnets: held });
    expect(nodes).toEqual(['192.168.1.9']);
    expect(natSources).toEqual(['10.64.0.70']);
  });

  it('keep a drained CIDR among the pools while a subnet of it is held', () => {
    const drained = sets({ pools: [pool('main', ['10.65.0.0/16'])], subnets: subnets.slice(0, 1) });
    expect(drained.pools).toEqual(['10.64.0.0-10.64.0.63', '10.65.0.0-10.65.255.255']);
    expect(drained.natSources).toEqual(['10.64.0.0-10.64.0.63']);
  });

  it('leave out of masquerade the pools without natOutgoing, and no subnet whose pool is missing', () => {
    const plain = pool('plain', ['10.66.0.0/16'], { natOutgoing: false });
    const held = [
      subnet('10.66.0.0/26', 'a', ['192.168.1.1'], { pool: 'plain' }),
      subnet('10.67.0.0/26', 'a', ['192.168.1.1'], { pool: 'missing' }),
    ];
    expect(sets({ pools: [plain], subnets: held }).natSources).toEqual(['10.67.0.0-10.67.0.63']);
  });

  it('hold what the operator exempts', () => {
    const natExempt = [parseCIDR('172.16.0.0/12')];
    expect(sets({ config: { vni: 4097, port: 4789, natExempt } }).natExempt).toEqual([
      '172.16.0.0-172.31.255.255',
    ]);
  });
});

describe('the table', () => {
  const document = renderFilter(desiredNodeState(input({ subnets })).filter);
  const rendered = JSON.stringify(document);

  it('is exchanged in one transaction', () => {
    expect(document.nftables.slice(0, 3).map((command) => Object.keys(command)[0])).toEqual([
      'add',
      'delete',
      'add',
    ]);
  });

  it('speaks of IPv6 pods only where a pool has IPv6, and guards the tunnel in both families always', () => {
    const ipv4Only = renderFilter(
      desiredNodeState(input({ pools: [pool('main', ['10.64.0.0/16'])], subnets: subnets.slice(0, 1) }))
        .filter,
    );
    const nat = ipv4Only.nftables.filter((command) =>
      JSON.stringify(command).includes('"masquerade","comment"'),
    );
    expect(nat).toHaveLength(3);
    expect(JSON.stringify(nat)).not.toContain('ip6');
    expect(JSON.stringify(ipv4Only)).toContain('@nodes6');
  });

  it('holds nothing of an object but addresses: a name cannot become a rule', () => {
    const hostile = 'x"; flush ruleset; #';
    const state = desiredNodeState(input({ subnets: [subnet('10.64.0.64/26', hostile, ['192.168.1.2'])] }));
    expect(JSON.stringify(renderFilter(state.filter))).not.toContain('flush');
    expect(rendered).not.toContain('uid-');
  });
});
