import { spawn } from 'node:child_process';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { createFilterTable, type FilterTable } from '../../src/agent/filter-table.ts';
import { desiredNodeState, type FilterState } from '../../src/dataplane/index.ts';
import { changeNftElements, openNftablesSocket, type CommandRunner } from '../../src/kernel/index.ts';
import { parseCIDR } from '../../src/net/index.ts';
import { input, pool, subnet } from '../dataplane/objects.ts';
import { countArrivals } from './arrivals.ts';
import { useThrowaways } from './throwaway.ts';

const { own: ownNamespace, make } = useThrowaways();
const host = make('host');
const nftables = openNftablesSocket({ own: ownNamespace, namespace: host.namespace });
afterAll(() => nftables.close());

const filterTable = (run: CommandRunner) =>
  createFilterTable(run, { changeElements: (...change) => changeNftElements(nftables, ...change) });
const ran: string[] = [];
let table: FilterTable;

beforeEach(() => {
  host.sh('nft flush ruleset');
  ran.length = 0;
  table = filterTable((file, args, given) => {
    ran.push([file, ...args].join(' '));
    return host.run(file, args, given);
  });
});

const own = subnet('10.64.0.0/26', 'a', ['192.168.1.1']);
const near = subnet('10.64.0.64/26', 'b', ['192.168.1.2']);
const far = subnet('10.64.0.128/26', 'c', ['192.168.2.3', 'fd02::3']);

function filterOf(...others: ReturnType<typeof subnet>[]): FilterState {
  return desiredNodeState(input({ subnets: [own, ...others] })).filter;
}

const elements = (name: string): string[] =>
  [
    ...(/elements = \{([^}]*)\}/.exec(host.sh(`nft list set inet weft ${name}`))?.[1] ?? '').matchAll(
      /[0-9a-f.:]+/g,
    ),
  ]
    .map(([address]) => address)
    .sort();

describe('where pods are isolated', () => {
  const isolated = (natExempt: readonly string[] = []) =>
    desiredNodeState(
      input({
        pools: [
          pool('main', ['10.64.0.0/16', 'fd64::/64']),
          pool('tenant', ['10.65.0.0/16'], {
            isolation: { mode: 'Isolated', peers: [], dns: true },
          }),
        ],
        subnets: [own],
        config: { vni: 4097, port: 4789, natExempt: natExempt.map(parseCIDR) },
      }),
    ).filter;
  const tables = () => host.sh('nft list tables').match(/weft\w*/g) ?? [];

  test('another table holds what drops while the table is exchanged, and is not there before and after', async () => {
    const seen: string[] = [];
    const watching = filterTable(async (file, args, given) => {
      const output = await host.run(file, args, given);
      if (args.includes('-f')) seen.push(tables().sort().join());
      return output;
    });
    await watching.apply(isolated(), { verify: false });
    expect(seen).toEqual(['weft_hold', 'weft,weft_hold', 'weft']);
    seen.length = 0;
    // As an agent leaves it that is killed right after the exchange.
    host.sh('nft add table inet weft_hold');
    await filterTable(host.run).apply(filterOf(near), { verify: false });
    expect(tables()).toEqual(['weft']);
  });

  test('it holds the same sets, maps and chains that drop', async () => {
    let hold = '';
    const watching = filterTable(async (file, args, given) => {
      const output = await host.run(file, args, given);
      if (tables().length === 2) hold = host.sh('nft -s list table inet weft_hold');
      return output;
    });
    await watching.apply(isolated(), { verify: false });
    const names = (text: string) =>
      [...text.matchAll(/^\t((?:set|map|chain) \w+) \{$/gm)].map(([, name]) => name);
    const whole = names(host.sh('nft -s list table inet weft'));
    // Translation is not filtering: it is done once.
    expect(names(hold)).toEqual(whole.filter((name) => name !== 'chain masquerade'));
  });

  test(
    'no packet gets from one tenant to another, however often the table is exchanged',
    { timeout: 120_000 },
    async () => {
      const [blue, green] = [make('blue'), make('green')];
      for (const [number, pod] of [blue, green].entries()) {
        const at = `10.${64 + number}.0`;
        host.sh(
          `ip link add pod${number} type veth peer name eth0 netns ${pod.name} && ip link set pod${number} up && ` +
            `ip addr add ${at}.62/26 dev pod${number} && echo 1 >/proc/sys/net/ipv4/ip_forward`,
        );
        pod.sh(`ip link set eth0 up && ip addr add ${at}.1/26 dev eth0 && ip route add default via ${at}.62`);
      }
      await blue.run('ping', ['-c', '1', '-W', '2', '10.65.0.1']);
      await table.apply(isolated(), { verify: false });
      const arrived = countArrivals(green, 4);
      const pings = Array.from({ length: 3 }, () =>
        spawn('nsenter', [`--net=${blue.path}`, 'ping', '-q', '-f', '10.65.0.1'], { stdio: 'ignore' }),
      );
      // Each time other rules, by which nobody reaches more.
      for (let i = 0; i < 200; i++) {
        const natExempt = i % 2 === 0 ? ['172.16.0.0/12'] : [];
        expect(await table.apply(isolated(natExempt), { verify: false })).toBe('applied');
      }
      for (const ping of pings) ping.kill();
      expect(arrived()).toBe(0);
      green.sh('nft delete table inet arrivals');
    },
  );
});

describe('nodes that come and go', () => {
  test('are elements that come and go; nothing else of the table is touched', async () => {
    await table.apply(filterOf(near), { verify: false });
    host.sh('nft add counter inet weft stays');
    await table.apply(filterOf(near, far), { verify: false });
    expect(elements('nodes4')).toEqual(
      ['10.64.0.0', '10.64.0.128', '10.64.0.64', '192.168.1.1', '192.168.1.2', '192.168.2.3'].sort(),
    );
    expect(elements('nodes6')).toEqual(['fd02::3']);
    await table.apply(filterOf(far), { verify: false });
    expect(elements('nodes4')).toEqual(['10.64.0.0', '10.64.0.128', '192.168.1.1', '192.168.2.3'].sort());
    expect(elements('direct_nodes4')).toEqual(['192.168.1.1']);
    // The table is the one that was made first: an exchange would have taken this along.
    expect(host.sh('nft list counters table inet weft')).toContain('stays');
    host.sh('nft delete counter inet weft stays');
    expect(await table.holds(filterOf(far))).toBe(true);
    expect(await table.holds(filterOf(near, far))).toBe(false);
    expect(await table.apply(filterOf(far), { verify: true })).toBe('unchanged');
  });

  test('cost no process', async () => {
    await table.apply(filterOf(near), { verify: false });
    ran.length = 0;
    expect(await table.apply(filterOf(near, far), { verify: false })).toBe('applied');
    expect(await table.apply(filterOf(near, far), { verify: false })).toBe('unchanged');
    expect(ran).toEqual([]);
  });
});

describe('what others did to the table', () => {
  test.each([
    ['a node taken out', 'nft delete element inet weft nodes4 { 192.168.1.2 }'],
    ['a node put in', 'nft add element inet weft nodes4 { 192.0.2.99 }'],
    [
      'a node exchanged for another',
      'nft "delete element inet weft nodes4 { 192.168.1.2 }; add element inet weft nodes4 { 192.0.2.99 }"',
    ],
    ['a pool taken out', 'nft delete element inet weft pools4 { 10.64.0.0/16 }'],
    ['a rule', 'nft flush chain inet weft input'],
    ['all of it', 'nft flush ruleset'],
  ])('is found when it is verified, and put right: %s', async (_, sabotage) => {
    const state = filterOf(near, far);
    await table.apply(filterOf(near), { verify: false });
    await table.apply(state, { verify: false });
    host.sh(sabotage);
    expect(await table.holds()).toBe(false);
    expect(await table.apply(state, { verify: true })).toBe('repaired');
    expect(elements('nodes4')).toContain('192.168.1.2');
    expect(elements('nodes4')).not.toContain('192.0.2.99');
    expect(await table.holds()).toBe(true);
  });

  test.each([
    ['the table has gone when a node comes', 'nft flush ruleset', [near, far]],
    ['the node that goes has gone already', 'nft delete element inet weft nodes4 { 192.168.1.2 }', []],
  ])('is met, and put right: %s', async (_, sabotage, then) => {
    await table.apply(filterOf(near), { verify: false });
    host.sh(sabotage);
    expect(await table.apply(filterOf(...then), { verify: false })).toBe('repaired');
    expect(await table.holds(filterOf(...then))).toBe(true);
    expect(host.sh('nft list chain inet weft input')).toContain('our VXLAN');
  });
});
