import { describe, expect, test } from 'vitest';
import {
  addAddress,
  createVxlan,
  deleteAddress,
  deleteFdbEntry,
  deleteNeighbour,
  getLink,
  listAddresses,
  listFdb,
  listNeighbours,
  replaceAddress,
  replaceFdbEntry,
  replaceNeighbour,
  setLinkUp,
} from '../../../src/kernel/index.ts';
import { parseAddress } from '../../../src/net/index.ts';
import { useThrowaways } from '../throwaway.ts';

const { make } = useThrowaways();
const host = make('host');
const socket = host.namespace.socket;
const linkIndex = host.addLink('l0');

describe.each([
  { family: 'ipv4', first: '10.0.0.5', second: '10.0.0.6', hostPrefix: 32 },
  { family: 'ipv6', first: 'fd00::5', second: 'fd00::6', hostPrefix: 128 },
])('$family', ({ family, first, second, hostPrefix }) => {
  test('an address is set, listed, and removed; IPv6 without duplicate address detection', () => {
    const spec = { linkIndex, address: parseAddress(first), prefixLength: hostPrefix };
    addAddress(socket, spec);
    const listed = listAddresses(socket, { linkIndex }).filter((entry) => entry.scope === 'global');
    expect(listed).toEqual([{ ...spec, scope: 'global', nodad: family === 'ipv6', tentative: false }]);
    expect(() => {
      addAddress(socket, spec);
    }).toThrow(`add address ${first}/${hostPrefix} on link ${linkIndex}: EEXIST`);
    replaceAddress(socket, spec);
    expect(deleteAddress(socket, spec)).toBe(true);
    expect(deleteAddress(socket, spec)).toBe(false);
    expect(deleteAddress(socket, { ...spec, linkIndex: 9999 })).toBe(false);
    expect(listAddresses(socket, { linkIndex }).filter((entry) => entry.scope === 'global')).toEqual([]);
  });

  test('a listing for one link holds no other', () => {
    expect(new Set(listAddresses(socket, { linkIndex: 1 }).map((entry) => entry.linkIndex))).toEqual(
      new Set([1]),
    );
    expect(new Set(listAddresses(socket).map((entry) => entry.linkIndex)).size).toBeGreaterThan(1);
  });

  test('a neighbour is set, changed, and removed', () => {
    const address = parseAddress(first);
    const entries = () =>
      listNeighbours(socket, { linkIndex }).filter((entry) => entry.address.family === family);
    replaceNeighbour(socket, { linkIndex, address, mac: '02:00:00:00:00:11' });
    replaceNeighbour(socket, { linkIndex, address: parseAddress(second), mac: '02:00:00:00:00:22' });
    replaceNeighbour(socket, { linkIndex, address, mac: '02:00:00:00:00:12' });
    expect(entries()).toHaveLength(2);
    expect(entries()).toEqual(
      expect.arrayContaining([
        { linkIndex, address, mac: '02:00:00:00:00:12', permanent: true },
        { linkIndex, address: parseAddress(second), mac: '02:00:00:00:00:22', permanent: true },
      ]),
    );
    expect(host.sh(`ip neigh show ${first}`)).toContain('02:00:00:00:00:12 PERMANENT');
    expect(deleteNeighbour(socket, { linkIndex, address })).toBe(true);
    expect(deleteNeighbour(socket, { linkIndex, address })).toBe(false);
    expect(entries()).toHaveLength(1);
  });

  test('a learned neighbour is not taken for a permanent one', () => {
    host.sh(`ip neigh replace ${first} lladdr 02:00:00:00:00:33 dev l0 nud reachable`);
    expect(listNeighbours(socket, { linkIndex })).toContainEqual({
      linkIndex,
      address: parseAddress(first),
      mac: '02:00:00:00:00:33',
      permanent: false,
    });
  });
});

describe('FDB of a VXLAN device', () => {
  test.each([
    ['IPv4 underlay', 'v4', '192.0.2.1', '192.0.2.2', '192.0.2.3'],
    ['IPv6 underlay', 'v6', '2001:db8::1', '2001:db8::2', '2001:db8::3'],
  ])('%s: entries are set, changed, listed and removed', (_, label, local, first, second) => {
    const name = `vx${label}`;
    createVxlan(socket, {
      name,
      vni: 4097,
      port: label === 'v4' ? 4789 : 4790,
      mac: '02:00:00:00:00:01',
      mtu: 1400,
      local: parseAddress(local),
    });
    const index = getLink(socket, { name })?.index ?? 0;
    setLinkUp(socket, index);
    const entry = { linkIndex: index, mac: '02:00:00:00:00:41', destination: parseAddress(first) };
    const other = { ...entry, mac: '02:00:00:00:00:42' };
    replaceFdbEntry(socket, entry);
    replaceFdbEntry(socket, other);
    const moved = { ...entry, destination: parseAddress(second) };
    replaceFdbEntry(socket, moved);
    expect(listFdb(socket, index)).toHaveLength(2);
    expect(listFdb(socket, index)).toEqual(expect.arrayContaining([moved, other]));
    expect(host.sh(`bridge fdb show dev ${name}`)).toContain(`${entry.mac} dst ${second} self permanent`);
    expect(deleteFdbEntry(socket, moved)).toBe(true);
    expect(deleteFdbEntry(socket, moved)).toBe(false);
    expect(listFdb(socket, index)).toEqual([other]);
  });
});

test('a MAC that is none is refused before anything is sent', () => {
  expect(() => {
    replaceNeighbour(socket, { linkIndex, address: parseAddress('10.0.0.5'), mac: '02:00:00:00:00:1' });
  }).toThrow('"02:00:00:00:00:1" is not a MAC address');
});
