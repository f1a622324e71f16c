import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import {
  changeNftElements,
  NetlinkError,
  openNftablesSocket,
  watchNftables,
  type NftElementChange,
  type NftTable,
} from '../../src/kernel/index.ts';
import { formatAddress, parseAddress, type IPAddress } from '../../src/net/index.ts';
import { useThrowaways } from './throwaway.ts';

const { own, make } = useThrowaways();
const host = make('host');
const within = { own, namespace: host.namespace };
const socket = openNftablesSocket(within);
afterAll(() => socket.close());

const TABLE: NftTable = { family: 'inet', name: 'tried' };

beforeEach(() => {
  host.sh(
    'nft flush ruleset; nft add table inet tried; nft "add set inet tried four { type ipv4_addr; }"; ' +
      'nft "add set inet tried six { type ipv6_addr; elements = { fd00::1 } }"',
  );
});

const change = (action: NftElementChange['action'], set: string, ...addresses: string[]) => ({
  action,
  set,
  addresses: addresses.map(parseAddress),
});

/** As nft lists them. */
const elements = (set: string): string[] => {
  const listed = /elements = \{([^}]*)\}/.exec(host.sh(`nft list set inet tried ${set}`))?.[1] ?? '';
  return [...listed.matchAll(/[0-9a-f.:]+/g)].map(([address]) => address).sort();
};

describe('elements of sets', () => {
  test('come and go, of both families and several sets at once', () => {
    changeNftElements(socket, TABLE, [
      change('add', 'four', '192.0.2.1', '192.0.2.2'),
      change('add', 'six', 'fd00::2'),
    ]);
    expect([elements('four'), elements('six')]).toEqual([
      ['192.0.2.1', '192.0.2.2'],
      ['fd00::1', 'fd00::2'],
    ]);
    changeNftElements(socket, TABLE, [
      change('delete', 'four', '192.0.2.1'),
      change('add', 'four', '192.0.2.3'),
      change('delete', 'six', 'fd00::1', 'fd00::2'),
    ]);
    expect([elements('four'), elements('six')]).toEqual([['192.0.2.2', '192.0.2.3'], []]);
  });

  test('are as many as there are nodes in the largest clusters', () => {
    const many = Array.from({ length: 10_000 }, (_, i): IPAddress => ({
      family: 'ipv6',
      value: parseAddress('fd00:1::').value + BigInt(i),
    }));
    changeNftElements(socket, TABLE, [{ action: 'add', set: 'six', addresses: many }]);
    expect(elements('six')).toEqual(['fd00::1', ...many.map(formatAddress)].sort());
    changeNftElements(socket, TABLE, [{ action: 'delete', set: 'six', addresses: many }]);
    expect(elements('six')).toEqual(['fd00::1']);
  });

  test('that are there already may be added; nothing to change is nothing to do', () => {
    changeNftElements(socket, TABLE, [change('add', 'six', 'fd00::1')]);
    changeNftElements(socket, TABLE, [change('add', 'six')]);
    changeNftElements(socket, TABLE, []);
    expect(elements('six')).toEqual(['fd00::1']);
  });

  test.each([
    [
      'an element that is not there',
      change('delete', 'six', 'fd00::9'),
      'ENOENT',
      /delete 1 elements of set inet tried six/,
    ],
    [
      'a set that is not there',
      change('add', 'seven', 'fd00::9'),
      'ENOENT',
      /add 1 elements of set inet tried seven/,
    ],
    ['an address of another family', change('add', 'four', 'fd00::9'), 'EINVAL', /set inet tried four/],
  ])('all stay as they are where one change is refused: %s', (_, bad, code, message) => {
    const changes = [change('add', 'four', '192.0.2.1'), bad, change('delete', 'six', 'fd00::1')];
    const refused = refusalOf(() => changeNftElements(socket, TABLE, changes));
    expect(refused.code).toBe(code);
    expect(refused.message).toMatch(message);
    expect([elements('four'), elements('six')]).toEqual([[], ['fd00::1']]);
    // The socket is none the worse for it.
    changeNftElements(socket, TABLE, [change('add', 'four', '192.0.2.1')]);
    expect(elements('four')).toEqual(['192.0.2.1']);
  });

  test('of a table that is not there are refused', () => {
    const gone: NftTable = { family: 'inet', name: 'gone' };
    expect(refusalOf(() => changeNftElements(socket, gone, [change('add', 'six', 'fd00::9')])).code).toBe(
      'ENOENT',
    );
  });
});

test('what this socket changed is no news, what another program did is', async () => {
  let news = 0;
  const watch = watchNftables({
    within,
    ownPorts: () => new Set([socket.portId]),
    onEvents: (events) => (news += events.length),
  });
  changeNftElements(socket, TABLE, [change('add', 'four', '192.0.2.1')]);
  await expect.poll(() => news, { timeout: 1_000 }).toBe(0);
  host.sh('nft add element inet tried four { 192.0.2.2 }');
  await expect.poll(() => news).toBeGreaterThan(0);
  await watch.close();
});

function refusalOf(work: () => void): NetlinkError {
  try {
    work();
  } catch (error) {
    if (error instanceof NetlinkError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}
