import { expect, test } from 'vitest';
import { foreignLinkWithAddressIn } from '../../src/agent/foreign-links.ts';
import { parseCIDR } from '../../src/net/index.ts';
import { useThrowaways } from './throwaway.ts';

const { make } = useThrowaways();

test('a bridge is found by its gateway, up or down, and what weft itself set is not', () => {
  const host = make('host');
  const found = (cidr: string) => foreignLinkWithAddressIn(host.namespace.socket, parseCIDR(cidr));
  host.sh(
    'ip link add br0 type bridge && ip addr add 10.65.0.1/26 dev br0 && ip addr add fd65::1/122 dev br0 && ' +
      'ip link set lo up && ip addr add 10.64.0.0/32 dev lo',
  );
  expect(['10.65.0.0/26', 'fd65::/122', '10.65.0.64/26', '10.64.0.0/26'].map(found)).toEqual([
    'br0',
    'br0',
    undefined,
    undefined,
  ]);
  host.sh('ip link delete br0');
  expect(found('10.65.0.0/26')).toBeUndefined();
});
