import { beforeEach, describe, expect, test } from 'vitest';
import {
  applyRoutes,
  addAddress,
  deleteRoute,
  isNetlinkError,
  listRoutes,
  NetlinkBatchError,
  NetlinkError,
  replaceRoute,
  ROUTE_PROTOCOL,
  routeTo,
  type Route,
} from '../../../src/kernel/index.ts';
import {
  cidrOf,
  FAMILIES,
  formatCIDR,
  parseAddress,
  parseCIDR,
  type Family,
} from '../../../src/net/index.ts';
import { useThrowaways } from '../throwaway.ts';

const { make } = useThrowaways();
const host = make('host');
const socket = host.namespace.socket;
const oif = host.addLink('up0');
for (const address of ['192.0.2.1', '2001:db8::1']) {
  const { family } = parseAddress(address);
  addAddress(socket, {
    linkIndex: oif,
    address: parseAddress(address),
    prefixLength: family === 'ipv4' ? 24 : 64,
  });
}

const protocol = ROUTE_PROTOCOL.weftNode;
const examples: Record<Family, { dst: string; other: string; via: string; source: string; inside: string }> =
  {
    ipv4: {
      dst: '10.1.0.0/26',
      other: '10.1.1.0/26',
      via: '192.0.2.7',
      source: '192.0.2.1',
      inside: '10.1.0.9',
    },
    ipv6: {
      dst: 'fd00:1::/64',
      other: 'fd00:2::/64',
      via: '2001:db8::7',
      source: '2001:db8::1',
      inside: 'fd00:1::9',
    },
  };

beforeEach(async () => {
  await applyRoutes(socket, { add: [], remove: listRoutes(socket, { protocol }) });
});

describe.each(FAMILIES)('%s', (family) => {
  const example = examples[family];
  const direct: Route = {
    dst: parseCIDR(example.dst),
    type: 'unicast',
    via: parseAddress(example.via),
    onlink: false,
    oif,
    prefSrc: parseAddress(example.source),
    metric: 100,
    protocol,
    scope: 'universe',
    table: 254,
  };
  const unreachable: Route = {
    dst: parseCIDR(example.dst),
    type: 'unreachable',
    via: undefined,
    onlink: false,
    oif: undefined,
    prefSrc: undefined,
    metric: 4096,
    protocol,
    scope: 'universe',
    table: 254,
  };
  const show = () => host.sh(`ip ${family === 'ipv4' ? '-4' : '-6'} route show`);

  test('what was added is listed as it was added, and removed', async () => {
    await applyRoutes(socket, { add: [direct, unreachable], remove: [] });
    const listed = listRoutes(socket, { protocol, family });
    expect(listed).toHaveLength(2);
    expect(listed).toEqual(expect.arrayContaining([direct, unreachable]));
    expect(show()).toContain(`unreachable ${example.dst}`);
    await applyRoutes(socket, { add: [], remove: [direct, unreachable] });
    expect(listRoutes(socket, { protocol, family })).toEqual([]);
  });

  test('the more specific, lower metric wins over unreachable', async () => {
    await applyRoutes(socket, { add: [unreachable], remove: [] });
    expect(routeTo(socket, parseAddress(example.inside))).toBeUndefined();
    await applyRoutes(socket, { add: [direct], remove: [] });
    expect(routeTo(socket, parseAddress(example.inside))).toMatchObject({
      via: direct.via,
      oif,
      type: 'unicast',
    });
  });

  test('a foreign route survives', async () => {
    host.sh(`ip route add ${example.other} via ${example.via} proto static`);
    await applyRoutes(socket, { add: [direct], remove: [{ ...direct, dst: parseCIDR(example.other) }] });
    await applyRoutes(socket, { add: [], remove: listRoutes(socket, { protocol }) });
    expect(show()).toContain(`${example.other} via ${example.via}`);
    expect(listRoutes(socket, { protocol: ROUTE_PROTOCOL.static, family })).toHaveLength(1);
    host.sh(`ip route del ${example.other}`);
  });

  test('a foreign route in the place of an added one is an error, and stays', async () => {
    host.sh(`ip route add ${example.dst} via ${example.via} metric 100 proto static`);
    const other = { ...direct, dst: parseCIDR(example.other) };
    const outcome = applyRoutes(socket, { add: [direct, other], remove: [] });
    await expect(outcome).rejects.toMatchObject({ name: 'NetlinkError', code: 'EEXIST' });
    await expect(outcome).rejects.toThrow(`add route ${example.dst} via ${example.via}`);
    expect(listRoutes(socket, { protocol, family }).map((route) => formatCIDR(route.dst))).toEqual([
      example.other,
    ]);
    expect(show()).toMatch(new RegExp(`${example.dst} via .* proto static`));
    host.sh(`ip route del ${example.dst}`);
  });

  test('one of ours with the same key is replaced in place', async () => {
    await applyRoutes(socket, { add: [direct], remove: [] });
    const moved = { ...direct, via: parseAddress(example.source.replace(/1$/, '9')) };
    await applyRoutes(socket, { add: [moved], remove: [direct] });
    expect(listRoutes(socket, { protocol, family })).toEqual([moved]);
    replaceRoute(socket, direct);
    expect(listRoutes(socket, { protocol, family })).toEqual([direct]);
    expect(deleteRoute(socket, direct)).toBe(true);
    expect(deleteRoute(socket, direct)).toBe(false);
  });

  test('an onlink next hop outside every prefix', async () => {
    const onlink = {
      ...direct,
      via: parseAddress(family === 'ipv4' ? '10.99.0.1' : 'fe80::99'),
      onlink: true,
    };
    await applyRoutes(socket, { add: [onlink], remove: [] });
    expect(listRoutes(socket, { protocol, family })).toEqual([onlink]);
  });

  test('5,000 routes', async () => {
    const routes = manyRoutes(family, 5000);
    const started = performance.now();
    await applyRoutes(socket, { add: routes, remove: [] });
    const added = performance.now();
    const listed = listRoutes(socket, { protocol, family });
    const read = performance.now();
    expect(listed).toHaveLength(5000);
    await applyRoutes(socket, { add: [], remove: listed });
    expect(listRoutes(socket, { protocol, family })).toEqual([]);
    console.log(
      `5,000 ${family} routes: added in ${(added - started).toFixed(0)} ms, listed in ${(read - added).toFixed(0)} ms, ` +
        `removed in ${(performance.now() - read).toFixed(0)} ms`,
    );
  });
});

test('in a batch of more than 100 each refusal is told, and all else is applied', async () => {
  const routes = manyRoutes('ipv4', 350);
  const unreachableVia = parseAddress('203.0.113.1');
  const broken = routes.map((route, i) =>
    i % 100 === 50 ? { ...route, type: 'unicast' as const, via: unreachableVia } : route,
  );
  const outcome = await applyRoutes(socket, { add: broken, remove: [] }).catch((error: unknown) => error);
  expect(outcome).toBeInstanceOf(NetlinkBatchError);
  const errors = outcome instanceof NetlinkBatchError ? outcome.errors : [];
  expect(errors.map((error) => error.request)).toEqual(
    [50, 150, 250].map(
      (i) => `add route 10.128.${i >> 2}.${(i & 3) * 64}/26 via 203.0.113.1 metric 4096 proto 84`,
    ),
  );
  expect(errors.every((error) => error.kernelText?.includes('Nexthop has invalid gateway') === true)).toBe(
    true,
  );
  expect(listRoutes(socket, { protocol, family: 'ipv4' })).toHaveLength(347);
});

test('what the kernel says about a refusal is in the message', () => {
  const route: Route = {
    dst: parseCIDR('10.7.0.0/24'),
    type: 'unicast',
    via: parseAddress('203.0.113.1'),
    oif,
    metric: 0,
    protocol,
  };
  let refusal: unknown;
  try {
    replaceRoute(socket, route);
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(NetlinkError);
  expect(isNetlinkError(refusal, 'ENETUNREACH')).toBe(true);
  expect(String(refusal)).toBe(
    `NetlinkError: replace route 10.7.0.0/24 via 203.0.113.1 dev ${oif} metric 0 proto 84: ENETUNREACH: ` +
      'network is unreachable (the kernel says: Nexthop has invalid gateway)',
  );
});

test('an IPv4 destination behind an IPv6 next hop', async () => {
  const route: Route = {
    dst: parseCIDR('10.5.0.0/26'),
    type: 'unicast',
    via: parseAddress('2001:db8::7'),
    onlink: false,
    oif,
    prefSrc: undefined,
    metric: 0,
    protocol,
    scope: 'universe',
    table: 254,
  };
  await applyRoutes(socket, { add: [route], remove: [] });
  expect(listRoutes(socket, { protocol })).toEqual([route]);
});

test('IPv6 has no metric 0: the kernel makes it 1024, and both are one route', async () => {
  const route: Route = { dst: parseCIDR('fd00:5::/64'), type: 'unicast', oif, metric: 0, protocol };
  await applyRoutes(socket, { add: [route], remove: [] });
  expect(listRoutes(socket, { protocol }).map((listed) => listed.metric)).toEqual([1024]);
  await applyRoutes(socket, { add: [{ ...route, metric: 1024 }], remove: [route] });
  expect(listRoutes(socket, { protocol })).toHaveLength(1);
});

test('default routes are listed with their protocol, so that one learned by RA is recognised', () => {
  host.sh('ip -6 route add default via fe80::77 dev up0 proto ra metric 1024');
  const learned = listRoutes(socket, { protocol: ROUTE_PROTOCOL.routerAdvertisement });
  expect(learned).toMatchObject([{ dst: parseCIDR('::/0'), via: parseAddress('fe80::77'), oif }]);
  host.sh('ip -6 route del default');
});

test('a table without routes is empty, other tables are not mixed in', async () => {
  expect(listRoutes(socket, { table: 4711 })).toEqual([]);
  const route: Route = {
    dst: parseCIDR('10.6.0.0/24'),
    type: 'blackhole',
    metric: 0,
    protocol,
    table: 4711,
  };
  await applyRoutes(socket, { add: [route], remove: [] });
  expect(listRoutes(socket, { protocol })).toEqual([]);
  expect(listRoutes(socket, { table: 4711 })).toMatchObject([{ type: 'blackhole', table: 4711 }]);
  await applyRoutes(socket, { add: [], remove: [route] });
});

function manyRoutes(family: Family, count: number): Route[] {
  const prefixLength = family === 'ipv4' ? 26 : 122;
  const start = parseAddress(family === 'ipv4' ? '10.128.0.0' : 'fd00:99::').value;
  return Array.from({ length: count }, (_, i) => ({
    dst: cidrOf({ family, value: start + BigInt(i * 64) }, prefixLength),
    type: 'unreachable',
    metric: 4096,
    protocol,
  }));
}
