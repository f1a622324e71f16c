import { expect, test } from 'vitest';
import type { NodeSubnet } from '../../src/api/index.ts';
import { indexByNode, indexNextHops } from '../../src/agent/caches.ts';
import type { Change } from '../../src/kube/index.ts';
import { parseAddress } from '../../src/net/index.ts';
import { poolOf, subnetOf } from '../ipam/objects.ts';

test('an address is a next hop for as long as one subnet has it', () => {
  const listeners: ((change: Change<NodeSubnet>) => void)[] = [];
  const onChange = (listener: (change: Change<NodeSubnet>) => void) => {
    listeners.push(listener);
    return () => undefined;
  };
  const index = indexNextHops({ onChange });
  const change = (before: NodeSubnet | undefined, after: NodeSubnet | undefined) => {
    for (const listener of listeners) listener({ key: 'a', before, after });
  };
  const has = () => ['192.0.2.1', '192.0.2.2'].filter((text) => index.has(parseAddress(text)));
  const pool = poolOf('a', { cidrs: ['10.0.0.0/16'] });
  const at = (cidr: string, ...hops: string[]) =>
    subnetOf(cidr, pool, 'n1', { nextHops: hops.map(parseAddress) });
  const [one, other] = [at('10.0.0.0/26', '192.0.2.1'), at('10.0.1.0/26', '192.0.2.1')];
  change(undefined, one);
  change(undefined, other);
  expect(has()).toEqual(['192.0.2.1']);
  change(one, at('10.0.0.0/26', '192.0.2.2'));
  expect(has()).toEqual(['192.0.2.1', '192.0.2.2']);
  change(other, undefined);
  expect(has()).toEqual(['192.0.2.2']);
});

test("the node's subnets are kept apart as they come, change hands, and go", () => {
  const listeners: ((change: Change<NodeSubnet>) => void)[] = [];
  const onChange = (listener: (change: Change<NodeSubnet>) => void) => {
    listeners.push(listener);
    return () => undefined;
  };
  const index = indexByNode({ onChange }, 'n1');
  const change = (key: string, after: NodeSubnet | undefined) => {
    for (const listener of listeners) listener({ key, before: undefined, after });
  };
  const pool = poolOf('a', { cidrs: ['10.0.0.0/16'] });
  const [own, others] = [subnetOf('10.0.0.0/26', pool), subnetOf('10.0.0.0/26', pool, 'n2')];
  change('a', own);
  change('b', others);
  expect([...index]).toEqual([['a', own]]);
  change('a', others);
  change('b', own);
  expect([...index]).toEqual([['b', own]]);
  change('b', undefined);
  expect([...index]).toEqual([]);
});
