import { expect, test } from 'vitest';
import type { NodeSubnet } from '../../src/api/index.ts';
import { indexByNode } from '../../src/agent/caches.ts';
import type { Change } from '../../src/kube/index.ts';
import { poolOf, subnetOf } from '../ipam/objects.ts';

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
