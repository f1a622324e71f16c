import { describe, expect, it } from 'vitest';
import { vxlanMAC } from '../../src/api/index.ts';
import { linkLocalOfMAC } from '../../src/dataplane/index.ts';
import { formatAddress } from '../../src/net/index.ts';

describe('the MAC of a node', () => {
  it('is frozen: nodes of two versions must compute the same', () => {
    expect(vxlanMAC('1b4e28ba-2fa1-11d2-883f-0016d3cca427')).toMatchInlineSnapshot(`"56:95:51:15:d6:b7"`);
  });

  it('is a locally administered unicast address, another for each node', () => {
    const macs = Array.from({ length: 500 }, (_, i) => vxlanMAC(`node-${i}`));
    for (const mac of macs) {
      expect(mac).toMatch(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
      expect(parseInt(mac.slice(0, 2), 16) & 3).toBe(2);
    }
    expect(new Set(macs).size).toBe(500);
  });
});

describe('the link-local address of a MAC', () => {
  it.each([
    ['02:00:00:00:00:01', 'fe80::ff:fe00:1'],
    ['36:fa:51:9d:e6:05', 'fe80::34fa:51ff:fe9d:e605'],
    ['fe:ff:ff:ff:ff:ff', 'fe80::fcff:ffff:feff:ffff'],
  ])('%s is %s', (mac, address) => {
    expect(formatAddress(linkLocalOfMAC(mac))).toBe(address);
  });
});
