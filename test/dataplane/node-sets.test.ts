import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addNodeSets,
  addressSet,
  NODE_SET_NAMES,
  nodeSetChanges,
  nodeSetElements,
  type NodeAddresses,
} from '../../src/dataplane/index.ts';
import { formatAddress, hostCIDR, parseAddress } from '../../src/net/index.ts';

function known(nodes: readonly string[], directNodes: readonly string[] = []): NodeAddresses {
  const set = (addresses: readonly string[]) =>
    addressSet(addresses.map((text) => hostCIDR(parseAddress(text))));
  return { nodes: set(nodes), directNodes: set(directNodes) };
}

describe('the sets of nodes', () => {
  it('hold each address by itself, also those in a row', () => {
    const state = known(['192.0.2.1', '192.0.2.2', 'fd00::1'], ['192.0.2.2']);
    expect(Object.fromEntries(nodeSetElements(state))).toEqual({
      nodes4: ['192.0.2.1', '192.0.2.2'],
      nodes6: ['fd00::1'],
      direct_nodes4: ['192.0.2.2'],
      direct_nodes6: [],
    });
    // No interval: else nft would read all elements to add one.
    expect(JSON.stringify(addNodeSets(state))).not.toContain('interval');
    expect([...nodeSetElements(state).keys()]).toEqual(NODE_SET_NAMES);
  });

  it('change by the addresses that come and go', () => {
    const before = known(['192.0.2.1', '192.0.2.2', 'fd00::1'], ['192.0.2.2']);
    const now = known(['192.0.2.2', '192.0.2.3', 'fd00::1'], []);
    const change = (action: string, set: string, address: string) => ({
      action,
      set,
      addresses: [parseAddress(address)],
    });
    expect(nodeSetChanges(before, now)).toEqual([
      change('delete', 'nodes4', '192.0.2.1'),
      change('add', 'nodes4', '192.0.2.3'),
      change('delete', 'direct_nodes4', '192.0.2.2'),
    ]);
    expect(nodeSetChanges(now, known(['fd00::1', '192.0.2.3', '192.0.2.2']))).toEqual([]);
  });

  it('become the other state’s, whatever the two are', () => {
    const addresses = fc.uniqueArray(
      fc.integer({ min: 1, max: 20 }).map((n) => (n % 3 === 0 ? `fd00::${n.toString(16)}` : `192.0.2.${n}`)),
    );
    const anyState = fc.tuple(addresses, addresses).map(([nodes, direct]) => known(nodes, direct));
    fc.assert(
      fc.property(anyState, anyState, (before, now) => {
        const sets = new Map([...nodeSetElements(before)].map(([name, list]) => [name, new Set(list)]));
        for (const { action, set: name, addresses } of nodeSetChanges(before, now)) {
          const set = sets.get(name);
          for (const address of addresses.map(formatAddress)) {
            // What is not there cannot be taken out, and what is there need not be added.
            expect(set?.has(address)).toBe(action === 'delete');
            if (action === 'delete') set?.delete(address);
            else set?.add(address);
          }
        }
        for (const [name, list] of nodeSetElements(now)) expect(sets.get(name)).toEqual(new Set(list));
      }),
    );
  });
});
