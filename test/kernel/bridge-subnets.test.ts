import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  IP_FAMILIES,
  makeFabric,
  pings,
  POOLS,
  settled,
  startSync,
  until,
  type Fabric,
  type FabricNode,
  type IPFamily,
  type SyncProcess,
} from './fabric.ts';
import type { Sources } from './sync-process.ts';
import { useThrowaways, type Throwaway } from './throwaway.ts';

/**
 * Pods behind bridges that other plugins made, on three nodes of which one is behind a router that drops pods'
 * addresses and one drops what it forwards; and a pool over a LAN that nodes must leave alone.
 */

const { make } = useThrowaways();
let fabric: Fabric;
let syncs: SyncProcess[];
let bridged: BridgedPod[];

/** A container as the reference bridge plugin wires it. */
interface BridgedPod {
  readonly node: FabricNode;
  readonly throwaway: Throwaway;
  readonly addresses: Readonly<Record<IPFamily, string>>;
  /** The bridge's own. */
  readonly gateway: Readonly<Record<IPFamily, string>>;
}

beforeAll(async () => {
  fabric = makeFabric(make);
  for (const address of ['ip saddr 10.65.0.0/16', 'ip daddr 10.65.0.0/16', 'ip6 saddr fd65::/64']) {
    fabric.router.sh(`nft add rule inet fabric forward ${address} drop`);
  }
  await settled(fabric);
  bridged = fabric.nodes.map(makeBridgedPod);
  syncs = fabric.nodes.map((node) => {
    const sync = startSync(node);
    sync.set(sources(node));
    return sync;
  });
  await Promise.all(syncs.map((sync) => sync.upToDate()));
  await bridgesSettled();
});

afterAll(async () => {
  await Promise.all(syncs.map((sync) => sync.kill()));
});

describe('pods behind bridges', () => {
  test('reach each other, the pods of weft and the nodes, on whatever node, and are reached', async () => {
    const failed: string[] = [];
    for (const family of IP_FAMILIES) {
      for (const from of bridged) {
        const others = bridged.filter((to) => to !== from).map(({ addresses }) => addresses[family]);
        const pods = fabric.nodes.flatMap((node) => node.pods).map(({ addresses }) => addresses[family]);
        const nodes = fabric.nodes.map(({ addresses }) => addresses[family]);
        for (const to of [...others, ...pods, ...nodes]) {
          if (!(await pings(from.throwaway, to)))
            failed.push(`from the bridge of ${from.node.name} to ${to}`);
        }
        for (const { name, pods: near } of fabric.nodes) {
          const [pod] = near;
          if (pod !== undefined && !(await pings(pod.throwaway, from.addresses[family]))) {
            failed.push(`from a pod of ${name} to the bridge of ${from.node.name} (IPv${family})`);
          }
        }
      }
    }
    expect(failed).toEqual([]);
  });

  test.each(IP_FAMILIES)('leave the pools with the address of their node (IPv%i)', async (family) => {
    const { throwaway: outside, addresses } = fabric.outside;
    for (const { throwaway } of bridged) expect(await pings(throwaway, addresses[family])).toBe(true);
    // It knows no way back to them: what it answered, it answered to nodes.
    expect(outside.sh(`ip ${family === 6 ? '-6' : ''} route show`)).not.toMatch(/10\.65\.|fd65:/);
  });

  test('answer for an address that nobody has at once, from their own node', () => {
    for (const { node } of bridged) {
      node.throwaway.sh('ip link set br0 down');
      const index = fabric.nodes.indexOf(node);
      expect(() => node.throwaway.sh(`ip route get 10.65.0.${64 * index + 9}`)).toThrow(/No route to host/);
      node.throwaway.sh('ip link set br0 up');
      expect(node.throwaway.sh(`ip route get 10.65.0.${64 * index + 9}`)).toContain('dev br0');
    }
  });

  test('have their gateway on the bridge alone, and the node speaks to pods with its own address', () => {
    for (const { node } of bridged) {
      const addresses = node.throwaway.sh('ip -oneline address show dev vxlan.weft');
      expect(addresses).toContain(` ${node.first[4]}/32 `);
      expect(addresses).not.toMatch(/10\.65\.|fd65:/);
    }
  });
});

describe('sources behind bridges', () => {
  test('come from the bridge alone: no other machine passes for a pod there', async () => {
    const [a, b] = bridged;
    if (a === undefined || b === undefined) throw new Error('every node has a bridge');
    const forged = { 4: '10.65.0.100', 6: 'fd65::64' };
    b.throwaway.sh(
      'nft add table inet seen && nft add chain inet seen input { type filter hook input priority 0\\; }',
    );
    for (const family of IP_FAMILIES) {
      const [protocol, icmp] = family === 4 ? ['ip', 'icmp'] : ['ip6', 'icmpv6'];
      b.throwaway.sh(
        `nft add rule inet seen input ${protocol} saddr ${forged[family]} ${icmp} type echo-request counter`,
      );
      a.node.throwaway.sh(
        `ip addr add ${forged[family]}/${family === 4 ? 32 : 128} dev lo ${family === 6 ? 'nodad' : ''}`,
      );
      expect(await pings(a.node.throwaway, b.addresses[family], '-I', forged[family])).toBe(false);
      a.node.throwaway.sh(`ip addr del ${forged[family]}/${family === 4 ? 32 : 128} dev lo`);
    }
    expect(b.throwaway.sh('nft list chain inet seen input').match(/packets 0 /g)).toHaveLength(2);
    b.throwaway.sh('nft delete table inet seen');
  });

  test('are let through filters that drop, as all pools but LANs are', () => {
    const b = fabric.nodes.find(({ name }) => name === 'b');
    const rules = [b?.throwaway.sh('iptables -S FORWARD'), b?.throwaway.sh('ip6tables -S FORWARD')];
    expect(rules.map((text) => text?.match(/ -[sd] \S+/g)?.sort())).toEqual([
      [' -d 10.64.0.0/16', ' -d 10.65.0.0/16', ' -s 10.64.0.0/16', ' -s 10.65.0.0/16'],
      [' -d fd64::/64', ' -d fd65::/64', ' -s fd64::/64', ' -s fd65::/64'],
    ]);
  });
});

describe('a LAN', () => {
  test('is routed by no node', () => {
    for (const { throwaway } of fabric.nodes) {
      for (const family of IP_FAMILIES) {
        expect(throwaway.sh(`ip -${family} route show proto 84`)).not.toMatch(/192\.168\.9\.|fd09:/);
      }
    }
  });

  test('is outside of the pools: pods reach it with the address of their node', async () => {
    for (const family of IP_FAMILIES) {
      for (const { pods } of fabric.nodes) {
        const [pod] = pods;
        if (pod === undefined) throw new Error('every node has pods');
        expect(await pings(pod.throwaway, fabric.outside.addresses[family])).toBe(true);
      }
    }
  });
});

test('there was nothing to repair', async () => {
  for (const sync of syncs) {
    expect((await sync.status()).reason).toBeUndefined();
    expect(sync.drift()).toEqual([]);
  }
});

test('without their pool and a subnet on the node nothing of bridges is left in the filters of the host', async () => {
  const index = fabric.nodes.findIndex(({ name }) => name === 'b');
  const [b, sync] = [fabric.nodes[index], syncs[index]];
  if (b === undefined || sync === undefined) throw new Error('there is a node b');
  const given = sources(b);
  sync.set({
    ...given,
    pools: given.pools.filter(([name]) => name !== 'bridged'),
    subnets: given.subnets.filter(([, node, , pool]) => node !== 'b' || pool?.pool !== 'bridged'),
  });
  await sync.upToDate();
  for (const program of ['iptables', 'ip6tables']) {
    const rules = b.throwaway.sh(`${program} -S FORWARD`);
    expect(rules).toContain('-i weft+');
    expect(rules).not.toMatch(/10\.65\.|fd65:/);
  }
});

describe('packets of our VXLAN that pods behind bridges make', () => {
  test.each([
    { source: 'with their own address, to another node', local: undefined, to: 2 },
    { source: 'with their own address, to their own node', local: undefined, to: 0 },
    { source: "with another node's, to a third", local: '192.168.1.11', to: 2 },
    { source: "with another node's, to their own", local: '192.168.1.11', to: 0 },
  ])('are not believed: $source', async ({ local, to }) => {
    const [from] = bridged;
    const node = fabric.nodes[to];
    const pod = node?.pods[0];
    if (from === undefined || node === undefined || pod === undefined)
      throw new Error('every node has a pod');
    const mac = /link\/ether (\S+)/.exec(node.throwaway.sh('ip link show vxlan.weft'))?.[1];
    from.throwaway.sh(
      (local === undefined ? '' : `ip addr add ${local}/32 dev eth0 && `) +
        'ip link add forged type vxlan id 4097 dstport 4789 nolearning ' +
        `remote ${node.addresses[4]} ${local === undefined ? '' : `local ${local}`} && ` +
        'ip addr add 10.64.0.70/32 dev forged && ip link set forged up && ' +
        `ip route add ${pod.addresses[4]} dev forged src 10.64.0.70 && ` +
        `ip neigh add ${pod.addresses[4]} lladdr ${mac} dev forged nud permanent`,
    );
    pod.throwaway.sh(
      `nft 'add table inet arrivals; add chain inet arrivals input { type filter hook input priority 0; }; ` +
        `add rule inet arrivals input icmp type echo-request counter'`,
    );
    const arrived = () => Number(/packets (\d+)/.exec(pod.throwaway.sh('nft list table inet arrivals'))?.[1]);
    await pings(from.throwaway, pod.addresses[4]);
    expect(arrived()).toBe(0);

    // Without the guard they do arrive: nothing else stops them.
    syncs.forEach((sync) => sync.pause());
    for (const { throwaway } of fabric.nodes) {
      throwaway.sh('nft flush chain inet weft vxlan && nft flush chain inet weft forward');
    }
    await pings(from.throwaway, pod.addresses[4]);
    syncs.forEach((sync) => sync.resume());
    expect(arrived()).toBe(1);
    from.throwaway.sh(
      `ip link del forged; ${local === undefined ? 'true' : `ip addr del ${local}/32 dev eth0`}`,
    );
    pod.throwaway.sh('nft delete table inet arrivals');
    const guarded = () =>
      fabric.nodes.every(({ throwaway }) => throwaway.sh('nft list table inet weft').includes('never'));
    expect(await until(guarded, 5000)).toBeDefined();
  });
});

function sources(node: FabricNode): Sources {
  const given = fabric.sources(node);
  const bridges = fabric.nodes.flatMap(({ name, addresses }, index): Sources['subnets'] => {
    const hops = [addresses[4], addresses[6]];
    const pool = { pool: 'bridged' };
    return [
      [`10.65.0.${64 * index}/26`, name, hops, pool],
      [`fd65::${index === 0 ? '' : (64 * index).toString(16)}/122`, name, hops, pool],
    ];
  });
  const lan = { pool: 'lan' };
  return {
    ...given,
    pools: [
      ...POOLS,
      ['bridged', ['10.65.0.0/16', 'fd65::/64'], { use: 'Bridge' }],
      ['lan', ['192.168.9.0/24', 'fd09::/64'], { use: 'Lan' }],
    ],
    subnets: [
      ...given.subnets,
      ...bridges,
      ['192.168.9.0/28', 'b', [], lan],
      ['192.168.9.16/28', 'a', [], lan],
      // As one node's token could write it: a pool of a LAN is not routed all the same.
      ['fd09::/122', 'b', ['192.168.1.11', 'fd01::b'], lan],
    ],
  };
}

/** A bridge that was just made probes its own addresses, and learns its ports: until then it answers nobody. */
async function bridgesSettled(): Promise<void> {
  for (const { node, throwaway, gateway } of bridged) {
    for (const family of IP_FAMILIES) {
      const answered = await until(() => pings(throwaway, gateway[family]), 15_000);
      if (answered === undefined) throw new Error(`the bridge of ${node.name} does not answer IPv${family}`);
    }
  }
}

function makeBridgedPod(node: FabricNode): BridgedPod {
  const throwaway = make(`${node.name}-bridged`);
  const index = fabric.nodes.indexOf(node);
  const gateway = { 4: `10.65.0.${64 * index + 1}`, 6: `fd65::${(64 * index + 1).toString(16)}` };
  const addresses = { 4: `10.65.0.${64 * index + 2}`, 6: `fd65::${(64 * index + 2).toString(16)}` };
  node.throwaway.sh(
    'ip link add br0 type bridge && ip link set br0 up && ' +
      `ip addr add ${gateway[4]}/26 dev br0 && ip addr add ${gateway[6]}/122 dev br0 nodad && ` +
      `ip link add port0 type veth peer name eth0 netns ${throwaway.name} && ip link set port0 master br0 up`,
  );
  throwaway.sh(
    `ip addr add ${addresses[4]}/26 dev eth0 && ip addr add ${addresses[6]}/122 dev eth0 nodad && ` +
      `ip link set eth0 up && ip route add default via ${gateway[4]} && ip -6 route add default via ${gateway[6]}`,
  );
  return { node, throwaway, addresses, gateway };
}
