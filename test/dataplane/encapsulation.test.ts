import { describe, expect, it } from 'vitest';
import { vxlanMAC, type Encapsulation } from '../../src/api/index.ts';
import {
  desiredNodeState,
  linkLocalOfMAC,
  podMTUOf,
  type DesiredInput,
  type NodeState,
} from '../../src/dataplane/index.ts';
import { FAMILIES, formatAddress, formatCIDR, parseAddress } from '../../src/net/index.ts';
import { input, pool, subnet, uplink } from './objects.ts';

/** What the encapsulation of a pool makes of a node's state: node `a`, `b` on one link with it, `c` behind a router. */

const HOPS = { a: ['192.168.1.1', 'fd01::1'], b: ['192.168.1.2', 'fd01::2'], c: ['192.168.2.3', 'fd02::3'] };
const macB = vxlanMAC('uid-b');
const macC = vxlanMAC('uid-c');

/** A pool of that encapsulation, `index` in its addresses, with a subnet of each family on each node. */
function piece(encapsulation: Encapsulation, index = 64, created = '2026-01-01T00:00:00Z') {
  const name = `pool-${index}`;
  return {
    pools: [pool(name, [`10.${index}.0.0/16`, `fd${index}::/64`], { encapsulation })],
    subnets: Object.entries(HOPS).flatMap(([node, hops], i) => [
      subnet(`10.${index}.0.${64 * i}/26`, node, hops, { pool: name, created }),
      subnet(`fd${index}::${i === 0 ? '' : (64 * i).toString(16)}/122`, node, hops, { pool: name, created }),
    ]),
  };
}

function stateOf(...pieces: Pick<DesiredInput, 'pools' | 'subnets'>[]): NodeState {
  return desiredNodeState(
    input({
      pools: pieces.flatMap(({ pools }) => pools),
      subnets: pieces.flatMap(({ subnets }) => subnets),
    }),
  );
}

/** The routes to others: destination, link, source. */
function ways({ routes }: NodeState): string[] {
  return routes.flatMap(({ destination, target, preferredSource }) =>
    target.kind === 'unreachable'
      ? []
      : [
          `${formatCIDR(destination)} ${target.link} via ${formatAddress(target.gateway)} src ` +
            (preferredSource === undefined ? '-' : formatAddress(preferredSource)),
        ],
  );
}

function addresses({ addresses: own }: NodeState): string[] {
  return own.map(({ link, address }) => `${formatAddress(address)} ${link}`);
}

const via = (mac: string) => formatAddress(linkLocalOfMAC(mac));

describe('the routes to other nodes', () => {
  it.each<{ encapsulation: Encapsulation; expected: string[] }>([
    {
      encapsulation: 'CrossSubnet',
      expected: [
        '10.64.0.64/26 eth0 via 192.168.1.2 src 10.64.0.0',
        '10.64.0.128/26 vxlan.weft via 10.64.0.128 src 10.64.0.0',
        'fd64::40/122 eth0 via fd01::2 src fd64::',
        `fd64::80/122 vxlan.weft via ${via(macC)} src fd64::`,
      ],
    },
    {
      encapsulation: 'Always',
      expected: [
        '10.64.0.64/26 vxlan.weft via 10.64.0.64 src 10.64.0.0',
        '10.64.0.128/26 vxlan.weft via 10.64.0.128 src 10.64.0.0',
        `fd64::40/122 vxlan.weft via ${via(macB)} src fd64::`,
        `fd64::80/122 vxlan.weft via ${via(macC)} src fd64::`,
      ],
    },
    {
      encapsulation: 'Never',
      expected: [
        '10.64.0.64/26 eth0 via 192.168.1.2 src 10.64.0.0',
        'fd64::40/122 eth0 via fd01::2 src fd64::',
      ],
    },
  ])('of a pool of $encapsulation', ({ encapsulation, expected }) => {
    const state = stateOf(piece(encapsulation));
    expect(ways(state)).toEqual(expected);
    // What the fabric routes is no fault.
    expect(state.notes).toEqual([]);
  });

  it('are chosen by the pool of each subnet, and so are those of bridges', () => {
    const bridged = piece('Always', 65);
    const state = stateOf(piece('CrossSubnet'), {
      ...bridged,
      pools: bridged.pools.map((one) => ({ ...one, spec: { ...one.spec, use: 'Bridge' } })),
    });
    expect(ways(state)).toContain('10.64.0.64/26 eth0 via 192.168.1.2 src 10.64.0.0');
    expect(ways(state).join()).toContain('10.65.0.64/26 vxlan.weft via 10.65.0.64');
  });

  it('to a subnet whose pool is missing are those that a pool has by default', () => {
    const { subnets } = piece('Never');
    const state = stateOf({ pools: [], subnets });
    expect(ways(state)).toEqual(ways(stateOf(piece('CrossSubnet'))));
  });
});

describe('the device', () => {
  it.each<[Encapsulation[], boolean]>([
    [['Never'], false],
    [['Never', 'Never'], false],
    [['Never', 'CrossSubnet'], true],
    [['Always'], true],
  ])('where pools are %j is there: %j', (modes, isThere) => {
    const state = stateOf(...modes.map((mode, i) => piece(mode, 64 + i)));
    expect(state.vxlan !== undefined).toBe(isThere);
  });

  it('is there for a subnet whose pool has left the cache', () => {
    const { subnets } = piece('Never', 65);
    expect(stateOf(piece('Never'), { pools: [], subnets }).vxlan).toBeDefined();
  });

  it("bears the node's own addresses of pools that may encapsulate, `lo` the others", () => {
    expect(addresses(stateOf(piece('Never')))).toEqual(['10.64.0.0 lo', 'fd64:: lo']);
    expect(addresses(stateOf(piece('Never'), piece('Always', 65)))).toEqual([
      '10.64.0.0 lo',
      '10.65.0.0 vxlan.weft',
      'fd64:: lo',
      'fd65:: vxlan.weft',
    ]);
  });
});

describe("the source of the node's own packets", () => {
  it('is one whose pool brings the answer back by the same way', () => {
    const older = piece('Always', 64, '2025-01-01T00:00:00Z');
    const state = stateOf(older, piece('CrossSubnet', 65));
    expect(ways(state).filter((way) => way.startsWith('10.'))).toEqual([
      '10.64.0.64/26 vxlan.weft via 10.64.0.64 src 10.64.0.0',
      '10.64.0.128/26 vxlan.weft via 10.64.0.128 src 10.64.0.0',
      '10.65.0.64/26 eth0 via 192.168.1.2 src 10.65.0.0',
      // Both come back through the tunnel from behind a router: the older one.
      '10.65.0.128/26 vxlan.weft via 10.65.0.128 src 10.64.0.0',
    ]);
  });

  it('on one link is the address of the link where the node has none of that kind', () => {
    const other = piece('CrossSubnet', 65);
    const state = stateOf(piece('Always'), {
      ...other,
      subnets: other.subnets.filter(({ spec }) => spec.nodeName !== 'a'),
    });
    expect(ways(state)).toContain('10.65.0.64/26 eth0 via 192.168.1.2 src -');
  });

  it('of what a Service turns into the tunnel comes back through it from every node, if there is one that does', () => {
    const older = piece('CrossSubnet', 64, '2025-01-01T00:00:00Z');
    const { tunnelSources } = stateOf(older, piece('Always', 65)).filter;
    expect(FAMILIES.map((family) => tunnelSources[family] && formatAddress(tunnelSources[family]))).toEqual([
      '10.65.0.0',
      'fd65::',
    ]);
    expect(stateOf(piece('Never')).filter.tunnelSources).toEqual({});
  });
});

describe("pods' packets to other nodes' addresses", () => {
  it('are masqueraded where the answer would come through the tunnel, also on one link', () => {
    const { natSources, natTunnelled } = stateOf(piece('CrossSubnet'), piece('Always', 65)).filter;
    const first = (set: typeof natSources) =>
      FAMILIES.flatMap((family) => set[family].map(({ first: value }) => formatAddress({ family, value })));
    expect(first(natSources)).toEqual(['10.64.0.0', 'fd64::']);
    expect(first(natTunnelled)).toEqual(['10.65.0.0', 'fd65::']);
  });
});

describe("the MTU of pods' links", () => {
  it('leaves room for the tunnel where their pool may encapsulate, and none where it never does', () => {
    const { podMTU } = stateOf(piece('CrossSubnet'), piece('Never', 65));
    expect(podMTUOf(podMTU, ['10.64.0.5', 'fd64::5'].map(parseAddress))).toBe(1450);
    expect(podMTUOf(podMTU, ['10.65.0.5', 'fd65::5'].map(parseAddress))).toBe(1500);
    // Of a pod that is not known yet, and of one whose subnet is not.
    expect(podMTUOf(podMTU, [])).toBe(1450);
    expect(podMTUOf(podMTU, [parseAddress('10.9.9.9')])).toBe(1450);
  });

  it('is the whole one for all where no pool encapsulates', () => {
    const { podMTU } = stateOf(piece('Never'));
    expect(podMTUOf(podMTU, [])).toBe(1500);
    expect(podMTUOf(podMTU, [parseAddress('10.64.0.5')])).toBe(1500);
  });

  it('never falls below what IPv6 needs, while pods have IPv6', () => {
    const uplinks = { ipv4: uplink('192.168.1.1', ['192.168.1.0/24'], { mtu: 1300 }) };
    const state = desiredNodeState(input({ ...piece('CrossSubnet'), uplinks }));
    expect(state.vxlan?.mtu).toBe(1280);
    expect(state.podMTU).toMatchObject({ encapsulated: 1280, plain: 1300 });
    const ipv4Only = desiredNodeState(
      input({ pools: [pool('main', ['10.64.0.0/16'])], kernelFamilies: ['ipv4'], uplinks }),
    );
    expect(ipv4Only.vxlan?.mtu).toBe(1250);
  });
});

describe('two nodes with one MAC', () => {
  const twins = (younger: string) => [
    subnet('10.64.0.0/26', 'a', HOPS.a),
    subnet('10.64.0.128/26', 'c', HOPS.c, { nodeUID: 'one', created: '2026-01-01T00:00:00Z' }),
    subnet('10.64.0.192/26', 'd', ['192.168.2.4'], { nodeUID: 'one', created: younger }),
  ];
  const main = [pool('main', ['10.64.0.0/16'])];

  it.each([
    {
      younger: '2026-02-01T00:00:00Z',
      loser: 'd',
      lost: '10.64.0.192/26',
      kept: '10.64.0.128/26',
      holder: 'c',
    },
    {
      younger: '2025-12-01T00:00:00Z',
      loser: 'c',
      lost: '10.64.0.128/26',
      kept: '10.64.0.192/26',
      holder: 'd',
    },
  ])('are said, and the older one, $holder, keeps it', ({ younger, loser, lost, kept, holder }) => {
    const state = stateOf({ pools: main, subnets: twins(younger) });
    expect(ways(state).map((way) => way.split(' ')[0])).toEqual([kept]);
    expect(state.forwarding).toHaveLength(1);
    expect(state.notes).toEqual([
      `no route to ${lost} of node "${loser}": its VXLAN MAC ${vxlanMAC('one')} is that of node "${holder}", too: both ` +
        `follow from the Nodes' UIDs; delete the Node object of one of them, so that it registers under another UID`,
    ]);
  });

  it('do not matter where no tunnel is between them and us', () => {
    const near = twins('2026-02-01T00:00:00Z').map((one) => ({
      ...one,
      spec: {
        ...one.spec,
        nextHops: one.spec.nodeName === 'd' ? [parseAddress('192.168.1.4')] : one.spec.nextHops,
      },
    }));
    expect(stateOf({ pools: main, subnets: near }).notes).toEqual([]);
  });

  it('of which this is one do not reach each other', () => {
    const subnets = [subnet('10.64.0.128/26', 'c', HOPS.c, { nodeUID: 'uid-a' })];
    const state = stateOf({ pools: main, subnets });
    expect(ways(state)).toEqual([]);
    expect(state.notes.join()).toContain('is that of node "a", too');
  });

  it('are none where a node is bound under two UIDs', () => {
    const subnets = [
      subnet('10.64.0.128/26', 'c', HOPS.c, { nodeUID: 'before' }),
      subnet('10.64.0.192/26', 'c', HOPS.c, { nodeUID: 'now' }),
    ];
    const state = stateOf({ pools: main, subnets });
    expect(state.notes).toEqual([]);
    expect(state.forwarding).toHaveLength(2);
  });
});
