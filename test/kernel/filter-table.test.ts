import { beforeEach, describe, expect, test } from 'vitest';
import { createFilterTable, type FilterTable } from '../../src/agent/filter-table.ts';
import { desiredNodeState, type FilterState } from '../../src/dataplane/index.ts';
import { input, subnet } from '../dataplane/objects.ts';
import { useThrowaways } from './throwaway.ts';

const { make } = useThrowaways();
const host = make('host');
const ran: string[] = [];
let table: FilterTable;

beforeEach(() => {
  host.sh('nft flush ruleset');
  ran.length = 0;
  table = createFilterTable((file, args, given) => {
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

  test('cost one process, which does not read what is there', async () => {
    await table.apply(filterOf(near), { verify: false });
    ran.length = 0;
    expect(await table.apply(filterOf(near, far), { verify: false })).toBe('applied');
    expect(ran).toEqual(['nft -j -f -']);
    expect(await table.apply(filterOf(near, far), { verify: false })).toBe('unchanged');
    expect(ran).toHaveLength(1);
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
