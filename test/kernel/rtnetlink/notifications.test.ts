import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  addAddress,
  applyRoutes,
  watchNftables,
  watchRtnetlink,
  type KernelEvent,
  type NotificationOptions,
  type Route,
} from '../../../src/kernel/index.ts';
import { cidrOf, parseAddress, parseCIDR } from '../../../src/net/index.ts';
import { useThrowaways } from '../throwaway.ts';

const { own, make } = useThrowaways();
const host = make('host');
const socket = host.namespace.socket;
const oif = host.addLink('l0');
const within = { own, namespace: host.namespace };

describe('changes by others', () => {
  test.each<[string, string, Partial<KernelEvent>]>([
    ['a route', 'ip route add 10.1.0.0/24 dev l0', { kind: 'route', removed: false }],
    ['a removed route', 'ip route del 10.1.0.0/24', { kind: 'route', removed: true }],
    ['an IPv6 route', 'ip route add fd00:1::/64 dev l0', { kind: 'route', removed: false }],
    ['an address', 'ip addr add 192.0.2.1/24 dev l0', { kind: 'address', removed: false }],
    ['a removed address', 'ip addr del 192.0.2.1/24 dev l0', { kind: 'address', removed: true }],
    [
      'a neighbour',
      'ip neigh add 10.1.0.1 lladdr 02:00:00:00:00:05 dev l0',
      { kind: 'neighbour', removed: false },
    ],
    ['a removed neighbour', 'ip neigh del 10.1.0.1 dev l0', { kind: 'neighbour', removed: true }],
    ['a link', 'ip link add l1 type bridge', { kind: 'link', removed: false }],
    ['a removed link', 'ip link del l1', { kind: 'link', removed: true }],
    [
      'an FDB entry',
      'ip link add vx type vxlan id 5 dstport 4789; bridge fdb add 02:00:00:00:00:06 dst 192.0.2.9 dev vx',
      { kind: 'fdb', removed: false },
    ],
  ])('%s', async (_, command, expected) => {
    const seen = await eventsOf(() => host.sh(command));
    expect(seen).toContainEqual(expect.objectContaining(expected));
  });

  test('the event says which', async () => {
    const [event] = (await eventsOf(() => host.sh('ip route add 10.2.0.0/24 dev l0 proto 84'))).filter(
      (candidate) => candidate.kind === 'route',
    );
    expect(event).toMatchObject({ route: { dst: parseCIDR('10.2.0.0/24'), oif, protocol: 84 } });
  });

  test('rules of nftables', async () => {
    const events: KernelEvent[] = [];
    const watch = watchNftables({
      within,
      ownPorts: () => new Set(),
      onEvents: (batch) => events.push(...batch),
    });
    host.sh('nft add table ip foreign');
    await until(() => events.length > 0);
    expect(events[0]).toEqual({ kind: 'nft' });
    await watch.close();
  });
});

test('silence is no event: a read that gives up finds nothing', async () => {
  const events: KernelEvent[] = [];
  const onEvents = (batch: readonly KernelEvent[]) => events.push(...batch);
  const watches = [
    watchNftables({ within, onEvents, ownPorts: () => new Set() }),
    watchRtnetlink({ within, onEvents, ownPorts: () => new Set() }),
  ];
  // Longer than a read waits.
  await sleep(1_300);
  await Promise.all(watches.map((watch) => watch.close()));
  expect(events).toEqual([]);
});

test('our own changes are no news', async () => {
  const events = await eventsOf(async () => {
    addAddress(socket, { linkIndex: oif, address: parseAddress('192.0.2.77'), prefixLength: 32 });
    await applyRoutes(socket, { add: [routeNumber(0)], remove: [] });
    await applyRoutes(socket, { add: [], remove: [routeNumber(0)] });
    host.sh('ip route add 10.3.0.0/24 dev l0');
  });
  const routes = events.flatMap((event) => (event.kind === 'route' ? [event.route.dst] : []));
  expect(routes).toEqual([parseCIDR('10.3.0.0/24')]);
  expect(events.filter((event) => event.kind === 'address')).toEqual([]);
});

test('lost events are told, and the watch goes on', async () => {
  const events: KernelEvent[] = [];
  let block = true;
  const watch = watchRtnetlink({
    within,
    ownPorts: () => new Set(),
    receiveBufferBytes: 4096,
    onEvents: (batch) => {
      events.push(...batch);
      // Keeps the loop from reading while the kernel goes on.
      if (block) {
        block = false;
        host.sh('for i in $(seq 1 200); do echo "route add 10.20.$i.0/24 dev l0"; done | ip -batch -');
      }
    },
  });
  host.sh('ip route add 10.21.0.0/24 dev l0');
  await until(() => events.some((event) => event.kind === 'overrun'));
  events.length = 0;
  await sleep(50);
  host.sh('ip route add 10.22.0.0/24 dev l0');
  await until(() =>
    events.some(
      (event) => event.kind === 'route' && event.route.dst.first === parseCIDR('10.22.0.0/24').first,
    ),
  );
  await watch.close();
});

test('a watch ends within a second of its close, and tells nothing more', async () => {
  const events: KernelEvent[] = [];
  const watch = watchRtnetlink({
    within,
    ownPorts: () => new Set(),
    onEvents: (batch) => events.push(...batch),
  });
  const started = performance.now();
  const closed = watch.close();
  host.sh('ip route add 10.30.0.0/24 dev l0');
  await closed;
  expect(performance.now() - started).toBeLessThan(1000);
  expect(events).toEqual([]);
});

test('a listener that throws ends the watch with its error', async () => {
  const watch = watchRtnetlink({
    within,
    ownPorts: () => new Set(),
    onEvents: () => {
      throw new Error('listener broke');
    },
  });
  const outcome = expect(watch.done).rejects.toThrow('listener broke');
  host.sh('ip route add 10.31.0.0/24 dev l0');
  await outcome;
});

/** What a watch tells from before the action until nothing has come for a while. */
async function eventsOf(action: () => unknown): Promise<KernelEvent[]> {
  const events: KernelEvent[] = [];
  const options: NotificationOptions = {
    within,
    ownPorts: () => new Set([socket.portId]),
    onEvents: (batch) => events.push(...batch),
  };
  const watch = watchRtnetlink(options);
  await action();
  await until(() => events.length > 0);
  await sleep(100);
  await watch.close();
  return events;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not come true within 5 s');
    await sleep(5);
  }
}

function routeNumber(i: number): Route {
  return {
    dst: cidrOf({ family: 'ipv4', value: parseAddress('10.64.0.0').value + BigInt(i * 256) }, 24),
    type: 'unicast',
    oif,
    metric: 0,
    protocol: 84,
  };
}
