import { expect, test } from 'vitest';
import { waitingClaimers } from '../../src/agent/waiting-pods.ts';
import { ADDRESSES_ANNOTATION, POOLS_ANNOTATION } from '../../src/ipam/index.ts';
import type { Namespace, Pod } from '../../src/kube/index.ts';
import { allocationOf, RELEASED } from '../ipam/objects.ts';

const node = { name: 'n1', labels: {} };
const shop: Namespace = { name: 'shop', labels: { tenant: 'blue' }, annotations: {} };

test.each<{ name: string; pod: Partial<Pod>; waits: boolean }>([
  { name: 'a pod that was just bound', pod: {}, waits: true },
  { name: 'one on the host’s network', pod: { hostNetwork: true }, waits: false },
  { name: 'one that runs', pod: { phase: 'Running' }, waits: false },
  { name: 'one at its end', pod: { phase: 'Succeeded' }, waits: false },
  { name: 'one that is being deleted', pod: { isTerminating: true }, waits: false },
  { name: 'one that has an address', pod: { name: 'served' }, waits: false },
  { name: 'one whose name had an address that rests', pod: { name: 'rested' }, waits: true },
  { name: 'one of an unknown namespace', pod: { namespace: 'other' }, waits: false },
  {
    name: 'one that names its address',
    pod: { annotations: { [ADDRESSES_ANNOTATION]: '10.0.0.9' } },
    waits: false,
  },
  { name: 'one with a broken annotation', pod: { annotations: { [POOLS_ANNOTATION]: '!' } }, waits: false },
])('$name: $waits', ({ pod, waits }) => {
  const found = waitingClaimers({
    pods: [podOf(pod)],
    allocations: [
      allocationOf('10.0.0.1', { pod: { namespace: 'shop', name: 'served' } }),
      allocationOf('10.0.0.2', { pod: { namespace: 'shop', name: 'rested' } }, RELEASED),
      allocationOf('10.0.0.3'),
    ],
    node,
    namespace: (name) => (name === 'shop' ? shop : undefined),
  });
  expect(found).toHaveLength(waits ? 1 : 0);
});

test('annotations of both go with it', () => {
  const bound = { ...shop, annotations: { [POOLS_ANNOTATION]: 'a, b' } };
  const pods = [podOf({ annotations: { [POOLS_ANNOTATION]: 'a' } })];
  const [claimer] = waitingClaimers({ pods, allocations: [], node, namespace: () => bound });
  expect(claimer).toEqual({
    node,
    namespace: { name: 'shop', labels: { tenant: 'blue' }, pools: ['a', 'b'] },
    podPools: ['a'],
  });
});

function podOf(fields: Partial<Pod>): Pod {
  const base = { namespace: 'shop', name: 'web-0', uid: 'u', nodeName: 'n1', annotations: {} };
  return { ...base, phase: 'Pending', hostNetwork: false, podIPs: [], isTerminating: false, ...fields };
}
